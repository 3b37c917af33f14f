//! The application of the mesh's pods: a small HTTP/1.1 server that says who it is and what it saw.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// The largest body that `/bytes/N` gives.
pub const MAX_BYTES: usize = 64 << 20;

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
            let service = service_fn(async |request| answer(pod, peer, request).await);
            // A caller that goes away in mid-request is no fault of ours.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    pod: &str,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path();
    if path == "/" {
        return Ok(json(&seen(pod, peer, &request)));
    }
    if path == "/echo" {
        let body = request.into_body().collect().await?.to_bytes();
        return Ok(Response::new(Full::new(body)));
    }
    Ok(
        match path.strip_prefix("/bytes/").map(str::parse::<usize>) {
            Some(Ok(count)) if count <= MAX_BYTES => Response::new(zeros(count)),
            _ => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        },
    )
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
        header::HeaderValue::from_static("application/json"),
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
