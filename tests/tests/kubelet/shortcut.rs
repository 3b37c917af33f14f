//! The shortcut between pods of a node: what it keeps of them goes with them.

use serde_json::json;
use sidestep_kit::{
    kubelet::{KubeNode, PATIENCE, Sandbox, pod},
    needs,
    process::eventually,
    redirect::PodState,
    shortcut_maps,
};

/// They allow everything, and end with a connection between their sidecars open.
#[needs(apiserver)]
fn pods_that_are_gone_leave_nothing_in_the_shortcuts_maps() {
    let mut node = KubeNode::with_agent();
    let pins = node.base().folders().pins();
    assert!(!shortcut_maps::folders(&pins).is_empty(), "it is off");
    let pods = ["client", "server"].map(|name| {
        let mut manifest = pod(name, &node.name, "");
        manifest["metadata"]["annotations"] = json!({"sidestep.dev/shortcut": "node"});
        node.create_as(name, &manifest)
    });
    let addresses = ["10.77.0.10", "10.77.0.11"];
    let sandboxes = [0, 1].map(|nth| pods[nth].sandbox(addresses[nth]));
    // Kubelet tells the API server what a pod's sandbox got.
    for (pod, address) in pods.iter().zip(addresses) {
        let status = format!("{{\"podIP\":\"{address}\",\"podIPs\":[{{\"ip\":\"{address}\"}}]}}");
        node.server().must(&format!(
            "patch pod {} -n {} --subresource=status --type=merge -p {{\"status\":{status}}}",
            pod.name, node.name
        ));
    }
    let proxies = sandboxes.each_ref().map(Sandbox::proxy);
    for pod in &pods {
        node.wait_for(&pod.name, PodState::Active);
    }
    // Whoever connects before the agent has seen an address stays with TCP.
    let mut connections = Vec::new();
    let joined = eventually(PATIENCE, || {
        let connection = proxies[0].actor.connect(&format!("{}:8080", addresses[1]));
        connections.push(connection.expect("it is captured"));
        let ends = shortcut_maps::entries(&pins).get("ENDS").copied();
        ends.is_some_and(|ends| ends >= 2)
    });
    assert!(joined, "{:?}", shortcut_maps::entries(&pins));
    let entries = shortcut_maps::entries(&pins);
    for map in ["MEMBERS", "ADDRESSES", "SWITCHES", "PROXY_PROCESSES"] {
        assert_eq!(entries.get(map), Some(&2), "{map}: {entries:?}");
    }

    for pod in &pods {
        pod.delete();
    }
    for sandbox in sandboxes {
        sandbox.end();
    }
    drop((proxies, connections));
    let empty = eventually(PATIENCE, || shortcut_maps::entries(&pins).is_empty());
    assert!(empty, "{:?}", shortcut_maps::entries(&pins));
    assert!(eventually(PATIENCE, || node.inbound_links() == 0));
    assert!(node.take_agent().stop().success());
    let left = shortcut_maps::folders(&pins);
    assert!(left.is_empty(), "{left:?}");
}
