//! Istio as it is without Sidestep: what the others are compared with.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};
use sidestep_tests::{
    app::Seen,
    cluster::{
        Cluster,
        kit::{Room, objects, until},
    },
};

use crate::world::{is_plain_istio, shared};

/// A server, its service and a client, left to Istio's iptables.
fn pods(cluster: &Cluster) -> Room<'_> {
    let labels = [
        ("istio-injection", "enabled"),
        ("sidestep.dev/enabled", "false"),
    ];
    let room = cluster.room("plain", &labels);
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ]);
    room.ready(&["server", "client"]);
    room
}

/// Asks the server from the node, without TLS.
fn ask_from_the_node(cluster: &Cluster, server: SocketAddr) -> std::io::Result<String> {
    let ask = || {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    cluster
        .host()
        .in_network(ask)
        .expect("the node's network can be entered")
}

#[test]
fn an_injected_pod_is_called_with_mutual_tls() {
    let Some(cluster) = shared() else { return };
    let room = pods(&cluster);
    assert!(is_plain_istio(&room.get("pod server")));
    let answer = room.exec("client", "wget -qO- http://server/");
    let seen: Seen = serde_json::from_str(&answer).expect("the application answers JSON");
    assert_eq!(seen.pod, "server");
    let caller = seen
        .headers
        .get("x-forwarded-client-cert")
        .expect("a certificate");
    let identity = format!("URI=spiffe://cluster.local/ns/{}/sa/default", room.name());
    assert!(caller.contains(&identity), "{caller}");
}

#[test]
fn strict_resets_plain_text_from_the_node() {
    let Some(cluster) = shared() else { return };
    let room = pods(&cluster);
    let server = SocketAddr::new(room.address("server"), objects::PORT);
    let answer = ask_from_the_node(&cluster, server).expect("plain text is allowed");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    room.apply(&[strict()]);
    until("plain text is reset", || {
        let refused = ask_from_the_node(&cluster, server);
        refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    });
    room.exec("client", "wget -qO- http://server/");
}

fn strict() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "strict"},
        "spec": {"mtls": {"mode": "STRICT"}},
    })
}
