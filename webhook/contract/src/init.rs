//! A pod's `istio-init` container, or `istio-validation` in its place, parsed once.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::istio::pflag::Arguments;
use crate::{Leave, Policy, gate, istio, keys};

/// Who writes the rules of a pod that Sidestep leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirector {
    /// The pod's own init container `istio-init`.
    IstioInit,
    /// istio-cni, on the node, as the sandbox is made. The injector then writes the init container `istio-validation`, which
    /// waits until it is redirected and has no privileges.
    IstioCni,
}

/// An init container named `istio-init` or `istio-validation`: as the injector wrote it, or the gate that the webhook made of
/// it, which is named `istio-init`: then istio-cni writes no rules (`cni/pkg/plugin/plugin.go`).
#[derive(Clone, Debug, PartialEq)]
pub struct IstioInit<'a> {
    /// The container's index among the pod's init containers.
    pub index: usize,
    /// The container itself.
    pub container: &'a Container,
    /// Who redirects the pod if the container stays what it is, and is no gate.
    pub redirector: Redirector,
    /// Whether the container is a gate.
    pub is_gate: bool,
    /// Whether the container was a gate, and something has changed it since: it neither is one nor writes rules.
    pub is_changed_gate: bool,
    /// What its arguments and environment say. A gate says what the container said before.
    pub policy: Result<Policy, Leave>,
    flags: Arguments,
}

impl<'a> IstioInit<'a> {
    /// Parses a container. The index is that of the container in its pod.
    pub fn read(index: usize, container: &'a Container) -> Self {
        let redirector = match container.name.as_str() {
            keys::ISTIO_VALIDATION => Redirector::IstioCni,
            _ => Redirector::IstioInit,
        };
        let arguments = istio::arguments(container);
        let parsed = arguments.clone().and_then(istio::pflag::parse);
        let is_gate = match (&arguments, &parsed) {
            (Ok(arguments), Ok(parsed)) => gate::is_gate(container, arguments, parsed),
            _ => false,
        };
        let validates = is_gate || redirector == Redirector::IstioCni;
        let flags = parsed.as_ref().cloned().unwrap_or_default();
        let policy = arguments
            .and_then(istio::refuse_references)
            .and(parsed)
            .and_then(|parsed| istio::policy(&parsed, container, validates));
        let whole = policy.is_ok() && gate::may_write_rules(container);
        let is_changed_gate = !is_gate
            && (gate::has_gate_words(container) || !whole)
            && gate::original(container).is_some();
        Self {
            index,
            container,
            redirector,
            is_gate,
            is_changed_gate,
            policy,
            flags,
        }
    }

    /// Whether the arguments say, in whatever place and whoever wrote them, that the container applies no rules.
    pub fn has_gate_words(&self) -> bool {
        gate::has_gate_words(self.container)
    }

    /// The `istio-init` of which this gate was made, if it is known.
    pub fn original(&self) -> Option<Container> {
        let original = gate::original(self.container)?;
        let is_whole = {
            let read = IstioInit::read(self.index, &original);
            !read.is_gate && read.policy.is_ok()
        };
        is_whole.then_some(original)
    }

    /// The gate to put in the container's place. A gate stays as it is.
    pub fn gate(&self, probe_timeout: Duration) -> Result<Container, Leave> {
        if self.is_gate && self.policy.is_ok() {
            return Ok(self.container.clone());
        }
        self.gate_of(self.container, probe_timeout)
    }

    /// The same for a container that was changed on its way; the gate carries `original`.
    pub fn gate_of(
        &self,
        original: &Container,
        probe_timeout: Duration,
    ) -> Result<Container, Leave> {
        let policy = self.policy.as_ref().map_err(Clone::clone)?;
        gate::make(self.container, original, &self.flags, policy, probe_timeout)
    }
}

/// All init containers of a pod that are named `istio-init` or `istio-validation`, in their order, at least one.
pub fn istio_inits(pod: &Pod) -> Result<Vec<IstioInit<'_>>, Leave> {
    let spec = pod.spec.as_ref();
    let containers = spec.and_then(|spec| spec.init_containers.as_deref());
    let all = containers.unwrap_or_default().iter().enumerate();
    let found: Vec<_> = all
        .filter(|(_, container)| keys::INITS.contains(&container.name.as_str()))
        .map(|(index, container)| IstioInit::read(index, container))
        .collect();
    if found.is_empty() {
        return Err(Leave::NoIstioInit);
    }
    Ok(found)
}

/// The pod's one `istio-init`, or else its one `istio-validation`: beside an `istio-init`, istio-cni writes no rules.
pub fn istio_init(pod: &Pod) -> Result<IstioInit<'_>, Leave> {
    let mut found = istio_inits(pod)?;
    if found
        .iter()
        .any(|one| one.redirector == Redirector::IstioInit)
    {
        found.retain(|one| one.redirector == Redirector::IstioInit);
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(Leave::SeveralIstioInit { count }),
    }
}
