//! Two pods of the node whose sidecars' bytes go past TCP, and the switch that puts them back.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::json;
use sidestep_cluster::{
    agent::said,
    room::{Room, objects, until},
};
use sidestep_kit::{app::Seen, needs};

use crate::world::shared;

/// Requests of one run of the client.
const REQUESTS: u64 = 100;

/// Bytes of these requests that may miss the shortcut. One of them alone has some 250, encrypted and with Envoy's headers.
const FEW: u64 = 50 * REQUESTS;

#[needs(sidestep_cluster::programs)]
fn what_sidecars_of_a_node_say_goes_past_tcp_until_a_running_pod_is_switched_off() {
    let cluster = shared();
    let of_namespace = [
        ("istio-injection", "enabled"),
        ("sidestep.dev/shortcut", "node"),
    ];
    let room = cluster.room("shortcut", &of_namespace);
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ]);
    room.accelerated(&["server", "client"]);
    for pod in ["server", "client"] {
        let annotations = room.get(&format!("pod {pod}"))["metadata"]["annotations"].clone();
        assert_eq!(annotations["sidestep.dev/shortcut"], json!("node"));
    }
    // Sidecars know of each other, and each thread of the client's has its connection.
    until("the server is known", || {
        let warm = room.try_exec("client", "wget -qO- http://server/");
        warm.status.success() && said(&warm).contains("x-forwarded-client-cert")
    });
    call_as(&room, "--close");

    let (redirected, by_tcp) = (counted(&room, "redirected"), sent_by_tcp(&room));
    assert!(!by_tcp.is_empty(), "the sidecars have no connection");
    call(&room);
    let grew = counted(&room, "redirected") - redirected;
    assert!(grew >= REQUESTS, "{grew} messages for {REQUESTS} requests");
    let by_tcp = sum(&sent_by_tcp(&room)) - sum(&by_tcp);
    assert!(by_tcp < FEW, "{by_tcp} bytes by TCP");

    let before = sent_by_tcp(&room);
    let off = counted(&room, "off");
    while_called(&room, || {
        room.kubectl("annotate pod client --overwrite sidestep.dev/shortcut=off");
        until("messages are left to TCP", || counted(&room, "off") > off);
    });
    let (off, from) = (counted(&room, "off"), sent_by_tcp(&room));
    call(&room);
    let left = counted(&room, "off") - off;
    assert!(left >= REQUESTS, "{left} messages for {REQUESTS} requests");
    let to = sent_by_tcp(&room);
    let by_tcp = sum(&to) - sum(&from);
    assert!(by_tcp > 2 * FEW, "{by_tcp} bytes by TCP");
    for port in before.keys() {
        assert!(
            to.contains_key(port),
            "a connection was replaced: {before:?}, then {to:?}"
        );
    }
}

/// What the agent counted on the whole node.
fn counted(room: &Room<'_>, what: &str) -> u64 {
    let shortcut = room.cluster().agent_status().shortcut;
    assert!(shortcut.on, "{:?}", shortcut.reason);
    shortcut.counts[what]
}

/// The bytes that the client's sidecar has sent to the server's by TCP so far, by the connections' ports.
fn sent_by_tcp(room: &Room<'_>) -> BTreeMap<u16, u64> {
    let processes = room.processes("client");
    let process = processes.first().expect("it runs");
    let server = room.address("server").to_string();
    let shown = Command::new("nsenter")
        .arg(format!("--net=/proc/{process}/ns/net"))
        .args(["ss", "-tinOH", "state", "established", "dst", &server])
        .output()
        .expect("nsenter is part of util-linux");
    assert!(shown.status.success(), "{}", said(&shown));
    let text = said(&shown);
    let connections = text.lines().map(|line| {
        let local = line
            .split_whitespace()
            .nth(2)
            .expect("two queues, an address");
        let port = local.rsplit(':').next().and_then(|port| port.parse().ok());
        let sent = line
            .split_once(" bytes_sent:")
            .map_or(Some(0), |(_, rest)| {
                rest.split(' ').next().and_then(|count| count.parse().ok())
            });
        (port.expect("a port"), sent.expect("a number"))
    });
    connections.collect()
}

fn sum(sent: &BTreeMap<u16, u64>) -> u64 {
    sent.values().sum()
}

/// Requests of one connection of the client's.
fn call(room: &Room<'_>) {
    call_as(room, "");
}

/// Every request must be answered, and come by mutual TLS.
fn call_as(room: &Room<'_>, how: &str) {
    let service = room.get("service server");
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    let words = format!("sidestep-app get --from {address}:80 --count {REQUESTS} {how}");
    let answers = room.exec("client", &words);
    for answer in answers.lines() {
        let answer: Seen = serde_json::from_str(answer).expect("the application answers JSON");
        let caller = answer.headers.get("x-forwarded-client-cert");
        assert!(caller.is_some(), "past the sidecars: {answer:?}");
    }
    assert_eq!(answers.lines().count() as u64, REQUESTS);
}

/// Does something while the client calls the server again and again.
fn while_called(room: &Room<'_>, action: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                call(room);
            }
        });
        let outcome = catch_unwind(AssertUnwindSafe(action));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        load.join().unwrap_or_else(|panic| resume_unwind(panic));
    });
}
