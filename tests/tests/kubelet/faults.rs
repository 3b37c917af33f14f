//! What goes wrong with a machine while pods run on it: each fault is told of, ends by itself with its cause, leaves nothing
//! behind, and no running connection notices. Too few descriptors are in `descriptors.rs`.

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use sidestep_kit::{
    actor::{Actor, Kind, Load, Socket, assert_captured},
    kubelet::{Driver, KubeNode, PATIENCE, Proxy, Sandbox},
    needs,
    net::run,
    process::eventually,
    redirect::{PodState, SERVICE},
};

/// Whatever a pod has in them goes with it.
const MAPS: [&str; 8] = [
    "PODS", "PROXIES", "COUNTS", "PORTS", "ADDRS", "GROUPS", "FLOWS", "OPEN",
];

/// A pod whose connections never stop, in and out, new ones and kept ones.
struct Busy {
    app: Actor,
    outside: Actor,
    sandbox: Sandbox,
    _proxy: Proxy,
    _server: Actor,
    _listener: Socket,
}

impl Busy {
    fn start(node: &KubeNode) -> Self {
        let address = "10.77.0.10";
        let (sandbox, proxy) = node.create("busy", "").active(address);
        let (app, server) = (sandbox.app(), sandbox.app());
        let listener = server.serve("app", Kind::Tcp, "0.0.0.0:8080");
        let outside = node.base().outside();
        app.start_load(SERVICE, 2, 2);
        outside.start_load(&format!("{address}:8080"), 2, 2);
        Self {
            app,
            outside,
            sandbox,
            _proxy: proxy,
            _server: server,
            _listener: listener,
        }
    }

    #[track_caller]
    fn has_lost_nothing(self) -> Sandbox {
        for (load, by) in [
            (self.app.stop_load(), "outbound"),
            (self.outside.stop_load(), "inbound"),
        ] {
            let Load {
                answered, failed, ..
            } = &load;
            assert!(failed.is_empty(), "{load:?}");
            assert_eq!(answered.keys().collect::<Vec<_>>(), [by], "{load:?}");
        }
        self.sandbox
    }
}

/// Ends what runs there; nothing of any pod may be left, nor of the agent when it ends.
#[track_caller]
fn leaves_nothing(mut node: KubeNode, sandboxes: Vec<Sandbox>) {
    let pods = "delete pods --all --force --grace-period=0 --wait=false -n";
    node.server().must(&format!("{pods} {}", node.name));
    for sandbox in sandboxes {
        // Whoever waits for a last acknowledgement keeps the namespace for minutes, where the network goes first.
        let mut sockets = sandbox.namespace().command("ss");
        sockets.args(["--no-header", "--tcp", "--numeric"]);
        assert!(eventually(PATIENCE, || run(&mut sockets).stdout.is_empty()));
        sandbox.end();
    }
    let left = || {
        (
            node.inbound_links(),
            MAPS.map(|map| (map, node.base().entries(&[map]))),
        )
    };
    let nothing = || left() == (0, MAPS.map(|map| (map, 0)));
    assert!(
        eventually(PATIENCE, nothing),
        "left: {:?}; {}",
        left(),
        node.agent()
    );
    let pins = node.base().folders().pins();
    assert!(node.take_agent().stop().success());
    assert!(!pins.exists(), "{} is left", pins.display());
    let own = fs::read_dir(node.kubepods().path()).expect("a cgroup");
    let own: Vec<PathBuf> = own.flatten().map(|entry| entry.path()).collect();
    let is_ours = |path: &&PathBuf| path.to_string_lossy().contains("sidestep-");
    assert_eq!(own.iter().find(is_ours), None);
}

/// Shell commands that put a small file system on the folder of the agent's locks, and fill it.
fn full(options: &str) -> String {
    format!(
        "mkdir -p /run/sidestep; mount -t tmpfs -o {options} ss-full /run/sidestep; dd if=/dev/zero of=/run/sidestep/full bs=4k \
         count=16 status=none 2>&1 || true"
    )
}

#[needs(apiserver, "unshare", "mount", "dd", "ss")]
fn an_agent_on_a_full_disk_starts_and_arms() {
    let mut node = KubeNode::with_agent();
    let busy = Busy::start(&node);
    node.take_agent().kill();
    node.disguise = Some(full("size=16k"));
    node.start_agent();
    assert!(node.agent().log().contains("No space left on device"));
    let (sandbox, proxy) = node.create("late", "").active("10.77.0.11");
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    drop(proxy);
    let busy = busy.has_lost_nothing();
    leaves_nothing(node, vec![sandbox, busy]);
}

#[needs(apiserver, "unshare", "mount", "dd", "ss")]
fn an_agent_that_can_make_no_file_says_so_and_starts_when_it_can() {
    let mut node = KubeNode::with_agent();
    let busy = Busy::start(&node);
    node.take_agent().kill();
    node.disguise = Some(full("size=1m,nr_inodes=2"));
    node.launch_agent();
    node.agent().wait("the fault to be told", || {
        let (well, said) = node.probe("ready");
        !well && said.contains("/run/sidestep/") && said.contains("No space left on device")
    });
    assert_eq!(node.probe("alive"), (true, String::new()));
    let root = format!("/proc/{}/root", node.agent().pid());
    fs::remove_file(PathBuf::from(root).join("run/sidestep/full")).expect("a file of ours");
    fs_has_room(&node);
    node.agent().wait_until_ready();
    let (sandbox, proxy) = node.create("late", "").active("10.77.0.11");
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    drop(proxy);
    let busy = busy.has_lost_nothing();
    leaves_nothing(node, vec![sandbox, busy]);
}

/// The agent needs three files: a lock on the cgroup, and two on the pins.
fn fs_has_room(node: &KubeNode) {
    let pid = node.agent().pid().to_string();
    let mut remount = Command::new("nsenter");
    remount.args(["--mount", "--target", &pid, "mount", "-o"]);
    run(remount.args(["remount,nr_inodes=16", "/run/sidestep"]));
}

#[needs(apiserver, "mount", "umount", "ss")]
fn a_bpffs_that_is_unmounted_for_a_while_costs_nobody_a_connection() {
    let mut node = KubeNode::with_agent();
    let busy = Busy::start(&node);
    let pins = node.base().folders().pins();
    let bpffs = pins.parent().expect("a mount point").to_owned();
    run(Command::new("umount").arg(&bpffs));
    node.agent().wait("the fault to be told", || {
        let (well, said) = node.probe("ready");
        !well && said.contains("is not on a bpffs any more")
    });
    let late = node.create("late", "");
    let sandbox = late.sandbox("10.77.0.11");
    let proxy = sandbox.proxy();
    run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpffs));
    node.agent().wait_until_ready();
    node.wait_for("late", PodState::Active);
    // What is pinned anew is enough for the next agent.
    node.take_agent().kill();
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    node.start_agent();
    node.wait_for("late", PodState::Active);
    drop(proxy);
    let busy = busy.has_lost_nothing();
    leaves_nothing(node, vec![sandbox, busy]);
}

/// As the kernel ends a process for memory: at any moment, without a word. `agent/tests/life` does so at every call.
#[needs(apiserver, "ss")]
fn an_agent_that_is_killed_in_the_middle_of_arming_leaves_every_pod_to_the_next() {
    const PODS: u8 = 6;
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.arguments = vec!["--shortcut=off".to_owned()];
    node.start_agent();
    let busy = Busy::start(&node);
    let mut sandboxes = Vec::new();
    for round in 0..8_u8 {
        let names: Vec<String> = (0..PODS).map(|nth| format!("pod-{round}-{nth}")).collect();
        let pods: Vec<_> = names.iter().map(|name| node.create(name, "")).collect();
        node.wait_for(&names[usize::from(PODS) - 1], PodState::Pending);
        let new: Vec<Sandbox> = (1..)
            .zip(&pods)
            .map(|(nth, pod)| pod.sandbox(&format!("10.77.{}.{nth}", round + 1)))
            .collect();
        // One takes some four milliseconds.
        thread::sleep(Duration::from_millis(4 * u64::from(round)));
        drop(pods);
        node.take_agent().kill();
        let proxies: Vec<_> = new.iter().map(Sandbox::proxy).collect();
        node.start_agent();
        for (name, sandbox) in names.iter().zip(&new) {
            node.wait_for(name, PodState::Active);
            assert_captured(&sandbox.app(), "outbound", SERVICE);
        }
        let linked = usize::from(PODS) + 1 + sandboxes.len();
        assert!(
            eventually(PATIENCE, || node.inbound_links() == linked),
            "{} instead of {linked}",
            node.inbound_links()
        );
        drop(proxies);
        sandboxes.extend(new);
    }
    sandboxes.push(busy.has_lost_nothing());
    leaves_nothing(node, sandboxes);
}
