//! Whose `resolv.conf` is the pod's, where its containers have different ones.

use std::{fs, process::Command};

use sidestep_kit::{
    actor::{Actor, Family, Kind, Report},
    kubelet::{Driver, KubeNode, PATIENCE, Sandbox},
    needs,
    process::{Running, eventually},
    redirect::PodState,
};

/// In one of the files.
const ONE: &str = "10.77.0.53";
/// In the other.
const OTHER: &str = "10.77.0.54";
/// Under which name the cgroups of the sandbox's process and of a container's are listed first differs from kernel to kernel.
const NAMES: [[&str; 2]; 2] = [["a", "b"], ["b", "a"]];

/// Starts the sandbox's process with a file of this text, then a container's with that one, in cgroups of these names.
fn pod(
    node: &KubeNode,
    name: &str,
    address: &str,
    cgroups: [&str; 2],
    files: [&str; 2],
) -> (Sandbox, [Running; 2]) {
    let pod = node.create(name, "--redirect-dns");
    let namespace = node.base().network().host("pod", &[address]);
    let cgroup = pod.cgroup();
    let processes = [0, 1].map(|nth| {
        let container = cgroup.child(cgroups[nth]);
        let root = format!(
            "mount --make-rprivate / && mount -t tmpfs ss /mnt && mkdir -p /mnt/own/etc /mnt/root && printf '{}' \
             >/mnt/own/etc/resolv.conf && mount -t overlay -o lowerdir=/mnt/own:/ ss /mnt/root && exec chroot /mnt/root sleep 600",
            files[nth]
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &root]);
        namespace.command_enters(&mut command);
        container.command_joins(&mut command);
        // The kit removes a cgroup with the processes in it; this one goes with the pod's.
        std::mem::forget(container);
        let mut process = Running::start(&mut command);
        let seen = format!("/proc/{}/root/etc/resolv.conf", process.child().id());
        let wanted = files[nth].replace("\\n", "\n");
        let has_it = || fs::read_to_string(&seen).is_ok_and(|text| text == wanted);
        assert!(eventually(PATIENCE, has_it), "{seen} is not {wanted:?}");
        process
    });
    (Sandbox::start(cgroup, namespace), processes)
}

/// Who answers a query to this server.
#[track_caller]
fn ask(app: &Actor, server: &str) -> String {
    let socket = app.socket(Family::V4, Kind::Udp).expect("a socket");
    let server = format!("{server}:53");
    socket.send_to(b"?", &server).expect("it can send");
    let (bytes, from) = socket.receive_from().expect("an answer");
    assert_eq!(from.map(|from| from.to_string()), Some(server));
    let report: Report = serde_json::from_slice(&bytes).expect("a report");
    report.name
}

#[needs(apiserver, "unshare", "chroot")]
fn the_sandboxs_own_file_decides_which_servers_are_captured_and_no_other_containers() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    let resolver = node.base().network().host("resolver", &[ONE, OTHER]);
    let servers = node.base().actor_in(&resolver);
    let _answering = [ONE, OTHER].map(|it| servers.serve("server", Kind::Udp, &format!("{it}:53")));
    let [one, other] = [ONE, OTHER].map(|it| format!("nameserver {it}\\n"));
    let none = "search example.org\\n";
    let cases = [
        ([&*one, &*other], ["proxy", "server"]),
        ([&*other, &*one], ["server", "proxy"]),
        ([none, &*other], ["server", "server"]),
    ];
    let mut pods = Vec::new();
    for (nth, (files, answer)) in cases.into_iter().enumerate() {
        for (kind, cgroups) in NAMES.into_iter().enumerate() {
            let name = format!("pod-{nth}-{kind}");
            let address = format!("10.77.{}.{}", nth + 1, kind + 1);
            let (sandbox, processes) = pod(&node, &name, &address, cgroups, files);
            let proxy = sandbox.proxy();
            let dns = proxy.actor.serve("proxy", Kind::Udp, "127.0.0.1:15053");
            pods.push((name, sandbox, processes, proxy, dns, answer));
        }
    }
    // Both containers are there when it looks first.
    node.start_agent();
    for (name, sandbox, .., answer) in &pods {
        node.wait_for(name, PodState::Active);
        let app = sandbox.app();
        assert_eq!(
            [ONE, OTHER].map(|server| ask(&app, server)),
            *answer,
            "{name}"
        );
    }
}
