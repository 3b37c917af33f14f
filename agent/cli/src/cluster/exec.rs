//! Programs run in pods, through the API server.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use kube::client::UpgradeConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What a program did that ran to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ran {
    /// What it printed.
    pub(crate) told: String,
    /// What it complained of.
    pub(crate) said: String,
    /// What the kubelet says of its end, where it did not print anything.
    pub(crate) status: Option<String>,
}

/// Runs a program in a container, to its end; or why that cannot be.
pub(crate) async fn exec(
    api: &Api<Pod>,
    pod: &str,
    container: &str,
    command: &[&str],
) -> Result<Ran, String> {
    let attach = AttachParams::default().container(container).stderr(true);
    let process = api.exec(pod, command.iter().copied(), &attach).await;
    let mut process = process.map_err(|error| refused(&error))?;
    let mut ran = Ran::default();
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let (one, other) = tokio::join!(read(stdout, &mut ran.told), read(stderr, &mut ran.said));
    one.and(other).map_err(|error| error.to_string())?;
    if ran.told.trim().is_empty()
        && let Some(status) = process.take_status()
    {
        ran.status = status.await.and_then(|status| status.message);
    }
    Ok(ran)
}

async fn read(reader: Option<impl AsyncRead + Unpin>, text: &mut String) -> std::io::Result<usize> {
    match reader {
        Some(mut reader) => reader.read_to_string(text).await,
        None => Ok(0),
    }
}

/// What an API server says that does not let exec.
fn refused(error: &kube::Error) -> String {
    match error {
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code))
            if code.as_u16() == 403 =>
        {
            "you have no right to it (get and create of pods/exec)".to_owned()
        }
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) => {
            format!(
                "the API server answers {code}: it does not reach the node's kubelet, or the pod is gone"
            )
        }
        other => other.to_string(),
    }
}
