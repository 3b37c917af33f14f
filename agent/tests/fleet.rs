//! Thousands of agents and one API server, on a clock that jumps: how many requests each second are its own, with the agent's
//! own code in the place where it decides when to ask.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body as AnswerBody;
use futures_util::stream;
use kube::client::Body;
use sidestep_agent::{
    metrics::Metrics,
    pods::{health::ApiHealth, timing::Patience, watch},
};
use sidestep_runtime::Readiness;
use tokio::{
    sync::watch as channel,
    time::{Instant, sleep},
};
use tower::{BoxError, service_fn};

const AGENTS: usize = 5_000;
const PATIENCE: Patience = Patience(Duration::from_mins(2));
const OUTAGE: Duration = Duration::from_mins(10);
const LIST: &str =
    r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#;

/// What the API server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Answers,
    /// Its machine is there and nobody listens: connections break at once.
    Refuses,
    /// Nothing comes back, and connections notice after a while.
    IsSilent,
}

/// When requests came.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<Instant>>>);

impl Requests {
    fn note(&self) {
        self.0.lock().expect("no panic").push(Instant::now());
    }

    /// How many came in each second of this time.
    fn between(&self, from: Instant, to: Instant) -> PerSecond {
        let seconds = usize::try_from((to - from).as_secs()).expect("a short time");
        let mut counts = vec![0; seconds];
        for at in &*self.0.lock().expect("no panic") {
            if let Some(since) = at.checked_duration_since(from)
                && let Some(count) = counts.get_mut(usize::try_from(since.as_secs()).expect("one"))
            {
                *count += 1;
            }
        }
        PerSecond(counts)
    }
}

#[derive(Debug)]
struct PerSecond(Vec<usize>);

impl PerSecond {
    fn most(&self) -> usize {
        self.0.iter().copied().max().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.0.iter().sum()
    }
}

struct Fleet {
    server: channel::Sender<Server>,
    requests: Requests,
    agents: Vec<Readiness>,
}

impl Fleet {
    /// All of them start in the same moment.
    fn start() -> Self {
        let (server, state) = channel::channel(Server::Answers);
        let requests = Requests::default();
        let agents = (0..AGENTS).map(|_| start(&state, &requests)).collect();
        Self {
            server,
            requests,
            agents,
        }
    }

    fn ready(&self) -> usize {
        let ready = |agent: &&Readiness| agent.missing().is_empty();
        self.agents.iter().filter(ready).count()
    }

    /// Most agents that stop being ready within a second, while this time passes; and how many are ready then.
    async fn stopped_at_once(&self, time: Duration) -> (usize, usize) {
        let end = Instant::now() + time;
        let (mut before, mut most) = (self.ready(), 0);
        while Instant::now() < end {
            sleep(Duration::from_secs(1)).await;
            let now = self.ready();
            most = most.max(before.saturating_sub(now));
            before = now;
        }
        (most, before)
    }
}

/// An agent's watch, and what it means for the agent's readiness.
fn start(server: &channel::Receiver<Server>, requests: &Requests) -> Readiness {
    let readiness = Readiness::default();
    let health = ApiHealth::new(Metrics::default());
    let patience = PATIENCE.drawn();
    let (server, requests) = (server.clone(), requests.clone());
    let service = service_fn(move |request: axum::http::Request<Body>| {
        requests.note();
        answer(server.clone(), request.uri().to_string())
    });
    let client = health.client(service, patience);
    let failing = health.clone();
    tokio::spawn(watch::follow(
        client,
        watch::accelerated_on("node"),
        move |error| failing.failed(error),
        drop,
    ));
    let condition = readiness.condition("api", "not looked at yet");
    tokio::spawn(health.attend(patience, condition));
    readiness
}

async fn answer(
    mut server: channel::Receiver<Server>,
    uri: String,
) -> Result<axum::http::Response<AnswerBody>, BoxError> {
    let now = *server.borrow_and_update();
    match now {
        Server::Answers => {}
        Server::Refuses => return Err("connection refused".into()),
        Server::IsSilent => std::future::pending::<()>().await,
    }
    let body = match seconds(&uri) {
        Some(time) => AnswerBody::from_stream(stream::once(quiet(server, time))),
        None => AnswerBody::from(LIST),
    };
    Ok(axum::http::Response::new(body))
}

/// A watch on which nothing comes, until its end.
async fn quiet(mut server: channel::Receiver<Server>, time: Duration) -> Result<String, BoxError> {
    tokio::select! {
        () = sleep(time) => Ok(String::new()),
        _ = server.changed() => {
            if *server.borrow() == Server::IsSilent {
                // A ping, and the wait for its answer.
                sleep(Duration::from_secs(45)).await;
            }
            Err("connection reset".into())
        }
    }
}

fn seconds(uri: &str) -> Option<Duration> {
    let (_, rest) = uri.split_once("timeoutSeconds=")?;
    let number = rest.split('&').next()?.parse().ok()?;
    uri.contains("watch=true")
        .then(|| Duration::from_secs(number))
}

async fn outage(kind: Server) {
    let fleet = Fleet::start();
    sleep(Duration::from_mins(20)).await;
    let begun = Instant::now();
    sleep(Duration::from_mins(30)).await;
    let steady = fleet.requests.between(begun, Instant::now());
    assert_eq!(fleet.ready(), AGENTS, "quiet watches are well");

    let begun = Instant::now();
    fleet.server.send(kind).expect("agents");
    let (stopped, ready) = fleet.stopped_at_once(OUTAGE).await;
    let during = fleet.requests.between(begun, Instant::now());
    assert_eq!(ready, 0, "an API server that is away is noticed");

    let back = Instant::now();
    fleet.server.send(Server::Answers).expect("agents");
    let mut all_back = None;
    while all_back.is_none() {
        sleep(Duration::from_secs(1)).await;
        all_back = (fleet.ready() == AGENTS).then(|| back.elapsed());
        assert!(back.elapsed() < Duration::from_mins(3), "{}", fleet.ready());
    }
    sleep(Duration::from_mins(1)).await;
    let after = fleet.requests.between(back, back + Duration::from_mins(1));
    println!(
        "{AGENTS} agents, API server {kind:?} for 10 min: steady {} requests in 30 min, at most {} in a second; in the outage at \
         most {}; at most {stopped} agents became not ready in a second; in the minute after it {} requests, at most {} in a \
         second; all back after {} s",
        steady.all(),
        steady.most(),
        during.most(),
        after.all(),
        after.most(),
        all_back.unwrap_or_default().as_secs(),
    );
    // A watch takes 450 s in the mean.
    assert!(steady.all() < AGENTS * 30 * 60 / 400, "{}", steady.all());
    assert!(steady.most() < AGENTS / 100, "{}", steady.most());
    assert!(during.most() < AGENTS / 3, "{}", during.most());
    assert!(stopped < AGENTS / 30, "{stopped}");
    assert!(after.most() < AGENTS / 15, "{}", after.most());
}

#[tokio::test(start_paused = true)]
async fn agents_that_are_refused_come_back_one_after_the_other() {
    outage(Server::Refuses).await;
}

#[tokio::test(start_paused = true)]
async fn agents_that_hear_nothing_come_back_one_after_the_other() {
    outage(Server::IsSilent).await;
}
