//! Pod files and namespaces that come, change and go while the agent runs.

use std::{fs, thread, time::Duration};

use sidestep_kit::{
    actor::Kind,
    needs,
    net::{OUTSIDE_V4, unique_name},
    redirect::{Fixture, Node, PodState, Status},
};

use crate::{POD, SERVICE, assert_captured, assert_straight};

#[needs(root)]
fn pods_are_added_and_removed_while_the_agent_runs() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let (first, _first_proxy) = node.pod_with_proxy("client", &["10.77.0.11"]);
    let (second, _second_proxy) = node.pod_with_proxy("client", &["10.77.0.12"]);
    let target = format!("{OUTSIDE_V4}:80");
    assert_captured(&first.app(), "outbound", &target);
    assert_captured(&second.app(), "outbound", &target);

    node.remove_pod_file(&first);
    node.agent().wait("the pod to be forgotten", || {
        node.agent().pod(first.name()).is_none()
    });
    assert_straight(&first.app(), "service", &target);
    assert_captured(&second.app(), "outbound", &target);

    node.add_pod_file(&first);
    node.wait_active(&first);
    assert_captured(&first.app(), "outbound", &target);
}

#[needs(root)]
fn a_changed_policy_is_followed() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:5432");
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    let database = format!("{OUTSIDE_V4}:5432");
    assert_captured(&app, "outbound", &database);

    let manifest = Fixture::load("exclude").manifest(pod.name(), pod.namespace().name(), &[]);
    node.write_pod_file(&pod, &manifest);
    node.agent().wait("the new policy", || {
        app.call(&database).is_ok_and(|seen| seen.by == "service")
    });
    assert_captured(&app, "outbound", SERVICE);

    node.add_pod_file(&pod);
    node.agent().wait("the old policy", || {
        app.call(&database).is_ok_and(|seen| seen.by == "outbound")
    });
}

#[needs(root)]
fn connections_outlive_a_change_of_policy() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    let socket = app.connect(SERVICE).expect("the proxy listens");
    socket.report().expect("the proxy answers");

    let manifest = Fixture::load("exclude").manifest(pod.name(), pod.namespace().name(), &[]);
    node.write_pod_file(&pod, &manifest);
    let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:9000");
    let excluded = format!("{POD}:9000");
    let outside = node.outside();
    node.agent().wait("the new policy", || {
        outside.call(&excluded).is_ok_and(|seen| seen.by == "app")
    });
    socket.send(b"still here").expect("an open connection");
    assert_eq!(socket.receive(), Ok(b"still here".to_vec()));
    assert_eq!(socket.peer_name(), Ok(SERVICE.parse().expect("an address")));
}

#[needs(root)]
fn a_namespace_made_again_under_the_same_name_is_programmed_again() {
    let node = Node::alone();
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    assert_captured(&pod.app(), "outbound", SERVICE);
    drop(proxy);

    node.remake_sandbox(&pod);
    let _proxy = pod.proxy();
    let app = pod.app();
    node.agent().wait("the new namespace to be programmed", || {
        app.call(SERVICE).is_ok_and(|seen| seen.by == "outbound")
    });
}

#[needs(root)]
fn a_pod_left_to_istio_is_named_with_the_reason() {
    let node = Node::alone();
    let pod = node.bare_pod("tproxy", &[POD]);
    node.add_pod_file(&pod);
    node.agent()
        .wait_for(pod.name(), |state| state == PodState::Left);
    let reason = node
        .agent()
        .pod(pod.name())
        .and_then(|status| status.reason);
    assert!(
        reason
            .as_ref()
            .is_some_and(|reason| reason.contains("TPROXY")),
        "{reason:?}"
    );
}

#[needs(root)]
fn every_decision_is_counted_by_its_row() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    for _ in 0..5 {
        assert_captured(&app, "outbound", SERVICE);
    }
    let rows = node.agent().pod(pod.name()).expect("a known pod").rows;
    assert_eq!(rows.get("out-12"), Some(&5), "{rows:?}");
}

#[needs(root)]
fn a_file_that_breaks_leaves_its_pod_and_all_others_as_they_were() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &["10.77.0.11"]);
    node.write_pod_file(&pod, "kind: Pod\nmetadata: [unfinished\n");
    let named = |status: Status| status.errors.iter().any(|error| error.contains(pod.name()));
    node.agent().wait("the error to be told", || {
        node.agent().status().is_some_and(named)
    });
    assert_captured(&pod.app(), "outbound", SERVICE);

    let (other, _other_proxy) = node.pod_with_proxy("client", &["10.77.0.12"]);
    assert_captured(&other.app(), "outbound", SERVICE);
    assert_captured(&pod.app(), "outbound", SERVICE);
}

#[needs(root)]
fn a_pod_whose_namespace_comes_later_waits_for_it() {
    let node = Node::alone();
    let pod = node.bare_pod("client", &[POD]);
    let namespace = unique_name("late");
    node.write_pod_file(&pod, &pod.fixture().manifest(pod.name(), &namespace, &[]));
    node.agent()
        .wait_for(pod.name(), |state| state == PodState::Pending);
    let reason = node
        .agent()
        .pod(pod.name())
        .and_then(|status| status.reason);
    assert!(
        reason
            .as_ref()
            .is_some_and(|reason| reason.contains(&namespace)),
        "{reason:?}"
    );

    node.add_pod_file(&pod);
    let _proxy = pod.proxy();
    node.wait_active(&pod);
    assert_captured(&pod.app(), "outbound", SERVICE);
}

#[needs(root)]
fn traffic_of_one_pod_goes_on_while_others_come_and_go() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &["10.77.2.1"]);
    let app = pod.app();
    app.start_load(SERVICE, 2, 2);
    for n in 2..12 {
        let (other, proxy) = node.pod_with_proxy("exclude", &[&format!("10.77.2.{n}")]);
        assert_captured(&other.app(), "outbound", SERVICE);
        proxy.kill();
        node.remove_pod_file(&other);
    }
    let load = app.stop_load();
    assert!(load.failed.is_empty(), "{load:?}");
    assert_eq!(load.answered.keys().collect::<Vec<_>>(), ["outbound"]);
}

#[needs(root)]
fn a_pods_cgroup_that_is_made_again_is_found() {
    let node = Node::alone();
    node.pods().remake();
    let pod = node.pod("client", &[POD]);
    let _proxy = pod.proxy();
    let app = pod.app();
    node.agent().wait("the new cgroup to be found", || {
        app.call(SERVICE).is_ok_and(|seen| seen.by == "outbound")
    });
}

/// A runtime makes the namespace first and gives it its address later, while the agent may be quicker.
#[needs(root)]
fn an_address_that_comes_after_the_pod_is_armed_is_known_when_it_is_needed() {
    let node = Node::alone();
    let pod = node.bare_pod("client", &[POD]);
    pod.namespace()
        .ip(&format!("address delete {POD}/16 dev eth0"));
    node.redirect_pod(&pod);
    pod.namespace()
        .ip(&format!("address add {POD}/16 dev eth0"));
    pod.namespace().ip("route replace default via 10.77.0.1");
    let proxy = pod.proxy();
    node.wait_active(&pod);
    let app = pod.app();
    node.agent().wait("the address to be known", || {
        let seen = assert_captured(&app, "outbound", SERVICE);
        seen.source.ip().to_string() == POD
    });
    assert_captured(proxy.actor(), "inbound", &format!("{POD}:8080"));
}

#[needs(root)]
fn a_pod_that_claims_anothers_namespace_waits_and_the_other_goes_on() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    // Its name comes first: what is looked at first must not decide.
    let claim = pod.manifest().replace(pod.name(), "a-thief");
    node.folders().write_pod("a-thief", &claim);
    node.agent()
        .wait_for("a-thief", |state| state == PodState::Pending);
    let reason = node.agent().pod("a-thief").and_then(|thief| thief.reason);
    assert!(reason.is_some_and(|reason| reason.contains(pod.name())));
    assert_captured(&pod.app(), "outbound", SERVICE);
    node.folders().remove_pod("a-thief");
    node.agent()
        .wait("the claim to go", || node.agent().pod("a-thief").is_none());
    assert_captured(&pod.app(), "outbound", SERVICE);
}

/// As `kubectl … > file` does: cut to nothing first, then written.
#[needs(root)]
fn a_file_that_is_written_in_place_never_sets_its_pod_free() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    app.start_load(&format!("{OUTSIDE_V4}:80"), 2, 0);
    let path = node.folders().pods().join(format!("{}.yaml", pod.name()));
    for _ in 0..30 {
        fs::write(&path, "").expect("a folder of ours");
        thread::sleep(Duration::from_millis(10));
        fs::write(&path, pod.manifest()).expect("a folder of ours");
    }
    let load = app.stop_load();
    assert_eq!(
        load.answered.keys().collect::<Vec<_>>(),
        ["outbound"],
        "{load:?}"
    );
    assert!(load.failed.is_empty(), "{load:?}");
}
