//! Releases whose maps have another layout, by two real builds: they roll out, and back, as any other.

use std::collections::BTreeMap;

use sidestep_ebpf_common::ABI_VERSION;
use sidestep_kit::{
    actor::Kind,
    needs,
    redirect::{Node, Pod, PodState},
};

use crate::{POD, SERVICE, assert_captured};

const OTHER: &str = "10.77.0.11";

#[needs(root)]
fn no_connection_fails_while_a_release_with_another_layout_rolls_out_and_back() {
    let mut node = Node::alone();
    let (old, old_proxy) = node.pod_with_proxy("client", &[POD]);
    let loads = [
        (old.app(), SERVICE.to_owned()),
        (node.outside(), inbound(POD)),
    ];
    let _listener = old.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
    for (from, to) in &loads {
        from.start_load(to, 2, 2);
    }
    roll(&mut node, true);
    kept(&node, &old);

    // What comes now is the new one's, beside the old.
    let (new, _new_proxy) = node.pod_with_proxy("client", &[OTHER]);
    assert_captured(&new.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &inbound(OTHER));
    assert_eq!(folders(&node), ["v1", "v2"]);
    let layouts = node.agent().status().expect("it answers").layouts;
    assert_eq!(
        layouts,
        BTreeMap::from([("v1".to_owned(), 1), ("v2".to_owned(), 1)])
    );

    // The same the other way round: each pod stays whose it is.
    roll(&mut node, false);
    node.wait_active(&old);
    kept(&node, &new);
    assert_captured(&new.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &inbound(OTHER));
    for (from, _) in &loads {
        let load = from.stop_load();
        assert_eq!(load.failed, BTreeMap::new());
        assert!(load.answered.values().sum::<u64>() > 100, "{load:?}");
    }

    // The folder goes with the last of its pods, and the others notice nothing.
    roll(&mut node, true);
    kept(&node, &old);
    drop((loads, old_proxy));
    node.remove_pod_file(&old);
    drop(old);
    node.agent()
        .wait("the old version to go", || folders(&node) == ["v2"]);
    node.wait_active(&new);
    assert_captured(&new.app(), "outbound", SERVICE);
}

#[needs(root)]
fn a_pod_of_another_layout_is_captured_by_its_programs_when_its_proxy_starts_again() {
    let mut node = Node::alone();
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    roll(&mut node, true);
    kept(&node, &pod);
    proxy.kill();
    assert!(pod.app().call(SERVICE).is_err(), "it passes the proxy by");
    let _proxy = pod.proxy();
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &inbound(POD));
    // And what is lost of its pins is put back.
    let pins = node.folders().pins().join(format!("v{ABI_VERSION}"));
    std::fs::remove_dir_all(pins.join("links")).expect("pins");
    node.agent().wait("pins to be there again", || {
        std::fs::read_dir(pins.join("links")).is_ok_and(|links| links.count() == 11)
    });
    assert_captured(&pod.app(), "outbound", SERVICE);
}

/// The agent is killed, as it is at the end of its patience, and another build's comes.
fn roll(node: &mut Node, to_next: bool) {
    node.take_agent().kill();
    node.change_layout(to_next);
    node.start_agent();
}

fn kept(node: &Node, pod: &Pod) {
    node.agent()
        .wait_for(pod.name(), |state| state == PodState::Kept);
    assert_captured(&pod.app(), "outbound", SERVICE);
}

fn inbound(pod: &str) -> String {
    format!("{pod}:8080")
}

/// The versions that are pinned.
fn folders(node: &Node) -> Vec<String> {
    let all = std::fs::read_dir(node.folders().pins())
        .expect("pins")
        .flatten();
    let mut all: Vec<_> = all
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}
