//! A pod with Sidestep in place of iptables.

use std::{
    collections::BTreeSet, ffi::OsStr, fs, os::unix::fs::MetadataExt, path::Path, process::Command,
};

use serde_json::{Value, json};
use sidestep_cluster::room::{Room, objects};
use sidestep_kit::{app::Seen, bpftool, needs};

use crate::world::{is_gated, is_plain_istio, shared};

/// What must be attached to the pods' cgroup: a link's pin, and what bpftool calls the place.
const HOOKS: [(&str, &str); 11] = [
    ("getsockopt", "cgroup_getsockopt"),
    ("getpeername4", "cgroup_inet4_getpeername"),
    ("getpeername6", "cgroup_inet6_getpeername"),
    ("recvmsg4", "cgroup_udp4_recvmsg"),
    ("recvmsg6", "cgroup_udp6_recvmsg"),
    ("sock_ops", "cgroup_sock_ops"),
    ("sock_create", "cgroup_inet_sock_create"),
    ("sendmsg4", "cgroup_udp4_sendmsg"),
    ("sendmsg6", "cgroup_udp6_sendmsg"),
    ("connect4", "cgroup_inet4_connect"),
    ("connect6", "cgroup_inet6_connect"),
];

#[needs(sidestep_cluster::programs)]
fn an_injected_pod_is_accelerated_and_has_no_privileged_init_container() {
    let cluster = shared();
    let room = cluster.mesh_room("accelerated");
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ]);
    room.accelerated(&["server", "client"]);
    for name in ["server", "client"] {
        let pod = room.get(&format!("pod {name}"));
        assert!(is_gated(&pod), "{pod:#}");
        for container in containers(&pod) {
            let context = &container["securityContext"];
            assert_ne!(context["privileged"], json!(true), "{container:#}");
            assert!(context["capabilities"]["add"].is_null(), "{container:#}");
        }
        assert_eq!(room.packet_rules(name), "");
    }
    let answer = called(&room);
    assert_eq!(answer.pod, "server");
    assert!(is_from(&room, &answer), "{answer:?}");
    // The kernel's own count: the call was captured at the client, and taken in at the server.
    let rows = |pod| room.told_of(pod).expect("it is armed").rows;
    assert!(rows("client")["out-12"] > 0);
    assert!(rows("server")["in-all"] > 0);
}

#[needs(sidestep_cluster::programs)]
fn a_pod_that_opted_out_keeps_iptables() {
    let cluster = shared();
    let room = cluster.mesh_room("opted-out");
    let mut server = objects::server("server");
    server["metadata"]["labels"]["sidestep.dev/enabled"] = json!("false");
    room.apply(&[
        server,
        objects::service("server"),
        objects::client("client"),
    ]);
    room.accelerated(&["client"]);
    room.ready(&["server"]);
    let pod = room.get("pod server");
    assert!(is_plain_istio(&pod), "{pod:#}");
    assert!(room.packet_rules("server").contains("ISTIO_INBOUND"));
    assert!(room.told_of("server").is_none());
    // And the two understand each other.
    let answer = called(&room);
    assert!(is_from(&room, &answer), "{answer:?}");
}

#[needs(sidestep_cluster::programs)]
fn the_agent_is_ready_for_the_right_reasons() {
    let cluster = shared();
    let status = cluster.agent_status();
    assert!(status.ready, "{:?}", status.errors);
    assert_eq!(status.errors, Vec::<String>::new());
    assert_eq!(status.cgroup, cluster.pods_cgroup());
    // Ready is said after the probe: it went through every hook, and none of it stays.
    let left = fs::read_dir(cluster.pods_cgroup()).expect("the pods' cgroup");
    let names: Vec<_> = left
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("a name of ours"))
        .collect();
    assert!(
        names.iter().all(|name| !name.contains("sidestep-probe")),
        "{names:?}"
    );
    let attached = attached_to(&cluster.pods_cgroup());
    let links = fs::read_dir(cluster.pins().join("v1/links")).expect("pinned links");
    let links: BTreeSet<_> = links.flatten().map(|link| link.file_name()).collect();
    for (link, hook) in HOOKS {
        assert!(attached.contains(hook), "{hook}: {attached:?}");
        assert!(links.contains(OsStr::new(link)), "{link}: {links:?}");
    }
    // Where the shortcut is on, its self-test passed; else it says what is missing.
    assert_eq!(status.shortcut.on, status.shortcut.reason.is_none());
    let agent = cluster.agent();
    let context = &agent["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["privileged"], json!(false));
    assert_eq!(context["readOnlyRootFilesystem"], json!(true));
}

#[needs(sidestep_cluster::programs)]
fn no_namespace_but_a_pods_is_armed() {
    let cluster = shared();
    let room = cluster.mesh_room("armed");
    room.apply(&[objects::client("client")]);
    room.accelerated(&["client"]);
    // A pod's processes start in the node's own namespace, in the pod's cgroup.
    let own = fs::metadata(format!("/proc/{}/ns/net", cluster.host().pid()));
    let own = own.expect("the node runs").ino();
    let links = Command::new("bpftool")
        .args(["-j", "link", "show"])
        .output()
        .expect("bpftool is installed");
    let links: Value = serde_json::from_slice(&links.stdout).expect("bpftool writes JSON");
    let links = links.as_array().expect("a list");
    assert!(links.iter().any(|link| link["type"] == "netns"));
    assert!(
        links.iter().all(|link| link["netns_ino"] != json!(own)),
        "the node itself is armed"
    );
}

/// The programs that are attached to a cgroup, by where.
fn attached_to(cgroup: &Path) -> BTreeSet<String> {
    let programs = bpftool::attached(cgroup);
    programs
        .iter()
        .map(|it| it["attach_type"].as_str().expect("a name").to_owned())
        .collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|kind| pod["spec"][kind].as_array().into_iter().flatten())
}

/// What the server saw of a call by the client.
fn called(room: &Room<'_>) -> Seen {
    let answer = room.exec("client", "wget -qO- http://server/");
    serde_json::from_str(&answer).expect("the application answers JSON")
}

/// Whether a call came by mutual TLS, from a pod of this room: its certificate says so.
fn is_from(room: &Room<'_>, seen: &Seen) -> bool {
    let identity = format!("URI=spiffe://cluster.local/ns/{}/sa/default", room.name());
    let caller = seen.headers.get("x-forwarded-client-cert");
    caller.is_some_and(|caller| caller.contains(&identity))
}
