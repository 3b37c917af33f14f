//! Istio as users install it, with the stock Envoy as its sidecar.

use std::{process::Output, time::Duration};

use anyhow::ensure;
use serde_json::json;

use super::{
    kubectl::{self, Kubectl},
    place::Place,
};
use crate::process::eventually;

/// Istio's version, which is also its images' tag.
pub const VERSION: &str = "1.31.1";

/// Istio's namespace.
pub const NAMESPACE: &str = "istio-system";

/// The stock Envoy has none of Istio's own filters, so istiod must not send them; then it accepts all that it is sent.
const SETTINGS: [&str; 10] = [
    "profile=minimal",
    "hub=sidestep.test/istio",
    "tag=1.31.1",
    "values.global.imagePullPolicy=Never",
    "values.pilot.env.PILOT_ENABLE_METADATA_EXCHANGE=false",
    "values.pilot.env.PILOT_ENABLE_ALPN_FILTER=false",
    "values.telemetry.enabled=false",
    // Many pods fit on a small machine.
    "values.global.proxy.resources.requests.cpu=1m",
    "values.global.proxy.resources.requests.memory=1Mi",
    // Where a namespace asks for an access log.
    "meshConfig.accessLogEncoding=JSON",
];

/// The manifests of an installation, with further `--set` values.
pub fn manifests(place: &Place, more: &[&str]) -> anyhow::Result<String> {
    let program = place.program("istioctl")?;
    let mut command = kubectl::in_network(place, &program)?;
    command.args(["manifest", "generate"]);
    for value in SETTINGS.iter().chain(more) {
        command.args(["--set", value]);
    }
    let output = kubectl::run(command, "")?;
    ensure!(
        output.status.success(),
        "istioctl manifest generate: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Installs Istio and waits until it injects.
pub fn install(kubectl: &Kubectl, place: &Place) -> anyhow::Result<()> {
    let manifests = manifests(place, &[])?;
    let namespace =
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n");
    kubectl.apply(&(namespace + &manifests))?;
    kubectl.output(&[
        "-n",
        NAMESPACE,
        "rollout",
        "status",
        "deployment/istiod",
        "--timeout=120s",
    ])?;
    // Ready is a bit before reachable: its service has to be known to the node's rules.
    let probe = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "probe-", "labels": {"sidecar.istio.io/inject": "true"}},
        "spec": {"containers": [{"name": "app", "image": "none"}]},
    });
    let arguments = ["create", "--dry-run=server", "-o", "name", "-f", "-"];
    let mut last = String::new();
    let injects = eventually(Duration::from_mins(1), || {
        let output = kubectl.run(&arguments, &probe.to_string());
        output.is_ok_and(|output| {
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success()
        })
    });
    ensure!(injects, "istiod does not inject: {}", last.trim());
    Ok(())
}

/// Runs istioctl against the cluster.
pub fn istioctl(place: &Place, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    let mut command = kubectl::in_network(place, &place.program("istioctl")?)?;
    command.args(arguments);
    kubectl::run(command, input)
}
