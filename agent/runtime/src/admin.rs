//! Probes and metrics, in plain HTTP on a port of their own.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{
    Liveness, Readiness,
    bounded::Bounded,
    metrics::{CLASSIC, classic},
};

/// Most connections at a time. Probes and scrapes have one each, for a moment.
const CONNECTIONS: usize = 64;

/// The text of all metrics, in the OpenMetrics format.
pub type Text = Pin<Box<dyn Future<Output = Result<String, fmt::Error>> + Send>>;

/// Collects metrics, at each scrape anew.
pub type Collect = Arc<dyn Fn() -> Text + Send + Sync>;

/// Probes and metrics, for one port: `/livez`, `/readyz` and `/metrics`.
pub fn router(liveness: Liveness, readiness: Readiness, collect: Collect) -> Router {
    probes(liveness, readiness).merge(scrapes(collect))
}

/// Probes alone: `/livez` and `/readyz`.
pub fn probes(liveness: Liveness, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(alive).with_state(liveness))
        .route("/readyz", get(ready).with_state(readiness))
}

/// Metrics alone: `/metrics`.
pub fn scrapes(collect: Collect) -> Router {
    Router::new().route("/metrics", get(metrics).with_state(collect))
}

/// Serves it on a listening socket, until the task is aborted. Where too many connections are open the oldest is ended.
pub async fn serve(listener: TcpListener, router: Router) {
    let listener = Bounded::new(listener, CONNECTIONS);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin server ended; probes and metrics are not served");
    }
}

async fn alive(State(liveness): State<Liveness>) -> Response {
    well_or("alive\n", &liveness.silent())
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    well_or("ready\n", &readiness.missing())
}

/// Every reason on a line of its own.
fn well_or(well: &'static str, reasons: &[String]) -> Response {
    if reasons.is_empty() {
        return well.into_response();
    }
    let text = reasons.join("\n") + "\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// In the OpenMetrics format for whoever says that it reads that, as Prometheus does.
async fn metrics(State(collect): State<Collect>, headers: HeaderMap) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text";
    let wanted = headers.get_all(header::ACCEPT).iter();
    let reads_it = wanted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(OPEN_METRICS));
    match collect().await {
        Ok(text) if reads_it => {
            let kind = format!("{OPEN_METRICS}; version=1.0.0; charset=utf-8");
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Ok(text) => ([(header::CONTENT_TYPE, CLASSIC)], classic(&text)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn ask(listener: &TcpStream, path: &str) -> String {
        ask_as(listener, path, "").await
    }

    /// With these lines in its head.
    async fn ask_as(listener: &TcpStream, path: &str, head: &str) -> String {
        let address = listener.peer_addr().expect("a connection");
        let mut stream = TcpStream::connect(address).await.expect("a server");
        let request = format!("GET {path} HTTP/1.0\r\n{head}\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("a server");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn serve_nothing_but(liveness: Liveness, readiness: Readiness) -> TcpStream {
        let text = "# TYPE a counter\na_total 1\n# EOF\n";
        let collect: Collect = Arc::new(|| Box::pin(async { Ok(text.to_owned()) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, router(liveness, readiness, collect)));
        TcpStream::connect(address).await.expect("a server")
    }

    #[tokio::test]
    async fn who_is_not_ready_says_why() {
        let readiness = Readiness::default();
        let condition = readiness.condition("programs", "not attached yet");
        let probe = serve_nothing_but(Liveness::default(), readiness).await;
        assert!(ask(&probe, "/livez").await.starts_with("HTTP/1.0 200"));
        let answer = ask(&probe, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
        assert!(answer.ends_with("programs: not attached yet\n"), "{answer}");
        condition.met();
        assert!(ask(&probe, "/readyz").await.starts_with("HTTP/1.0 200"));
    }

    #[tokio::test]
    async fn metrics_are_in_the_format_that_is_asked_for() {
        let probe = serve_nothing_but(Liveness::default(), Readiness::default()).await;
        // As Prometheus 2 and 3 ask.
        let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
        let open = ask_as(&probe, "/metrics", accept).await;
        assert!(
            open.contains("application/openmetrics-text; version=1.0.0"),
            "{open}"
        );
        assert!(
            open.ends_with("# TYPE a counter\na_total 1\n# EOF\n"),
            "{open}"
        );
        for accept in ["", "accept: */*\r\n", "accept: text/plain\r\n"] {
            let classic = ask_as(&probe, "/metrics", accept).await;
            assert!(classic.contains("text/plain; version=0.0.4"), "{classic}");
            assert!(
                classic.ends_with("# TYPE a_total counter\na_total 1\n"),
                "{classic}"
            );
        }
    }

    #[tokio::test]
    async fn who_is_silent_for_too_long_is_not_alive() {
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("worker", Duration::ZERO);
        let probe = serve_nothing_but(liveness, Readiness::default()).await;
        let answer = ask(&probe, "/livez").await;
        assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
        assert!(answer.contains("worker"), "{answer}");
        drop(heartbeat);
    }

    #[tokio::test]
    async fn connections_that_are_held_open_keep_nobody_out() {
        let probe = serve_nothing_but(Liveness::default(), Readiness::default()).await;
        let address = probe.peer_addr().expect("a connection");
        let mut held = Vec::new();
        for _ in 0..4 * CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.expect("a server");
            stream.write_all(b"GET /li").await.expect("a server");
            held.push(stream);
        }
        assert!(ask(&probe, "/livez").await.starts_with("HTTP/1.0 200"));
        // The oldest were ended: reading tells, where one that is open would wait.
        for stream in &mut held[..3 * CONNECTIONS] {
            let mut byte = [0];
            assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));
        }
        let mut byte = [0];
        let newest = held.last_mut().expect("a connection");
        let waits = tokio::time::timeout(Duration::from_millis(50), newest.read(&mut byte));
        assert!(waits.await.is_err(), "the newest was ended too");
    }
}
