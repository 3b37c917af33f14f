//! Whether the API server answers. A quiet watch and a dead connection look alike from where pods are read: what tells them
//! apart is that the watch is asked anew every now and then, and answered.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::Response;
use kube::{Client, Config, client::ClientBuilder};
use sidestep_runtime::Condition;
use tower::util::MapResponseLayer;

use crate::metrics::Metrics;

/// Between looks at whether it answers again.
const LOOK: Duration = Duration::from_millis(500);

/// How long an API server may be silent, and what follows for single requests.
#[derive(Clone, Copy, Debug)]
pub struct Patience(pub Duration);

impl Patience {
    /// After which time the API server ends a watch, seconds: it is asked anew at least twice before patience ends.
    pub fn watch(self) -> u32 {
        let seconds = self.0.as_secs() / 2;
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }

    /// How long nothing may come on a connection of which something is expected. Longer than a watch, on which nothing
    /// need come before its end.
    fn read(self) -> Duration {
        Duration::from_secs(self.watch().into()) * 5 / 4
    }

    /// How long making a connection may take, TLS included.
    fn connect(self) -> Duration {
        self.0 / 4
    }

    /// Limits every request, also those that have no limit by themselves: a list, and the first line of a watch's answer.
    pub fn limit(self, config: &mut Config) {
        config.connect_timeout = Some(self.connect());
        config.read_timeout = Some(self.read());
        config.write_timeout = Some(self.read());
    }
}

/// When the API server answered last, and what failed since. A clone is the same.
#[derive(Clone, Debug)]
pub struct ApiHealth {
    metrics: Metrics,
    beat: Arc<Mutex<Beat>>,
}

#[derive(Debug)]
struct Beat {
    answered: Instant,
    error: Option<String>,
}

impl ApiHealth {
    /// Patience begins now.
    pub fn new(metrics: Metrics) -> Self {
        let beat = Beat {
            answered: Instant::now(),
            error: None,
        };
        Self {
            metrics,
            beat: Arc::new(Mutex::new(beat)),
        }
    }

    /// A client of which every answer is noticed that is not a refusal.
    pub fn client(&self, config: Config) -> kube::Result<Client> {
        let health = self.clone();
        let notice = MapResponseLayer::new(move |response: Response<_>| {
            if response.status().is_success() {
                health.answered();
            }
            response
        });
        Ok(ClientBuilder::try_from(config)?.with_layer(&notice).build())
    }

    fn answered(&self) {
        self.metrics.watch_answers();
        let mut beat = self.beat();
        beat.answered = Instant::now();
        beat.error = None;
    }

    /// A request of the watch failed.
    pub fn failed(&self, error: &dyn std::error::Error) {
        self.metrics.watch_failed();
        self.beat().error = Some(error.to_string());
    }

    /// Why new pods cannot be told of, where that has been so for this long.
    fn silent(&self, patience: Duration) -> Option<String> {
        let beat = self.beat();
        let silence = beat.answered.elapsed();
        let error = beat.error.as_deref().unwrap_or("nothing came back");
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
            // It cannot have been silent for too long before patience ends.
            let wait = if let Some(why) = silent {
                condition.unmet(why);
                LOOK
            } else {
                condition.met();
                patience.saturating_sub(self.beat().answered.elapsed())
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        // A panic elsewhere leaves it whole.
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use k8s_openapi::api::core::v1::Pod;
    use kube::{
        Api,
        runtime::watcher::{self, watcher},
    };
    use sidestep_runtime::Readiness;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
        time::timeout,
    };

    use super::*;

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
        let mut config = Config::new(url);
        PATIENCE.limit(&mut config);
        let health = ApiHealth::new(Metrics::default());
        let pods: Api<Pod> = Api::all(health.client(config).expect("a client"));
        let events = watcher(pods, crate::pods::watch::accelerated_on("node", PATIENCE));
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
        assert!(begun.elapsed() >= PATIENCE.read());
        assert!(health.silent(PATIENCE.read()).is_some());
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
        let begun = Instant::now();
        let Outcome { health, .. } = outcome_of(http("200 OK", "{}")).await;
        assert!(health.beat().answered > begun);
        assert_eq!(health.beat().error, None);
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

    #[tokio::test]
    async fn silence_takes_readiness_away_and_an_answer_gives_it_back() {
        let readiness = Readiness::default();
        let health = ApiHealth::new(Metrics::default());
        let condition = readiness.condition("api", "not looked at yet");
        let patience = Patience(LOOK * 4);
        let attending = tokio::spawn(health.clone().attend(patience, condition));
        let missing = async |wanted: fn(&[String]) -> bool| {
            let seen = timeout(SOON, async {
                while !wanted(&readiness.missing()) {
                    tokio::task::yield_now().await;
                }
            });
            seen.await.expect("readiness that follows");
        };
        missing(<[String]>::is_empty).await;
        missing(|missing| {
            let first = missing.first();
            first.is_some_and(|why| why.starts_with("api: the API server has not answered"))
        })
        .await;
        health.answered();
        missing(<[String]>::is_empty).await;
        attending.abort();
    }
}
