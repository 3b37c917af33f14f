//! The webhook comes, goes, and stands beside others.

use sidestep_kit::needs;
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};
use sidestep_cluster::{
    Cluster,
    room::{objects, until},
    sidestep,
};

use crate::world::{alone, is_gated, is_plain_istio, istio_init, left_alone, shared, with_values};

/// Does the work and then the rest, also where the work panics: the cluster is for the other tests, too.
fn then<T>(work: impl FnOnce() -> T, rest: impl FnOnce()) -> T {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    rest();
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

#[needs(sidestep_cluster::programs)]
fn one_gate_is_there_after_istio_was_asked_again() {
    let cluster = alone();
    let room = cluster.mesh_room("again");
    let admitted = || {
        // Our change makes the API server ask Istio again, whose change makes it ask us again.
        reinvoke_istio(&cluster, "IfNeeded");
        let mut pod = json!(null);
        until("the webhook is asked twice about a pod", || {
            let before = reviews(&cluster);
            pod = room.admit(&objects::client("client")).pod;
            reviews(&cluster) == before + 2
        });
        pod
    };
    let pod = then(admitted, || reinvoke_istio(&cluster, "Never"));
    assert!(is_gated(&pod), "{pod:#}");
    assert_eq!(istio_init(&pod).len(), 1);
}

fn reinvoke_istio(cluster: &Cluster, policy: &str) {
    let name = "mutatingwebhookconfiguration istio-sidecar-injector";
    let istio = cluster.get(name);
    let count = istio["webhooks"].as_array().expect("webhooks").len();
    let change = |n| json!({"op": "add", "path": format!("/webhooks/{n}/reinvocationPolicy"), "value": policy});
    let patch = json!((0..count).map(change).collect::<Vec<_>>());
    cluster.kubectl(&format!("patch {name} --type=json -p {patch}"));
}

/// How often the API server has asked the webhook.
fn reviews(cluster: &Cluster) -> u64 {
    let metrics = cluster.kubectl("get --raw /metrics");
    let counts = metrics.lines().filter(|line| {
        line.starts_with("apiserver_admission_webhook_request_total")
            && line.contains("name=\"pods.sidestep.dev\"")
    });
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[needs(sidestep_cluster::programs)]
fn while_certificates_and_replicas_change_every_pod_is_decided() {
    let cluster = alone();
    let room = cluster.mesh_room("rotation");
    let pods: Vec<_> = (0..20)
        .map(|n| objects::client(&format!("client-{n}")))
        .collect();
    let pods = json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string();
    let before = certificates(&cluster);
    let (done, mut decided) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut admitted = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let output = room.try_kubectl_with("create --dry-run=server -o json -f -", &pods);
                assert!(
                    output.status.success(),
                    "{}",
                    String::from_utf8_lossy(&output.stderr)
                );
                // One document each.
                let pods =
                    serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
                admitted.extend(pods.map(|pod| pod.expect("kubectl prints JSON")));
            }
            admitted
        });
        // Both certificates are due at once under the shorter life, so another CA takes over while the replicas are replaced.
        let changed = || {
            with_values(&cluster, &["certificates.managed.lifetimeSeconds=60"]);
            until("another CA signs", || {
                let now = certificates(&cluster);
                now["tls.crt"] != before["tls.crt"] && now["ca.crt"] != before["ca.crt"]
            });
        };
        then(changed, || {
            done.store(true, Ordering::Relaxed);
            with_values(&cluster, &[]);
        });
        let admitted = load.join().expect("every pod is admitted");
        for pod in &admitted {
            assert!(is_gated(pod), "after {decided} others: {pod:#}");
            decided += 1;
        }
    });
    assert!(
        decided >= 100,
        "only {decided} pods were admitted meanwhile"
    );
}

/// What the webhook keeps in its Secret.
fn certificates(cluster: &Cluster) -> Value {
    let secret = cluster.get(&format!(
        "-n {} secret sidestep-webhook-tls",
        sidestep::NAMESPACE
    ));
    secret["data"].clone()
}

#[needs(sidestep_cluster::programs)]
fn while_the_webhook_is_down_pods_have_iptables() {
    let cluster = alone();
    let scale = |replicas: u32| {
        cluster.kubectl(&format!(
            "-n {} scale deployment sidestep-webhook --replicas={replicas}",
            sidestep::NAMESPACE
        ));
    };
    let room = cluster.mesh_room("down");
    let made = || {
        scale(0);
        let selector = "pods -l app.kubernetes.io/name=sidestep-webhook";
        until("the webhook is gone", || {
            let pods = cluster.get(&format!("-n {} {selector}", sidestep::NAMESPACE));
            pods["items"].as_array().is_some_and(Vec::is_empty)
        });
        room.apply(&[objects::server("server")]);
        room.ready(&["server"]);
        room.get("pod server")
    };
    let pod = then(made, || {
        scale(2);
        sidestep::wait(&cluster).unwrap_or_else(|error| panic!("{error:#}"));
    });
    assert!(is_plain_istio(&pod), "{pod:#}");
    assert_eq!(left_alone(&pod), None);
    until("the webhook decides again", || {
        is_gated(&room.admit(&objects::client("client")).pod)
    });
}

#[needs(sidestep_cluster::programs)]
fn a_static_pods_mirror_is_left_as_the_kubelet_wrote_it() {
    let cluster = shared();
    let room = cluster.room("static", &[]);
    let mut pod = objects::client("static");
    pod["metadata"]["namespace"] = json!(room.name());
    pod["spec"]["initContainers"] = json!([{
        "name": "istio-init",
        "image": "sidestep.test/istio/proxyv2:1.31.1",
        "imagePullPolicy": "Never",
        "args": ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020"],
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
    }]);
    let file = cluster
        .place()
        .file("static-pods")
        .join(format!("{}.json", room.name()));
    // The kubelet would read a half-written one.
    let part = cluster.place().file("static-pod.part");
    std::fs::write(&part, pod.to_string()).expect("a folder of ours");
    std::fs::rename(&part, &file).expect("a folder of ours");
    let mut mirror = json!(null);
    let runs = || {
        until("the mirror pod runs", || {
            mirror = room.get("pods");
            mirror["items"][0]["status"]["phase"] == "Running"
        });
    };
    then(runs, || {
        std::fs::remove_file(&file).expect("it is there");
    });
    let mirror = &mirror["items"][0];
    assert!(!mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null());
    assert!(is_plain_istio(mirror), "{mirror:#}");
    assert!(!mirror.to_string().contains("sidestep.dev"), "{mirror:#}");
}
