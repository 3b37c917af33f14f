//! What people do with pods from their desks: kubectl and istioctl work as before.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use sidestep_cluster::{
    Cluster,
    agent::said,
    room::{Room, objects, until},
    twins::Twins,
};
use sidestep_kit::{app::Seen, needs, process::Running};

use crate::world::shared;

#[needs(sidestep_cluster::programs)]
fn port_forward_exec_and_logs_reach_an_accelerated_pod() {
    let cluster = shared();
    let serve = format!(
        "echo begun; exec sidestep-app serve --pod server --listen 0.0.0.0:{}",
        objects::PORT
    );
    let server = objects::pod("server", &json!(["sh", "-c", serve]));
    let twins = Twins::new(&cluster, "desk", &[server]);
    twins.ours.accelerated(&["server"]);
    assert_eq!(twins.run("server", "id -u"), "Some(0) 0\n");
    let log = twins.agree("the log", |room| room.logs("server", "app"));
    assert_eq!(log, "begun\n");
    let gate = twins.ours.logs("server", "istio-init");
    assert!(gate.contains("Validation passed"), "{gate}");
    twins.agree("a forwarded port", |room| {
        let seen = forwarded(&cluster, room);
        assert_eq!(seen.pod, "server");
        // It comes to the pod's own loopback address, which nobody redirects.
        assert!(seen.peer.ip().is_loopback(), "{seen:?}");
        assert!(
            !seen.headers.contains_key("x-forwarded-client-cert"),
            "{seen:?}"
        );
        format!("{seen:?}")
    });
    twins.logged_the_same(&[("server", 0)]);
}

/// What the server saw of a call through `kubectl port-forward`.
fn forwarded(cluster: &Cluster, room: &Room<'_>) -> Seen {
    let port = format!(":{}", objects::PORT);
    let words = ["-n", room.name(), "port-forward", "pod/server", &port];
    let mut command = cluster.admin().command(&words).expect("the cluster is up");
    let mut forward = Running::start(command.stdout(Stdio::piped()));
    let mut line = String::new();
    let output = forward.child().stdout.take().expect("it is piped");
    let mut output = BufReader::new(output);
    output.read_line(&mut line).expect("it says where");
    let at: SocketAddr = line
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no address in {line:?}"));
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = cluster.host().in_network(ask).expect("the node's network");
    let answer = answer.expect("the pod answers");
    let body = answer
        .split_once("\r\n\r\n")
        .expect("headers, then a body")
        .1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

#[needs(sidestep_cluster::programs)]
fn istioctl_knows_accelerated_pods_as_any_others() {
    let cluster = shared();
    let room = cluster.mesh_room("istioctl");
    room.apply(&[objects::server("server"), objects::service("server")]);
    room.accelerated(&["server"]);
    let pod = format!("server.{}", room.name());
    until("istiod and the sidecar are in step", || {
        let output = cluster.istioctl("proxy-status", "");
        let said = said(&output);
        let line = said.lines().find(|line| line.contains(&pod));
        line.is_some_and(|line| line.contains("SYNCED") || line.contains("istiod"))
    });
    let output = cluster.istioctl(&format!("proxy-config listeners {pod} --port 15006"), "");
    assert!(said(&output).contains("15006"), "{}", said(&output));
    for place in [
        format!("--namespace {}", room.name()),
        format!("--namespace {}", sidestep_cluster::sidestep::NAMESPACE),
    ] {
        let output = cluster.istioctl(&format!("analyze {place} --failure-threshold Info"), "");
        let said = said(&output);
        assert!(
            output.status.success() && said.contains("No validation issues found"),
            "{said}"
        );
    }
}
