//! Many agents' watches on one real API server that goes away: none is refused for coming at the wrong moment, and they do
//! not come back in one.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use sidestep_agent::{
    metrics::Metrics,
    pods::{connection::connect, health::ApiHealth, observed::Change, timing::Patience, watch},
};
use sidestep_kit::{apiserver::ApiServer, needs};
use tokio::time::{sleep, timeout};
use tower::{ServiceBuilder, ServiceExt as _};

const AGENTS: usize = 200;
const PATIENCE: Patience = Patience(Duration::from_secs(8));
const OUTAGE: Duration = Duration::from_secs(20);
/// The longest pause after so long an outage, and time for a busy machine.
const SOON: Duration = Duration::from_mins(2);

/// When agents asked, and which of them were answered and have not failed since.
#[derive(Default)]
struct Seen {
    requests: Vec<Instant>,
    listed: usize,
    connected: HashSet<usize>,
}

#[needs(apiserver)]
fn two_hundred_watches_of_an_api_server_that_goes_away_come_back_one_after_the_other() {
    let server = ApiServer::start();
    server.namespace().enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        runtime.block_on(follow(&server));
    });
}

async fn follow(server: &ApiServer) {
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(server.kubeconfig()).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await;
    let config = config.expect("a kubeconfig");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let begun = Instant::now();
    for nth in 0..AGENTS {
        start(&config, nth, &seen);
    }
    until(&seen, |seen| seen.listed == AGENTS).await;
    let watches = watches_of(server, AGENTS).await;
    let started = begun.elapsed();
    let first = seen.lock().expect("no panic").requests.len();

    server.namespace().ip("link set lo down");
    sleep(OUTAGE).await;
    let connected = seen.lock().expect("no panic").connected.len();
    assert_eq!(connected, 0, "an outage is noticed");
    server.namespace().ip("link set lo up");
    let back = Instant::now();
    until(&seen, |seen| seen.connected.len() == AGENTS).await;
    let took = back.elapsed();
    let seen = seen.lock().expect("no panic");
    let mut seconds = vec![0; 1 + usize::try_from(took.as_secs()).expect("a short time")];
    for at in &seen.requests {
        if let Some(since) = at.checked_duration_since(back)
            && let Some(count) = seconds.get_mut(usize::try_from(since.as_secs()).expect("one"))
        {
            *count += 1;
        }
    }
    let most = seconds.iter().max().copied().unwrap_or_default();
    println!(
        "{AGENTS} agents: {first} requests and {watches} watches at first, in {} ms; after an outage of {} s {} requests, at most \
         {most} in a second, all connected after {} s",
        started.as_millis(),
        OUTAGE.as_secs(),
        seconds.iter().sum::<usize>(),
        took.as_secs(),
    );
    // One that was not answered in time asks again.
    let wanted = 2 * AGENTS..3 * AGENTS;
    assert!(
        wanted.contains(&first),
        "{first} requests: a list and a watch each"
    );
    // All of them at once would be two each.
    assert!(most < AGENTS, "{seconds:?}");
}

fn start(config: &Config, nth: usize, seen: &Arc<Mutex<Seen>>) {
    let patience = PATIENCE.drawn();
    let [asked, answered, failed, told] = [(); 4].map(|()| Arc::clone(seen));
    let connection = connect(config, patience).expect("a connection to be made");
    let noted = ServiceBuilder::new()
        .map_request(move |request| {
            let mut seen = asked.lock().expect("no panic");
            seen.requests.push(Instant::now());
            request
        })
        .map_response(move |response| {
            answered.lock().expect("no panic").connected.insert(nth);
            response
        });
    let health = ApiHealth::new(Metrics::default());
    let client = health.client(noted.service(connection).boxed(), patience);
    tokio::spawn(watch::follow(
        client,
        watch::accelerated_on(&format!("node-{nth}")),
        move |_| {
            failed.lock().expect("no panic").connected.remove(&nth);
        },
        move |change| {
            if matches!(change, Change::All(_)) {
                told.lock().expect("no panic").listed += 1;
            }
        },
    ));
}

async fn until(seen: &Mutex<Seen>, wanted: impl Fn(&Seen) -> bool) {
    let come = timeout(SOON, async {
        while !wanted(&seen.lock().expect("no panic")) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    come.await.expect("agents that are answered in time");
}

/// Waits until the API server itself counts so many watches of pods by nodes.
async fn watches_of(server: &ApiServer, wanted: usize) -> usize {
    let counted = timeout(SOON, async {
        loop {
            let counted = count(server).await;
            if counted >= wanted {
                return counted;
            }
            sleep(Duration::from_millis(200)).await;
        }
    });
    counted.await.expect("watches that are answered in time")
}

async fn count(server: &ApiServer) -> usize {
    let mut kubectl = server.command("kubectl");
    kubectl.args(["get", "--raw", "/metrics"]);
    let output = tokio::process::Command::from(kubectl).output().await;
    let text = String::from_utf8_lossy(&output.expect("kubectl runs").stdout).into_owned();
    let watches = text.lines().filter(|line| {
        line.starts_with("apiserver_longrunning_requests{")
            && line.contains(r#"resource="pods""#)
            && line.contains(r#"verb="WATCH""#)
    });
    let counts = watches.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
    counts.sum()
}
