//! The shortcut in the agent's hands: armed pods take part, and whatever happens to the agent, no byte is lost.

use std::{cell::Cell, collections::BTreeMap};

use sidestep_kit::{
    actor::{Actor, Identity, Socket},
    needs,
    redirect::{Node, POD, Pod, PodState, SERVICE},
};

/// A captured connection: the application's end, and its proxy's.
pub struct Captured {
    pub app: Socket,
    pub proxy: Socket,
}

impl Captured {
    /// Sends from the application, and does not read.
    #[track_caller]
    pub fn send(&self, text: &str) {
        self.app.send(text.as_bytes()).expect("there is room");
    }

    /// Sends from the proxy, and reads as much at the application.
    #[track_caller]
    pub fn answer(&self, text: &str) {
        self.proxy.send(text.as_bytes()).expect("there is room");
        read(&self.app, text);
    }

    /// Reads at the proxy until it has as much as this, which must be it.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        read(&self.proxy, text);
    }
}

#[track_caller]
fn read(from: &Socket, text: &str) {
    let mut got = Vec::new();
    while got.len() < text.len() {
        got.extend(from.receive().expect("there is more to come"));
    }
    assert_eq!(String::from_utf8_lossy(&got), text);
}

/// A proxy that only listens, so that a test can accept in its name.
pub struct Proxy {
    actor: Actor,
    outbound: Socket,
    inbound: Socket,
}

impl Proxy {
    pub fn of(pod: &Pod) -> Self {
        let actor = pod.actor(&Identity::proxy());
        Self {
            outbound: actor.listen("0.0.0.0:15001"),
            inbound: actor.listen("0.0.0.0:15006"),
            actor,
        }
    }

    /// Connects to another's: what the proxy itself connects is not captured on its way out.
    pub fn connect(&self, to: &str) -> Socket {
        self.actor.connect(to).expect("somebody listens")
    }

    /// Takes what was captured on its way in.
    pub fn accept_inbound(&self) -> Socket {
        self.inbound.accept().expect("a connection").0
    }

    pub fn capture(&self, app: &Actor) -> Captured {
        let app = app.connect(SERVICE).expect("it is captured");
        let (proxy, _) = self.outbound.accept().expect("a connection");
        Captured { app, proxy }
    }
}

pub fn counted(node: &Node, what: &str) -> u64 {
    let status = node.agent().status().expect("the agent answers");
    assert!(status.shortcut.on, "{:?}", status.shortcut.reason);
    status.shortcut.counts[what]
}

/// A connection whose first message has arrived, and whose messages go past TCP from then on.
pub fn shortcut(node: &Node, proxy: &Proxy, app: &Actor) -> Captured {
    // The first of a program stays with TCP.
    let first = proxy.capture(app);
    first.send("first;");
    first.expect("first;");
    drop(first);
    let connection = proxy.capture(app);
    connection.send("first;");
    connection.expect("first;");
    let before = counted(node, "redirected");
    connection.send("second;");
    connection.expect("second;");
    assert!(counted(node, "redirected") > before, "it goes by TCP");
    connection
}

/// Sends dots until one goes by TCP because a pod is turned off; says which it sent.
pub fn until_off(node: &Node, connection: &Captured) -> String {
    let sent = Cell::new(0);
    node.agent().wait("messages to go by TCP", || {
        let probe = counted(node, "off");
        connection.send(".");
        sent.set(sent.get() + 1);
        counted(node, "off") > probe
    });
    ".".repeat(sent.get())
}

#[needs(root)]
fn an_applications_bytes_reach_its_sidecar_past_tcp() {
    let node = Node::alone();
    let (pod, proxy) = pod(&node);
    shortcut(&node, &proxy, &pod.app());
}

#[needs(root)]
fn a_proxy_that_listened_before_its_pod_was_armed_is_known() {
    let node = Node::alone();
    let pod = node.bare_pod("client", &[POD]);
    let proxy = Proxy::of(&pod);
    node.write_pod_file(&pod, &with_shortcut(&pod, "pod"));
    node.wait_active(&pod);
    shortcut(&node, &proxy, &pod.app());
}

#[needs(root)]
fn a_pod_that_does_not_want_it_goes_by_tcp() {
    let node = Node::alone();
    let pod = node.bare_pod("client", &[POD]);
    node.write_pod_file(&pod, &with_shortcut(&pod, "off"));
    let proxy = Proxy::of(&pod);
    node.wait_active(&pod);
    let connection = proxy.capture(&pod.app());
    connection.send("first;second;");
    connection.expect("first;second;");
    assert_eq!(counted(&node, "redirected"), 0);
}

#[needs(root)]
fn turned_off_it_loses_nothing_that_is_on_its_way() {
    let node = Node::alone();
    let (pod, proxy) = pod(&node);
    let connection = shortcut(&node, &proxy, &pod.app());
    connection.send("unread;");
    node.write_pod_file(&pod, &with_shortcut(&pod, "off"));
    let dots = until_off(&node, &connection);
    connection.expect(&format!("unread;{dots}"));
    let redirected = counted(&node, "redirected");
    connection.send("last");
    assert_eq!(counted(&node, "redirected"), redirected);
}

#[needs(root)]
fn an_agent_that_is_killed_leaves_it_as_it_is_and_the_next_one_takes_over() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    let app = pod.app();
    let connection = shortcut(&node, &proxy, &app);
    connection.send("unread;");
    node.take_agent().kill();
    connection.send("without an agent;");
    node.start_agent();
    node.wait_active(&pod);
    connection.send("with another;");
    connection.expect("unread;without an agent;with another;");
    shortcut(&node, &proxy, &app);
}

#[needs(root)]
fn an_agent_that_ends_loses_nothing_that_is_unread() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    let connection = shortcut(&node, &proxy, &pod.app());
    connection.send("unread;");
    let ended = node.take_agent().stop();
    assert!(ended.success(), "{ended}");
    connection.send("after the end;");
    connection.expect("unread;after the end;");
}

#[needs(root)]
fn an_agent_that_is_told_off_turns_off_what_another_left_and_loses_nothing() {
    let mut node = Node::alone();
    let (pod, proxy) = pod(&node);
    let connection = shortcut(&node, &proxy, &pod.app());
    connection.send("unread;");
    node.take_agent().kill();
    connection.send("past TCP still;");
    node.add_agent_argument("--shortcut=off");
    node.start_agent();
    node.wait_active(&pod);
    let status = node.agent().status().expect("the agent answers").shortcut;
    assert!(!status.on, "{:?}", status.counts);
    connection.send("by TCP;");
    connection.expect("unread;past TCP still;by TCP;");
    let after = proxy.capture(&pod.app());
    after.send("as well");
    after.expect("as well");
}

/// Some kernels tell programs wrong things of a socket in a sockhash. There applications keep to TCP that do not ask for it.
#[needs(root)]
fn an_application_that_says_nothing_takes_part_only_where_it_cannot_notice() {
    let node = Node::alone();
    let pod = node.pod("client", &[POD]);
    let proxy = Proxy::of(&pod);
    node.wait_active(&pod);
    let app = pod.app();
    for _ in 0..2 {
        let connection = proxy.capture(&app);
        for _ in 0..3 {
            connection.send("a message;");
            connection.expect("a message;");
        }
    }
    let status = node.agent().status().expect("the agent answers").shortcut;
    let why = status.not_from_applications;
    assert_eq!(status.counts["redirected"] > 0, why.is_none(), "{why:?}");
}

/// An agent that is killed leaves everything, to another build's too; one that is told to end takes everything away, under
/// what is kept open.
#[needs(root)]
fn no_request_fails_while_agents_come_and_go() {
    let mut node = Node::alone();
    let pod = programmed(&node, POD, "pod");
    let _proxy = pod.proxy();
    node.wait_active(&pod);
    let app = pod.app();
    for (kill, upgrade) in [(true, false), (false, false), (true, true)] {
        // Without an agent to take over, and so without interception, new connections go nowhere.
        app.start_load(SERVICE, if kill { 2 } else { 0 }, 4);
        let redirected = counted(&node, "redirected");
        node.agent().wait("requests", || {
            counted(&node, "redirected") > redirected + 200
        });
        let agent = node.take_agent();
        if kill {
            agent.kill();
        } else {
            assert!(agent.stop().success());
        }
        if upgrade {
            node.upgrade_agent();
        }
        node.start_agent();
        node.wait_active(&pod);
        let load = app.stop_load();
        assert_eq!(load.failed, BTreeMap::new());
        assert!(load.answered.values().sum::<u64>() > 200, "{load:?}");
    }
}

/// What is redirected of a pod that another layout's programs keep goes by TCP from then on.
#[needs(root)]
fn no_request_fails_while_a_release_with_another_layout_comes() {
    let mut node = Node::alone();
    let pod = programmed(&node, POD, "pod");
    let _proxy = pod.proxy();
    node.wait_active(&pod);
    let app = pod.app();
    app.start_load(SERVICE, 2, 4);
    node.agent()
        .wait("requests", || counted(&node, "redirected") > 200);
    node.take_agent().kill();
    node.change_layout(true);
    node.start_agent();
    node.agent()
        .wait_for(pod.name(), |state| state == PodState::Kept);
    let load = app.stop_load();
    assert_eq!(load.failed, BTreeMap::new());
    assert!(load.answered.values().sum::<u64>() > 200, "{load:?}");
}

/// A pod whose author says that its application's sockets may take part, whatever the kernel does to them, and its proxy.
pub fn pod(node: &Node) -> (Pod, Proxy) {
    let pod = programmed(node, POD, "pod");
    let proxy = Proxy::of(&pod);
    node.wait_active(&pod);
    (pod, proxy)
}

/// The same, whose proxy does not listen yet.
pub fn programmed(node: &Node, address: &str, reach: &str) -> Pod {
    let pod = node.bare_pod("client", &[address]);
    node.program(&pod, &with_shortcut(&pod, reach));
    pod
}

/// The pod's file with another reach.
pub fn with_shortcut(pod: &Pod, reach: &str) -> String {
    pod.annotated(&[
        ("sidestep.dev/shortcut", reach),
        ("sidestep.dev/shortcut-into", "application"),
    ])
}
