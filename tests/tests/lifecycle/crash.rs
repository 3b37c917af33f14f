//! An agent that dies: what is in the kernel goes on without it, and the next one takes it over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;
use sidestep_kit::{
    actor::{Kind, Load},
    bpftool, needs,
    redirect::{Node, PodState},
};

use crate::{POD, SERVICE, assert_captured};

/// How long traffic runs in each phase.
const PHASE: Duration = Duration::from_millis(400);

#[needs(root)]
fn no_connection_fails_and_none_is_missed_while_the_agent_is_killed_and_restarted_and_upgraded() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let (app, outside) = (pod.app(), node.outside());
    let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
    app.start_load(SERVICE, 2, 2);
    outside.start_load(&format!("{POD}:8080"), 2, 2);
    thread::sleep(PHASE);
    let before = code(&node);
    for round in 0..3 {
        if round == 2 {
            node.upgrade_agent();
        }
        node.take_agent().kill();
        thread::sleep(PHASE);
        node.start_agent();
        node.wait_active(&pod);
        thread::sleep(PHASE);
        let same = code(&node) == before;
        assert_eq!(same, round < 2, "in round {round}");
    }
    assert_all_answered_by(&app.stop_load(), "outbound");
    assert_all_answered_by(&outside.stop_load(), "inbound");
}

/// A hash of each hook's program.
fn code(node: &Node) -> BTreeMap<PathBuf, Value> {
    let tag = |link: PathBuf| {
        let program = bpftool::program_of(&link).to_string();
        let program = bpftool::show(&["prog", "show", "id"], Path::new(&program));
        (link, program["tag"].clone())
    };
    node.pinned("links").into_iter().map(tag).collect()
}

#[needs(root)]
fn a_proxy_that_restarts_while_the_agent_is_dead_is_found_by_the_programs() {
    let mut node = Node::alone();
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    let (app, outside) = (pod.app(), node.outside());
    let inbound = format!("{POD}:8080");
    node.take_agent().kill();
    proxy.kill();
    assert!(app.call(SERVICE).is_err());
    assert!(outside.call(&inbound).is_err());

    let _proxy = pod.proxy();
    assert_captured(&app, "outbound", SERVICE);
    assert_captured(&outside, "inbound", &inbound);
    node.start_agent();
    node.wait_active(&pod);
    assert_captured(&app, "outbound", SERVICE);
    assert_captured(&outside, "inbound", &inbound);
}

#[needs(root)]
fn pods_that_went_while_the_agent_was_dead_are_cleared_away() {
    let mut node = Node::alone();
    let (kept, _kept_proxy) = node.pod_with_proxy("client", &["10.77.0.11"]);
    let (gone, _gone_proxy) = node.pod_with_proxy("client", &["10.77.0.12"]);
    node.take_agent().kill();
    node.remove_pod_file(&gone);
    let added = node.bare_pod("client", &["10.77.0.13"]);
    node.add_pod_file(&added);
    let _added_proxy = added.proxy();

    node.start_agent();
    for pod in [&kept, &added] {
        node.wait_active(pod);
        assert_captured(&pod.app(), "outbound", SERVICE);
    }
    assert!(node.agent().pod(gone.name()).is_none());
    node.agent()
        .wait("the pod to be free", || gone.app().call(SERVICE).is_err());
}

#[needs(root)]
fn counters_outlive_the_agent() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    assert_captured(&pod.app(), "outbound", SERVICE);
    node.take_agent().kill();
    assert_captured(&pod.app(), "outbound", SERVICE);
    node.start_agent();
    node.wait_active(&pod);
    let rows = node.agent().pod(pod.name()).expect("a known pod").rows;
    assert_eq!(rows.get("out-12"), Some(&2), "{rows:?}");
}

#[track_caller]
fn assert_all_answered_by(load: &Load, server: &str) {
    assert!(load.failed.is_empty(), "{load:?}");
    assert_eq!(
        load.answered.keys().collect::<Vec<_>>(),
        [server],
        "{load:?}"
    );
}

#[needs(root)]
fn a_namespace_whose_name_went_while_the_agent_was_dead_stays_captured_and_stops_nobody() {
    let mut node = Node::alone();
    let (kept, _kept_proxy) = node.pod_with_proxy("client", &["10.77.0.11"]);
    let (nameless, _proxy) = node.pod_with_proxy("client", &["10.77.0.12"]);
    let app = nameless.app();
    node.take_agent().kill();
    // Its processes keep the namespace alive; only nobody can find it by its name any more.
    nameless.namespace().forget_name();
    node.start_agent();
    node.wait_active(&kept);
    node.agent()
        .wait_for(nameless.name(), |state| state == PodState::Pending);
    assert_captured(&kept.app(), "outbound", SERVICE);
    assert_captured(&app, "outbound", SERVICE);
}
