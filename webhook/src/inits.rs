//! Which init containers are `istio-init`, and which of them is a gate.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, Pod};
use sidestep_contract::{gate, keys};

/// The places of the containers named `istio-init` among a pod's init containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inits {
    /// There is none.
    None,
    /// One, as the injector wrote it.
    Fresh(usize),
    /// One, and it is a gate.
    Gate(usize),
    /// A gate, and a fresh one that an injector put beside it when it was invoked again.
    Both { fresh: usize, gate: usize },
    /// More, and nobody knows which counts.
    Many,
}

impl Inits {
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut named = containers(pod)
            .iter()
            .enumerate()
            .filter(|(_, container)| container.name == keys::ISTIO_INIT)
            .map(|(index, container)| (index, gate::is_gate(container)));
        match (named.next(), named.next(), named.next()) {
            (None, _, _) => Self::None,
            (Some((index, true)), None, _) => Self::Gate(index),
            (Some((index, false)), None, _) => Self::Fresh(index),
            (Some((gate, true)), Some((fresh, false)), None)
            | (Some((fresh, false)), Some((gate, true)), None) => Self::Both { fresh, gate },
            _ => Self::Many,
        }
    }

    /// The pod without a gate that a fresh container replaces.
    pub(crate) fn without_stale_gate(self, pod: &Pod) -> Cow<'_, Pod> {
        let Self::Both { gate, .. } = self else {
            return Cow::Borrowed(pod);
        };
        let mut pod = pod.clone();
        let spec = pod.spec.as_mut();
        if let Some(inits) = spec.and_then(|spec| spec.init_containers.as_mut()) {
            inits.remove(gate);
        }
        Cow::Owned(pod)
    }
}

fn containers(pod: &Pod) -> &[Container] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
}
