//! The socket on which the agent tells its status.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{Json, Router, extract::State as AxumState, http::StatusCode, routing::get};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
};

pub use sidestep_agent_api::{PodState, PodStatus, Status};

/// A question for the task that knows.
pub type Ask = oneshot::Sender<Status>;

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
        .with_state(hand)
        .merge(others);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the status socket ended");
    }
}

async fn status(AxumState(hand): AxumState<Hand>) -> Result<Json<Status>, StatusCode> {
    let (reply, answer) = oneshot::channel();
    hand(reply);
    let answer = answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE);
    answer.map(Json)
}
