//! What the API server lets the two service accounts do.

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, needs};

use crate::{helm::BUNDLE, installed, policy::assert_refused, until_refused};

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

const AS: &str = "--as=system:serviceaccount:sidestep-system:sidestep-webhook";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/sidestep-webhook?dryRun=All";

/// Changes a registration.
type Change<'a> = &'a dyn Fn(&mut Value);

/// What the webhook's account is told when it writes a registration.
fn register(server: &ApiServer, registration: &Value) -> Result<String, String> {
    server.feed(&format!("replace {AS} --raw {REGISTRATION}"), registration)
}

/// To be able to write a registration is to be able to read and change every object of the cluster.
#[needs(apiserver, part("helm"))]
fn with_the_webhooks_token_nothing_of_its_registration_changes_but_the_bundle() {
    let server = installed();
    let registration = server.get("mutatingwebhookconfiguration sidestep-webhook");
    let with = |change: Change<'_>| {
        let mut changed = registration.clone();
        change(&mut changed);
        changed
    };
    let everything = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]);
    let rules = with(&|r| r["webhooks"][0]["rules"] = everything.clone());
    until_refused("this changes rules", || register(&server, &rules));
    let selector = json!({"matchLabels": {"no": "pod"}});
    let changes: [(&str, Change<'_>); 9] = [
        ("this changes failurePolicy", &|r| {
            r["webhooks"][0]["failurePolicy"] = "Fail".into();
        }),
        ("this changes namespaceSelector", &|r| {
            r["webhooks"][0]["namespaceSelector"] = selector.clone();
        }),
        ("this changes objectSelector", &|r| {
            r["webhooks"][0]["objectSelector"] = selector.clone();
        }),
        ("this changes reinvocationPolicy", &|r| {
            r["webhooks"][0]["reinvocationPolicy"] = "Never".into();
        }),
        ("this changes timeoutSeconds", &|r| {
            r["webhooks"][0]["timeoutSeconds"] = 1.into();
        }),
        ("where reviews go", &|r| {
            r["webhooks"][0]["clientConfig"]["service"]["name"] = "mine".into();
        }),
        ("where reviews go", &|r| {
            r["webhooks"][0]["clientConfig"] = json!({"url": "https://mine.example/"});
        }),
        ("this changes name", &|r| {
            let mut another = r["webhooks"][0].clone();
            another["name"] = "another.sidestep.dev".into();
            let webhooks = r["webhooks"].as_array_mut();
            webhooks.expect("a list").push(another);
        }),
        ("this changes metadata", &|r| {
            r["metadata"]["labels"]["mine"] = "true".into();
        }),
    ];
    for (text, change) in changes {
        assert_refused(&register(&server, &with(change)), text);
    }
    let bundle = with(&|r| r["webhooks"][0]["clientConfig"]["caBundle"] = BUNDLE.into());
    register(&server, &bundle).expect("that is what it is for");
}

#[needs(apiserver, part("helm"))]
fn with_the_webhooks_token_nothing_of_a_node_changes_but_two_labels() {
    let server = installed();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "marked", "labels": {"zone": "a"}}});
    server.feed("apply", &node).expect("an administrator may");
    let patch = |change: Value| {
        let change = format!("--patch={change}");
        let words = [
            "patch",
            "node",
            "marked",
            "--dry-run=server",
            "--type=merge",
            AS,
            // kubectl reads first, which the account may not.
            "--as-group=system:masters",
        ];
        server.kubectl(words.into_iter().chain([change.as_str()]))
    };
    let label = |key: &str, value: Value| patch(json!({"metadata": {"labels": {key: value}}}));
    until_refused("sets two labels", || label("mine", json!("true")));
    for (key, value) in [
        ("node-role.kubernetes.io/control-plane", json!("")),
        ("zone", json!("b")),
        ("zone", json!(null)),
        ("sidestep.dev/accelerated", json!("true")),
    ] {
        assert_refused(&label(key, value), &format!("this changes {key}"));
    }
    for more in [
        json!({"spec": {"unschedulable": true}}),
        json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}),
        json!({"metadata": {"annotations": {"a": "b"}}}),
        json!({"metadata": {"finalizers": ["mine/stays"]}}),
    ] {
        assert_refused(&patch(more), "this changes more");
    }
    for key in ["sidestep.dev/unsupported", "sidestep.dev/without-agent"] {
        label(key, json!("kernel")).expect("that is what it is for");
    }
}

/// A role that lets an account create cannot say what.
#[needs(apiserver, part("helm"))]
fn with_the_webhooks_token_no_other_accounts_token_is_made() {
    let server = installed();
    let create = |object: &Value| server.feed(&format!("create --dry-run=server {AS}"), object);
    let secret = |name: &str, kind: &str| {
        let account = "kubernetes.io/service-account.name";
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": name, "namespace": "sidestep-system", "annotations": {account: "sidestep-agent"}},
        })
    };
    let token = "kubernetes.io/service-account-token";
    until_refused("no other", || create(&secret("mine", token)));
    for refused in [
        secret("mine", "Opaque"),
        secret("sidestep-webhook-tls", token),
    ] {
        assert_refused(&create(&refused), "no other");
    }
    create(&secret("sidestep-webhook-tls", "Opaque")).expect("that is what it is for");
    let lease = |name: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "sidestep-system"}, "spec": {},
        })
    };
    assert_refused(&create(&lease("mine")), "no other");
    create(&lease("sidestep-webhook")).expect("that is what it is for");
}
