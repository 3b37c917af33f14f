//! What a pod says about bytes that no `connect` announces.

use k8s_openapi::api::core::v1::Pod;

use crate::keys;

words! {
    /// Whether what a pod's programs send past every `connect` may go around the proxy: TCP by raw sockets, and packets that the
    /// pod forwards.
    #[derive(Default)]
    RawSockets, "refuse or allow" {
        /// Raw TCP sockets are refused to all but the proxy, and who may forward is left to Istio.
        #[default]
        Refuse = "refuse",
        /// It may.
        Allow = "allow",
    }
}

impl RawSockets {
    /// What the pod's annotation says. What is not understood refuses.
    pub fn of(pod: &Pod) -> Self {
        let annotations = pod.metadata.annotations.as_ref();
        let word = annotations.and_then(|all| all.get(keys::RAW_SOCKETS));
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    }
}
