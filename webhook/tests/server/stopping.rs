//! A server that is told to stop answers everything that was sent to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Version;
use sidestep_webhook::admission::review_of;
use sidestep_webhook::server::listen::Phase;
use tokio::time::{sleep, timeout};

use crate::client::{Client, post, was_not_taken};
use crate::common::fixture;
use crate::under_test::UnderTest;

/// Sends one review after the other until the server goes, with new connections as long as `connects`.
async fn load(
    server: Arc<UnderTest>,
    version: Version,
    connects: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) {
    let body = review_of("u", &fixture("client")).to_string();
    while connects.load(Ordering::Relaxed) {
        let mut client = Client::connect(&server, version).await;
        while client.is_open().await {
            let answer = client.send(post("/mutate", body.clone())).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if was_not_taken(&error) => break,
                Err(error) => panic!("a request was lost: {error:?}"),
            };
            assert_eq!(answer.status, 200);
            done.fetch_add(1, Ordering::Relaxed);
            if answer.closes {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_under_load() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let server = Arc::new(UnderTest::start().await);
        let connects = Arc::new(AtomicBool::new(true));
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (connects, done) = (Arc::clone(&connects), Arc::clone(&done));
                tokio::spawn(load(Arc::clone(&server), version, connects, done))
            })
            .collect();
        let some = async {
            while done.load(Ordering::Relaxed) < 200 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), some)
            .await
            .expect("reviews are answered");
        // As in a cluster: readiness goes, then new connections go elsewhere, then the server stops.
        server.phase.send_replace(Phase::Leave);
        connects.store(false, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            server.phase.send_replace(Phase::Stop);
        }
        for client in clients {
            timeout(Duration::from_secs(30), client)
                .await
                .expect("clients are told to go")
                .expect("no request is lost");
        }
        server.phase.send_replace(Phase::Stop);
        let server = Arc::try_unwrap(server).unwrap_or_else(|_| panic!("clients are gone"));
        timeout(Duration::from_secs(30), server.ended)
            .await
            .expect("the server ends")
            .expect("the server does not panic");
    }
}
