//! The agent comes and goes; what it programmed stays, for as long as its pod.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use sidestep_agent::status::PodState;
use sidestep_cluster::{
    Cluster,
    agent::said,
    room::{PATIENCE, Room, comes, objects, until},
    sidestep,
};
use sidestep_kit::{app::Seen, needs};

use crate::world::{alone, restored};

/// Requests of one run of the client.
const REQUESTS: usize = 100;

#[needs(sidestep_cluster::programs)]
fn an_agent_that_is_killed_and_one_that_is_replaced_lose_no_request() {
    let cluster = alone();
    let room = cluster.mesh_room("restart");
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ]);
    room.accelerated(&["server", "client"]);
    // Not before the sidecars know of each other, for what comes then must not fail once.
    until("the server is known", || {
        room.try_exec("client", "wget -qO- http://server/")
            .status
            .success()
    });
    let armed = |name: &str| {
        // Pods of these names of other tests may be on their way out.
        let told = room.told_of(name).expect("the agent knows it");
        assert_eq!(told.state, PodState::Active, "{told:?}");
        told.cookie
    };
    let before = [armed("server"), armed("client")];
    let requests = under_load(&room, || {
        let killed = cluster.agent_status().pid;
        kill(killed);
        is_back(&cluster, killed);
        assert_eq!(before, [armed("server"), armed("client")]);

        let replaced = cluster.agent_status().pid;
        cluster.kubectl(&format!(
            "-n {} rollout restart daemonset/sidestep-agent",
            sidestep::NAMESPACE
        ));
        is_back(&cluster, replaced);
        assert_eq!(before, [armed("server"), armed("client")]);
    });
    restored(&cluster);
    assert!(requests >= 4 * REQUESTS, "only {requests} requests");
}

#[needs(sidestep_cluster::programs)]
fn pods_that_went_leave_no_entry_no_link_and_no_pin() {
    let cluster = alone();
    let room = cluster.room(
        "gone",
        &[
            ("istio-injection", "enabled"),
            ("sidestep.dev/shortcut", "node"),
        ],
    );
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ]);
    room.accelerated(&["server", "client"]);
    assert!(cluster.pinned_pods().len() >= 2);
    // Sockets of both sidecars, which stay open until their processes end.
    until("the shortcut is used between them", || {
        let _answer = room.try_exec("client", "wget -qO- http://server/");
        cluster
            .map_entries()
            .get("ENDS")
            .is_some_and(|ends| *ends >= 2)
    });
    let entries = cluster.map_entries();
    for map in [
        "PODS",
        "MEMBERS",
        "ADDRESSES",
        "SWITCHES",
        "PROXY_PROCESSES",
    ] {
        assert!(entries[map] >= 2, "{map}: {entries:?}");
    }
    room.kubectl("delete pods --all --wait=false");
    // Those of other tests are on their way out, too.
    until("no pod has a link", || cluster.pinned_pods().is_empty());
    let mut entries = cluster.map_entries();
    comes(PATIENCE, || {
        entries = cluster.map_entries();
        entries.is_empty()
    });
    assert!(entries.is_empty(), "{entries:?}");
    assert_eq!(cluster.agent_status().pods.len(), 0);
    assert_eq!(
        cluster.agent_metric("sidestep_agent_lingering_namespaces "),
        Some(0.0)
    );
}

/// Ends a process of the cluster's at once.
fn kill(pid: u32) {
    let pid = i32::try_from(pid).expect("a process id");
    // SAFETY: kill takes two numbers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

/// Waits until an agent is ready that is not this one.
fn is_back(cluster: &Cluster, before: u32) {
    until("another agent is ready", || {
        let now = cluster.try_agent_status();
        now.is_ok_and(|status| status.ready && status.pid != before)
    });
}

/// Does something while the client calls the server, with a connection for each request and with one for many. Every request must be answered,
/// and come by mutual TLS. How many there were.
fn under_load(room: &Room<'_>, action: impl FnOnce()) -> usize {
    let service = room.get("service server");
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    let server = SocketAddr::new(address.parse().expect("an address"), 80);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let loads = ["", "--close"].map(|how| {
            let (done, room) = (&done, &room);
            scope.spawn(move || {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    count += call(room, server, how);
                }
                count
            })
        });
        let outcome = catch_unwind(AssertUnwindSafe(action));
        done.store(true, Ordering::Relaxed);
        let counts = loads.map(thread::ScopedJoinHandle::join);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        let counts = counts.map(|count| count.unwrap_or_else(|panic| resume_unwind(panic)));
        counts.into_iter().sum()
    })
}

fn call(room: &Room<'_>, server: SocketAddr, how: &str) -> usize {
    let words = format!("sidestep-app get --from {server} --count {REQUESTS} {how}");
    let output = room.try_exec("client", &words);
    assert!(output.status.success(), "{}", said(&output));
    let answers = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Seen> = answers
        .lines()
        .map(|line| serde_json::from_str(line).expect("the application answers JSON"))
        .collect();
    for answer in &answers {
        let caller = answer.headers.get("x-forwarded-client-cert");
        assert!(caller.is_some(), "past the sidecars: {answer:?}");
    }
    answers.len()
}
