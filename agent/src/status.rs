//! The socket on which the agent tells its status.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State as AxumState},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

pub use sidestep_agent_api::{Flows, PodState, PodStatus, Status};

use crate::pods::wanted::PodName;

/// A question for the task that knows, and where its answer goes.
#[derive(Debug)]
pub enum Ask {
    /// What the agent does.
    Status(oneshot::Sender<Status>),
    /// A pod's connections.
    Flows(PodName, oneshot::Sender<Result<Flows, NoFlows>>),
}

/// Why a pod's connections are not told.
#[derive(Debug, Error)]
pub enum NoFlows {
    /// Another node's, or none that is accelerated.
    #[error("no accelerated pod of this node has this name")]
    NoPod,
    /// Nothing is known of its namespace.
    #[error("its connections are not captured by this agent's programs: see sidestep status")]
    NotArmed,
    /// It could not be looked at.
    #[error("its network namespace could not be read: {0}")]
    Unseen(String),
}

/// Makes the socket. Refuses where another agent answers on it.
pub async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent answers here; stop it first, or choose another --socket and --pin",
        ));
    }
    if path.exists() {
        fs::remove_file(path)?; // left by an agent that was killed
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Hands a question to whoever knows. Where nobody does any more it drops the question, and the asker is told so.
pub type Hand = Arc<dyn Fn(Ask) + Send + Sync>;

/// Answers on the socket, also what is asked of `others`.
pub async fn serve(listener: UnixListener, hand: Hand, others: Router) {
    let app = Router::new()
        .route(sidestep_agent_api::STATUS, get(status))
        .route(
            &format!("{}/{{namespace}}/{{name}}", sidestep_agent_api::FLOWS),
            get(flows),
        )
        .with_state(hand)
        .merge(others);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the status socket ended");
    }
}

async fn status(AxumState(hand): AxumState<Hand>) -> Result<Json<Status>, StatusCode> {
    let (reply, answer) = oneshot::channel();
    hand(Ask::Status(reply));
    let answer = answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE);
    answer.map(Json)
}

async fn flows(
    AxumState(hand): AxumState<Hand>,
    UrlPath((namespace, name)): UrlPath<(String, String)>,
) -> Response {
    let (reply, answer) = oneshot::channel();
    hand(Ask::Flows(PodName { namespace, name }, reply));
    match answer.await {
        Ok(Ok(flows)) => Json(flows).into_response(),
        Ok(Err(why @ NoFlows::NoPod)) => (StatusCode::NOT_FOUND, why.to_string()).into_response(),
        Ok(Err(why)) => (StatusCode::CONFLICT, why.to_string()).into_response(),
        Err(_nobody_knows) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
