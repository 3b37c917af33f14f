//! In the place of the API server, which is too much for an emulated machine: it lists no pods and watches for ever.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use serde_json::json;
use sidestep_kit::net::Namespace;

const ADDRESS: &str = "127.0.0.1:6443";

/// How a client finds it.
pub(super) fn kubeconfig() -> String {
    let server = format!("http://{ADDRESS}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "api", "cluster": {"server": server}}],
        "users": [{"name": "agent", "user": {}}],
        "contexts": [{"name": "api", "context": {"cluster": "api", "user": "agent"}}],
        "current-context": "api",
    });
    config.to_string()
}

/// Answers in a pod's network namespace until the test's process ends.
pub(super) fn serve(pod: &Namespace) {
    let listener = pod.enter(|| TcpListener::bind(ADDRESS));
    let listener = listener.expect("a namespace of our own");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                // A client that goes away was served.
                let _gone = answer_all(&client);
            });
        }
    });
}

fn answer_all(client: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    while let Some(request) = lines.next().transpose()? {
        // No request has a body.
        while lines
            .next()
            .transpose()?
            .is_some_and(|line| !line.is_empty())
        {}
        respond(client, &request)?;
    }
    Ok(())
}

fn respond(mut client: &TcpStream, request: &str) -> io::Result<()> {
    let list = json!({
        "apiVersion": "v1",
        "kind": "PodList",
        "metadata": {"resourceVersion": "1"},
        "items": [],
    });
    let list = list.to_string();
    let length = format!("Content-Length: {}", list.len());
    let (status, framing, body) = if !request.starts_with("GET /api/v1/pods?") {
        ("404 Not Found", "Content-Length: 0", "")
    } else if request.contains("watch=true") {
        // Each event would be a chunk. There is none.
        ("200 OK", "Transfer-Encoding: chunked", "")
    } else {
        ("200 OK", length.as_str(), list.as_str())
    };
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n{body}"
    )
}
