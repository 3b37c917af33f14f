//! What Sidestep says on a pod stays, whoever asks and by whichever way; other pods do not notice the policy.

use std::sync::Arc;

use serde_json::json;
use sidestep_kit::{apiserver::ApiServer, needs};

use crate::{
    installed,
    pods::{forged, gated, injected, plain},
    until_refused,
};

const LABEL: &str = "sidestep.dev/accelerated";
const STAYS: &str = "what Sidestep decided about a pod stays as long as the pod, but this changes";
const ONLY_SIDESTEP: &str = "only Sidestep sets the label sidestep.dev/accelerated";
const WITHOUT_WARNING: &str = "create --dry-run=server --warnings-as-errors";
const BINDING: &str = "a binding must not bring labels or annotations of Sidestep to a pod";

/// The API server compiles policies some time after they were created.
pub(crate) fn wait_until_in_force(server: &ApiServer) {
    until_refused(ONLY_SIDESTEP, || {
        server.feed(WITHOUT_WARNING, &forged("probe"))
    });
    until_refused(BINDING, || {
        bind(server, "nobody", &json!({(LABEL): "true"}))
    });
}

fn bind(server: &ApiServer, pod: &str, words: &serde_json::Value) -> Result<String, String> {
    bind_with(server, pod, words, words)
}

fn bind_with(
    server: &ApiServer,
    pod: &str,
    labels: &serde_json::Value,
    annotations: &serde_json::Value,
) -> Result<String, String> {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "labels": labels, "annotations": annotations},
        "target": {"kind": "Node", "name": "node-1"},
    });
    let path = format!("create --raw /api/v1/namespaces/default/pods/{pod}/binding");
    server.feed(&path, &binding)
}

/// Three letters or digits that stand for a number.
fn number(n: usize) -> String {
    const DIGITS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let digits = [n / 62 / 62, n / 62 % 62, n % 62].map(|digit| char::from(DIGITS[digit]));
    digits.iter().collect()
}

/// Creates a pod, which must be allowed.
fn create(server: &ApiServer, pod: &serde_json::Value) {
    server.feed("create", pod).expect("the pod can be created");
}

fn patch(
    server: &ApiServer,
    pod: &str,
    subresource: &str,
    patch: &serde_json::Value,
) -> Result<String, String> {
    let subresource = match subresource {
        "" => vec![],
        name => vec![format!("--subresource={name}")],
    };
    let mut words = vec![
        "patch".to_owned(),
        "pod".to_owned(),
        pod.to_owned(),
        "--type=strategic".to_owned(),
    ];
    words.extend(subresource);
    words.push(format!("--patch={patch}"));
    server.kubectl(words)
}

#[track_caller]
pub(crate) fn assert_refused(outcome: &Result<String, String>, text: &str) {
    match outcome {
        Ok(done) => panic!("this was allowed: {done}"),
        Err(error) => assert!(error.contains(text), "refused with other words: {error}"),
    }
}

/// Its author is told that the label means nothing, and the pod is made.
#[track_caller]
fn assert_warned(server: &ApiServer, pod: &serde_json::Value) {
    assert_refused(&server.feed(WITHOUT_WARNING, pod), ONLY_SIDESTEP);
    let mut unnamed = pod.clone();
    unnamed["metadata"]["generateName"] = "warned-".into();
    unnamed["metadata"]["name"] = json!(null);
    assert_allowed(server.feed("create", &unnamed));
}

#[track_caller]
fn assert_allowed(outcome: Result<String, String>) {
    if let Err(error) = outcome {
        panic!("this was refused: {error}");
    }
}

macro_rules! on_the_installed_server {
    ($(fn $name:ident($server:ident) $body:block)*) => {
        $(#[needs(apiserver, part("helm"))]
        fn $name() {
            let server = installed();
            let $server: &Arc<ApiServer> = &server;
            $body
        })*
    };
}

on_the_installed_server! {
    fn a_pod_as_the_webhook_makes_it_is_created(server) {
        create(server, &gated("accepted"));
    }

    fn a_pod_without_init_containers_or_labels_is_created(server) {
        create(server, &plain("without-labels"));
    }

    fn a_pod_that_brings_our_label_without_a_gate_is_made_with_a_warning(server) {
        assert_warned(server, &forged("without-init-containers"));
        let mut pod = injected("with-istio-init");
        pod["metadata"]["labels"][LABEL] = "true".into();
        assert_warned(server, &pod);
    }

    fn what_only_resembles_a_gate_is_none(server) {
        let whole = gated("resembles");
        let gate = &whole["spec"]["initContainers"][0];
        let other_name = json!({"name": "istio-init-2"});
        let no_args = json!({"args": null});
        let other_command = json!({"args": ["proxy", "--run-validation", "--skip-rule-apply"]});
        let applies_rules = json!({"args": ["istio-iptables", "--run-validation"]});
        let validates_nothing = json!({"args": ["istio-iptables", "--skip-rule-apply"]});
        for change in [other_name, no_args, other_command, applies_rules, validates_nothing] {
            let mut pod = whole.clone();
            let mut container = gate.clone();
            for (field, value) in change.as_object().expect("an object") {
                container[field] = value.clone();
            }
            pod["spec"]["initContainers"][0] = container;
            assert_warned(server, &pod);
        }
    }

    fn our_label_with_another_value_is_warned_of_even_with_a_gate(server) {
        let mut pod = gated("other-value");
        pod["metadata"]["labels"][LABEL] = "yes".into();
        assert_warned(server, &pod);
    }

    fn our_label_is_neither_added_nor_removed_nor_changed_later(server) {
        create(server, &gated("fixed"));
        create(server, &plain("bare"));
        let remove = patch(server, "fixed", "", &json!({"metadata": {"labels": {(LABEL): null}}}));
        assert_refused(&remove, STAYS);
        let change = patch(server, "fixed", "", &json!({"metadata": {"labels": {(LABEL): "false"}}}));
        assert_refused(&change, &format!("{STAYS} {LABEL}:"));
        let all = patch(server, "fixed", "", &json!({"metadata": {"labels": null}}));
        assert_refused(&all, STAYS);
        let add = patch(server, "bare", "", &json!({"metadata": {"labels": {(LABEL): "true"}}}));
        assert_refused(&add, STAYS);
    }

    fn our_label_cannot_be_forged_through_a_pods_status(server) {
        create(server, &gated("status-fixed"));
        create(server, &plain("status-bare"));
        let forge = json!({"metadata": {"labels": {(LABEL): "true"}}, "status": {"phase": "Running"}});
        assert_refused(&patch(server, "status-bare", "status", &forge), STAYS);
        let remove = json!({"metadata": {"labels": {(LABEL): null}}, "status": {"phase": "Running"}});
        assert_refused(&patch(server, "status-fixed", "status", &remove), STAYS);
    }

    fn other_ways_to_update_a_pod_do_not_change_our_label(server) {
        create(server, &plain("subresources"));
        let label = json!({"labels": {(LABEL): "true"}});
        let debug = json!({"metadata": label, "spec": {"ephemeralContainers": [{"name": "debug", "image": "debug"}]}});
        let bigger = json!({"name": "app", "resources": {"requests": {"cpu": "2m"}}});
        let resize = json!({"metadata": label, "spec": {"containers": [bigger]}});
        // The API server takes nothing but the containers from these, whatever a policy says.
        for (subresource, change) in [("ephemeralcontainers", debug), ("resize", resize)] {
            let outcome = patch(server, "subresources", subresource, &change);
            let pod = server.get("pod subresources");
            assert_eq!(pod["metadata"]["labels"], json!(null), "{subresource}: {outcome:?}");
        }
    }

    fn a_binding_cannot_bring_our_label(server) {
        create(server, &plain("unbound"));
        assert_refused(&bind(server, "unbound", &json!({(LABEL): "true"})), BINDING);
        assert_refused(&bind(server, "unbound", &json!({"sidestep.dev/shortcut": "node"})), BINDING);
        assert_allowed(bind(server, "unbound", &json!({"topology.kubernetes.io/zone": "a"})));
        assert_eq!(server.get("pod unbound")["spec"]["nodeName"], "node-1");
    }

    fn our_annotations_stay_except_that_the_shortcut_may_be_switched_off(server) {
        create(server, &gated("annotated"));
        let annotate = |key: &str, value: serde_json::Value| {
            patch(server, "annotated", "", &json!({"metadata": {"annotations": {(key): value}}}))
        };
        assert_refused(&annotate("sidestep.dev/policy", json!("out: nothing")), STAYS);
        assert_refused(&annotate("sidestep.dev/policy", json!(null)), STAYS);
        assert_refused(&annotate("sidestep.dev/shortcut-into", json!("application")), STAYS);
        assert_refused(&annotate("sidestep.dev/shortcut", json!("node")), STAYS);
        assert_refused(&annotate("sidestep.dev/shortcut", json!(null)), STAYS);
        assert_allowed(annotate("sidestep.dev/shortcut", json!("off")));
        for wider in ["pod", "namespace"] {
            assert_refused(&annotate("sidestep.dev/shortcut", json!(wider)), STAYS);
        }
    }

    fn an_accelerated_pod_lives_as_any_other(server) {
        let mut pod = gated("alive");
        pod["metadata"]["finalizers"] = json!(["example.com/last-words"]);
        create(server, &pod);
        assert_allowed(bind(server, "alive", &json!({})));
        let running = json!({"status": {"phase": "Running", "podIP": "10.0.0.7", "podIPs": [{"ip": "10.0.0.7"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_allowed(patch(server, "alive", "status", &running));
        assert_allowed(patch(server, "alive", "", &json!({"metadata": {"labels": {"app": "other"}, "annotations": {"a": "b"}}})));
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "debug"}]}});
        assert_allowed(patch(server, "alive", "ephemeralcontainers", &debug));
        assert_allowed(server.kubectl(["delete", "pod", "alive", "--wait=false", "--grace-period=0", "--force"]));
        assert_allowed(patch(server, "alive", "", &json!({"metadata": {"finalizers": null}})));
        assert_refused(&server.kubectl(["get", "pod", "alive"]), "not found");
    }

    fn a_pod_with_as_many_annotations_as_there_may_be_lives_as_any_other(server) {
        let mut pod = gated("many");
        let annotations = pod["metadata"]["annotations"].as_object_mut().expect("annotations");
        // Of their 256 KiB each takes three bytes.
        annotations.extend((0..87_000).map(|n| (number(n), "".into())));
        create(server, &pod);
        assert_allowed(patch(server, "many", "status", &json!({"status": {"phase": "Running"}})));
        assert_allowed(patch(server, "many", "", &json!({"metadata": {"annotations": {"aaa": null}}})));
        let policy = json!({"metadata": {"annotations": {"sidestep.dev/policy": "out: nothing"}}});
        assert_refused(&patch(server, "many", "", &policy), STAYS);
        let words = (0..80_000).map(|n| (number(n), "".into()));
        let words = words.collect::<serde_json::Map<_, _>>().into();
        create(server, &plain("bound-with-many"));
        assert_allowed(bind_with(server, "bound-with-many", &json!({}), &words));
    }

    fn a_pod_without_our_label_lives_as_before(server) {
        create(server, &plain("other"));
        let running = json!({"status": {"phase": "Running", "podIP": "10.0.0.8", "podIPs": [{"ip": "10.0.0.8"}]}});
        assert_allowed(patch(server, "other", "status", &running));
        // Words that mean nothing on a pod without our label.
        assert_allowed(patch(server, "other", "", &json!({"metadata": {"annotations": {"sidestep.dev/enabled": "false"}}})));
        assert_allowed(server.kubectl(["delete", "pod", "other", "--wait=false", "--grace-period=0", "--force"]));
    }
}
