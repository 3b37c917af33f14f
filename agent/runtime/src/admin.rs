//! Probes and metrics, in plain HTTP on a port of their own.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::Readiness;

/// The text of all metrics, in the OpenMetrics format.
pub type Text = Pin<Box<dyn Future<Output = Result<String, fmt::Error>> + Send>>;

/// Collects metrics, at each scrape anew.
pub type Collect = Arc<dyn Fn() -> Text + Send + Sync>;

/// What the port serves: `/livez`, `/readyz` and `/metrics`.
pub fn router(readiness: Readiness, collect: Collect) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics).with_state(collect))
}

/// Serves it on a listening socket, until the task is aborted.
pub fn serve(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "probes and metrics are no longer served");
        }
    })
}

/// Every reason on a line of its own.
async fn ready(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let text = missing.join("\n") + "\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(collect): State<Collect>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match collect().await {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn ask(listener: &TcpStream, path: &str) -> String {
        let address = listener.peer_addr().expect("a connection");
        let mut stream = TcpStream::connect(address).await.expect("a server");
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("a server");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn who_is_not_ready_says_why() {
        let readiness = Readiness::default();
        let condition = readiness.condition("programs", "not attached yet");
        let collect: Collect = Arc::new(|| Box::pin(async { Ok("# EOF\n".to_owned()) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = serve(listener, router(readiness, collect));
        let probe = TcpStream::connect(address).await.expect("a server");
        assert!(ask(&probe, "/livez").await.starts_with("HTTP/1.0 200"));
        let answer = ask(&probe, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
        assert!(answer.ends_with("programs: not attached yet\n"), "{answer}");
        condition.met();
        assert!(ask(&probe, "/readyz").await.starts_with("HTTP/1.0 200"));
        assert!(ask(&probe, "/metrics").await.ends_with("# EOF\n"));
        server.abort();
    }
}
