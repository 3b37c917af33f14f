//! Both ways to redirect a pod's connections: Istio's own iptables rules, which are the oracle, and Sidestep.
//!
//! A [`Node`] is what one test has: a network of its own, the pods' cgroup, and for Sidestep an agent. Its pods get the
//! rules, or the Pod file, of a fixture; both were made by Istio's own programs from the same application.

mod agent;
mod count;
mod fixture;
mod machine;
mod other;
mod pod;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    io::Write,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    actor::{Actor, Identity},
    bpftool::dump,
    cgroup::Cgroup,
    net::{Namespace, Network},
};

pub(crate) use self::agent::disguised;
pub use self::{
    agent::{Agent, AgentFolders, PodState, PodStatus, ShortcutStatus, Status},
    count::OpenCount,
    fixture::Fixture,
    pod::{Pod, Proxy},
};
use self::{machine::Machine, other::build_with_other_code};

/// A pod's address, for which the fixtures' rules were recorded.
pub const POD: &str = "10.77.0.10";
/// An address that nobody has: who calls it and is answered was redirected.
pub const SERVICE: &str = "10.96.0.7:80";

/// How the connections of a node's pods are redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// The rules that Istio's own program wrote, in each pod.
    Iptables,
    /// Those that it wrote for nftables itself, in each pod: of a fixture that says nothing else.
    Nftables,
    /// Our agent and its BPF programs; no rule anywhere.
    Sidestep,
}

/// What one test has: a network of its own, and a machine.
#[derive(Debug)]
pub struct Node {
    redirect: Redirect,
    // The network goes first, so that the agent sees namespaces disappear as a runtime lets them.
    network: Network,
    machine: Arc<Machine>,
    files: RefCell<BTreeSet<String>>,
}

impl Node {
    /// With a machine that other tests may use at the same time. With Sidestep its agent is ready.
    pub fn new(redirect: Redirect) -> Self {
        match redirect {
            Redirect::Iptables | Redirect::Nftables => Self::on(redirect, Arc::new(Machine::new())),
            Redirect::Sidestep => Self::on(redirect, Machine::shared()),
        }
    }

    /// With a machine of its own, whose agent is ready.
    pub fn alone() -> Self {
        let node = Self::without_agent();
        node.start_agent();
        node
    }

    /// The same with an agent that gets these arguments too.
    pub fn alone_with(arguments: &[&str]) -> Self {
        let machine = Machine::with_agent_arguments(arguments);
        let node = Self::on(Redirect::Sidestep, Arc::new(machine));
        node.start_agent();
        node
    }

    /// With a machine of its own, on which no agent runs yet.
    pub fn without_agent() -> Self {
        Self::on(Redirect::Sidestep, Arc::new(Machine::new()))
    }

    fn on(redirect: Redirect, machine: Arc<Machine>) -> Self {
        Self {
            redirect,
            network: Network::new(),
            machine,
            files: RefCell::default(),
        }
    }

    /// Starts the agent and waits until it is ready.
    pub fn start_agent(&self) {
        self.machine.start_agent();
    }

    /// Takes the agent away, to stop or to kill it.
    pub fn take_agent(&mut self) -> Agent {
        let agent = self.own_machine().agent.take();
        agent.expect("the machine has an agent")
    }

    /// The next agent gets this argument too.
    pub fn add_agent_argument(&mut self, argument: &str) {
        let arguments = &mut self.own_machine().folders.arguments;
        arguments.push(argument.to_owned());
    }

    /// The next agent is of another build: its BPF programs have other code, which does the same.
    pub fn upgrade_agent(&mut self) {
        let folders = &mut self.own_machine().folders;
        folders.program = build_with_other_code(folders.root());
    }

    /// The maps of the next agent have another layout, or this build's again.
    pub fn change_layout(&mut self, is_next: bool) {
        let name = if is_next {
            "sidestep-agent-next"
        } else {
            "sidestep-agent"
        };
        self.own_machine().folders.program = crate::binary(name);
    }

    /// The next agent sees the kernel's files as these shell commands leave them, in a mount namespace of its own.
    pub fn disguise_kernel(&mut self, mounts: &str) {
        self.own_machine().folders.disguise = Some(mounts.to_owned());
    }

    fn own_machine(&mut self) -> &mut Machine {
        Arc::get_mut(&mut self.machine).expect("a machine of its own")
    }

    /// The agent of a node with Sidestep.
    pub fn agent(&self) -> &Agent {
        self.machine.agent.get().expect("the machine has an agent")
    }

    /// What the agent is told to use.
    pub fn folders(&self) -> &AgentFolders {
        &self.machine.folders
    }

    /// What is pinned in a folder of the agent's: `maps`, `links` or `pods`.
    pub fn pinned(&self, folder: &str) -> BTreeSet<PathBuf> {
        let versions = fs::read_dir(self.folders().pins()).into_iter().flatten();
        let paths = versions
            .flatten()
            .map(|version| version.path().join(folder));
        let entries = paths.flat_map(|path| fs::read_dir(path).into_iter().flatten());
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// How many entries these maps of the agent's have together.
    pub fn entries(&self, maps: &[&str]) -> usize {
        let pinned = self.pinned("maps").into_iter().filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| maps.contains(&name))
        });
        pinned.map(|path| dump(&path).len()).sum()
    }

    /// How this node redirects.
    pub fn redirect(&self) -> Redirect {
        self.redirect
    }

    /// The network, with its router and its outside host.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The cgroup above those of the pods and of everything else.
    pub fn cgroup(&self) -> &Cgroup {
        &self.machine.all
    }

    /// The cgroup of all pods.
    pub fn pods(&self) -> &Cgroup {
        &self.machine.pods
    }

    /// A process on the host behind the router: in no pod, never redirected.
    pub fn outside(&self) -> Actor {
        Actor::spawn(
            self.network.outside(),
            &self.machine.world,
            &Identity::new(0, 0),
        )
    }

    /// A process in a namespace that is no pod.
    pub fn actor_in(&self, namespace: &Namespace) -> Actor {
        Actor::spawn(namespace, &self.machine.world, &Identity::new(0, 0))
    }

    /// Makes a pod of this fixture that nothing redirects yet.
    pub fn bare_pod(&self, fixture: &str, addresses: &[&str]) -> Pod {
        self.bare_pod_on(&self.network, fixture, addresses)
    }

    /// The same on another network, where the same addresses may be used again.
    pub fn bare_pod_on(&self, network: &Network, fixture: &str, addresses: &[&str]) -> Pod {
        let name = pod_name(fixture);
        let namespace = network.host("pod", addresses);
        namespace.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
        let cgroup = self.machine.pods.child(&name);
        Pod::new(Fixture::load(fixture), name, namespace, cgroup, addresses)
    }

    /// Makes a pod of this fixture and redirects it: rules are loaded, or the agent has armed it.
    pub fn pod(&self, fixture: &str, addresses: &[&str]) -> Pod {
        let pod = self.bare_pod(fixture, addresses);
        self.redirect_pod(&pod);
        pod
    }

    /// The same with an agent, for a pod that lets the shortcut join its sidecar with others, as far as the agent does.
    pub fn far_pod(&self, fixture: &str, addresses: &[&str]) -> Pod {
        let pod = self.bare_pod(fixture, addresses);
        self.program(&pod, &pod.annotated(&[("sidestep.dev/shortcut", "node")]));
        pod
    }

    /// Gives an agent a pod's file, and waits until it has programmed the pod.
    pub fn program(&self, pod: &Pod, manifest: &str) {
        self.write_pod_file(pod, manifest);
        self.agent().wait_for(pod.name(), PodState::is_programmed);
    }

    /// Gives a pod a new namespace of the same name, as a runtime does whose sandbox was lost.
    pub fn remake_sandbox(&self, pod: &Pod) {
        pod.namespace().remake();
        let addresses: Vec<_> = pod.addresses().iter().map(ToString::to_string).collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        self.network.attach(pod.namespace(), &addresses);
    }

    /// Redirects a pod.
    pub fn redirect_pod(&self, pod: &Pod) {
        match self.redirect {
            Redirect::Iptables => load_rules(pod),
            Redirect::Nftables => load(pod, "nft", &["-f", "-"], &Fixture::nftables()),
            Redirect::Sidestep => {
                self.add_pod_file(pod);
                self.agent().wait_for(pod.name(), PodState::is_programmed);
            }
        }
    }

    /// Waits until interception is on, after the proxy began to listen. Rules are on from the start.
    pub fn wait_active(&self, pod: &Pod) {
        if self.redirect == Redirect::Sidestep {
            self.agent()
                .wait_for(pod.name(), |state| state == PodState::Active);
        }
    }

    /// Redirects a pod and runs a proxy in it, as most tests want it.
    pub fn pod_with_proxy(&self, fixture: &str, addresses: &[&str]) -> (Pod, Proxy) {
        let pod = self.pod(fixture, addresses);
        let proxy = pod.proxy();
        self.wait_active(&pod);
        (pod, proxy)
    }

    /// Gives the agent the pod's file.
    pub fn add_pod_file(&self, pod: &Pod) {
        self.write_pod_file(pod, &pod.manifest());
    }

    /// Gives the agent another file for the pod.
    pub fn write_pod_file(&self, pod: &Pod, manifest: &str) {
        self.machine.folders.write_pod(pod.name(), manifest);
        self.files.borrow_mut().insert(pod.name().to_owned());
    }

    /// Takes the pod's file away from the agent.
    pub fn remove_pod_file(&self, pod: &Pod) {
        assert!(
            self.files.borrow_mut().remove(pod.name()),
            "the file was there"
        );
        self.machine.folders.remove_pod(pod.name());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let (true, Some(agent)) = (std::thread::panicking(), self.machine.agent.get()) {
            eprintln!("{agent}");
        }
        for name in self.files.take() {
            self.machine.folders.remove_pod(&name);
        }
    }
}

fn pod_name(fixture: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{fixture}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn load_rules(pod: &Pod) {
    let rules = pod.fixture().rules();
    load(pod, "iptables-nft-restore", &[], &rules.v4);
    load(pod, "ip6tables-nft-restore", &[], &rules.v6);
    if pod.has_v6() && rules.v6.contains("REDIRECT") {
        // istio-init does this itself where it captures IPv6: the proxy calls the application from there.
        pod.namespace().ip("-6 addr add ::6/128 dev lo");
    }
}

fn load(pod: &Pod, program: &str, arguments: &[&str], rules: &str) {
    let mut command = pod.namespace().command(program);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    stdin
        .write_all(rules.as_bytes())
        .expect("the rules can be read");
    drop(stdin);
    let status = child.wait().expect("the program ends");
    assert!(status.success(), "{program} in {}: {status}", pod.name());
}
