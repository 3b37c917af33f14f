//! Whether a pod shares the node's kernel, as far as its runtime class shows it.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::Leave;

/// Whether a pod's programs use the node's kernel, where BPF programs see their sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime<'a> {
    /// They share the node's kernel, its network stack and its user ids.
    Shared,
    /// They have a kernel of their own.
    Sandboxed,
    /// The class of this name does not show it.
    Unknown(&'a str),
}

/// Parts of names, as operators of clusters write them: virtual machines, kernels in user space, mapped user ids.
const SANDBOXED: [&str; 5] = ["kata", "gvisor", "runsc", "firecracker", "sysbox"];

/// Names of runtimes that do as the default one does.
const SHARED: [&str; 6] = [
    "runc",
    "crun",
    "youki",
    "nvidia",
    "nvidia-cdi",
    "nvidia-legacy",
];

impl<'a> Runtime<'a> {
    /// The runtime of a pod. The surest sign is `overhead`, which the API server copies from the class before it asks any
    /// webhook: it counts what the pod needs beside its containers, such as a virtual machine. Names are a guess.
    pub fn of(pod: &'a Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::Shared;
        };
        if spec.overhead.as_ref().is_some_and(|all| !all.is_empty()) {
            return Self::Sandboxed;
        }
        let Some(class) = class(spec) else {
            return Self::Shared;
        };
        let lower = class.to_ascii_lowercase();
        if SANDBOXED.iter().any(|part| lower.contains(part)) {
            Self::Sandboxed
        } else if SHARED.contains(&class) {
            Self::Shared
        } else {
            Self::Unknown(class)
        }
    }
}

fn class(spec: &PodSpec) -> Option<&str> {
    let class = spec.runtime_class_name.as_deref();
    class.filter(|class| !class.is_empty())
}

/// Refuses a pod that certainly has a kernel of its own.
pub(crate) fn refuse_sandboxed(pod: &Pod) -> Result<(), Leave> {
    if Runtime::of(pod) != Runtime::Sandboxed {
        return Ok(());
    }
    let class = pod.spec.as_ref().and_then(class).unwrap_or_default();
    Err(Leave::SandboxedRuntime {
        class: class.to_owned(),
    })
}
