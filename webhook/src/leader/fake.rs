//! An API server that answers as a test wants.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What it is asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// How.
    pub(super) method: Method,
    /// Its path and query.
    pub(super) uri: String,
    /// What was sent.
    pub(super) body: Value,
}

/// A client whose server answers with what `answer` makes of each request, a status and a body, or never.
pub(super) fn client<F>(answer: F) -> Client
where
    F: Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body in memory").to_bytes();
            let asked = Asked {
                method: parts.method,
                uri: parts.uri.to_string(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            let Some((status, body)) = answer(&asked) else {
                return pending().await;
            };
            let response = Response::builder().status(status);
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(response.body(body).expect("a response"))
        }
    });
    Client::new(service, "default")
}

/// A refusal, with its code and the reason that goes with it.
pub(super) fn refusal(code: u16) -> (u16, Value) {
    let reason = StatusCode::from_u16(code).expect("a code");
    let reason = reason.canonical_reason().unwrap_or_default();
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code, "reason": reason.replace(' ', ""), "message": format!("refused with {code}")});
    (code, status)
}
