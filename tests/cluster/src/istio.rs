//! Istio as users install it, with the stock Envoy as its sidecar.

use std::{process::Output, time::Duration};

use anyhow::ensure;
use serde_json::json;

use super::{
    Cluster,
    config::{NETWORK, NETWORKS, PLUGINS},
    images,
    kubectl::{self, Kubectl},
    place::Place,
    room::until,
};
use sidestep_kit::process::eventually;

/// Istio's version, which is also its images' tag.
pub const VERSION: &str = "1.31.1";

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

/// Installs Istio, or installs it again, and waits until it injects.
pub fn install(kubectl: &Kubectl, place: &Place) -> anyhow::Result<()> {
    install_with(kubectl, place, "default", &[])
}

/// A control plane beside the first, which goes when the value is dropped. Pods with its sidecars must be gone by then.
#[derive(Debug)]
pub struct Revision<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl Drop for Revision<'_> {
    fn drop(&mut self) {
        let words = ["uninstall", "--revision", self.name, "--skip-confirmation"];
        if let Err(error) = succeed(self.cluster.place(), &words) {
            eprintln!("the revision {} was not removed: {error:#}", self.name);
        }
    }
}

impl Cluster {
    /// Installs another revision of Istio's control plane, with these further `--set` values.
    pub fn revision<'a>(&'a self, name: &'a str, more: &[&str]) -> Revision<'a> {
        let revision = Revision {
            cluster: self,
            name,
        };
        let setting = format!("revision={name}");
        let more = [&[setting.as_str()], more].concat();
        let installed = install_with(self.admin(), self.place(), name, &more);
        installed.unwrap_or_else(|error| panic!("{error:#}"));
        revision
    }
}

/// A control plane whose pods istio-cni redirects, and istio-cni on the node; both go when the value is dropped.
#[derive(Debug)]
pub struct IstioCni<'a> {
    cluster: &'a Cluster,
    _revision: Revision<'a>,
}

/// Its DaemonSet.
const DAEMON: &str = "-n istio-system daemonset/istio-cni-node";

impl Cluster {
    /// Installs both, with these further `--set` values.
    pub fn istio_cni<'a>(&'a self, name: &'a str, more: &[&str]) -> IstioCni<'a> {
        let place = self.place();
        let image = images::archive(place, "cni");
        let imported = image.and_then(|image| images::import(place, self.host(), &image));
        imported.unwrap_or_else(|error| panic!("{error:#}"));
        let folder =
            |key: &str, name: &str| format!("values.cni.{key}={}", place.file(name).display());
        let [plugins, networks] = [folder("cniBinDir", PLUGINS), folder("cniConfDir", NETWORKS)];
        let own = [
            "components.cni.enabled=true",
            "values.pilot.cni.enabled=true",
            "values.cni.resources.requests.cpu=1m",
            &plugins,
            &networks,
        ];
        let revision = self.revision(name, &[&own, more].concat());
        let cni = IstioCni {
            cluster: self,
            _revision: revision,
        };
        cni.started();
        cni
    }
}

impl IstioCni<'_> {
    /// Takes istio-cni off the node; the control plane stays, and tells pods that it is there.
    pub fn stop(&self) {
        self.on_nodes("none");
        until("istio-cni's plugin is not in the node's network", || {
            !self.is_chained()
        });
    }

    /// Brings it back.
    pub fn start(&self) {
        self.on_nodes("linux");
        self.started();
    }

    fn on_nodes(&self, os: &str) {
        let patch =
            json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": os}}}}});
        self.cluster
            .kubectl(&format!("patch {DAEMON} --patch {patch}"));
    }

    fn started(&self) {
        self.cluster
            .kubectl(&format!("rollout status {DAEMON} --timeout=120s"));
        until("istio-cni's plugin is in the node's network", || {
            self.is_chained()
        });
    }

    fn is_chained(&self) -> bool {
        let file = self.cluster.place().file(NETWORKS).join(NETWORK);
        std::fs::read_to_string(file).is_ok_and(|text| text.contains("istio-cni"))
    }
}

impl Drop for IstioCni<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        self.cluster.kubectl(&format!("delete {DAEMON}"));
    }
}

fn install_with(
    kubectl: &Kubectl,
    place: &Place,
    revision: &str,
    more: &[&str],
) -> anyhow::Result<()> {
    let mut words = vec!["install", "--skip-confirmation"];
    for value in SETTINGS.iter().chain(more) {
        words.extend(["--set", value]);
    }
    succeed(place, &words)?;
    // Ready is a bit before reachable: its service has to be known to the node's rules.
    let labels = json!({"sidecar.istio.io/inject": "true", "istio.io/rev": revision});
    let probe = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "probe-", "labels": labels},
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

fn succeed(place: &Place, arguments: &[&str]) -> anyhow::Result<()> {
    let output = istioctl(place, arguments, "")?;
    ensure!(
        output.status.success(),
        "istioctl {}: {}",
        arguments[0],
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
