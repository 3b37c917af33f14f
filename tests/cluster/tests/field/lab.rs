//! The cluster with its machines, and on each of them a pod that talks with one on the cluster's own node.

use std::{
    fmt::Display,
    io::{Write, stderr},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use serde_json::{Value, json};
use sidestep_agent::status::PodState;
use sidestep_cluster::{
    Cluster, Place, gate,
    machine::{Kind, Machine, PATIENCE, qemu},
    place::NODE,
    room::{Room, comes, objects},
    sidestep,
};
use sidestep_kit::needs::program;

use crate::table;

/// The port of the echo that [`talker`]s have beside their HTTP server.
pub const ECHO: u16 = 9000;

static LAB: OnceLock<Result<Mutex<Lab>, String>> = OnceLock::new();

/// All of it.
pub struct Lab {
    pub cluster: Cluster,
    pub machines: Vec<Machine>,
}

/// What the lab needs of this machine.
pub fn needs() -> Result<(), String> {
    sidestep_cluster::programs()?;
    program("mke2fs")?;
    if !qemu().exists() {
        return Err("it needs QEMU: run `tests/setup.sh field`".to_owned());
    }
    for kind in kinds()? {
        let made = sidestep_kit::parts::workspace()
            .join(".parts/field")
            .join(kind.name);
        if !made.exists() {
            return Err(format!(
                "it needs a disk: run `tests/setup.sh field {}`",
                kind.name
            ));
        }
    }
    Ok(())
}

/// The lab, for one test at a time. Where it does not start, that is tried once.
pub fn lab() -> MutexGuard<'static, Lab> {
    let lab = LAB.get_or_init(|| {
        start()
            .map(Mutex::new)
            .map_err(|error| format!("{error:#}"))
    });
    let lab = lab
        .as_ref()
        .unwrap_or_else(|error| panic!("no lab: {error}"));
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints a line, also of a test whose output is captured: what happens here takes minutes.
pub fn say(what: impl Display) {
    // Whoever does not want to read it closes it.
    let _ = writeln!(stderr(), "field: {what}");
}

fn kinds() -> Result<Vec<Kind>, String> {
    let names = std::env::var("SIDESTEP_FIELD").unwrap_or_else(|_| "debian-13".to_owned());
    let kinds = names.split(',').map(|name| Kind::named(name.trim()));
    kinds
        .map(|kind| kind.map_err(|error| error.to_string()))
        .collect()
}

fn start() -> anyhow::Result<Lab> {
    // A static is not dropped when the process ends. If it is killed, the cluster's processes end all the same.
    // SAFETY: the handler is a function of this program that takes nothing and returns nothing.
    unsafe { libc::atexit(end) };
    let kinds = kinds().map_err(anyhow::Error::msg)?;
    if let Ok(name) = std::env::var("SIDESTEP_CLUSTER") {
        // One that is up already, and has the machines, to save minutes while tests are written.
        let cluster = Cluster::attach(&Place::new(&name)?)?;
        let machines = kinds.into_iter().map(Machine::attach).collect();
        return Ok(Lab { cluster, machines });
    }
    let images = thread::spawn(sidestep::build_images_for_machines);
    say("the cluster starts");
    let cluster = Cluster::for_tests()?;
    let images = images.join().expect("no panic")?;
    say("Sidestep is being installed");
    sidestep::install(&cluster, &images, &[])?;
    let machines = Machine::start_all(&cluster, &kinds, &images, &mut |step| say(step))?;
    // Pods are gated once most agents are ready.
    cluster.kubectl(&format!(
        "rollout status daemonset/sidestep-agent -n sidestep-system --timeout={}s",
        PATIENCE.as_secs()
    ));
    Ok(Lab { cluster, machines })
}

extern "C" fn end() {
    if let Some(Ok(lab)) = LAB.get() {
        let mut lab = lab.lock().unwrap_or_else(PoisonError::into_inner);
        say(format!("\n{}", table::print()));
        lab.cluster.end();
    }
}

/// A pod on this node that serves HTTP and an echo of plain TCP, and from which others are called.
pub fn talker(name: &str, node: &str) -> Value {
    let http = format!(
        "sidestep-app serve --pod {name} --listen 0.0.0.0:{}",
        objects::PORT
    );
    let script = format!("sidestep-app echo --listen 0.0.0.0:{ECHO} & exec {http}");
    on(node, objects::pod(name, &json!(["sh", "-c", script])))
}

/// The service of a [`talker`].
pub fn service(name: &str) -> Value {
    let mut service = objects::service(name);
    service["spec"]["ports"] = json!([
        {"name": "http", "port": 80, "targetPort": objects::PORT},
        {"name": "tcp-echo", "port": ECHO},
    ]);
    // A kubelet that starts again holds its pods for not ready until it has asked them, whoever redirects them.
    service["spec"]["publishNotReadyAddresses"] = json!(true);
    service
}

/// Puts a pod onto a node, as its author does.
pub fn on(node: &str, mut pod: Value) -> Value {
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    pod
}

/// A talker on the cluster's own node, `near`, and one on a machine, `far`, in a namespace of the mesh.
pub struct Pair<'a> {
    pub room: Room<'a>,
    pub machine: &'a Machine,
}

impl<'a> Pair<'a> {
    /// Makes them, and waits until both are captured and know each other.
    pub fn new(lab: &'a Lab, machine: &'a Machine, role: &str) -> Self {
        let room = lab.cluster.mesh_room(role);
        room.apply(&[talker("near", NODE), service("near")]);
        room.apply(&[talker("far", machine.name()), service("far")]);
        let pair = Self { room, machine };
        pair.is_up();
        pair
    }

    /// Waits until their agents say that both are in this state.
    pub fn become_both(&self, state: PodState) {
        for (pod, node) in self.places() {
            let mut last = None;
            let is_so = comes(PATIENCE, || {
                last = self.room.told_on(node, pod);
                last.as_ref().is_some_and(|told| told.state == state)
            });
            assert!(
                is_so,
                "{pod} on {node} is not {}: {last:?}\n{}\n{}",
                state.name(),
                self.room.kubectl("describe pods"),
                self.machine_says()
            );
        }
    }

    /// Waits until both are captured and know each other.
    pub fn is_up(&self) {
        self.become_both(PodState::Active);
        // On an emulated machine longer than in other rooms.
        self.room.kubectl(&format!(
            "wait --for=condition=Ready --timeout={}s pod/near pod/far",
            PATIENCE.as_secs()
        ));
        for (from, to) in [("near", "far"), ("far", "near")] {
            let answers = || {
                self.room
                    .try_exec(from, &format!("wget -qO- http://{to}/"))
                    .status
                    .success()
            };
            assert!(comes(PATIENCE, answers), "{to} does not answer {from}");
        }
    }

    /// What went wrong on the machine, as it sees it: of the emulator, its kernel and its services.
    fn machine_says(&self) -> String {
        let script = "journalctl --boot --priority warning --lines 60 --no-pager";
        let said = self.machine.run(self.room.cluster(), script);
        said.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// The pods, each with its node.
    pub fn places(&self) -> [(&'static str, &'static str); 2] {
        [("near", NODE), ("far", self.machine.name())]
    }

    /// Whether both are gated.
    pub fn are_gated(&self) -> bool {
        self.places()
            .iter()
            .all(|(pod, _)| gate::is_gated(&self.room.get(&format!("pod {pod}"))))
    }

    /// The address of a talker's service, and what its ports are.
    pub fn service(&self, name: &str) -> String {
        let service = self.room.get(&format!("service {name}"));
        service["spec"]["clusterIP"]
            .as_str()
            .expect("an address")
            .to_owned()
    }
}
