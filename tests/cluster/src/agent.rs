//! The node's agent: what it says of itself, and what it keeps in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use sidestep_agent::status::{PodStatus, Status};

use super::{
    Cluster, kubectl,
    room::{Room, until},
    sidestep::NAMESPACE,
};
use sidestep_kit::{binary, bpftool::dump, shortcut_maps};

/// The maps that pods have entries in. What is kept with a socket goes with it, and cannot be listed.
const POD_MAPS: [&str; 9] = [
    "PODS",
    "PROXIES",
    "COUNTS",
    "PORTS",
    "ADDRS",
    "GROUPS",
    "FLOWS",
    "OPEN",
    "LISTENERS",
];

/// Selects the agents' pods.
pub const SELECTOR: &str = "app.kubernetes.io/name=sidestep-agent";

impl Cluster {
    /// The agent's pods, of which a node has one but for the moments of an upgrade.
    pub fn agents(&self) -> Vec<Value> {
        let list = self.get(&format!("-n {NAMESPACE} pods -l {SELECTOR}"));
        // A test may have put a pod of its own there, which is none of the DaemonSet's.
        let pods = list["items"].as_array().expect("a list").iter();
        let of_set = |pod: &&Value| pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet";
        pods.filter(of_set).cloned().collect()
    }

    /// The agent's pod.
    pub fn agent(&self) -> Value {
        let mut agents = self.agents();
        assert_eq!(agents.len(), 1, "{agents:#?}");
        agents.remove(0)
    }

    /// What `sidestep status` tells in the agent's container.
    pub fn agent_status(&self) -> Status {
        self.try_agent_status()
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same where there may be no agent, or one that starts; else what was said.
    pub fn try_agent_status(&self) -> Result<Status, String> {
        let agents = self.agents();
        self.status_of(agents.first().ok_or("there is no agent")?)
    }

    /// What the agent of a node tells; where there is none, or one that starts, what was said.
    pub fn agent_status_on(&self, node: &str) -> Result<Status, String> {
        self.status_of(&self.agent_on(node).ok_or("there is no agent")?)
    }

    /// The agent's pod on a node.
    pub fn agent_on(&self, node: &str) -> Option<Value> {
        let mut agents = self.agents();
        agents.retain(|pod| pod["spec"]["nodeName"] == node);
        agents.pop()
    }

    fn status_of(&self, agent: &Value) -> Result<Status, String> {
        let name = agent["metadata"]["name"].as_str().expect("a name");
        let words = ["exec", name, "--", "sidestep", "status", "-o", "json"];
        let output = self
            .admin()
            .run(&[&["-n", NAMESPACE], &words[..]].concat(), "")
            .unwrap_or_else(|error| panic!("{error:#}"));
        serde_json::from_slice(&output.stdout).map_err(|_| said(&output))
    }

    /// Runs `sidestep` on the administrator's desk, to its end, whatever that is.
    pub fn sidestep(&self, words: &str) -> Output {
        let mut command = kubectl::in_network(self.place(), &binary("sidestep"))
            .unwrap_or_else(|error| panic!("{error:#}"));
        command.args(words.split_whitespace());
        kubectl::run(command, "").unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// How many entries there are in the maps that pods have entries in, the shortcut's included; those without are left out.
    pub fn map_entries(&self) -> BTreeMap<&'static str, usize> {
        let versions = fs::read_dir(self.pins()).into_iter().flatten().flatten();
        let mut all = shortcut_maps::entries(&self.pins());
        for version in versions {
            for map in POD_MAPS {
                let path = version.path().join("maps").join(map);
                *all.entry(map).or_default() += dump(&path).len();
            }
        }
        all.retain(|_, count| *count > 0);
        all
    }

    /// A metric of the agent, by its name with its labels.
    pub fn agent_metric(&self, name: &str) -> Option<f64> {
        let agent = self.agent();
        let agent = agent["metadata"]["name"].as_str().expect("a name");
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{agent}:8081/proxy/metrics");
        let text = self.kubectl(&format!("get --raw {path}"));
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse().ok())
    }

    /// The agent's pins, on the node's own bpffs.
    pub fn pins(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.host().pid());
        Path::new(&root).join("sys/fs/bpf/sidestep")
    }

    /// The network namespaces that the agent keeps an inbound link for, by their cookies.
    pub fn pinned_pods(&self) -> BTreeSet<u64> {
        let versions = fs::read_dir(self.pins()).into_iter().flatten().flatten();
        let folders = versions.map(|version| version.path().join("pods"));
        let pods = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        pods.map(|pod| {
            let name = pod.file_name();
            name.to_str().and_then(|name| name.parse().ok())
        })
        .map(|cookie| cookie.expect("a pin is named by a cookie"))
        .collect()
    }

    /// The cgroup of all pods.
    pub fn pods_cgroup(&self) -> PathBuf {
        sidestep_kit::cgroup::mount_point()
            .join(self.place().name())
            .join("kubepods")
    }
}

impl Room<'_> {
    /// What the agent says of a pod here, if it knows it.
    pub fn told_of(&self, pod: &str) -> Option<PodStatus> {
        self.of(self.cluster().agent_status(), pod)
    }

    /// What the agent of another node says of a pod here, if it answers and knows it.
    pub fn told_on(&self, node: &str, pod: &str) -> Option<PodStatus> {
        let status = self.cluster().agent_status_on(node);
        status.ok().and_then(|status| self.of(status, pod))
    }

    fn of(&self, status: Status, pod: &str) -> Option<PodStatus> {
        let mut pods = status.pods.into_iter();
        pods.find(|status| status.namespace == self.name() && status.name == pod)
    }

    /// The processes of a pod: its sandbox's and its containers'.
    pub fn processes(&self, pod: &str) -> Vec<u32> {
        let pod = self.get(&format!("pod {pod}"));
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let name = format!("pod{uid}");
        let root = self.cluster().pods_cgroup();
        let classes = [
            root.clone(),
            root.join("burstable"),
            root.join("besteffort"),
        ];
        let folders = classes.iter().map(|class| fs::read_dir(class.join(&name)));
        let containers = folders.flatten().flatten().flatten();
        let mut processes = Vec::new();
        for container in containers {
            let procs = fs::read_to_string(container.path().join("cgroup.procs"));
            let procs = procs.unwrap_or_default();
            processes.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        processes
    }

    /// Runs a command of this machine in the network of a pod of the cluster's own node.
    pub fn in_network_of(&self, pod: &str, command: &[&str]) -> Output {
        let processes = self.processes(pod);
        let process = processes.first().expect("it runs");
        Command::new("nsenter")
            .arg(format!("--net=/proc/{process}/ns/net"))
            .args(command)
            .output()
            .expect("nsenter is part of util-linux")
    }

    /// The packet rules in a pod's network, as nft lists them: those that iptables wrote, too.
    pub fn packet_rules(&self, pod: &str) -> String {
        let output = self.in_network_of(pod, &["nft", "list", "ruleset"]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("nft prints text")
    }

    /// Waits until the pods' connections are captured.
    pub fn accelerated(&self, pods: &[&str]) {
        self.ready(pods);
        for pod in pods {
            until(&format!("{pod} is accelerated"), || {
                self.told_of(pod)
                    .is_some_and(|status| status.state == sidestep_agent::status::PodState::Active)
            });
        }
    }
}

/// All that a program printed.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}
