//! From an empty host to a node that runs pods: which part starts when, and with what arguments.

use std::{os::unix::net::UnixStream, process::Child, thread, time::Duration};

use anyhow::Context;
use serde_json::json;

use super::{
    config::{self, CONTAINERD},
    host::Host,
    images,
    kubectl::Kubectl,
    parts::Parts,
    pki,
    place::{DNS_SERVICE, NODE, NODE_ADDRESS, PODS, Place, SERVICES},
};

/// How long any one part may take to be ready; on a busy machine some take ten times their usual second or two.
const PATIENCE: Duration = Duration::from_mins(2);

const ETCD: &str = "http://127.0.0.1:2379";

/// Starts everything and returns when pods can run; `say` is told of each step.
pub fn boot(place: &Place, host: &Host, say: &mut dyn FnMut(&str)) -> anyhow::Result<Vec<Child>> {
    let kubectl = Kubectl::new(place)?;
    pki::write(place)?;
    config::write(place)?;
    let mut parts = Parts::new(place, host);
    let etcd = [
        "--data-dir=etcd",
        "--unsafe-no-fsync",
        "--listen-peer-urls=http://127.0.0.1:2380",
    ];
    let clients = [
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
    ];
    let etcd: Vec<_> = etcd.map(str::to_owned).into_iter().chain(clients).collect();
    parts.start("etcd", &etcd)?;
    parts.start("containerd", &["--config", "containerd.toml"])?;
    parts.start("kube-apiserver", &api_server(place))?;

    say("images");
    let socket = format!("/proc/{}/root{CONTAINERD}", host.pid());
    parts.wait("containerd", "containerd answers", PATIENCE, || {
        UnixStream::connect(&socket).is_ok()
    })?;
    thread::scope(|scope| {
        let import = scope.spawn(|| images::import_all(place, host));
        say("API server");
        parts.wait(
            "kube-apiserver",
            "the API server is ready",
            PATIENCE,
            || kubectl.succeeds(&["get", "--raw", "/readyz"]),
        )?;
        clients_of_the_api(place, &mut parts)?;
        kubectl.apply(&dns_service().to_string())?;
        import.join().expect("it does not panic")
    })?;
    // Only now, so that no pod is tried without its images.
    parts.start("kubelet", &kubelet(place))?;
    say("node");
    let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    parts.wait("kubelet", "the node is Ready", PATIENCE, || {
        let status = kubectl.output(&["get", "node", NODE, "-o", ready]);
        status.is_ok_and(|status| status == "True")
    })?;
    let account = ["get", "serviceaccount", "default"];
    parts.wait(
        "kube-controller-manager",
        "service accounts are made",
        PATIENCE,
        || kubectl.succeeds(&account),
    )?;
    let list = serde_json::to_string_pretty(&parts.list())?;
    std::fs::write(place.file("parts.json"), list).context("parts.json")?;
    Ok(parts.into_children())
}

fn api_server(place: &Place) -> Vec<String> {
    let file = |name| pki::file(place, name).display().to_string();
    vec![
        format!("--etcd-servers={ETCD}"),
        "--secure-port=6443".to_owned(),
        format!("--advertise-address={NODE_ADDRESS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            file("accounts.key")
        ),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--kubelet-client-certificate={}", file("admin.crt")),
        format!("--kubelet-client-key={}", file("admin.key")),
        // The node's name is known to nobody.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

fn clients_of_the_api(place: &Place, parts: &mut Parts<'_>) -> anyhow::Result<()> {
    let config = format!("--kubeconfig={}", place.kubeconfig().display());
    let alone = "--leader-elect=false".to_owned();
    let key = pki::file(place, "accounts.key");
    let authority = pki::file(place, "ca.crt");
    parts.start(
        "kube-controller-manager",
        &[
            config.clone(),
            alone.clone(),
            format!("--service-account-private-key-file={}", key.display()),
            format!("--root-ca-file={}", authority.display()),
        ],
    )?;
    parts.start("kube-scheduler", &[config.clone(), alone])?;
    parts.start(
        "kube-proxy",
        &[
            config,
            format!("--hostname-override={NODE}"),
            "--proxy-mode=iptables".to_owned(),
            "--iptables-min-sync-period=100ms".to_owned(),
            format!("--cluster-cidr={PODS}"),
            // These belong to the whole machine.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ],
    )?;
    parts.start("coredns", &["-conf", "Corefile"])
}

fn kubelet(place: &Place) -> Vec<String> {
    vec![
        format!("--config={}", place.file("kubelet.yaml").display()),
        format!("--kubeconfig={}", place.file("node.kubeconfig").display()),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={NODE_ADDRESS}"),
        format!("--root-dir={}", place.file("kubelet").display()),
    ]
}

fn dns_service() -> serde_json::Value {
    let port =
        |protocol: &str| json!({"name": protocol.to_lowercase(), "port": 53, "protocol": protocol});
    let ports = [port("UDP"), port("TCP")];
    json!({"apiVersion": "v1", "kind": "List", "items": [{
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_SERVICE, "ports": ports},
    }, {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-node", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [NODE_ADDRESS]}],
    }]})
}
