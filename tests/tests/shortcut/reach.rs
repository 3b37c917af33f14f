//! How far the shortcut reaches between two sidecars, by what their pods allow and by which Kubernetes namespaces they are of.

use sidestep_kit::{
    needs,
    redirect::{Node, Pod},
};

use crate::agent::{Captured, Proxy, counted, until_off, with_shortcut};

/// A pod whose proxy listens.
struct Side {
    pod: Pod,
    proxy: Proxy,
}

impl Side {
    /// Of this Kubernetes namespace, with the last part of its address and what it allows.
    fn new(node: &Node, namespace: &str, address: u8, reach: &str) -> Self {
        let pod = node.bare_pod("client", &[&format!("10.77.0.{address}")]);
        node.program(&pod, &manifest(&pod, namespace, reach));
        let proxy = Proxy::of(&pod);
        node.wait_active(&pod);
        Self { pod, proxy }
    }

    /// What its sidecar sends to another's: it is captured on its way in.
    fn connect(&self, to: &Self) -> Captured {
        let address = to.pod.addresses()[0];
        let app = self.proxy.connect(&format!("{address}:8080"));
        Captured {
            app,
            proxy: to.proxy.accept_inbound(),
        }
    }

    /// Whether a new connection's messages go past TCP to another's sidecar, and back.
    fn reaches(&self, node: &Node, to: &Self) -> bool {
        goes_past(node, &self.connect(to))
    }
}

/// Whether messages go past TCP, which must be so in both directions or in none.
fn goes_past(node: &Node, connection: &Captured) -> bool {
    connection.send("first;");
    connection.expect("first;");
    let before = counted(node, "redirected");
    for _ in 0..3 {
        connection.send("more;");
        connection.expect("more;");
    }
    let there = counted(node, "redirected");
    for _ in 0..4 {
        connection.answer("answer;");
    }
    let back = counted(node, "redirected");
    assert_eq!(there > before, back > there, "in one direction only");
    there > before
}

/// The pod's file with this reach, in this Kubernetes namespace.
fn manifest(pod: &Pod, namespace: &str, reach: &str) -> String {
    let manifest = with_shortcut(pod, reach);
    let moved = manifest.replacen(
        "\n  namespace: demo\n",
        &format!("\n  namespace: {namespace}\n"),
        1,
    );
    assert_ne!(moved, manifest, "the file names no namespace");
    moved
}

/// Whether the sidecars of two new pods reach each other past TCP. Each case has addresses of its own.
fn joined(node: &Node, case: usize, namespaces: [&str; 2], reach: [&str; 2]) -> bool {
    let address = 20 + 2 * u8::try_from(case).expect("a few cases");
    let first = Side::new(node, namespaces[0], address, reach[0]);
    let second = Side::new(node, namespaces[1], address + 1, reach[1]);
    first.reaches(node, &second)
}

#[needs(root)]
fn sidecars_of_one_node_reach_each_other_past_tcp_where_both_pods_want_it() {
    let node = Node::alone();
    let first = Side::new(&node, "shop", 10, "node");
    let second = Side::new(&node, "bank", 11, "node");
    let connection = first.connect(&second);
    assert!(goes_past(&node, &connection), "it goes by TCP");

    // One of the two turns it off, with something unread.
    connection.send("unread;");
    node.write_pod_file(&second.pod, &manifest(&second.pod, "bank", "off"));
    let dots = until_off(&node, &connection);
    connection.expect(&format!("unread;{dots}"));
}

#[needs(root)]
fn sidecars_stay_on_tcp_where_one_pod_wants_no_more_than_its_own() {
    let node = Node::alone();
    let cases = [
        ["node", "pod"],
        ["pod", "node"],
        ["namespace", "pod"],
        ["pod", "namespace"],
        ["pod", "pod"],
    ];
    for (case, reach) in cases.into_iter().enumerate() {
        assert!(!joined(&node, case, ["shop"; 2], reach), "{reach:?}");
    }
    assert_eq!(counted(&node, "redirected"), 0);
}

#[needs(root)]
fn namespace_joins_the_sidecars_of_one_namespace_and_no_others() {
    let node = Node::alone();
    let cases = [
        ["namespace", "namespace"],
        ["namespace", "node"],
        ["node", "namespace"],
    ];
    for (case, reach) in cases.into_iter().enumerate() {
        assert!(joined(&node, case, ["shop"; 2], reach), "{reach:?}");
    }
    let redirected = counted(&node, "redirected");
    for (case, reach) in (3..).zip(cases) {
        let apart = joined(&node, case, ["shop", "bank"], reach);
        assert!(!apart, "of two namespaces: {reach:?}");
    }
    assert_eq!(counted(&node, "redirected"), redirected);
    assert!(joined(&node, 6, ["shop", "bank"], ["node"; 2]));
}

#[needs(root)]
fn a_pod_that_is_narrowed_to_its_namespace_leaves_the_others_to_tcp() {
    let node = Node::alone();
    let first = Side::new(&node, "shop", 10, "node");
    let second = Side::new(&node, "bank", 11, "node");
    let beside = Side::new(&node, "shop", 12, "node");
    let [apart, within] = [&second, &beside].map(|other| first.connect(other));
    for connection in [&apart, &within] {
        assert!(goes_past(&node, connection), "it goes by TCP");
    }
    apart.send("unread;");
    node.write_pod_file(&first.pod, &manifest(&first.pod, "shop", "namespace"));
    let dots = until_off(&node, &apart);
    apart.expect(&format!("unread;{dots}"));
    assert!(goes_past(&node, &within), "of one namespace");
    assert!(!first.reaches(&node, &second));
}

#[needs(root)]
fn the_agents_own_limit_may_be_the_namespace() {
    let mut node = Node::alone();
    node.take_agent().kill();
    node.add_agent_argument("--shortcut=namespace");
    node.start_agent();
    assert!(!joined(&node, 0, ["shop", "bank"], ["node"; 2]));
    assert!(joined(&node, 1, ["shop"; 2], ["node"; 2]));
}

/// Which pods are of one namespace is told by the agent: what the last one told holds, and the next one tells the same.
#[needs(root)]
fn an_agent_that_takes_over_knows_who_is_of_one_namespace() {
    let mut node = Node::alone();
    let side = |node: &Node, namespace, address| Side::new(node, namespace, address, "namespace");
    let first = side(&node, "shop", 10);
    let second = side(&node, "shop", 11);
    let apart = side(&node, "bank", 12);
    let open = first.connect(&second);
    assert!(goes_past(&node, &open), "it goes by TCP");
    node.take_agent().kill();
    let unwatched = [first.connect(&second), first.connect(&apart)];
    node.start_agent();
    for side in [&first, &second, &apart] {
        node.wait_active(&side.pod);
    }
    // What the other one counted is there once its maps are this one's.
    node.agent()
        .wait("the shortcut", || counted(&node, "redirected") > 0);
    assert!(goes_past(&node, &open), "open before");
    let past = unwatched.each_ref().map(|it| goes_past(&node, it));
    assert_eq!(past, [true, false], "made while there was no agent");
    let new = [("shop", 13), ("bank", 14)].map(|(name, address)| side(&node, name, address));
    let reaches = |from: &Side, to: &Side| from.reaches(&node, to);
    assert!(reaches(&first, &second) && reaches(&new[0], &first) && reaches(&second, &new[0]));
    assert!(reaches(&new[1], &apart) && reaches(&apart, &new[1]));
    assert!(!reaches(&new[0], &new[1]) && !reaches(&first, &apart) && !reaches(&apart, &new[0]));
}
