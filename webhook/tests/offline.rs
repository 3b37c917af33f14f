//! Files through `mutate`: the same decisions, on every kind of object that holds a pod.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{fixture, mutated};
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_webhook::offline::{Document, Printed, mutate};
use sidestep_webhook::settings::Settings;

fn run(text: &str) -> Vec<Document> {
    mutate(text, "default", &Settings::default()).expect("a text to work on")
}

fn yaml(value: &Value) -> String {
    yaml_serde::to_string(value).expect("YAML")
}

fn parsed(text: &str) -> Value {
    yaml_serde::from_str(text).expect("YAML")
}

fn workload(kind: &str, path: &[&str], pod: &Value) -> Value {
    let template = json!({"metadata": pod["metadata"], "spec": pod["spec"]});
    let inner = path
        .iter()
        .rev()
        .fold(template, |inner, key| json!({*key: inner}));
    let mut object = json!({"kind": kind, "apiVersion": "x/v1", "metadata": {"name": "w"}});
    for (key, value) in inner.as_object().expect("an object") {
        object[key] = value.clone();
    }
    object
}

#[test]
fn every_kind_of_workload_has_its_template_gated() {
    let template: &[&str] = &["spec", "template"];
    let pod = fixture("client");
    let after = mutated(&pod);
    for (kind, path) in [
        ("Deployment", template),
        ("StatefulSet", template),
        ("DaemonSet", template),
        ("ReplicaSet", template),
        ("ReplicationController", template),
        ("Job", template),
        ("DeploymentConfig", template),
        ("Rollout", template),
        ("CloneSet", template),
        ("Service", template), // Knative's
        ("PodTemplate", &["template"]),
        ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
    ] {
        let documents = run(&yaml(&workload(kind, path, &pod)));
        let text = documents[0].mutated();
        assert_eq!(parsed(&text), workload(kind, path, &after), "{kind}");
        assert_eq!(documents[0].outcomes[0].what, format!("{kind} default/w"));
    }
}

/// `cat rendered/*.yaml | sidestep mutate -f -`: workloads that kube-inject wrote, and others as Helm rendered them.
#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let chart = "kind: StatefulSet\nmetadata: {name: zk}\nspec:\n  template:\n    spec:\n      containers:\n      - name: zk\n        \
                 tty: yes\n      volumes:\n      - name: scripts\n        configMap: {name: s, defaultMode: 0755}\n";
    let mut pod = fixture("client");
    pod["spec"]["volumes"][0]["configMap"] = json!({"name": "s", "defaultMode": 493});
    pod["spec"]["containers"][0]["tty"] = true.into();
    let injected = yaml(&pod)
        .replace("defaultMode: 493", "defaultMode: 0755")
        .replace("tty: true", "tty: yes");
    assert!(injected.contains("0755") && injected.contains("yes"));
    let documents = run(&format!("{chart}---\n{injected}"));
    assert_eq!(documents[0].mutated(), chart, "to the letter");
    assert_eq!(documents[0].outcomes[0].decision.word(), "no-istio-init");
    let text = documents[1].mutated();
    assert!(text.contains("defaultMode: 0755\n") && text.contains("tty: yes\n"));
    let read = sidestep_contract::documents::documents(&text).expect("a document");
    assert_eq!(read[0].value, mutated(&pod));
}

#[test]
fn an_istio_init_where_no_pod_is_known_is_named() {
    let mut odd =
        json!({"kind": "SparkApplication", "apiVersion": "x/v1", "metadata": {"name": "w"}});
    odd["spec"]["driver"] = fixture("client")["spec"].clone();
    let documents = run(&yaml(&json!({"kind": "List", "items": [odd]})));
    assert!(documents[0].outcomes.is_empty());
    let place = "/items/0/spec/driver/initContainers/0".to_owned();
    let what = "SparkApplication default/w".to_owned();
    assert_eq!(documents[0].unknown, [(what, place)]);
}

#[test]
fn lists_are_opened_and_other_documents_stay_to_the_letter() {
    let service = "# a comment\napiVersion: v1\nkind: Service\nmetadata: {name: s}   # another\n";
    let list = json!({
        "kind": "List",
        "apiVersion": "v1",
        "items": [{"kind": "Secret", "apiVersion": "v1"}, fixture("client")],
    });
    let documents = run(&format!("---\n{service}---\n{}", yaml(&list)));
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0].mutated(), service);
    assert!(documents[0].outcomes.is_empty());
    let after = parsed(&documents[1].mutated());
    assert_eq!(after["items"][1], mutated(&fixture("client")));
    assert_eq!(after["items"][0], list["items"][0]);
}

#[test]
fn the_items_of_a_pod_list_need_no_kind() {
    let mut pod = fixture("client");
    pod.as_object_mut().expect("an object").remove("kind");
    let list = json!({"kind": "PodList", "apiVersion": "v1", "items": [pod]});
    let documents = run(&yaml(&list));
    let after = parsed(&documents[0].mutated());
    assert_eq!(
        after["items"][0]["metadata"]["labels"][keys::ACCELERATED],
        "true"
    );
    assert_eq!(documents[0].outcomes[0].what, "Pod demo/client");
}

#[test]
fn what_was_mutated_comes_out_as_it_went_in() {
    let once = run(&yaml(&fixture("client")))[0].mutated();
    assert_eq!(run(&once)[0].mutated(), once);
}

#[test]
fn a_namespace_in_the_text_is_heard() {
    let namespace = json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": "demo", "labels": {keys::ENABLED: "false"}},
    });
    let pod = fixture("client");
    let documents = run(&format!("{}---\n{}", yaml(&pod), yaml(&namespace)));
    assert_eq!(documents[0].outcomes[0].decision.word(), "opted-out");
}

#[test]
fn json_stays_json() {
    let text = fixture("client").to_string();
    let documents = run(&format!("{text}\n{text}"));
    assert_eq!(documents.len(), 2);
    let after = documents[1].mutated();
    assert!(after.starts_with("{\n"));
    assert_eq!(parsed(&after), mutated(&fixture("client")));
}

#[test]
fn a_diff_shows_what_changes() {
    let text = yaml(&fixture("client"));
    let printed = Printed::new(&text, &run(&text));
    let diff = printed.diff("/app.yaml", &text);
    assert!(
        diff.starts_with("--- a/app.yaml\n+++ b/app.yaml\n"),
        "{diff}"
    );
    assert!(diff.contains("\n+    - --run-validation\n"), "{diff}");
    assert!(diff.contains("\n-        - NET_ADMIN\n"), "{diff}");
}

#[test]
fn the_paths_of_a_patch_start_at_the_top_of_the_document() {
    let object = workload("Deployment", &["spec", "template"], &fixture("client"));
    let patch = run(&yaml(&object))[0].patch_text();
    assert!(
        patch.contains("path: /spec/template/metadata/labels/sidestep.dev~1accelerated"),
        "{patch}"
    );
}

#[test]
fn an_error_names_document_object_and_field() {
    let settings = Settings::default();
    let error = |text: &str| {
        let error = mutate(text, "default", &settings).expect_err("bad input");
        error.to_string()
    };
    let bad = "kind: A\n---\nkind: Pod\nmetadata: {name: p}\nspec: {hostNetwork: 5}\n";
    let message = error(bad);
    assert!(
        message.starts_with("document 2: Pod default/p: "),
        "{message}"
    );
    assert!(message.contains("spec.hostNetwork"), "{message}");
    assert!(error("a: [").starts_with("document 1: not valid YAML"));
    assert!(error("{\"a\":1} {").starts_with("document 2: not valid JSON"));
}
