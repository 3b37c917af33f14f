//! Pods' network namespaces, found by their cgroups alone.

use sidestep_kit::{
    actor::{Actor, Identity, Kind, assert_captured},
    kubelet::{Driver, KubeNode, PATIENCE, Sandbox, pod, process},
    needs,
    net::Namespace,
    process::eventually,
    redirect::{PodState, SERVICE},
};

fn a_pod_is_armed_when_its_sandbox_starts(driver: Driver) {
    let node = KubeNode::without_agent(driver);
    node.start_agent();
    let pod = node.create("web", "");
    let waiting = node.wait_for("web", PodState::Pending);
    assert!(
        waiting
            .reason
            .is_some_and(|why| why.contains("none of its processes"))
    );

    let sandbox = pod.sandbox("10.77.0.10");
    node.wait_for("web", PodState::Armed);
    let proxy = sandbox.proxy();
    node.wait_for("web", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    assert_captured(&node.base().outside(), "inbound", "10.77.0.10:8080");
    assert_captured(&proxy.actor, "inbound", "10.77.0.10:8080");
}

#[needs(apiserver)]
fn a_pod_is_armed_when_its_sandbox_starts_under_cgroupfs() {
    a_pod_is_armed_when_its_sandbox_starts(Driver::Cgroupfs);
}

#[needs(apiserver)]
fn a_pod_is_armed_when_its_sandbox_starts_under_systemd() {
    a_pod_is_armed_when_its_sandbox_starts(Driver::Systemd);
}

/// The runtime was quicker than the watch.
#[needs(apiserver)]
fn a_pod_whose_sandbox_was_there_first_is_armed_when_the_agent_starts() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let _proxy = sandbox.proxy();
    node.start_agent();
    node.wait_for("web", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

/// CRI-O starts no process for a sandbox: the gate's is the first, and between it and the proxy's there is none.
#[needs(apiserver)]
fn a_pod_whose_gate_is_its_first_process_is_armed_and_stays_so() {
    let node = KubeNode::without_agent(Driver::Systemd);
    node.start_agent();
    let folder = node.create("web", "").cgroup();
    let namespace = node.base().network().host("pod", &["10.77.0.10"]);
    let container = |id: &str, identity: &Identity| {
        let scope = folder.child(&format!("crio-{}.scope", id.repeat(64)));
        let inner = scope.child("container");
        (Actor::spawn(&namespace, &inner, identity), inner, scope)
    };
    let gate = container("a", &Identity::proxy());
    let before = node.wait_for("web", PodState::Armed).cookie;
    drop(gate);

    let (proxy, ..) = &container("b", &Identity::proxy());
    let _outbound = proxy.serve("outbound", Kind::Tcp, "0.0.0.0:15001");
    let _inbound = proxy.serve("inbound", Kind::Tcp, "0.0.0.0:15006");
    assert_eq!(node.wait_for("web", PodState::Active).cookie, before);
    let (app, ..) = &container("c", &Identity::app());
    assert_captured(app, "outbound", SERVICE);
    assert_captured(&node.base().outside(), "inbound", "10.77.0.10:8080");
}

#[needs(apiserver)]
fn a_sandbox_that_is_made_again_is_armed_again() {
    let node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let first = pod.sandbox("10.77.0.10");
    let before = node.wait_for("web", PodState::Armed).cookie;
    first.end();

    let second = pod.sandbox("10.77.0.11");
    let another = || {
        node.agent()
            .pod("web")
            .is_some_and(|web| web.cookie != before)
    };
    node.agent().wait("the new sandbox to be armed", another);
    let _proxy = second.proxy();
    node.wait_for("web", PodState::Active);
    assert_captured(&second.app(), "outbound", SERVICE);
    assert!(
        eventually(PATIENCE, || node.inbound_links() == 1),
        "the old link stays"
    );
}

/// Whoever may patch pods could otherwise take one out of its sidecar, at the next agent's start.
#[needs(apiserver)]
fn what_is_written_to_a_pod_later_changes_nothing_for_a_new_agent_either() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let first = pod.sandbox("10.77.0.10");
    let before = node.wait_for("web", PodState::Armed).cookie;
    let annotate = |annotation: &str| {
        let words = ["annotate", "pod", "web", "-n", &node.name, annotation];
        node.server().kubectl(words)
    };
    annotate("k8s.v1.cni.cncf.io/networks=macvlan").expect("anybody's to write");
    let refused = annotate("kubernetes.io/config.mirror=7b5e").expect_err("nobody's to write");
    assert!(refused.contains("may not add mirror pod"), "{refused}");

    assert!(node.take_agent().stop().success());
    first.end();
    let second = node.known("web").sandbox("10.77.0.11");
    node.start_agent();
    let after = node.wait_for("web", PodState::Armed).cookie;
    assert_ne!(after, before);
    let _proxy = second.proxy();
    node.wait_for("web", PodState::Active);
    assert_captured(&second.app(), "outbound", SERVICE);
}

/// A container engine inside a container.
#[needs(apiserver)]
fn a_namespace_that_a_container_makes_is_not_taken_for_the_pods() {
    let node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let cookie = node.wait_for("web", PodState::Armed).cookie;
    let nested = Namespace::new("nested");
    let engine = process(sandbox.cgroup(), &nested, &Identity::new(0, 0));
    assert!(engine.call("127.0.0.1:1").is_err());
    let _proxy = sandbox.proxy();
    assert_eq!(node.wait_for("web", PodState::Active).cookie, cookie);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

#[needs(apiserver)]
fn a_pod_that_runs_in_anothers_namespace_is_not_armed_and_the_other_goes_on() {
    let node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");

    let thief = node.create("a-thief", "-o 80");
    let folder = node.kubepods().child(&format!("pod{}", thief.uid));
    let _inside = process(&folder, sandbox.namespace(), &Identity::new(0, 0));
    node.agent().wait("the claim to be refused", || {
        let thief = node.agent().pod("a-thief");
        thief.is_some_and(|thief| {
            thief
                .reason
                .is_some_and(|why| why.contains("already that of pod"))
        })
    });
    let text = node.wait_for_event(&thief, "NotArmed");
    assert!(text.contains("web"), "{text}");
    node.wait_for_metric(
        "sidestep_agent_arming_failures_total{reason=\"namespace-taken\"}",
        1.0..,
    );
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

#[needs(apiserver)]
fn a_hundred_pods_at_once_are_all_armed() {
    let node = KubeNode::with_agent();
    let names: Vec<String> = (0..100).map(|n| format!("web-{n}")).collect();
    let items: Vec<_> = names.iter().map(|name| pod(name, &node.name, "")).collect();
    let all = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    let created = node
        .server()
        .feed(&format!("create -n {}", node.name), &all);
    created.expect("a hundred pods");
    let pods: Vec<_> = names.iter().map(|name| node.known(name)).collect();
    let sandboxes: Vec<Sandbox> = pods
        .iter()
        .enumerate()
        .map(|(n, pod)| pod.sandbox(&format!("10.77.1.{}", n + 1)))
        .collect();
    node.agent().wait("all pods to be armed", || {
        let status = node.agent().status().expect("an answer");
        let armed = status
            .pods
            .iter()
            .filter(|pod| pod.state == PodState::Armed);
        armed.count() == 100
    });
    let last = sandboxes.last().expect("a hundred");
    let _proxy = last.proxy();
    node.wait_for("web-99", PodState::Active);
    assert_captured(&last.app(), "outbound", SERVICE);
    assert_eq!(node.inbound_links(), 100);
    drop(sandboxes);
    assert!(
        eventually(PATIENCE * 3, || node.inbound_links() == 0),
        "links stay"
    );
}
