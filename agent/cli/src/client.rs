//! Asks the agent on its socket.

use std::path::Path;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use sidestep_agent::status::Status;
use tokio::net::UnixStream;

/// `GET /status`.
pub(crate) async fn status(socket: &Path) -> anyhow::Result<Status> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no agent answers on {}: is sidestep-agent running, and with the same --socket?",
            socket.display()
        )
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/status")
        .header("host", "agent")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        bail!("the agent answered {code}; it may be stopping");
    }
    serde_json::from_slice(&body).context("the agent's answer is of another version")
}
