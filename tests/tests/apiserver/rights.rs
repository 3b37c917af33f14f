//! What the API server lets the two service accounts do.

use sidestep_kit::{apiserver::ApiServer, needs};

use crate::installed;

const WEBHOOK: &str = "sidestep-webhook";
const AGENT: &str = "sidestep-agent";

/// Whether an account may, by the rules in force: `"get pods"`, `"patch leases.coordination.k8s.io/name -n default"`.
fn may(server: &ApiServer, account: &str, what: &str) -> bool {
    let account = format!("--as=system:serviceaccount:sidestep-system:{account}");
    let words = ["auth", "can-i"]
        .into_iter()
        .chain(what.split_whitespace())
        .chain([account.as_str()]);
    server.kubectl(words).is_ok()
}

#[needs(apiserver, part("helm"))]
fn the_accounts_may_do_their_work_and_no_more() {
    let server = installed();
    let allowed = [
        (WEBHOOK, "watch pods -A"),
        (WEBHOOK, "watch nodes"),
        (WEBHOOK, "patch nodes"),
        (WEBHOOK, "get namespaces"),
        (WEBHOOK, "create events.events.k8s.io -n default"),
        (WEBHOOK, "create secrets -n sidestep-system"),
        (
            WEBHOOK,
            "get secrets/sidestep-webhook-tls -n sidestep-system",
        ),
        (
            WEBHOOK,
            "update leases.coordination.k8s.io/sidestep-webhook -n sidestep-system",
        ),
        (
            WEBHOOK,
            "update mutatingwebhookconfigurations.admissionregistration.k8s.io/sidestep-webhook",
        ),
        (AGENT, "watch pods -A"),
        (AGENT, "create events.events.k8s.io -n default"),
    ];
    for (account, what) in allowed {
        assert!(
            may(&server, account, what),
            "{account} must be able to {what}"
        );
    }
    let denied = [
        (WEBHOOK, "update nodes"),
        (WEBHOOK, "patch nodes --subresource=status"),
        (WEBHOOK, "patch events.events.k8s.io -n default"),
        (WEBHOOK, "delete pods -n default"),
        (WEBHOOK, "update pods -n default"),
        (WEBHOOK, "get secrets/other -n sidestep-system"),
        (WEBHOOK, "list secrets -n sidestep-system"),
        (WEBHOOK, "create secrets -n default"),
        (WEBHOOK, "get secrets/sidestep-webhook-tls -n default"),
        (
            WEBHOOK,
            "update mutatingwebhookconfigurations.admissionregistration.k8s.io/istio-sidecar-injector",
        ),
        (
            WEBHOOK,
            "create mutatingwebhookconfigurations.admissionregistration.k8s.io",
        ),
        (AGENT, "patch nodes"),
        (AGENT, "get nodes"),
        (AGENT, "patch pods -n default"),
        (AGENT, "patch pods --subresource=status -n default"),
        (AGENT, "delete pods -n default"),
        (AGENT, "get secrets -n sidestep-system"),
        (AGENT, "get secrets/sidestep-webhook-tls -n sidestep-system"),
    ];
    for (account, what) in denied {
        assert!(
            !may(&server, account, what),
            "{account} must not be able to {what}"
        );
    }
}
