//! `sidestep bugreport` from a desk: there is no kubelet, so there are no logs, which the archive says.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, desk::sidestep, needs, parts};

use crate::world::{SIDESTEP, agent, node};

/// What is planted wherever people put things that nobody else may see.
const SECRET: &str = "hunter2-hunter2";

/// A cluster with Sidestep's objects and the secret in each.
fn cluster() -> ApiServer {
    let server = ApiServer::start();
    let file = parts::workspace().join("manifests/install.yaml");
    // So, and not by the server, the whole object is in an annotation, too.
    let mut text = fs::read_to_string(file).expect("the chart");
    let variable = "            - name: RUST_LOG\n";
    assert!(text.contains(variable), "the Deployment has a variable");
    let planted = format!("            - {{name: TOKEN, value: {SECRET}}}\n{variable}");
    text = text.replace(variable, &planted);
    let planted = tempfile::Builder::new().suffix(".yaml").tempfile();
    let planted = planted.expect("a file");
    fs::write(planted.path(), text).expect("it can be written");
    server.must(&format!(
        "apply --server-side=false -f {}",
        planted.path().display()
    ));
    node(&server, "one", "amd64", "6.1.0", &json!({}));
    server.must(&format!("annotate node one token={SECRET}"));
    agent(&server, "one");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sidestep-webhook-tls", "namespace": SIDESTEP},
        "stringData": {"tls.key": SECRET, "tls.crt": SECRET},
    });
    server.feed("create", &secret).expect("a Secret");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "sidestep-webhook-x", "namespace": SIDESTEP, "annotations": {"token": SECRET},
            "labels": {"app.kubernetes.io/part-of": "sidestep"},
        },
        "spec": {"nodeName": "one", "containers": [{
            "name": "webhook", "image": "webhook", "env": [{"name": "TOKEN", "value": SECRET}],
        }]},
    });
    server.feed("create", &pod).expect("a pod");
    server
}

#[needs(apiserver)]
fn an_archive_holds_what_is_known_and_no_secret() {
    let server = cluster();
    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("report.tar.gz");
    let said = sidestep(&server, &format!("bugreport -o {}", archive.display()));
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(&archive).arg("-C").arg(folder.path());
    parts::finish(&mut tar).expect("it is an archive");
    let report = folder.path().join("sidestep-bugreport");
    let read = |name: &str| {
        let text = fs::read_to_string(report.join(name));
        text.unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let json = |name: &str| serde_json::from_str::<Value>(&read(name)).expect("JSON");

    // It is found only where it may be: the test would notice a file that is not there.
    assert!(
        server
            .must(&format!("get deployments -n {SIDESTEP} -o json"))
            .contains(SECRET)
    );
    let mut grep = Command::new("grep");
    let found = grep.args(["-r", SECRET]).arg(&report).output();
    let found = found.expect("grep starts");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");

    assert_eq!(
        json("nodes.json")[0]["status"]["nodeInfo"]["kernelVersion"],
        "6.1.0"
    );
    let variables =
        &json("deployments.json")[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    let variables = variables.as_array().expect("variables");
    assert!(
        variables.contains(&json!({"name": "TOKEN"})),
        "{variables:?}"
    );
    assert_eq!(
        json("daemonsets.json")[0]["metadata"]["name"],
        "sidestep-agent"
    );
    assert_eq!(
        json("mutatingwebhookconfigurations.json")[0]["webhooks"][0]["name"],
        "pods.sidestep.dev"
    );
    assert_eq!(json("check.json")["level"], "failure");
    assert_eq!(json("pods.json").as_array().map(Vec::len), Some(2));
    assert_eq!(json("events.json"), json!([]));
    let errors = read("errors.txt");
    for missing in ["agents/one.json: ", "logs/sidestep-webhook-x.webhook.log: "] {
        assert!(errors.contains(missing), "{errors}");
    }
}
