//! Certificates rotate under load, and no request is lost: not where an API server learns late of a new bundle, and not on
//! a replica that never learns of a new certificate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Version;
use sidestep_certs::Lifetimes;
use sidestep_certs::cert::Cert;
use sidestep_certs::holding::Holding;
use sidestep_certs::keeper::Keeper;
use sidestep_webhook::server::Limits;
use sidestep_webhook::tls::{Certificate, take};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::common::fixture;
use crate::fake::Fake;
use crate::under_test::{NAME, UnderTest};

/// What an API server believes is what was written so long ago.
const LAG: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);

fn keeper(fake: &Fake, life: Duration) -> (watch::Sender<bool>, JoinSet<()>) {
    let keeper = Keeper::new(fake.clone(), vec![NAME.to_owned()], Lifetimes::new(life));
    let (leads, leading) = watch::channel(true);
    let (trouble, _) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(keeper.run(leading, Arc::new(Notify::new()), trouble));
    (leads, tasks)
}

fn holding(fake: &Fake) -> Holding {
    let state = fake.state();
    let secret = state.secret.as_ref();
    secret.map_or_else(Holding::default, |secret| Holding::read(&secret.data))
}

/// The bundle, as somebody sees it who learns late.
async fn lagging(fake: Fake, seen: watch::Sender<String>) {
    let mut past = VecDeque::new();
    loop {
        let bundle = fake.state().bundles.as_ref().map(|all| all[0].clone());
        past.push_back(String::from_utf8(bundle.unwrap_or_default()).expect("PEM"));
        if past.len() > usize::try_from(LAG.as_millis() / TICK.as_millis()).expect("few") {
            seen.send_replace(past.pop_front().unwrap_or_default());
        }
        sleep(TICK).await;
    }
}

/// A replica that follows the Secret.
async fn following(fake: Fake, certificate: Arc<Certificate>) {
    loop {
        let data = fake
            .state()
            .secret
            .as_ref()
            .map(|secret| secret.data.clone());
        take(&data.unwrap_or_default(), "the test's", &certificate);
        sleep(TICK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_loses_no_request() {
    let fake = Fake::new();
    let first = keeper(&fake, Duration::from_hours(1));
    let certificate = Arc::new(Certificate::default());
    let server = UnderTest::serving(Arc::clone(&certificate), Limits::default()).await;
    let hung = Arc::new(Certificate::default());
    let hanging = UnderTest::serving(Arc::clone(&hung), Limits::default()).await;
    let (seen, bundle) = watch::channel(String::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(following(fake.clone(), Arc::clone(&certificate)));
    tasks.spawn(lagging(fake.clone(), seen));
    let begun = async {
        while !certificate.is_there() || bundle.borrow().is_empty() {
            sleep(TICK).await;
        }
    };
    timeout(Duration::from_secs(30), begun)
        .await
        .expect("a certificate that is trusted");
    let data = fake.state().secret.as_ref().expect("a Secret").data.clone();
    take(&data, "the test's", &hung);
    let old = holding(&fake).current.expect("a CA").cert;

    let asked = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for (n, address) in [server.address, server.address, hanging.address]
        .into_iter()
        .enumerate()
    {
        let (bundle, asked, enough) = (bundle.clone(), Arc::clone(&asked), Arc::clone(&enough));
        let version = if n == 0 {
            Version::HTTP_11
        } else {
            Version::HTTP_2
        };
        load.spawn(async move {
            let pod = fixture("client");
            while !enough.load(Ordering::Relaxed) {
                let trusted = bundle.borrow().clone();
                let client = Client::try_connect(address, &trusted, version).await;
                let mut client = client.unwrap_or_else(|error| panic!("connection {n}: {error}"));
                for _ in 0..5 {
                    assert_eq!(client.mutate("u", &pod).await.status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    // A much shorter life makes everything due: another CA, then a leaf every few seconds.
    drop(first);
    let _second = keeper(&fake, Duration::from_secs(6));
    let mut leaves: Vec<Cert> = Vec::new();
    let rotated = async {
        while leaves.len() < 4 {
            assert!(load.try_join_next().is_none(), "a client gave up");
            let leaf = holding(&fake).leaf.expect("a leaf").cert;
            if !leaves.contains(&leaf) {
                leaves.push(leaf);
            }
            sleep(TICK).await;
        }
    };
    timeout(Duration::from_mins(1), rotated)
        .await
        .expect("several certificates");
    enough.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("every request was answered");
    }
    let held = holding(&fake);
    assert_ne!(held.current.expect("a CA").cert, old);
    assert!(held.previous.contains(&old), "it stays trusted");
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > 100, "there was load: {asked}");
}

#[tokio::test]
async fn without_a_certificate_no_connection_is_made_and_with_one_it_is() {
    let fake = Fake::new();
    let certificate = Arc::new(Certificate::default());
    let server = UnderTest::serving(Arc::clone(&certificate), Limits::default()).await;
    assert!(!certificate.is_there());
    let refused = Client::try_connect(server.address, &server.trusted, Version::HTTP_2).await;
    assert!(refused.is_err());
    let _keeping = keeper(&fake, Duration::from_hours(1));
    let following = following(fake.clone(), Arc::clone(&certificate));
    let there = async {
        while !certificate.is_there() {
            sleep(TICK).await;
        }
    };
    tokio::select! {
        () = following => {}
        there = timeout(Duration::from_secs(30), there) => there.expect("a certificate"),
    }
    let trusted = holding(&fake).current.expect("a CA").cert.pem();
    let client = Client::try_connect(server.address, &trusted, Version::HTTP_2).await;
    assert!(client.is_ok());
}
