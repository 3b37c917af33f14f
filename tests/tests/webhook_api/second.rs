//! A second webhook, which the API server asks after ours, and changes what ours made of a pod: ours is asked again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, needs, parts, process::Running};
use tempfile::TempDir;

use crate::{
    cluster::{ADDRESSES, injected, installed, is_gated, mutated, route},
    replica::Replica,
    until,
};

const ORIGINAL: &str = "SIDESTEP_ISTIO_INIT";

struct Second {
    folder: TempDir,
    _running: Running,
}

impl Second {
    fn start(server: &ApiServer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let [certificate, key] = certificate(folder.path());
        let mut command = server.namespace().command("python3");
        command
            .arg(parts::workspace().join("tests/tests/webhook_api/second_webhook.py"))
            .arg(ADDRESSES[1])
            .args([&certificate, &key, &at("changes")])
            .stderr(Stdio::null());
        let second = Self {
            _running: Running::start(&mut command),
            folder,
        };
        second.changes(&json!([]));
        let ca = fs::read(certificate).expect("a certificate");
        let registration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "zz-second"},
            "webhooks": [{
                "name": "second.example.com",
                "clientConfig": {
                    "url": format!("https://{}:9443/", ADDRESSES[1]),
                    "caBundle": base64(&ca),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
            }],
        });
        server
            .feed("create", &registration)
            .expect("a registration");
        second
    }

    /// What it does from now on.
    fn changes(&self, patch: &Value) {
        let folder = self.folder.path();
        // Whole at each moment.
        fs::write(folder.join("part"), patch.to_string()).expect("a file");
        fs::rename(folder.join("part"), folder.join("changes")).expect("a file");
    }
}

fn certificate(folder: &Path) -> [PathBuf; 2] {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-days", "1", "-subj", "/CN=second"])
        .args(["-addext", &format!("subjectAltName=IP:{}", ADDRESSES[1])])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    parts::finish(&mut openssl).expect("a certificate");
    [certificate, key]
}

fn base64(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut command = Command::new("base64");
    let mut child = command
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64 is part of coreutils");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(bytes).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text")
}

fn with(field: &str, value: &Value) -> Value {
    let path = format!("/spec/initContainers/INIT/{field}");
    json!({"op": "add", "path": path, "value": value})
}

/// What its author is told; nothing where that is nothing.
fn warned(server: &ApiServer) -> String {
    let command = "create --dry-run=server --warnings-as-errors";
    let said = server.feed(command, &injected("warned"));
    said.err().unwrap_or_default()
}

#[needs(apiserver, part("helm"), "openssl", "python3")]
fn a_gate_that_a_second_webhook_changes_is_made_whole_again_or_left_or_refused() {
    let server = installed(&[]);
    let replica = Replica::start(&server, "one", ADDRESSES[0], &["--avoid-unsupported-nodes"]);
    replica.ready();
    route(&server, &ADDRESSES[..1]);
    let second = Second::start(&server);
    let mut gate = Value::Null;
    until("pods are gated", || {
        mutated(&server, "probe").is_ok_and(|pod| {
            gate = pod["spec"]["initContainers"][0].clone();
            is_gated(&pod)
        })
    });
    assert!(gate["env"].to_string().contains(ORIGINAL), "{gate:#}");
    assert_eq!(warned(&server), "");

    // It goes its way, and does not matter.
    let proxy = json!({"name": "HTTPS_PROXY", "value": "proxy.example:3128"});
    second.changes(&json!([
        with("image", &json!("mirror.example/istio/proxyv2:1.31.1")),
        with("env/-", &proxy),
    ]));
    let pod = mutated(&server, "harmless").expect("a pod");
    let init = &pod["spec"]["initContainers"][0];
    assert!(is_gated(&pod), "{pod:#}");
    assert_eq!(init["image"], "mirror.example/istio/proxyv2:1.31.1");
    assert_eq!(init["args"], gate["args"]);
    assert_eq!(warned(&server), "");

    // It takes from the gate what makes it one.
    let wrap = with("command", &json!(["/vault/vault-env"]));
    let hide = with("envFrom", &json!([{"configMapRef": {"name": "corporate"}}]));
    let root = with("securityContext/runAsUser", &json!(0));
    for change in [&wrap, &hide, &root] {
        second.changes(&json!([change]));
        let pod = mutated(&server, "whole").expect("a pod");
        assert!(is_gated(&pod), "{change}: {pod:#}");
        assert_eq!(pod["spec"]["initContainers"][0], gate, "{change}");
        let said = warned(&server);
        assert!(said.contains("the gate is made whole again"), "{said}");
    }

    // It gives the pod what ours leaves to Istio.
    second.changes(&json!([{
        "op": "add", "path": "/metadata/annotations/k8s.v1.cni.cncf.io~1networks", "value": "macvlan"}]));
    let pod = mutated(&server, "left").expect("a pod");
    let plain = &injected("left")["spec"]["initContainers"][0];
    assert_eq!(pod["spec"]["initContainers"][0]["args"], plain["args"]);
    let context = "securityContext";
    assert_eq!(pod["spec"]["initContainers"][0][context], plain[context]);
    assert_eq!(
        pod["metadata"]["labels"]["sidestep.dev/accelerated"],
        Value::Null
    );
    let why = pod["metadata"]["annotations"]["sidestep.dev/left-alone"].as_str();
    assert!(
        why.is_some_and(|why| why.starts_with("several-networks: ")),
        "{why:?}"
    );

    // It takes away what the gate was made of, too: nothing would redirect the pod.
    second.changes(&json!([with("env", &json!([])), wrap]));
    let refused = mutated(&server, "refused").expect_err("it is refused");
    assert!(refused.contains("/vault/vault-env"), "{refused}");
}
