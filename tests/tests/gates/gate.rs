//! A gate's container without the container: its program, arguments, environment and ids, in the pod's namespace.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use sidestep_contract::keys;
use sidestep_kit::{
    cgroup::Cgroup,
    net::{Namespace, unique_name},
    process::{Program, Running},
    redirect::Node,
};
use tempfile::TempDir;

use crate::mutated::GatedPod;

/// A gate at work, in a pod that nobody has armed at first.
pub(crate) struct Trial {
    pod: GatedPod,
    name: String,
    first_address: String,
    // The processes in the cgroup end before their namespace goes.
    running: Running,
    _cgroup: Cgroup,
    namespace: Namespace,
    folder: TempDir,
}

impl Trial {
    pub(crate) fn start(node: &Node, program: &Path, pod: &GatedPod, addresses: &[&str]) -> Self {
        // Each has a network namespace and, as nobody calls it, needs no network behind it.
        let namespace = Namespace::new("gate");
        namespace.ip("link add eth0 type veth peer name node");
        namespace.ip("link set node up");
        for address in addresses {
            let prefix = if address.contains(':') {
                "64 nodad"
            } else {
                "16"
            };
            namespace.ip(&format!("addr add {address}/{prefix} dev eth0"));
        }
        namespace.ip("link set eth0 up");
        let name = unique_name("gate");
        let cgroup = node.pods().child(&name);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = start(program, pod, &namespace, &cgroup, &folder);
        Self {
            pod: pod.clone(),
            name,
            first_address: addresses[0].to_owned(),
            running,
            _cgroup: cgroup,
            namespace,
            folder,
        }
    }

    /// The pod's name, which is also that of its Pod file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the agent the pod.
    pub(crate) fn arm(&self, node: &Node) {
        let mut pod = self.pod.value.clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(self.name);
        pod["metadata"]["annotations"][keys::NETNS] = json!(self.namespace.name());
        pod["spec"]["dnsPolicy"] = json!("None");
        pod["spec"]["dnsConfig"] = json!({"nameservers": ["10.77.0.53"]});
        node.folders().write_pod(&self.name, &pod.to_string());
    }

    /// How often it has dialled in vain.
    pub(crate) fn attempts(&self) -> usize {
        self.log().matches("Error connecting to").count()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.exited().is_some()
    }

    /// Its exit code, unless it goes on until `deadline` or is ended by a signal.
    pub(crate) fn exit_code(&mut self, deadline: Instant) -> Option<i32> {
        loop {
            if let Some(status) = self.running.exited() {
                return status.code();
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(log_file(&self.folder)).unwrap_or_default()
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fixture, address, log) = (&self.pod.fixture, &self.first_address, self.log());
        write!(f, "the gate of {fixture} at {address} said\n{log}")
    }
}

fn log_file(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

fn start(
    program: &Path,
    pod: &GatedPod,
    namespace: &Namespace,
    cgroup: &Cgroup,
    folder: &TempDir,
) -> Running {
    let gate = pod.gate();
    let context = gate.security_context.expect("a gate's security context");
    let id = |id: Option<i64>| u32::try_from(id.expect("a gate's id")).expect("an id");
    let ids = (id(context.run_as_user), id(context.run_as_group));
    let variables = gate.env.unwrap_or_default().into_iter();
    let variables = variables.map(|it| (it.name, it.value.unwrap_or_default()));
    let log = File::create(log_file(folder)).expect("a folder of ours");
    let mut program =
        Program::new(program, namespace, cgroup, ids).args(gate.args.expect("a gate's arguments"));
    program
        .command()
        .env_clear()
        .envs(variables)
        .current_dir("/")
        .stdout(log.try_clone().expect("a file of ours"))
        .stderr(log);
    program.start()
}
