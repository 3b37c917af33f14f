//! What comes over the socket, and what is said when nothing does.

use std::{error::Error as _, path::Path};

use serde_json::{Value, json};
use sidestep_agent_api::{AskError, PodState, Status, ask};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

/// Every field, as programs read it from `sidestep status -o json`.
fn full() -> Value {
    json!({
        "ready": true,
        "version": "0.1.0",
        "pid": 7,
        "node": null,
        "cgroup": "/sys/fs/cgroup/pods",
        "pods": [{
            "namespace": "shop",
            "name": "cart",
            "netns": "cart",
            "uid": "0f3a6a0e-1c2b-4d5e-8f90-000000000001",
            "cookie": 4711,
            "state": "active",
            "reason": null,
            "policy": "out 15001",
            "programmed_us": 900,
            "reaction_us": 1800,
            "rows": {"out-12": 3},
            "flows": 2,
        }],
        "layouts": {"v1": 1},
        "shortcut": {
            "on": true,
            "reason": null,
            "reach": "node",
            "not_from_applications": "why",
            "not_into_applications": null,
            "checks": [{"name": "order", "proves": "Shortcut", "failure": null}],
            "selftest_ms": 120,
            "ends": 4,
            "counts": {"redirected": 9},
        },
        "errors": [],
        "repairs": ["a link"],
    })
}

/// Answers one request on a socket.
async fn answered(status: &str, body: String) -> Result<Status, AskError> {
    let folder = TempDir::new().expect("a folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    let agent = async {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await.expect("a request");
        assert!(request[..read].starts_with(b"GET /status HTTP/1.1\r\n"));
        stream
            .write_all(answer.as_bytes())
            .await
            .expect("a client that reads");
    };
    let (status, ()) = tokio::join!(ask(&socket), agent);
    status
}

#[tokio::test]
async fn the_status_has_the_fields_that_programs_read() {
    let status = answered("200 OK", full().to_string()).await;
    let status = status.expect("a status");
    assert_eq!(status.pods[0].state, PodState::Active);
    assert_eq!(serde_json::to_value(status).expect("JSON"), full());
}

#[tokio::test]
async fn what_goes_wrong_is_said_with_what_to_do() {
    let nobody = ask(Path::new("/nowhere/agent.sock")).await;
    let nobody = nobody.expect_err("there is none");
    assert_eq!(
        nobody.to_string(),
        "no agent answers on /nowhere/agent.sock: is sidestep-agent running, and with the same --socket?"
    );
    assert!(nobody.source().is_some());
    let stopping = answered("503 Service Unavailable", String::new()).await;
    assert_eq!(
        stopping.expect_err("no status").to_string(),
        "the agent answered 503 Service Unavailable; it may be stopping"
    );
    let other = answered("200 OK", "{}".to_owned()).await;
    assert_eq!(
        other.expect_err("no status").to_string(),
        "the agent's answer is of another version"
    );
}
