//! Two pods on a bridge, a proxy and an application in each, and the shortcut's programs on their cgroup. No agent and
//! no redirection: the processes connect to each other as they would through interception.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{ChildStdin, ChildStdout, Stdio},
};

use sidestep_agent::shortcut::{Allowed, Options, Participant, Shortcut, Tally};
use sidestep_ebpf_common::Ids;
use sidestep_kernel::netns::Namespace as AgentNamespace;

use super::worker::{Order, Report};
use sidestep_kit::{
    binary,
    cgroup::Cgroup,
    net::{Namespace, Network},
    process::{Program, Running},
};

const PROXY: (u32, u32) = (1337, 1337);
const APP: (u32, u32) = (1000, 1000);
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
const ADDRESSES: [[&str; 2]; 2] = [["10.77.0.10", "fd77::10"], ["10.77.0.11", "fd77::11"]];

/// Who connects to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// An application to its own sidecar.
    AppToProxy,
    /// A sidecar to the application beside it.
    ProxyToApp,
    /// A sidecar to another pod's.
    ProxyToProxy,
    /// An application, both sidecars, the other application.
    Chain,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AppToProxy,
        Self::ProxyToApp,
        Self::ProxyToProxy,
        Self::Chain,
    ];
}

/// A process of a pod that obeys.
#[derive(Debug)]
struct Worker {
    _running: Running,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Worker {
    fn start(namespace: &Namespace, cgroup: &Cgroup, ids: (u32, u32)) -> Self {
        let path = binary("sidestep-torture");
        let mut program = Program::new(&path, namespace, cgroup, ids).args(["worker"]);
        program
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut running = program.start();
        let child = running.child();
        let input = child.stdin.take().expect("a pipe was asked for");
        let output = child.stdout.take().expect("a pipe was asked for");
        Self {
            _running: running,
            pipes: RefCell::new((input, BufReader::new(output))),
        }
    }

    fn tell(&self, order: &Order) -> Report {
        let (input, output) = &mut *self.pipes.borrow_mut();
        let order = serde_json::to_string(order).expect("an order is JSON");
        writeln!(input, "{order}").expect("the worker listens");
        let mut answer = String::new();
        output.read_line(&mut answer).expect("the worker answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{order}: {answer}: {error}"))
    }
}

/// The pods, their processes, and the shortcut.
pub struct World {
    // Dropped in this order: programs, processes, pods.
    shortcut: Option<Shortcut>,
    apps: [Worker; 2],
    proxies: [Worker; 2],
    pods: [Namespace; 2],
    cookies: [u64; 2],
    may_block: bool,
    _cgroup: Cgroup,
    _network: Network,
}

impl World {
    /// Makes everything; both pods allow this much. Without options there is no shortcut at all.
    pub fn new(options: Option<Options>, allowed: Allowed) -> Self {
        let mut world = Self::bare(options);
        for pod in [0, 1] {
            world.allow(pod, allowed);
        }
        world.listen();
        world
    }

    fn bare(options: Option<Options>) -> Self {
        let network = Network::new();
        let cgroup = Cgroup::new("torture");
        let pods = ADDRESSES.map(|addresses| {
            let pod = network.host("pod", &addresses);
            pod.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
            // Many connections one after the other, to the same place.
            pod.sysctl("net/ipv4/tcp_tw_reuse", "1");
            pod
        });
        let cookies = [0, 1].map(|i| {
            let namespace = AgentNamespace::open(pods[i].name()).expect("a namespace of ours");
            namespace.cookie().expect("it has a cookie")
        });
        let shortcut = options.map(|options| {
            let shortcut = Shortcut::load(cgroup.path(), options);
            shortcut.unwrap_or_else(|error| panic!("{error}"))
        });
        let start = |ids| [0, 1].map(|i: usize| Worker::start(&pods[i], &cgroup, ids));
        Self {
            shortcut,
            apps: start(APP),
            proxies: start(PROXY),
            cookies,
            may_block: false,
            pods,
            _cgroup: cgroup,
            _network: network,
        }
    }

    /// The same, with proxies that are there to be measured: one port echoes, the other drains.
    pub fn to_measure(options: Option<Options>, allowed: Allowed) -> Self {
        let mut world = Self::bare(options);
        for pod in [0, 1] {
            world.allow(pod, allowed);
        }
        let any = |port: u16| SocketAddr::from(([0_u16; 8], port));
        world.proxies[0].tell(&Order::Echo(any(INBOUND)));
        world.proxies[0].tell(&Order::Drain(any(OUTBOUND)));
        world
    }

    /// Changes what a pod allows. Where nothing may be put into applications none of them blocks: they would not take part.
    pub fn allow(&mut self, pod: usize, allowed: Allowed) {
        self.may_block = allowed.into_application;
        let participant = Participant {
            cookie: self.cookies[pod],
            outbound_port: OUTBOUND,
            inbound_port: INBOUND,
            uids: Ids::new(&[PROXY.0]).expect("one id"),
            gids: Ids::new(&[PROXY.1]).expect("one id"),
            addresses: ADDRESSES[pod]
                .map(|a| a.parse().expect("an address"))
                .to_vec(),
            allowed,
            namespace: String::new(),
        };
        if let Some(shortcut) = &mut self.shortcut {
            shortcut.admit(&participant).expect("there is room");
        }
    }

    fn listen(&self) {
        let any = |port: u16| SocketAddr::from(([0_u16; 8], port));
        let to = |address: &str| address.parse().expect("an address");
        for pod in [0, 1] {
            self.proxies[pod].tell(&Order::Serve(any(INBOUND)));
            self.apps[pod].tell(&Order::Serve(any(8080)));
        }
        // What the first application sends here goes on to the other sidecar, and from there to its application.
        let next = to(&format!("{}:{OUTBOUND}", ADDRESSES[1][0]));
        self.proxies[0].tell(&Order::Forward(any(OUTBOUND), next));
        self.proxies[1].tell(&Order::Forward(any(OUTBOUND), to("127.0.0.1:8080")));
    }

    /// The shortcut.
    pub fn shortcut(&mut self) -> &mut Shortcut {
        self.shortcut.as_mut().expect("a world with a shortcut")
    }

    /// What the programs counted.
    pub fn tally(&self) -> Tally {
        self.shortcut
            .as_ref()
            .map(Shortcut::tally)
            .unwrap_or_default()
    }

    /// Spreads the packets of every interface over both processors, if there are two, or leaves them where they arrive.
    pub fn steer_packets(&self, on: bool) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mask = match processors {
            _ if !on => "0",
            1 => "1",
            _ => "3",
        };
        for pod in &self.pods {
            for interface in ["lo", "eth0"] {
                // Only `ip netns exec` shows the namespace's own sysfs.
                sidestep_kit::net::run(std::process::Command::new("ip").args([
                    "netns",
                    "exec",
                    pod.name(),
                    "sh",
                    "-c",
                    &format!("echo {mask} >/sys/class/net/{interface}/queues/rx-0/rps_cpus"),
                ]));
            }
        }
    }

    /// Plays so many connections from this number on.
    pub fn play(&self, flow: Flow, v6: bool, from: u64, count: u64, at_a_time: u64) -> Report {
        let loopback = if v6 { "[::1]" } else { "127.0.0.1" };
        let other = if v6 { "[fd77::11]" } else { "10.77.0.11" };
        let (client, to, server) = match flow {
            Flow::AppToProxy => (
                &self.apps[0],
                format!("{loopback}:{INBOUND}"),
                &self.proxies[0],
            ),
            Flow::ProxyToApp => (&self.proxies[0], format!("{loopback}:8080"), &self.apps[0]),
            Flow::ProxyToProxy => (
                &self.proxies[0],
                format!("{other}:{INBOUND}"),
                &self.proxies[1],
            ),
            Flow::Chain => (
                &self.apps[0],
                format!("{loopback}:{OUTBOUND}"),
                &self.apps[1],
            ),
        };
        let order = Order::Drive {
            to: to.parse().expect("an address"),
            from,
            count,
            at_a_time,
            may_block: self.may_block,
        };
        client.tell(&order);
        let mut report = client.tell(&Order::Report);
        for proxy in &self.proxies {
            report.add(&proxy.tell(&Order::Report)); // of what it carried, or served
        }
        if !self.proxies.iter().any(|proxy| std::ptr::eq(proxy, server)) {
            report.add(&server.tell(&Order::Report));
        }
        report
    }

    /// How long so many messages of a size take from the first application to its proxy and back, nanoseconds each.
    pub fn ping(&self, size: usize, count: u64) -> u64 {
        let to = SocketAddr::from(([127, 0, 0, 1], INBOUND));
        self.apps[0]
            .tell(&Order::Ping { to, size, count })
            .nanoseconds
            / count
    }

    /// How long a stream of so many messages takes on the same way, nanoseconds each.
    pub fn pour(&self, size: usize, count: u64) -> u64 {
        let to = SocketAddr::from(([127, 0, 0, 1], OUTBOUND));
        self.apps[0]
            .tell(&Order::Pour { to, size, count })
            .nanoseconds
            / count
    }
}
