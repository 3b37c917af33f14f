//! Calls by HTTP and gRPC.

use std::net::SocketAddr;

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, TE};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::tcp::connected;
use super::{Answer, Seen};

/// How much is quoted of an answer that should be another.
const QUOTED: usize = 200;

/// A message of gRPC: it is not compressed, its length, and its bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// Asks once, over a new connection.
pub(super) async fn get(address: SocketAddr, host: &str) -> Result<Seen, String> {
    let stream = connected(address).await?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| chain(&error))?;
    // What ends it is seen by the request, too.
    let _ends_by_itself = tokio::spawn(connection);
    let request = Request::get("/")
        .header(HOST, authority(host, address))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| chain(&error))?;
    let code = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| chain(&error))?.to_bytes();
    let answer = answer(code, &body)?;
    Ok(Seen {
        answer: Some(answer),
        ..Seen::default()
    })
}

/// Asks so many times, some at once, each time over a new connection. All must be answered by one pod.
pub(super) async fn many(
    address: SocketAddr,
    host: &str,
    requests: usize,
    at_once: usize,
) -> Result<Seen, String> {
    let made = stream::iter(0..requests).map(|_| get(address, host));
    let made: Vec<_> = made.buffer_unordered(at_once).collect().await;
    let errors: Vec<_> = made.iter().filter_map(|one| one.as_ref().err()).collect();
    if let Some(first) = errors.first() {
        let failed = errors.len();
        return Err(format!(
            "{failed} of {requests} requests failed; the first: {first}"
        ));
    }
    let seen: Vec<_> = made.into_iter().flatten().collect();
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        return Err("there was no request".to_owned());
    };
    let pod = |seen: &Seen| seen.answer.as_ref().map(|answer| answer.pod.clone());
    if let Some(other) = seen.iter().find(|one| pod(one) != pod(first)) {
        let [one, other] = [first, other].map(|seen| pod(seen).unwrap_or_default());
        return Err(format!("both pod {one} and pod {other} answered"));
    }
    Ok(last.clone())
}

fn answer(code: StatusCode, body: &[u8]) -> Result<Answer, String> {
    let answer = (code == StatusCode::OK).then(|| serde_json::from_slice(body));
    match answer {
        Some(Ok(answer)) => Ok(answer),
        _ => Err(format!("the answer is {code}: {}", quoted(body))),
    }
}

/// A unary call of gRPC, whose answer must be its message, and whose status must be good.
pub(super) async fn unary(address: SocketAddr, host: &str) -> Result<Seen, String> {
    let stream = connected(address).await?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| chain(&error))?;
    let _ends_by_itself = tokio::spawn(connection);
    let uri = format!(
        "http://{}/sidestep.Connectivity/Echo",
        authority(host, address)
    );
    let request = Request::post(uri)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::<Bytes>::from(MESSAGE))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    let (parts, body) = response.map_err(|error| chain(&error))?.into_parts();
    let body = body.collect().await.map_err(|error| chain(&error))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let bytes = body.to_bytes();
    // An answer without a message has it in its headers.
    let status = field(&trailers, "grpc-status").or_else(|| field(&parts.headers, "grpc-status"));
    match status.as_deref() {
        Some("0") if bytes == MESSAGE => Ok(Seen::default()),
        Some("0") => Err(format!("another message came back: {}", quoted(&bytes))),
        status => {
            let status = status.unwrap_or("absent");
            let message = field(&parts.headers, "grpc-message").unwrap_or_default();
            let code = parts.status;
            Err(format!(
                "the answer is {code}, its grpc-status is {status}: {message}{}",
                quoted(&bytes)
            ))
        }
    }
}

/// The host with its port, as HTTP writes both.
fn authority(host: &str, address: SocketAddr) -> String {
    match host.parse() {
        Ok(ip) => SocketAddr::new(ip, address.port()).to_string(),
        Err(_) => format!("{host}:{}", address.port()),
    }
}

fn field(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().take(QUOTED).collect()
}

/// An error with its causes: hyper's own says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
