//! Certificates: made, trusted, rotated under load, defended.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, chart::NAMESPACE, needs};

use crate::{
    cluster::{ADDRESSES, installed, is_gated, mutated, route, secret},
    replica::Replica,
    until,
};

fn bundle(server: &ApiServer) -> Value {
    let configuration = server.get("mutatingwebhookconfiguration sidestep-webhook");
    configuration["webhooks"][0]["clientConfig"]["caBundle"].clone()
}

fn is_trusted(server: &ApiServer) -> bool {
    mutated(server, "probe").is_ok_and(|pod| is_gated(&pod))
}

#[needs(apiserver, part("helm"))]
fn on_a_new_cluster_pods_are_gated_once_the_webhook_is_ready() {
    let server = installed(&[]);
    let replica = Replica::start(&server, "one", ADDRESSES[0], &[]);
    replica.ready();
    route(&server, &ADDRESSES[..1]);
    until("a pod is gated", || is_trusted(&server));
    let labels = server.get(&format!("secret sidestep-webhook-tls -n {NAMESPACE}"));
    assert_eq!(
        labels["metadata"]["labels"]["sidestep.dev/certificates"],
        "managed"
    );
    let metrics = replica.ask("/metrics");
    assert!(replica.leads(), "{metrics}");
    let expiry = "sidestep_webhook_certificate_expiry_timestamp_seconds ";
    let expiry = metrics.lines().find_map(|line| line.strip_prefix(expiry));
    let expiry: f64 = expiry.expect("the metric").parse().expect("a number");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let days = (expiry - now.expect("a clock").as_secs_f64()) / 86_400.0;
    assert!((85.0..91.0).contains(&days), "it ends in {days} days");
    replica.stop();
}

#[needs(apiserver, part("helm"))]
fn a_bundle_that_somebody_takes_away_is_put_back() {
    let server = installed(&[]);
    let replica = Replica::start(&server, "one", ADDRESSES[0], &[]);
    replica.ready();
    let right = bundle(&server);
    // The API server takes a certificate's first line for a certificate.
    for wrong in [json!(null), json!("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t")] {
        let patch =
            json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": wrong}]);
        let patch = patch.to_string();
        let words = ["patch", "mutatingwebhookconfiguration", "sidestep-webhook"];
        let words = words
            .into_iter()
            .chain(["--type=json", "-o", "json", "-p", &patch]);
        let taken = server.kubectl(words).expect("who may do that can");
        let taken: Value = serde_json::from_str(&taken).expect("kubectl prints JSON");
        assert_eq!(taken["webhooks"][0]["clientConfig"]["caBundle"], wrong);
        until("it is as it was", || bundle(&server) == right);
    }
}

#[needs(apiserver, part("helm"))]
fn somebody_elses_secret_is_left_alone_and_readiness_says_what_to_do() {
    let server = installed(&[]);
    let own = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "sidestep-webhook-tls", "namespace": NAMESPACE},
        "stringData": {"tls.crt": "mine", "tls.key": "mine"},
    });
    server.feed("create", &own).expect("a Secret");
    let replica = Replica::start(&server, "one", ADDRESSES[0], &[]);
    until("it says why", || {
        let said = replica.ask("/readyz");
        said.contains("503") && said.contains("has no label sidestep.dev/certificates=managed")
    });
    assert_eq!(secret(&server, "tls.crt").as_deref(), Some("bWluZQ=="));
    server.must(&format!(
        "label secret sidestep-webhook-tls -n {NAMESPACE} sidestep.dev/certificates=managed"
    ));
    replica.ready();
    let log = replica.log();
    assert!(
        log.contains("key tls.crt: it holds no PEM certificate"),
        "{log}"
    );
}

#[needs(apiserver, part("helm"))]
fn an_empty_secret_of_the_charts_is_filled() {
    let server = installed(&[]);
    let empty = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "sidestep-webhook-tls", "namespace": NAMESPACE,
            "labels": {"sidestep.dev/certificates": "managed"}},
    });
    server.feed("create", &empty).expect("a Secret");
    Replica::start(&server, "one", ADDRESSES[0], &[]).ready();
    for key in ["tls.crt", "tls.key", "ca.crt", "ca.key"] {
        assert!(secret(&server, key).is_some(), "{key}");
    }
}

/// Creates pods until told to stop; counts them, and keeps what went wrong.
fn load(server: &ApiServer, enough: &AtomicBool, asked: &AtomicUsize) -> Vec<String> {
    let mut lost = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        match mutated(server, "load") {
            Ok(pod) if is_gated(&pod) => {}
            Ok(_) => lost.push("a pod was not gated".to_owned()),
            Err(error) => lost.push(error),
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    lost
}

#[needs(apiserver, part("helm"))]
fn a_rotation_under_load_loses_no_pod() {
    let server = installed(&[]);
    let hour = ["--certificate-lifetime=3600"];
    // Everything is due then: another CA after 20 seconds of trust, and a leaf every 40 seconds.
    let minute = ["--certificate-lifetime=60"];
    let [one, two] = ADDRESSES;
    let first = Replica::start(&server, "one", one, &hour);
    first.ready();
    let second = Replica::start(&server, "two", two, &hour);
    second.ready();
    route(&server, &ADDRESSES);
    until("a pod is gated", || is_trusted(&server));
    let ca = secret(&server, "ca.crt").expect("a CA");

    let (enough, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let loads = [(); 2].map(|()| scope.spawn(|| load(&server, &enough, &asked)));
        // As a rolling update does it: out of the Service and told to end, then the new one into it. The API server learns
        // of it while the one that ends still serves.
        route(&server, &[two]);
        first.stop();
        let first = Replica::start(&server, "three", one, &minute);
        first.ready();
        route(&server, &ADDRESSES);
        route(&server, &[one]);
        second.stop();
        let second = Replica::start(&server, "four", two, &minute);
        second.ready();
        route(&server, &ADDRESSES);
        let rotated = || secret(&server, "ca.crt").is_some_and(|now| now != ca);
        let within = sidestep_kit::process::eventually(Duration::from_mins(2), rotated);
        assert!(within, "no new CA\n{}\n{}", first.log(), second.log());
        // Lost altogether: everything is made anew, while replicas serve what they have in memory.
        let leaf = secret(&server, "tls.crt");
        server.must(&format!(
            "delete secret sidestep-webhook-tls -n {NAMESPACE}"
        ));
        until("it is made anew", || {
            let now = secret(&server, "tls.crt");
            now.is_some() && now != leaf
        });
        let so_far = asked.load(Ordering::Relaxed);
        until("more pods came", || {
            asked.load(Ordering::Relaxed) > so_far + 10
        });
        enough.store(true, Ordering::Relaxed);
        for load in loads {
            let lost = load.join().expect("it does not panic");
            assert_eq!(lost, [""; 0], "{}\n{}", first.log(), second.log());
        }
    });
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > 50, "there was load: {asked}");
}
