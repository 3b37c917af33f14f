//! The application of the mesh's pods: a small server of HTTP/1.1, HTTP/2 and gRPC that says who it is and what it saw.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr};

use anyhow::Context;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// The largest body that `/bytes/N` gives.
pub const MAX_BYTES: usize = 64 << 20;

/// What is called by gRPC, and answers with a message of 64 bytes.
pub const GRPC_PATH: &str = "/sidestep.Bytes/Get";

/// What `/` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The pod that answered.
    pub pod: String,
    /// Who called, as the socket tells.
    pub peer: SocketAddr,
    /// The request's path.
    pub path: String,
    /// The request's headers.
    pub headers: BTreeMap<String, String>,
}

/// Serves on `listen` for ever: `/` describes the request, `/bytes/N` gives N bytes, `/echo` gives back the request's body.
pub async fn serve(pod: &'static str, listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // The caller left before it was served.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accept"),
        };
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(pod, peer, request));
            // A caller that goes away in mid-request is no fault of ours.
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            server.http2().timer(TokioTimer::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    pod: &str,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path();
    if path == GRPC_PATH {
        // Nobody asks what the message says.
        request.into_body().collect().await?;
        return Ok(called());
    }
    let response = match path {
        "/" => json(&seen(pod, peer, &request)),
        "/echo" => Response::new(Full::new(request.into_body().collect().await?.to_bytes())),
        _ => match path.strip_prefix("/bytes/").map(str::parse::<usize>) {
            Some(Ok(count)) if count <= MAX_BYTES => Response::new(zeros(count)),
            _ => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        },
    };
    Ok(response.map(BodyExt::boxed))
}

/// The answer to a call: a message with the length before it, and the status after it.
fn called() -> Response<BoxBody<Bytes, Infallible>> {
    static MESSAGE: [u8; 69] = {
        let mut message = [b'0'; 69];
        [message[0], message[1], message[2], message[3], message[4]] = [0, 0, 0, 0, 64];
        // Its only field: 62 bytes.
        [message[5], message[6]] = [0x0a, 62];
        message
    };
    let status = HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(Bytes::from_static(&MESSAGE));
    let body = body.with_trailers(std::future::ready(Some(Ok(status))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

fn seen(pod: &str, peer: SocketAddr, request: &Request<Incoming>) -> Seen {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), value.into_owned())
    });
    Seen {
        pod: pod.to_owned(),
        peer,
        path: request.uri().path().to_owned(),
        headers: headers.collect(),
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("plain fields");
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn zeros(count: usize) -> Full<Bytes> {
    static SMALL: [u8; 1 << 20] = [b'0'; 1 << 20];
    Full::new(match SMALL.get(..count) {
        Some(bytes) => Bytes::from_static(bytes),
        None => Bytes::from(vec![b'0'; count]),
    })
}
