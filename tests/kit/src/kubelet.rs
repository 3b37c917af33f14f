//! A Kubernetes node without a kubelet: a real API server, an agent, and what kubelet and a container runtime would make.

mod line;
mod pod;

use std::{
    cell::{OnceCell, RefCell},
    fs,
    io::{Read, Write},
    net::TcpStream,
    ops::RangeBounds,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use crate::{
    apiserver::ApiServer,
    binary,
    cgroup::Cgroup,
    net::unique_name,
    parts,
    process::eventually,
    redirect::{Agent, Node, PodState, PodStatus, disguised},
};
use serde_json::Value;
use tempfile::TempDir;

pub use crate::process::PATIENCE;

pub use self::line::Line;
pub use self::pod::{KubePod, Proxy, Sandbox, pod, process};

/// How kubelet names cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `kubepods/burstable/pod<uid>`
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`
    Systemd,
}

/// A node of the cluster, with a machine of its own.
#[derive(Debug)]
pub struct KubeNode {
    /// Its name in the API, and that of the namespace of its pods.
    pub name: String,
    agent: OnceCell<Agent>,
    base: Node,
    kubepods: Cgroup,
    class: Cgroup,
    driver: Driver,
    folder: TempDir,
    server: Arc<ApiServer>,
    made: RefCell<Vec<String>>,
    /// What the agent may do; without, everything.
    pub capabilities: Option<String>,
    /// Shell commands that change what the agent sees of the kernel's files, in a mount namespace of its own.
    pub disguise: Option<String>,
    /// What else the agent is told.
    pub arguments: Vec<String>,
    /// The agent's way to the API server, where it is not the straight one.
    pub line: Option<Line>,
}

impl KubeNode {
    /// With an agent that is ready.
    pub fn with_agent() -> Self {
        let node = Self::without_agent(Driver::Cgroupfs);
        node.start_agent();
        node
    }

    /// On which no agent runs yet.
    pub fn without_agent(driver: Driver) -> Self {
        Self::on(ApiServer::shared(), driver)
    }

    /// The same, with an API server of its own.
    pub fn on(server: Arc<ApiServer>, driver: Driver) -> Self {
        let base = Node::without_agent();
        let (kubepods, class) = match driver {
            Driver::Cgroupfs => ("kubepods", "burstable"),
            Driver::Systemd => ("kubepods.slice", "kubepods-burstable.slice"),
        };
        let kubepods = base.cgroup().child(kubepods);
        let node = Self {
            name: unique_name("node"),
            agent: OnceCell::new(),
            class: kubepods.child(class),
            kubepods,
            base,
            driver,
            folder: tempfile::tempdir().expect("a folder"),
            server,
            made: RefCell::default(),
            capabilities: None,
            disguise: None,
            arguments: Vec::new(),
            line: None,
        };
        node.server.must(&format!("create namespace {}", node.name));
        node
    }

    /// The command that starts an agent here.
    pub fn command(&self) -> Command {
        let agent = binary("sidestep-agent");
        let disguise = self.disguise.as_deref();
        let mut command = match &self.capabilities {
            None => disguised(disguise, agent),
            Some(set) => {
                let mut command = disguised(disguise, "setpriv");
                command
                    .args(["--no-new-privs", "--bounding-set", set])
                    .arg(agent);
                command
            }
        };
        self.server.namespace().command_enters(&mut command);
        let line = self.line.as_ref().map(Line::kubeconfig);
        command
            .env(
                "KUBECONFIG",
                line.unwrap_or_else(|| self.server.kubeconfig()),
            )
            .args(["--node", &self.name, "--admin-listen=127.0.0.1:0"])
            .arg("--sandbox-patience=2")
            .arg("--cgroup")
            .arg(self.kubepods.path())
            .arg("--pin")
            .arg(self.base.folders().pins())
            .arg("--socket")
            .arg(self.socket())
            .args(&self.arguments);
        command
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Starts the agent.
    pub fn launch_agent(&self) -> &Agent {
        let log = self.folder.path().join("agent.log");
        let agent = Agent::start(self.command(), self.socket(), log);
        assert!(self.agent.set(agent).is_ok(), "a node has one agent");
        self.agent()
    }

    /// Starts the agent and waits until it is ready.
    pub fn start_agent(&self) {
        self.launch_agent().wait_until_ready();
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        self.agent.get().expect("the node has an agent")
    }

    /// What `sidestep-agent uninstall` complains of.
    pub fn uninstall(&self) -> String {
        let mut command = Command::new(binary("sidestep-agent"));
        command.arg("uninstall").arg("--socket").arg(self.socket());
        command.arg("--pin").arg(self.base.folders().pins());
        parts::finish(&mut command).err().unwrap_or_default()
    }

    /// Takes the agent away, to stop or to kill it.
    pub fn take_agent(&mut self) -> Agent {
        self.agent.take().expect("the node has an agent")
    }

    /// What it stands on: networks, and the folder of the agent's pins.
    pub fn base(&self) -> &Node {
        &self.base
    }

    /// The pods' cgroup.
    pub fn kubepods(&self) -> &Cgroup {
        &self.kubepods
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Where the agent gives its metrics, in the API server's network namespace.
    pub fn metrics_address(&self) -> String {
        let log = self.agent().log();
        let words = log.split_whitespace();
        let plain = words.map(strip_colours);
        plain
            .filter_map(|word| word.strip_prefix("address=").map(ToOwned::to_owned))
            .next_back()
            .expect("the agent tells where it listens")
    }

    /// What an HTTP GET of the agent answers, status and body: of its metrics on their port, of a probe on its socket.
    pub fn admin(&self, path: &str) -> (u16, String) {
        if path != "/metrics" {
            let stream = UnixStream::connect(self.socket()).expect("the agent listens");
            return get(stream, path);
        }
        let address = self.metrics_address();
        self.server.namespace().enter(|| {
            let stream = TcpStream::connect(&address).expect("the agent listens");
            get(stream, path)
        })
    }

    /// What kubelet runs in the agent's container; whether it is well, and what it prints.
    pub fn probe(&self, what: &str) -> (bool, String) {
        let mut command = Command::new(binary("sidestep"));
        command.args(["probe", what, "--socket"]).arg(self.socket());
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    }

    /// The value of a metric, with its labels as they are written.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a metric is one of these: what is scraped may have been collected a second ago.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, wanted: impl RangeBounds<f64>) {
        self.agent()
            .wait(name, || wanted.contains(&self.metric(name)));
    }

    /// Creates a pod in the API, already bound to this node.
    pub fn create(&self, name: &str, args: &str) -> KubePod<'_> {
        self.create_as(name, &pod(name, &self.name, args))
    }

    /// The same from a manifest.
    pub fn create_as(&self, name: &str, manifest: &Value) -> KubePod<'_> {
        self.server
            .feed(&format!("create -n {}", self.name), manifest)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        self.known(name)
    }

    /// A pod that is in the API already.
    pub fn known(&self, name: &str) -> KubePod<'_> {
        let pod = self.server.get(&format!("pod -n {} {name}", self.name));
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        self.made.borrow_mut().push(name.to_owned());
        KubePod {
            node: self,
            name: name.to_owned(),
            uid,
        }
    }

    /// Waits until a pod is in this state.
    #[track_caller]
    pub fn wait_for(&self, pod: &str, wanted: PodState) -> PodStatus {
        self.agent().wait_for(pod, |state| state == wanted);
        self.agent().pod(pod).expect("a pod that is known")
    }

    /// Waits for an Event on a pod, and returns its note.
    #[track_caller]
    pub fn wait_for_event(&self, pod: &KubePod<'_>, reason: &str) -> String {
        self.event(&self.name, &pod.uid, reason)
            .unwrap_or_else(|| panic!("no Event {reason} on {}; {}", pod.name, self.agent()))
    }

    /// The same on the node.
    #[track_caller]
    pub fn wait_for_event_here(&self, reason: &str) -> String {
        // As `kubectl describe node` looks for them.
        self.event("default", &self.name, reason)
            .unwrap_or_else(|| panic!("no Event {reason} on the node"))
    }

    fn event(&self, namespace: &str, uid: &str, reason: &str) -> Option<String> {
        let mut note = None;
        eventually(PATIENCE, || {
            let events = self
                .server
                .get(&format!("events.events.k8s.io -n {namespace}"));
            let items = events["items"].as_array().expect("a list").clone();
            note = items.into_iter().find_map(|event| {
                let about = event["regarding"]["uid"] == uid;
                let note = event["note"].as_str()?.to_owned();
                (about && event["reason"] == reason).then_some(note)
            });
            note.is_some()
        });
        note
    }

    /// What is pinned for pods: one inbound link each.
    pub fn inbound_links(&self) -> usize {
        let pins = self.base.folders().pins();
        let versions = fs::read_dir(pins).into_iter().flatten().flatten();
        let links = versions.map(|version| fs::read_dir(version.path().join("pods")));
        links.flatten().map(|folder| folder.flatten().count()).sum()
    }

    fn pod_cgroup(&self, uid: &str) -> Cgroup {
        match self.driver {
            Driver::Cgroupfs => self.class.child(&format!("pod{uid}")),
            Driver::Systemd => {
                let uid = uid.replace('-', "_");
                self.class
                    .child(&format!("kubepods-burstable-pod{uid}.slice"))
            }
        }
    }
}

impl Drop for KubeNode {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(agent) = self.agent.get()
        {
            eprintln!("{agent}");
        }
        // Nobody collects them, and the next watch would see them.
        let _ = self.server.kubectl([
            "delete",
            "pods",
            "--all",
            "--force",
            "--grace-period=0",
            "--wait=false",
            "-n",
            &self.name,
        ]);
    }
}

fn get(mut stream: impl Read + Write, path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n").expect("a connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

fn strip_colours(word: &str) -> String {
    let mut plain = String::new();
    let mut chars = word.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            for code in chars.by_ref() {
                if code == 'm' {
                    break;
                }
            }
        } else {
            plain.push(char);
        }
    }
    plain
}
