//! Asks the agent on its socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::{FLOWS, Flows, STATUS, Status};

/// Why the agent's status is not known.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no agent answers on {}: is sidestep-agent running, and with the same --socket?", .socket.display())]
    NoAgent {
        /// Where it was asked.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The request.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// The agent does not tell.
    #[error("the agent answered {0}; it may be stopping")]
    Refused(StatusCode),
    /// It tells something else than this version expects.
    #[error("the agent's answer is of another version")]
    Version(#[source] serde_json::Error),
}

/// What kubelet wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether it works, or must be started anew.
    Alive,
    /// Whether it arms new pods.
    Ready,
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Alive => "/livez",
            Self::Ready => "/readyz",
        }
    }
}

/// The status of the agent that listens on `socket`.
pub async fn ask(socket: &Path) -> Result<Status, AskError> {
    let (code, body) = get(socket, STATUS).await?;
    if !code.is_success() {
        return Err(AskError::Refused(code));
    }
    serde_json::from_slice(&body).map_err(AskError::Version)
}

/// The connections of a pod of the agent's that listens on `socket`; or why it tells none.
pub async fn ask_flows(
    socket: &Path,
    namespace: &str,
    name: &str,
) -> Result<Result<Flows, String>, AskError> {
    let (code, body) = get(socket, &format!("{FLOWS}/{namespace}/{name}")).await?;
    match code {
        StatusCode::OK => Ok(Ok(serde_json::from_slice(&body).map_err(AskError::Version)?)),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => {
            Ok(Err(String::from_utf8_lossy(&body).into_owned()))
        }
        code => Err(AskError::Refused(code)),
    }
}

/// Asks the agent what kubelet wants to know; where it is not so, the reasons, each on a line of its own.
pub async fn probe(socket: &Path, probe: Probe) -> Result<Result<(), String>, AskError> {
    let (code, body) = get(socket, probe.path()).await?;
    match code {
        StatusCode::OK => Ok(Ok(())),
        StatusCode::SERVICE_UNAVAILABLE => Ok(Err(String::from_utf8_lossy(&body).into_owned())),
        code => Err(AskError::Refused(code)),
    }
}

async fn get(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), AskError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| AskError::NoAgent {
        socket: socket.to_owned(),
        source,
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "agent")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((code, body))
}
