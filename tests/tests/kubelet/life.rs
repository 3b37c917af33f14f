//! The agent ends, is killed and is replaced; the API server goes away; pods end in every order.

use std::{
    fs,
    process::Command,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use sidestep_kit::{
    actor::{Kind, assert_captured},
    apiserver::ApiServer,
    binary,
    kubelet::{Driver, KubeNode, Line, PATIENCE},
    needs,
    net::OUTSIDE_V4,
    process::eventually,
    redirect::{PodState, SERVICE},
    shortcut_maps,
};

/// The end of the agent is a pod's end in Kubernetes, and must not be that of others.
#[needs(apiserver)]
fn running_pods_stay_captured_when_the_agent_is_told_to_stop() {
    let mut node = KubeNode::with_agent();
    let outside = node.base().outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let target = format!("{OUTSIDE_V4}:80");
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let app = sandbox.app();
    app.start_load(&target, 2, 2);

    assert!(node.take_agent().stop().success());
    assert_captured(&app, "outbound", &target);
    assert_captured(&outside, "inbound", "10.77.0.10:8080");
    node.start_agent();
    node.wait_for("web", PodState::Active);
    node.take_agent().kill();
    assert_captured(&app, "outbound", &target);
    node.start_agent();
    node.wait_for("web", PodState::Active);

    let load = app.stop_load();
    assert!(load.failed.is_empty(), "{load:?}");
    assert_eq!(load.answered.keys().collect::<Vec<_>>(), ["outbound"]);
}

#[needs(apiserver)]
fn a_pod_is_let_go_when_its_namespace_is_gone_and_not_before() {
    let node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let app = sandbox.app();
    // As `kubectl delete --force` does: the object first, the processes later.
    pod.delete();
    node.agent().wait("the pod to be forgotten", || {
        node.agent().pod("web").is_none()
    });
    assert_captured(&app, "outbound", SERVICE);
    node.wait_for_metric("sidestep_agent_lingering_namespaces", 1.0..=1.0);
    drop((sandbox, app));
    assert!(
        eventually(PATIENCE, || node.inbound_links() == 0),
        "the link stays"
    );
    node.wait_for_metric("sidestep_agent_lingering_namespaces", ..=0.0);
}

#[needs(apiserver)]
fn a_finished_pod_is_captured_to_its_end_and_then_has_ended() {
    let node = KubeNode::with_agent();
    let pod = node.create("job", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let patch = [
        "patch",
        "pod",
        "job",
        "-n",
        &node.name,
        "--subresource=status",
    ];
    let status = [
        "--type=merge",
        "-p",
        "{\"status\":{\"phase\":\"Succeeded\"}}",
    ];
    let patched = node.server().kubectl(patch.into_iter().chain(status));
    patched.expect("a status may be patched");
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    drop(sandbox);
    node.wait_for("job", PodState::Ended);
    assert_eq!(node.inbound_links(), 0);
}

/// A StatefulSet's pod: the same name, another uid.
#[needs(apiserver)]
fn a_pod_of_the_same_name_is_another_pod() {
    let node = KubeNode::with_agent();
    let old = node.create("web-0", "");
    let first = old.sandbox("10.77.0.10");
    let cookie = node.wait_for("web-0", PodState::Armed).cookie;
    old.delete();
    let gone = || {
        node.server()
            .kubectl(["get", "pod", "web-0", "-n", &node.name])
            .is_err()
    };
    assert!(eventually(PATIENCE, gone));
    let new = node.create("web-0", "-o 9999");
    assert_ne!(old.uid, new.uid);
    node.wait_for("web-0", PodState::Pending);
    let second = new.sandbox("10.77.0.11");
    assert_ne!(node.wait_for("web-0", PodState::Armed).cookie, cookie);
    drop(first);
    assert!(eventually(PATIENCE, || node.inbound_links() == 1));
    let _proxy = second.proxy();
    node.wait_for("web-0", PodState::Active);
    assert_captured(&second.app(), "outbound", SERVICE);
}

#[needs(apiserver)]
fn an_api_server_that_goes_away_for_a_while_changes_nothing() {
    let server = Arc::new(ApiServer::start());
    let node = KubeNode::on(Arc::clone(&server), Driver::Cgroupfs);
    node.start_agent();
    let pod = node.create("web", "");
    let later = node.create("later", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");

    server.namespace().ip("link set lo down");
    let app = sandbox.app();
    assert_captured(&app, "outbound", SERVICE);
    // A pod that was told of before still finds its way in.
    let late = later.sandbox("10.77.0.11");
    node.wait_for("later", PodState::Armed);
    assert!(node.agent().status().is_some_and(|status| status.ready));

    server.namespace().ip("link set lo up");
    let newest = node.create("newest", "");
    let newest = newest.sandbox("10.77.0.12");
    node.wait_for("newest", PodState::Armed);
    drop((late, newest));
}

/// No reset, no error: only silence. Running pods do not notice, the webhook is told by the agent's readiness, and the agent
/// finds the way back over new connections.
#[needs(apiserver)]
fn a_connection_that_goes_dead_is_noticed_and_replaced() {
    let server = Arc::new(ApiServer::start());
    let mut node = KubeNode::on(Arc::clone(&server), Driver::Cgroupfs);
    node.arguments = vec!["--api-patience=8".to_owned()];
    node.line = Some(Line::to(&server));
    node.start_agent();
    let pod = node.create("web", "");
    let later = node.create("later", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    node.wait_for("later", PodState::Pending);

    let line = node.line.as_ref().expect("a line");
    line.cut();
    node.agent().wait("the silence to be noticed", || {
        let (status, why) = node.admin("/readyz");
        status == 503 && why.starts_with("api: the API server has not answered")
    });
    // The watch fails by itself: so long after the last that it brought, which may have been the pods' own events.
    node.wait_for_metric("sidestep_agent_watch_connected", ..=0.0);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    let late = later.sandbox("10.77.0.11");
    node.wait_for("later", PodState::Armed);

    line.mend();
    let newest = node.create("newest", "");
    let newest = newest.sandbox("10.77.0.12");
    node.wait_for("newest", PodState::Armed);
    node.agent().wait_until_ready();
    node.wait_for_metric("sidestep_agent_watch_connected", 1.0..=1.0);
    drop((late, newest));
}

/// Nothing happens for longer than the API server may be silent: a watch without news is no silence.
#[needs(apiserver)]
fn an_agent_that_has_no_news_stays_ready() {
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.arguments = vec!["--api-patience=4".to_owned()];
    node.start_agent();
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        assert_eq!(node.admin("/readyz"), (200, "ready\n".to_owned()));
        sleep(Duration::from_millis(100));
    }
    assert!(node.metric("sidestep_agent_watch_errors_total") < 0.1);
}

/// Of a machine that lost its power nothing is left in the kernel, and its pods are the same to the API server.
#[needs(apiserver)]
fn after_a_reboot_the_same_pods_are_captured_again() {
    let mut node = KubeNode::with_agent();
    let names = ["early", "late"];
    let uids = names.map(|name| node.create(name, "").uid);
    let start = |node: &KubeNode, nth: usize| {
        let pod = node.known(names[nth]);
        assert_eq!(pod.uid, uids[nth]);
        pod.sandbox(&format!("10.77.0.1{nth}"))
    };
    let before = [0, 1].map(|nth| {
        let sandbox = start(&node, nth);
        let proxy = sandbox.proxy();
        let status = node.wait_for(names[nth], PodState::Active);
        (sandbox, proxy, status.cookie)
    });
    node.take_agent().kill();
    let cookies = before.map(|(sandbox, _proxy, cookie)| {
        sandbox.end();
        cookie
    });
    let pins = node.base().folders().pins();
    for folder in shortcut_maps::folders(&pins).into_iter().chain([pins]) {
        fs::remove_dir_all(folder).expect("pins");
    }

    // The agent is a pod itself, and not the first that kubelet starts.
    let early = start(&node, 0);
    node.start_agent();
    let after = [early, start(&node, 1)];
    let outside = node.base().outside();
    for (nth, sandbox) in after.iter().enumerate() {
        let _proxy = sandbox.proxy();
        let status = node.wait_for(names[nth], PodState::Active);
        assert_ne!(status.cookie, cookies[nth]);
        assert_captured(&sandbox.app(), "outbound", SERVICE);
        assert_captured(&outside, "inbound", &format!("10.77.0.1{nth}:8080"));
    }
    assert_eq!(node.inbound_links(), 2);
}

/// As when the DaemonSet is deleted: where no pod is left, nothing of Sidestep is.
#[needs(apiserver)]
fn an_agent_that_ends_where_no_pod_is_armed_leaves_nothing() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    node.wait_for("web", PodState::Armed);
    let pins = node.base().folders().pins();
    assert!(node.take_agent().stop().success());
    let refused = node.uninstall();
    assert!(
        refused.contains("1 pods of this node are armed"),
        "{refused}"
    );
    assert!(pins.exists());

    node.start_agent();
    assert!(node.uninstall().contains("an agent answers"));
    // One that is about to start does not answer yet, or elsewhere.
    let mut command = Command::new(binary("sidestep-agent"));
    command.args(["uninstall", "--socket=/nowhere"]);
    let output = command.arg("--pin").arg(&pins).output().expect("it runs");
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{refused}");
    assert!(refused.contains("looks after the pins"), "{refused}");
    drop(sandbox);
    node.agent()
        .wait("the namespace to be let go", || node.inbound_links() == 0);
    assert!(node.take_agent().stop().success());
    assert!(!pins.exists());
    let shortcuts = shortcut_maps::folders(&pins);
    assert!(shortcuts.is_empty(), "{shortcuts:?}");
    assert_eq!(node.uninstall(), "");
}

/// The DaemonSet went first, and its last pods later.
#[needs(apiserver)]
fn what_an_agent_left_is_taken_away_when_its_pods_are_gone() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    node.wait_for("web", PodState::Armed);
    assert!(node.take_agent().stop().success());
    drop(sandbox);
    assert!(eventually(PATIENCE, || node.uninstall().is_empty()));
    assert!(!node.base().folders().pins().exists());
}
