//! A cluster of nodes of many kinds, and pods with every constraint: each is gated and comes to a node with a ready agent, or is
//! left to Istio and comes wherever it may. The scheduler is the real one; nodes and agents are objects that nobody runs.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use serde_json::{Value, json};
use sidestep_kit::{
    apiserver::ApiServer,
    needs, parts,
    process::{Running, eventually},
};

use crate::{
    cluster::{
        ADDRESSES, NODE, agent, agent_is, injected, installed, is_gated, mutated, node, route,
        status,
    },
    replica::Replica,
    until,
};

const WITHOUT_AGENT: &str = "sidestep.dev/without-agent";

/// The kinds of nodes, and how many there are.
const KINDS: [(&str, usize); 6] = [
    ("amd64", 6),
    ("arm64", 4),
    ("gpu", 2),
    ("old", 3),
    ("outside", 3),
    ("cgroup-v1", 2),
];

/// Those with an agent that becomes ready.
const GOOD: [&str; 3] = ["amd64", "arm64", "gpu"];

/// Pods of each kind.
const EACH: usize = 60;

fn nodes() -> impl Iterator<Item = (&'static str, String)> {
    let of_kind = |(kind, count)| (0..count).map(move |n| (kind, format!("{kind}-{n}")));
    KINDS.into_iter().flat_map(of_kind)
}

fn make_node(server: &ApiServer, kind: &str, name: &str) {
    let architecture = if kind == "arm64" { "arm64" } else { "amd64" };
    let kernel = if kind == "old" { "5.10.0" } else { "6.12.1" };
    let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": name, "pool": kind});
    let taints = if kind == "gpu" {
        json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    node(server, name, &labels, &taints);
    let much = json!({"cpu": "1000", "memory": "1000Gi", "pods": "2000"});
    let state = json!({
        "capacity": much, "allocatable": much,
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {"operatingSystem": "linux", "architecture": architecture, "kernelVersion": kernel,
            "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
            "machineID": "", "osImage": "", "systemUUID": ""}});
    status(server, &format!("node {name}"), &state);
    if kind != "old" && kind != "outside" {
        agent(server, name);
    }
}

/// What an agent says that found no cgroup v2.
fn says_it_cannot(server: &ApiServer, node: &str) {
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": format!("{node}.cannot"), "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "sidestep.dev/agent",
        "reportingInstance": "agent", "action": "Start", "reason": "SidestepCannotRun", "type": "Warning",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}});
    server.feed("create", &event).expect("an Event");
}

/// A claim that is bound to a volume which only this pool's nodes reach.
fn make_claim(server: &ApiServer, pool: &str) {
    let name = format!("in-{pool}");
    let shared = json!({"accessModes": ["ReadWriteMany"], "storageClassName": "local"});
    let with = |more: Value| {
        let mut spec = shared.clone();
        let fields = more.as_object().expect("fields");
        fields
            .iter()
            .for_each(|(key, value)| spec[key] = value.clone());
        spec
    };
    let terms =
        json!([{"matchExpressions": [{"key": "pool", "operator": "In", "values": [pool]}]}]);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": with(json!({"capacity": {"storage": "1Gi"}, "local": {"path": "/data"},
            "claimRef": {"namespace": "default", "name": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}))});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {
        "name": name, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": with(json!({"resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}))});
    for object in [volume, claim] {
        server.feed("create", &object).expect("storage");
    }
    let bound = json!({"phase": "Bound"});
    for kind in ["persistentvolume", "persistentvolumeclaim"] {
        status(server, &format!("{kind} {name}"), &bound);
    }
}

/// Every constraint that a pod may have, and whether it then is gated.
fn constraints() -> Vec<(&'static str, Value, bool)> {
    let selector = |key: &str, value: &str| json!({"nodeSelector": {key: value}});
    let affinity = |operator: &str, values: &[&str]| {
        let terms = json!([{"matchExpressions": [{"key": "pool", "operator": operator, "values": values}]}]);
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    };
    let on_gpu =
        |tolerations: Value| json!({"nodeSelector": {"pool": "gpu"}, "tolerations": tolerations});
    let claims = |pool: &str| {
        let claim = json!({"claimName": format!("in-{pool}")});
        json!({"volumes": [{"name": "data", "persistentVolumeClaim": claim}]})
    };
    vec![
        ("none", json!({}), true),
        ("volume-good", claims("arm64"), true),
        ("volume-bad", claims("old"), false),
        ("arm64", selector("kubernetes.io/arch", "arm64"), true),
        ("s390x", selector("kubernetes.io/arch", "s390x"), false),
        ("old-pool", selector("pool", "old"), false),
        ("outside-pool", selector("pool", "outside"), false),
        ("v1-pool", selector("pool", "cgroup-v1"), false),
        (
            "good-host",
            selector("kubernetes.io/hostname", "amd64-1"),
            true,
        ),
        (
            "old-host",
            selector("kubernetes.io/hostname", "old-1"),
            false,
        ),
        ("no-such-pool", selector("pool", "scaled-to-zero"), false),
        ("affinity-good", affinity("In", &["amd64", "old"]), true),
        ("affinity-bad", affinity("In", &["outside", "old"]), false),
        (
            "affinity-not",
            affinity("NotIn", &["amd64", "arm64", "gpu"]),
            false,
        ),
        ("gpu", on_gpu(json!([])), false),
        (
            "gpu-tolerant",
            on_gpu(json!([{"operator": "Exists"}])),
            true,
        ),
        ("by-name", json!({"nodeName": "outside-1"}), false),
    ]
}

fn schedule(server: &ApiServer) -> Running {
    let mut command = server.namespace().command(parts::program("kube-scheduler"));
    command
        .arg(format!("--kubeconfig={}", server.kubeconfig().display()))
        .args([
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=500",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running::start(&mut command)
}

#[needs(apiserver, part("helm"), part("kube-scheduler"))]
fn a_thousand_pods_come_to_an_agent_or_are_left_on_twenty_nodes_of_many_kinds() {
    let server = installed(&["readiness.minutes=1"]);
    server.must(&format!("delete node {NODE}"));
    for (kind, name) in nodes() {
        make_node(&server, kind, &name);
    }
    for pool in ["arm64", "old"] {
        make_claim(&server, pool);
    }
    let arguments = [
        "--label-unsupported-nodes",
        "--label-without-agent=1",
        "--avoid-unsupported-nodes",
    ];
    let replica = Replica::start(&server, "one", ADDRESSES[0], &arguments);
    replica.ready();
    route(&server, &ADDRESSES[..1]);
    let why = |pod: &Value| {
        pod["metadata"]["annotations"]["sidestep.dev/left-alone"]
            .as_str()
            .map(str::to_owned)
    };
    let probe = || {
        mutated(&server, "probe")
            .ok()
            .and_then(|pod| why(&pod))
            .unwrap_or_default()
    };
    until("nothing is gated without an agent", || {
        probe().starts_with("no-agent: ")
    });
    agent_is(&server, "amd64-0", true);
    until("nor with one", || probe().starts_with("too-few-agents: "));
    for (_, name) in nodes().filter(|(kind, _)| GOOD.contains(kind)) {
        agent_is(&server, &name, true);
    }
    for (_, name) in nodes().filter(|(kind, _)| *kind == "cgroup-v1") {
        says_it_cannot(&server, &name);
    }
    let label = |name: &str, key: &str| {
        server.get(&format!("node {name}"))["metadata"]["labels"][key].clone()
    };
    until("an old kernel is labelled", || {
        label("old-2", "sidestep.dev/unsupported") == "kernel-too-old"
    });
    until("an agent that cannot is", || {
        label("cgroup-v1-1", WITHOUT_AGENT) == "cannot-run"
    });
    let outside = || label("outside-2", WITHOUT_AGENT) == "missing";
    assert!(eventually(Duration::from_mins(2), outside));
    until("pods are gated", || {
        mutated(&server, "probe").is_ok_and(|pod| is_gated(&pod))
    });

    let constraints = constraints();
    let pods: Vec<_> = (0..EACH)
        .flat_map(|n| {
            constraints
                .iter()
                .map(move |(name, spec, _)| (format!("{name}-{n}"), spec))
        })
        .map(|(name, spec)| {
            let mut pod = injected(&name);
            for (key, value) in spec.as_object().expect("fields") {
                match (&mut pod["spec"][key], value) {
                    (Value::Array(all), Value::Array(more)) => all.extend(more.iter().cloned()),
                    (field, value) => *field = value.clone(),
                }
            }
            pod
        })
        .collect();
    assert!(pods.len() >= 1000, "{}", pods.len());
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    server.feed("create", &list).expect("pods");

    let _scheduler = schedule(&server);
    // These fit no node whoever redirects them.
    let nowhere = ["s390x-", "no-such-pool-", "gpu-"];
    let fits = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        name.starts_with("gpu-tolerant-") || !nowhere.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut all = Value::Null;
    until("all pods that may are scheduled", || {
        all = server.get("pods");
        let all = all["items"].as_array().expect("a list");
        all.iter()
            .all(|pod| pod["spec"]["nodeName"].is_string() == fits(pod))
    });
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for pod in all["items"].as_array().expect("a list") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let (kind, _) = name.rsplit_once('-').expect("a number");
        let (kind, _, gated) = constraints
            .iter()
            .find(|(it, ..)| *it == kind)
            .expect("one of ours");
        assert_eq!(is_gated(pod), *gated, "{name}: {:?}", why(pod));
        let count = counts.entry(kind).or_default();
        if *gated {
            count.0 += 1;
            let node = pod["spec"]["nodeName"].as_str().expect("it is scheduled");
            let pool = node.rsplit_once('-').expect("a number").0;
            assert!(GOOD.contains(&pool), "{name} waits for ever on {node}");
        } else {
            count.1 += 1;
            let why = why(pod).unwrap_or_default();
            let words = [
                "no-usable-node: ",
                "unsupported-architecture: ",
                "no-agent-on-node: ",
            ];
            assert!(
                words.iter().any(|word| why.starts_with(word)),
                "{name}: {why}"
            );
        }
    }
    assert!(
        counts.values().all(|(gated, left)| gated + left == EACH),
        "{counts:?}"
    );
    eprintln!("constraint: gated, left: {counts:?}");
    assert!(!replica.log().contains("forbidden"), "{}", replica.log());

    // A canary that grows: the agent there becomes ready, and the label goes.
    agent(&server, "outside-0");
    agent_is(&server, "outside-0", true);
    until("the label is taken away", || {
        label("outside-0", WITHOUT_AGENT).is_null()
    });
    // Somebody's own word stays.
    server.must("label node outside-1 --overwrite sidestep.dev/without-agent=mine");
    agent(&server, "outside-1");
    agent_is(&server, "outside-1", true);
    agent(&server, "outside-2");
    agent_is(&server, "outside-2", true);
    until("one is taken away", || {
        label("outside-2", WITHOUT_AGENT).is_null()
    });
    assert_eq!(label("outside-1", WITHOUT_AGENT), "mine");
}
