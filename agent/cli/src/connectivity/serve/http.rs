//! HTTP/1.1, HTTP/2 and gRPC on one port: the first bytes tell which.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use crate::connectivity::call::Answer;

/// In which a sidecar writes whose certificate its caller's showed.
const CERTIFICATE: &str = "x-forwarded-client-cert";

const GRPC: &str = "application/grpc";

type Body = BoxBody<Bytes, Infallible>;

/// Answers a connection's requests, until the caller ends it.
pub(super) async fn talk(stream: TcpStream, pod: Arc<str>) {
    let service = service_fn(|request| {
        let pod = Arc::clone(&pod);
        async move { Ok::<_, Infallible>(answered(request, &pod).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        eprintln!("sidestep: {error}");
    }
}

async fn answered(request: Request<Incoming>, pod: &str) -> Response<Body> {
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind == GRPC) {
        return unary(request).await;
    }
    let certificate = request.headers().get(CERTIFICATE);
    let certificate =
        certificate.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let answer = Answer {
        pod: pod.to_owned(),
        certificate,
    };
    match serde_json::to_vec(&answer) {
        Ok(json) => Response::new(full(json)),
        Err(error) => failed(&error.to_string()),
    }
}

/// Sends the message back, and behind it that all is well.
async fn unary(request: Request<Incoming>) -> Response<Body> {
    let message = match request.into_body().collect().await {
        Ok(message) => message.to_bytes(),
        Err(error) => return failed(&error.to_string()),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static(GRPC);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn failed(why: &str) -> Response<Body> {
    let mut response = Response::new(full(why.to_owned()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}
