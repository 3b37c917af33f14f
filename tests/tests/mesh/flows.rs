//! `sidestep flows`: a pod's connections, as the agent tells them.

use serde_json::{Value, json};
use sidestep_kit::{actor::Kind, mesh::Mesh, needs, redirect::Node};

/// Where the server's application takes plain TCP, through its sidecar.
const STREAMS: &str = "10.77.0.11:9000";

#[needs(root)]
fn connections_are_told_with_where_they_wanted_to_go_and_with_every_byte() {
    let node = Node::alone_with(&["--shortcut", "node"]);
    let mut mesh = Mesh::with_pods(node, Node::far_pod, |_, _| ());
    mesh.start_sidecars();
    let application = mesh.server().app();
    let _listener = application.serve("application", Kind::Tcp, "0.0.0.0:9000");
    let program = mesh.client().app();
    let socket = program.connect(STREAMS).expect("a connection");
    let message = vec![b'x'; 10_000];
    socket.send(&message).expect("a connection");
    let mut answer = Vec::new();
    while !answer.ends_with(&message) {
        answer.extend(socket.receive().expect("an answer"));
    }

    let agent = mesh.node().agent();
    let (client, server) = (
        agent.flows(mesh.client().name()),
        agent.flows(mesh.server().name()),
    );
    let one = |flows: &[Value], of: &str, direction: &str, ends: &str| {
        let found = flows.iter().find(|flow| {
            flow["of"] == of
                && flow["direction"] == direction
                && ["local", "captured_from", "remote"]
                    .iter()
                    .any(|end| flow[*end] == ends)
        });
        found
            .unwrap_or_else(|| panic!("no {of} {direction} {ends}: {flows:#?}"))
            .clone()
    };
    let bytes = |flow: &Value, way: &str| {
        let of = |how: &str| flow[way][how].as_u64().expect("a number");
        of("tcp") + of("shortcut")
    };
    // The program's own connection, and the application's: what one sent the other received.
    let asked = one(&client, "application", "out", STREAMS);
    assert_eq!(asked["row"], "out-12", "{asked:#}");
    assert_eq!(asked["captured_from"], STREAMS);
    let served = one(&server, "application", "in", STREAMS);
    assert_eq!(bytes(&asked, "sent"), 10_000);
    assert_eq!(bytes(&asked, "received"), answer.len() as u64);
    assert_eq!(bytes(&served, "received"), 10_000);
    assert_eq!(bytes(&served, "sent"), answer.len() as u64);
    // Between the sidecars it is the same connection, from both of its ends.
    let out = one(&client, "proxy", "out", STREAMS);
    let into = one(&server, "proxy", "in", STREAMS);
    assert_eq!(
        (&out["row"], &into["row"]),
        (&json!("out-5"), &json!("in-all"))
    );
    assert_eq!(
        (&out["local"], &out["remote"]),
        (&into["remote"], &into["local"])
    );
    assert_eq!(
        (&out["sent"], &out["received"]),
        (&into["received"], &into["sent"])
    );
    let status = agent.status().expect("it answers");
    let way = if status.shortcut.on {
        "shortcut"
    } else {
        "tcp"
    };
    assert_eq!(
        (&out["way"], &into["way"]),
        (&json!(way), &json!(way)),
        "{out:#}"
    );

    drop(socket);
    agent.wait("the connection to go", || {
        let gone = |flows: Vec<Value>| flows.iter().all(|flow| flow["captured_from"] != STREAMS);
        gone(agent.flows(mesh.client().name()))
    });
}
