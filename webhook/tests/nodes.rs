//! Where pods may run: which nodes a cluster has, which of them run an agent, and what pods demand of a node.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::sync::Arc;

use common::{fixture, typed};
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_webhook::cluster::{Agent, Cluster, Facts, Namespace, Node, Volumes};
use sidestep_webhook::decide::{Decision, decide};
use sidestep_webhook::settings::Settings;

/// A node for Linux on amd64 with these labels.
fn node(name: &str, agent: Agent, labels: &[(&str, &str)]) -> (String, Node) {
    let own = [
        (keys::OS, "linux"),
        (keys::ARCHITECTURE, "amd64"),
        ("kubernetes.io/hostname", name),
    ];
    let labels = own.iter().chain(labels);
    let labels = labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let facts = Facts {
        name: name.to_owned(),
        labels: labels.collect(),
        taints: Vec::new(),
    };
    let node = Node {
        facts: facts.into(),
        agent,
    };
    (name.to_owned(), node)
}

fn of(nodes: impl IntoIterator<Item = (String, Node)>) -> Cluster {
    Cluster {
        nodes: Some(nodes.into_iter().collect()),
        ..Cluster::default()
    }
}

/// A cluster with a ready agent on these nodes, and one that cannot have any.
fn on(nodes: &[&str]) -> Cluster {
    let fargate = node("fargate", Agent::Missing, &[(keys::UNSUPPORTED, "virtual")]);
    of(nodes
        .iter()
        .map(|name| node(name, Agent::Ready, &[]))
        .chain([fargate]))
}

fn in_cluster(pod: &Value, cluster: &Cluster) -> &'static str {
    let settings = Settings::default();
    let namespace = Namespace::default();
    let verdict = decide(&typed(pod), Some(&namespace), cluster, &settings);
    verdict.decision.word()
}

fn bound_to(node: &str) -> Value {
    let mut pod = fixture("client");
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let terms = json!([{"matchFields": [field]}]);
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({ "nodeSelectorTerms": terms });
    pod
}

#[test]
fn no_agent_anywhere_leaves_the_pod() {
    assert_eq!(in_cluster(&fixture("client"), &on(&[])), "no-agent");
    assert_eq!(in_cluster(&fixture("client"), &on(&["a"])), "accelerated");
}

#[test]
fn pods_wait_for_most_of_the_agents_that_should_be_ready() {
    let without = |word| [(keys::WITHOUT_AGENT, word)];
    let word = |ready: usize, others: &[(String, Node)]| {
        let ready = (0..ready).map(|n| node(&format!("ready-{n}"), Agent::Ready, &[]));
        in_cluster(&fixture("client"), &of(ready.chain(others.iter().cloned())))
    };
    let not_ready = node("n", Agent::NotReady, &[]);
    assert_eq!(word(8, std::slice::from_ref(&not_ready)), "too-few-agents");
    assert_eq!(word(9, &[not_ready]), "accelerated");
    // One for long not ready counts as before, or the last good node would get every pod.
    let labelled = node("n", Agent::NotReady, &without("not-ready"));
    assert_eq!(word(8, &[labelled]), "too-few-agents");
    // Before they are labelled, pods may come to nodes outside of a canary pool; then no more.
    let outside = [0, 1].map(|n| node(&format!("{n}"), Agent::Missing, &[]));
    assert_eq!(word(2, &outside), "too-few-agents");
    let outside = [0, 1].map(|n| node(&format!("{n}"), Agent::Missing, &without("missing")));
    assert_eq!(word(2, &outside), "accelerated");
    for never in [
        node("n", Agent::NotReady, &without("cannot-run")),
        node("n", Agent::Missing, &[(keys::UNSUPPORTED, "virtual")]),
        node("n", Agent::Lately, &[]),
    ] {
        assert_eq!(
            word(1, std::slice::from_ref(&never)),
            "accelerated",
            "{never:?}"
        );
    }
}

/// A node of each kind: `good` in pool `a`, others in pool `b`.
fn pools() -> Cluster {
    let mut cluster = of([
        node("good", Agent::Ready, &[("pool", "a"), ("cores", "8")]),
        node("tainted", Agent::Ready, &[("pool", "t"), ("cores", "32")]),
        node(
            "old",
            Agent::Missing,
            &[("pool", "b"), (keys::UNSUPPORTED, "kernel-too-old")],
        ),
        node(
            "v1",
            Agent::NotReady,
            &[("pool", "b"), (keys::WITHOUT_AGENT, "cannot-run")],
        ),
    ]);
    let tainted = cluster
        .nodes
        .as_mut()
        .and_then(|nodes| nodes.get_mut("tainted"));
    let tainted = Arc::make_mut(&mut tainted.expect("it is there").facts);
    tainted.taints = serde_json::from_value(json!([
        {"key": "gpu", "value": "yes", "effect": "NoSchedule"},
        {"key": "slow", "effect": "PreferNoSchedule"},
    ]))
    .expect("taints");
    let pool = |pool: &str| {
        let selector = json!({"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "pool", "operator": "In", "values": [pool]}]}]});
        serde_json::from_value(selector).expect("a node selector")
    };
    let claim = |namespace: &str, name: &str, volume: &str| {
        ((namespace.to_owned(), name.to_owned()), volume.to_owned())
    };
    cluster.volumes = Arc::new(Volumes {
        claims: [
            claim("demo", "near", "in-a"),
            claim("demo", "far", "in-b"),
            claim("demo", "tainted", "in-t"),
            claim("demo", "shared", "everywhere"),
            claim("other", "near", "in-b"),
        ]
        .into(),
        reached_from: ["a", "b", "t"]
            .map(|name| (format!("in-{name}"), pool(name)))
            .into(),
    });
    cluster
}

/// What is decided of a pod with these fields of its specification, and why.
fn in_pools(spec: &Value) -> String {
    let mut pod = fixture("client");
    for (key, value) in spec.as_object().expect("fields") {
        pod["spec"][key] = value.clone();
    }
    let verdict = decide(
        &typed(&pod),
        Some(&Namespace::default()),
        &pools(),
        &Settings::default(),
    );
    match verdict.decision {
        Decision::Leave(reason) => reason.annotation(),
        decision => decision.word().to_owned(),
    }
}

fn required(terms: &Value) -> Value {
    json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

/// Beside an ephemeral volume.
fn with_claims(claims: &[&str]) -> Value {
    let claims = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}));
    let scratch = json!({"name": "scratch", "emptyDir": {}});
    json!({"volumes": claims.chain([scratch]).collect::<Vec<_>>()})
}

#[test]
fn a_pod_whose_own_constraints_leave_it_no_node_with_an_agent_is_left_and_told_why() {
    let expression = |key: &str, operator: &str, values: &[&str]| {
        json!({"matchExpressions": [
        {"key": key, "operator": operator, "values": values}]})
    };
    let field = |values: &[&str]| {
        json!({"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": values}]})
    };
    let tolerate = json!([{"key": "gpu", "operator": "Equal", "value": "yes"}]);
    let selects = |pool: &str| json!({"nodeSelector": {"pool": pool}});
    for (spec, wanted) in [
        (json!({}), "accelerated"),
        (selects("a"), "accelerated"),
        (selects("b"), "its node selector (pool=b)"),
        (
            selects("scaled-to-zero"),
            "its node selector (pool=scaled-to-zero)",
        ),
        (
            json!({"nodeSelector": {"kubernetes.io/hostname": "old"}}),
            "hostname=old",
        ),
        (
            selects("t"),
            "taints of all that are left, such as gpu=yes:NoSchedule",
        ),
        (
            json!({"nodeSelector": {"pool": "t"}, "tolerations": tolerate}),
            "accelerated",
        ),
        (
            json!({"nodeSelector": {"pool": "t"}, "tolerations": [{"operator": "Exists"}]}),
            "accelerated",
        ),
        (
            json!({"nodeSelector": {"pool": "t"}, "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]}),
            "gpu=yes:NoSchedule",
        ),
        (
            required(&json!([expression("pool", "In", &["b", "c"])])),
            "its required node affinity (pool In)",
        ),
        (
            required(&json!([
                expression("pool", "In", &["b"]),
                expression("pool", "NotIn", &["b"])
            ])),
            "accelerated",
        ),
        (
            required(&json!([expression("pool", "DoesNotExist", &[])])),
            "(pool DoesNotExist)",
        ),
        (
            required(&json!([expression("cores", "Gt", &["7"])])),
            "accelerated",
        ),
        (
            required(&json!([expression("cores", "Lt", &["8"])])),
            "(cores Lt)",
        ),
        (required(&json!([{}])), "its required node affinity"),
        (
            required(&json!([field(&["old", "v1"])])),
            "its required node affinity",
        ),
        (required(&json!([field(&["old", "good"])])), "accelerated"),
        (with_claims(&["near"]), "accelerated"),
        (with_claims(&["shared", "not-bound-yet"]), "accelerated"),
        (
            with_claims(&["shared", "far"]),
            "the volume of its claim \"far\" is reached from none",
        ),
        (with_claims(&["near", "far"]), "claim \"far\""),
        (with_claims(&["tainted"]), "gpu=yes:NoSchedule"),
    ] {
        let found = in_pools(&spec);
        assert!(found.contains(wanted), "{spec}: {found}");
        assert!(
            found == "accelerated" || found.starts_with("no-usable-node: "),
            "{found}"
        );
    }
}

#[test]
fn a_pod_bound_to_a_node_is_decided_for_that_node() {
    let cluster = on(&["a", "c"]);
    assert_eq!(in_cluster(&bound_to("a"), &cluster), "accelerated");
    assert_eq!(in_cluster(&bound_to("b"), &cluster), "no-agent-on-node");
    assert_eq!(
        in_cluster(&bound_to("fargate"), &cluster),
        "unsupported-node"
    );
    let mut by_name = fixture("client");
    by_name["spec"]["nodeName"] = "b".into();
    assert_eq!(in_cluster(&by_name, &cluster), "no-agent-on-node");
    // Nor does it wait for agents elsewhere.
    let half = of([
        node("a", Agent::Ready, &[]),
        node("b", Agent::NotReady, &[]),
    ]);
    assert_eq!(in_cluster(&bound_to("a"), &half), "accelerated");
}

#[test]
fn a_pod_that_asks_for_another_architecture_is_left() {
    for (architecture, decided) in [
        ("amd64", "accelerated"),
        ("arm64", "accelerated"),
        ("s390x", "unsupported-architecture"),
        ("ppc64le", "unsupported-architecture"),
    ] {
        let mut pod = fixture("client");
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/arch": architecture});
        let found = in_cluster(&pod, &Cluster::assumed());
        assert_eq!(found, decided, "{architecture}");
    }
}
