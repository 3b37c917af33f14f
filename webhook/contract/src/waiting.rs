//! Where a gated pod waits.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::keys;

/// Where a pod waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its gate, on this node.
    Gate(String),
    /// Nowhere: the scheduler finds no node for it, for this reason.
    Nowhere(String),
}

impl Place {
    /// Where a pod waits whose init container `istio-init` is a gate; `None` if it does not wait.
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let Some(node) = pod.spec.as_ref()?.node_name.clone() else {
            let mut conditions = status.conditions.iter().flatten();
            let says_no =
                conditions.find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
            let is_final = says_no.reason.as_deref() == Some("Unschedulable");
            return is_final.then(|| Self::Nowhere(says_no.message.clone().unwrap_or_default()));
        };
        let mut statuses = status.init_container_statuses.iter().flatten();
        let waits = statuses.any(|status| status.name == keys::ISTIO_INIT && is_shut(status));
        waits.then_some(Self::Gate(node))
    }
}

/// Whether a gate has started and has not let its pod pass. A gate that gives up is restarted by kubelet: all of that is one
/// wait.
fn is_shut(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref());
    let runs = state.is_some_and(|state| state.running.is_some());
    let last = status.last_state.as_ref();
    let has_run = last.is_some_and(|last| last.terminated.is_some()) || status.restart_count > 0;
    ended.map_or(runs || has_run, |ended| ended.exit_code != 0)
}
