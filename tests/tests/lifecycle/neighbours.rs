//! Others on the same machine: programs above ours, and programs that must not notice us.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
};

use sidestep_kit::{
    actor::{Identity, Kind},
    foreign::{LoadBalancer, Sharing},
    needs,
    net::{OUTSIDE_V4, run},
    redirect::Node,
};

use crate::{POD, SERVICE, assert_captured, assert_straight};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

#[needs(root)]
fn a_load_balancer_above_sees_what_the_proxy_sends_and_not_what_the_application_meant() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let backend: Ipv4Addr = OUTSIDE_V4.parse().expect("an address");
    let _balancer = LoadBalancer::attach(node.cgroup(), CLUSTER_IP, backend, Sharing::Shared);
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_straight(proxy.actor(), "service", SERVICE);
}

#[needs(root, "iptables-legacy-restore")]
fn iptables_loads_five_thousand_rules_under_our_hooks() {
    let node = Node::alone();
    let rules = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(rules.path(), five_thousand_rules()).expect("a file of ours");

    // A plug-in's own pod is in no mesh. In a pod with a proxy only the proxy may: iptables opens a raw socket.
    let plain = node.bare_pod("client", &["10.77.0.11"]);
    let (active, _proxy) = node.pod_with_proxy("client", &["10.77.0.12"]);
    for (pod, group) in [(&plain, 0), (&active, 1337)] {
        let mut restore = pod.namespace().command("iptables-legacy-restore");
        restore.stdin(File::open(rules.path()).expect("a file of ours"));
        pod.cgroup().command_joins(&mut restore);
        run(restore.gid(group));
        let mut save = pod.namespace().command("iptables-legacy-save");
        pod.cgroup().command_joins(&mut save);
        let saved = run(save.gid(group));
        let saved = String::from_utf8_lossy(&saved.stdout).into_owned();
        assert_eq!(
            saved.lines().filter(|line| line.starts_with("-A")).count(),
            5_000
        );
    }
    assert_captured(&active.app(), "outbound", SERVICE);
}

fn five_thousand_rules() -> String {
    let rule = |n| {
        let (host, port) = (n % 250, 20_000 + n);
        format!("-A INPUT -s 192.0.2.{host}/32 -p tcp -m tcp --dport {port} -j DROP\n")
    };
    let rules: String = (0..5_000).map(rule).collect();
    format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n")
}

#[needs(root)]
fn large_socket_options_are_as_they_are_without_us() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.actor(&Identity::new(0, 0));
    let outside = node.outside();
    let _listener = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let ours = app.connect(SERVICE).expect("the proxy listens");
    let plain = outside
        .connect(&format!("{OUTSIDE_V4}:80"))
        .expect("it listens");
    for (level, name) in [
        (libc::SOL_TCP, libc::TCP_INFO),
        (libc::SOL_TCP, libc::TCP_CONGESTION),
        (libc::SOL_SOCKET, libc::SO_TYPE),
        (libc::SOL_SOCKET, libc::SO_PEERCRED),
        (libc::SOL_IP, libc::IP_OPTIONS),
        (libc::SOL_IP, libc::IP_TOS),
        (libc::SOL_IPV6, libc::IPV6_V6ONLY),
        (libc::SOL_IPV6, 80),
        (libc::SOL_IP, 64),
    ] {
        for size in [64 * 1024, 4097, 4096, 4, 0] {
            let sizes = [&ours, &plain]
                .map(|socket| socket.option(level, name, size).map(|bytes| bytes.len()));
            assert_eq!(
                sizes[0], sizes[1],
                "level {level}, option {name}, {size} bytes"
            );
        }
    }
}

#[needs(root)]
fn processes_outside_of_the_pods_cgroup_are_not_touched() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    // In the pod's namespace, but not among the pods' processes: a debugger of the node's owner.
    let visitor = node.actor_in(pod.namespace());
    assert_straight(&visitor, "service", &format!("{OUTSIDE_V4}:80"));
}
