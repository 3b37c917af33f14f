//! Which init containers are named `istio-init` or `istio-validation`, and which of them counts.

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{IstioInit, Leave, istio_inits};

/// The indices of these containers among a pod's init containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inits {
    /// There is none.
    None,
    /// One, as the injector wrote it.
    Fresh(usize),
    /// One, and it is a gate, or was one before something changed it.
    Gate(usize),
    /// A gate, and a fresh one that an injector put beside the gate when it was invoked again.
    Both { fresh: usize, gate: usize },
    /// More, and nothing tells which of them counts.
    Many,
}

/// The indices, and the container that counts: a fresh one replaces the gate beside it.
pub(crate) fn of(pod: &Pod) -> (Inits, Result<IstioInit<'_>, Leave>) {
    let mut found = match istio_inits(pod) {
        Ok(found) => found,
        Err(none) => return (Inits::None, Err(none)),
    };
    let (inits, counts) = match found.as_slice() {
        [one] if ours(one) => (Inits::Gate(one.index), 0),
        [one] => (Inits::Fresh(one.index), 0),
        [gate, fresh] if ours(gate) && !ours(fresh) => (both(fresh, gate), 1),
        [fresh, gate] if ours(gate) && !ours(fresh) => (both(fresh, gate), 0),
        more => {
            let count = more.len();
            return (Inits::Many, Err(Leave::SeveralIstioInit { count }));
        }
    };
    (inits, Ok(found.swap_remove(counts)))
}

fn ours(init: &IstioInit<'_>) -> bool {
    init.is_gate || init.is_changed_gate
}

fn both(fresh: &IstioInit<'_>, gate: &IstioInit<'_>) -> Inits {
    Inits::Both {
        fresh: fresh.index,
        gate: gate.index,
    }
}
