//! Whether the API server is there for the watch of this node's pods. A watch that is quiet is well: connections notice by
//! themselves when their other end is gone ([`super::connection`]), and a watch that lost its connection fails.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Bytes, HttpBody},
    http::{Request, Response},
};
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use sidestep_runtime::Condition;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tower::{
    BoxError, Service,
    timeout::TimeoutLayer,
    util::{MapRequestLayer, MapResponseLayer},
};

use super::{connection::draw_time, timing::Patience};
use crate::metrics::Metrics;

/// How often it is said anew for how long the API server has not answered.
const REMINDER: Duration = Duration::from_secs(5);

/// Since when the watch has failed, and why. A clone is the same.
#[derive(Clone, Debug)]
pub struct ApiHealth {
    metrics: Metrics,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    failing_since: Option<Instant>,
    error: Option<String>,
}

impl ApiHealth {
    /// Nothing has been answered yet: patience begins now.
    pub fn new(metrics: Metrics) -> Self {
        let state = State {
            failing_since: Some(Instant::now()),
            error: None,
        };
        Self {
            metrics,
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        }
    }

    /// A client of which every answer is noticed that is not a refusal. Each watch gets its own time, and no request waits
    /// for an answer for ever.
    pub fn client<S, B>(&self, service: S, patience: Patience) -> Client
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let health = self.clone();
        let notice = MapResponseLayer::new(move |response: Response<B>| {
            if response.status().is_success() {
                health.answered();
            }
            response
        });
        ClientBuilder::new(service, "default")
            .with_layer(&notice)
            .with_layer(&TimeoutLayer::new(patience.answer()))
            .with_layer(&MapRequestLayer::new(draw_time))
            .build()
    }

    fn answered(&self) {
        self.metrics.watch_answers();
        let mut state = self.state();
        state.failing_since = None;
        state.error = None;
        self.changed.notify_one();
    }

    /// A request of the watch failed.
    pub fn failed(&self, error: &dyn std::error::Error) {
        self.metrics.watch_failed();
        let mut state = self.state();
        state.failing_since.get_or_insert_with(Instant::now);
        state.error = Some(error.to_string());
        self.changed.notify_one();
    }

    /// Why new pods cannot be told of, where that has been so for this long.
    fn silent(&self, patience: Duration) -> Option<String> {
        let state = self.state();
        let silence = state.failing_since?.elapsed();
        let error = state.error.as_deref().unwrap_or("nothing came back");
        (silence >= patience).then(|| {
            format!(
                "the API server has not answered the watch of this node's pods for {} s ({error}); pods that run are not \
                 affected",
                silence.as_secs()
            )
        })
    }

    /// Keeps the condition what it is, for ever. While it is not met the webhook leaves new pods to Istio, which wait for no
    /// agent.
    pub async fn attend(self, Patience(patience): Patience, condition: Condition) {
        let mut was_silent = false;
        loop {
            let silent = self.silent(patience);
            if silent.is_some() != was_silent {
                was_silent = silent.is_some();
                if let Some(why) = &silent {
                    tracing::error!(why, "not ready");
                } else {
                    tracing::info!("the API server answers again");
                }
            }
            let left = if let Some(why) = silent {
                condition.unmet(why);
                Some(REMINDER)
            } else {
                condition.met();
                let failing_since = self.state().failing_since;
                failing_since.map(|since| patience.saturating_sub(since.elapsed()))
            };
            let changed = self.changed.notified();
            match left {
                Some(left) => drop(timeout(left, changed).await),
                None => changed.await,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use k8s_openapi::api::core::v1::Pod;
    use kube::{
        Api, Config,
        runtime::watcher::{self, watcher},
    };
    use sidestep_runtime::Readiness;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;
    use crate::pods::connection::connect;

    const PATIENCE: Patience = Patience(Duration::from_secs(2));
    const SOON: Duration = Duration::from_secs(20);

    /// What a client made of a server that answers everything with this, or never.
    struct Outcome {
        health: ApiHealth,
        error: watcher::Error,
        asked: String,
    }

    async fn outcome_of(answer: &'static str) -> Outcome {
        // The test's own server speaks no TLS, but a client wants to be able to.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (ask, mut asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let ask = ask.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let _test_ended = ask.send(String::from_utf8_lossy(&request).into_owned());
                        let _client_left = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        let url = format!("http://{address}").parse().expect("a URL");
        let health = ApiHealth::new(Metrics::default());
        let connection = connect(&Config::new(url), PATIENCE).expect("a client");
        let pods: Api<Pod> = Api::all(health.client(connection, PATIENCE));
        let events = watcher(pods, crate::pods::watch::accelerated_on("node"));
        let mut errors = Box::pin(events.filter_map(async |event| event.err()));
        let error = timeout(SOON, errors.next()).await;
        let error = error.expect("a request that fails in time");
        Outcome {
            health,
            error: error.expect("a watch has no end"),
            asked: asked.try_recv().expect("a request"),
        }
    }

    fn http(status: &str, body: &str) -> &'static str {
        let length = body.len();
        let head = "content-type: application/json\r\ncontent-length";
        format!("HTTP/1.1 {status}\r\n{head}: {length}\r\n\r\n{body}").leak()
    }

    #[tokio::test]
    async fn a_list_that_is_never_answered_fails() {
        let begun = Instant::now();
        let Outcome { health, error, .. } = outcome_of("").await;
        assert!(
            matches!(error, watcher::Error::InitialListFailed(_)),
            "{error}"
        );
        assert!(begun.elapsed() >= PATIENCE.answer());
        assert!(health.silent(PATIENCE.answer()).is_some());
    }

    #[tokio::test]
    async fn a_refusal_is_no_answer() {
        let refusal = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":"Forbidden","code":403}"#;
        let Outcome { health, error, .. } = outcome_of(http("403 Forbidden", refusal)).await;
        health.failed(&error);
        let why = health.silent(Duration::ZERO).expect("a silence");
        assert!(why.contains("Forbidden"), "{why}");
        assert!(health.silent(Duration::from_mins(1)).is_none());
    }

    #[tokio::test]
    async fn an_answer_ends_the_silence_whatever_follows() {
        // A list that the client cannot use is an answer.
        let Outcome { health, .. } = outcome_of(http("200 OK", "{}")).await;
        assert_eq!(health.state().failing_since, None);
        assert_eq!(health.state().error, None);
    }

    #[tokio::test]
    async fn the_list_is_asked_of_the_cache_and_whole() {
        let Outcome { asked, .. } = outcome_of(http("200 OK", "{}")).await;
        let line = asked.lines().next().expect("a request");
        assert!(line.contains("&resourceVersion=0&"), "{line}");
        assert!(!line.contains("limit="), "{line}");
        assert!(
            line.contains("fieldSelector=spec.nodeName%3Dnode"),
            "{line}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failure_takes_readiness_away_after_a_while_and_an_answer_gives_it_back() {
        let readiness = Readiness::default();
        let health = ApiHealth::new(Metrics::default());
        let condition = readiness.condition("api", "not looked at yet");
        tokio::spawn(health.clone().attend(PATIENCE, condition));
        // The clock stands still while anything is left to do.
        let after = |time| tokio::time::sleep(time);
        after(PATIENCE.0 / 2).await;
        assert!(readiness.missing().is_empty());
        after(PATIENCE.0).await;
        let why = readiness.missing().join("");
        assert!(
            why.starts_with("api: the API server has not answered"),
            "{why}"
        );
        health.answered();
        after(PATIENCE.0 * 100).await;
        assert!(readiness.missing().is_empty(), "a quiet watch is well");
        health.failed(&std::io::Error::other("cut"));
        after(PATIENCE.0 / 2).await;
        health.failed(&std::io::Error::other("refused"));
        assert!(readiness.missing().is_empty());
        after(PATIENCE.0).await;
        let why = readiness.missing().join("");
        assert!(why.contains("for 2 s (refused)"), "{why}");
    }
}
