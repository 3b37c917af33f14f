//! The agent as a container runtime starts it on an ordinary node: `runc` with the DaemonSet of the chart, on a pure v2
//! hierarchy that is mounted with `nsdelegate`. `tests/qemu/smoke.sh` runs it in a machine of its own; no other has that
//! hierarchy for sure.

mod api;
mod bundle;
mod hardened;
mod seccomp;

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use sidestep_agent::{shortcut::selftest::Proves, status::Status};
use sidestep_kit::{
    binary, needs,
    net::Namespace,
    parts,
    process::{Running, eventually},
};
use tempfile::TempDir;

use self::bundle::{NODE, PROGRAM, bundle, config};

const HIERARCHY: &str = "/sys/fs/cgroup";
/// Where kubelet puts pods with the systemd driver.
const PODS: &str = "/sys/fs/cgroup/kubepods.slice";
const SOCKET: &str = "/run/sidestep/agent.sock";
/// The emulated self-test and probe take several seconds.
const PATIENCE: Duration = Duration::from_mins(2);

#[needs(self::ordinary_node)]
fn the_agent_becomes_ready_in_its_container_and_proves_the_shortcut() {
    let pod = Namespace::new("agent");
    api::serve(&pod);
    let mut agent = Container::start("agent", &config(&pod));
    let said = said_when_ready(&mut agent);
    assert!(
        said.contains("shortcut on, 0 ends"),
        "{said}\n{}",
        agent.log()
    );
    assert!(said.contains("no accelerated pods on this node"), "{said}");

    let status: Status = serde_json::from_str(&status(&["-o", "json"])).expect("a status");
    assert_eq!(status.node.as_deref(), Some(NODE));
    assert_eq!(status.cgroup, Path::new(PODS));
    let checks = &status.shortcut.checks;
    let of_it = checks
        .iter()
        .filter(|check| check.proves == Proves::Shortcut);
    let failed: Vec<_> = of_it.filter(|check| check.failure.is_some()).collect();
    assert!(checks.len() > 10 && failed.is_empty(), "{checks:#?}");
    let took = status.shortcut.selftest_ms;
    println!(
        "ready {} s after power-on, the self-test took {took} ms",
        uptime()
    );

    confined(status.pid);
    assert_eq!(own_cgroups(Path::new(HIERARCHY)), Vec::<PathBuf>::new());
    agent.end();
    let pins = fs::read_dir("/sys/fs/bpf").expect("a bpffs").flatten();
    let pins: Vec<_> = pins.map(|entry| entry.file_name()).collect();
    let is_own = |name: &OsString| name.to_string_lossy().starts_with("sidestep");
    assert!(!pins.iter().any(is_own), "no pod is armed: {pins:?}");
}

/// What `sidestep status` prints of an agent that is ready. Before, it claims nothing that is not proven.
fn said_when_ready(agent: &mut Container) -> String {
    let mut said = String::new();
    let mut is_ready = false;
    eventually(PATIENCE, || {
        // The agent needs the emulated processors more than this.
        thread::sleep(Duration::from_millis(200));
        // First, so that it is not newer than what is asked next.
        is_ready = probe().0;
        said = status(&[]);
        assert!(!said.contains("Pod files"), "{said}");
        let unproven = said.contains("error: programs: ");
        assert!(!(unproven && said.contains("shortcut on")), "{said}");
        is_ready || agent.process.exited().is_some()
    });
    assert!(is_ready, "{said}\n{}", agent.log());
    said
}

#[needs(self::ordinary_node)]
fn without_the_nodes_process_1_it_is_said_what_is_missing() {
    let pod = Namespace::new("alone");
    let mut config = config(&pod);
    let namespaces = config["linux"]["namespaces"].as_array_mut();
    namespaces.expect("a list").push(json!({"type": "pid"}));
    config["process"]["args"] = json!([PROGRAM, "probe", PODS]);
    let mut probe = Container::start("alone", &config);
    let ended = eventually(PATIENCE, || probe.process.exited().is_some());
    let log = probe.log();
    assert!(
        ended && log.contains("run the agent's container with hostPID"),
        "{log}"
    );
}

/// What containerd makes of kubelet's order where only kubelet uses the systemd driver.
#[needs(self::ordinary_node)]
fn in_a_runtime_with_another_driver_than_kubelets_the_agent_is_not_ready_and_says_so() {
    fs::create_dir_all(PODS).expect("a cgroup");
    let pod = Namespace::new("driver");
    api::serve(&pod);
    let mut config = config(&pod);
    let path = config["linux"]["cgroupsPath"].as_str().expect("a path");
    let (slice, _scope) = path.rsplit_once('/').expect("a path");
    let slice = slice.rsplit_once('/').expect("a path").1;
    config["linux"]["cgroupsPath"] =
        format!("/system.slice/containerd.service/{slice}:cri-containerd:agent").into();
    let mut agent = Container::start("driver", &config);
    let said = eventually(PATIENCE, || {
        probe()
            .1
            .contains("set SystemdCgroup = true for runc in containerd's configuration")
    });
    assert!(said, "{}\n{}", probe().1, agent.log());
    agent.end();
}

/// A machine as `tests/qemu/run.sh` makes it.
fn ordinary_node() -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let hierarchy = |line: &&str| line.starts_with(&format!("cgroup2 {HIERARCHY} cgroup2 "));
    let is_one = mounts
        .lines()
        .find(hierarchy)
        .is_some_and(|line| line.contains("nsdelegate"));
    is_one
        .then_some(())
        .ok_or_else(|| "it needs an emulated node: run tests/qemu/smoke.sh".to_owned())
}

/// A container that ends when dropped.
struct Container {
    name: &'static str,
    process: Running,
    bundle: TempDir,
}

impl Container {
    fn start(name: &'static str, config: &Value) -> Self {
        let bundle = bundle(config);
        let log = fs::File::create(bundle.path().join("log")).expect("a new file");
        let mut runc = Command::new(runc());
        // The machine's root is its initramfs, which cannot be pivoted.
        runc.args(["run", "--no-pivot", "--bundle"])
            .arg(bundle.path())
            .arg(name)
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        Self {
            name,
            process: Running::start(&mut runc),
            bundle,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bundle.path().join("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        control(&["kill", self.name, "TERM"]);
        assert!(
            eventually(PATIENCE, || self.process.exited().is_some()),
            "{}",
            self.log()
        );
        let code = self.process.exited().and_then(|status| status.code());
        assert_eq!(code, Some(0), "{}", self.log());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        control(&["delete", "--force", self.name]);
    }
}

/// `tests/setup.sh` puts it there.
fn runc() -> PathBuf {
    parts::workspace().join(".parts/runc/runc")
}

fn control(words: &[&str]) -> Output {
    let output = Command::new(runc()).args(words).output();
    output.expect("runc is there: the container was started with it")
}

/// What kubelet's probe prints in the agent's container, and whether it succeeds.
fn probe() -> (bool, String) {
    let mut sidestep = Command::new(binary("sidestep"));
    sidestep.args(["probe", "ready", "--socket", SOCKET]);
    let output = sidestep.output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// What `sidestep status` prints.
fn status(words: &[&str]) -> String {
    let mut sidestep = Command::new(binary("sidestep"));
    sidestep.args(["status", "--socket", SOCKET]).args(words);
    let output = sidestep.output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The container confines the agent as far as the chart says, and no test of this file proves more than that.
fn confined(agent: u32) {
    let of = |process: &str, what: &str| {
        let file = format!("/proc/{process}/ns/{what}");
        fs::metadata(&file)
            .unwrap_or_else(|error| panic!("{file}: {error}"))
            .ino()
    };
    let agents = agent.to_string();
    for own in ["cgroup", "mnt", "net", "ipc", "uts"] {
        assert_ne!(of(&agents, own), of("1", own), "{own}");
    }
    assert_eq!(of(&agents, "pid"), of("1", "pid"));
    let status = fs::read_to_string(format!("/proc/{agent}/status")).expect("a process");
    // DAC_READ_SEARCH, NET_ADMIN, SYS_PTRACE, SYS_ADMIN.
    for line in [
        "CapEff:\t0000000000281004",
        "CapBnd:\t0000000000281004",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.lines().any(|it| it == line), "{line}: {status}");
    }
    let security = format!("/proc/{agent}/root/sys/kernel/security");
    assert_eq!(fs::read_dir(security).expect("a fresh sysfs").count(), 0);
    let mounts = fs::read_to_string(format!("/proc/{agent}/mounts")).expect("a process");
    assert!(mounts.contains("sysfs /sys sysfs ro,"), "{mounts}");
}

/// What the agent made of cgroups and did not remove.
fn own_cgroups(folder: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = below.map(|entry| entry.path()).filter(|path| path.is_dir());
    let is_own = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("sidestep-"))
    };
    folders
        .flat_map(|path| {
            if is_own(&path) {
                vec![path]
            } else {
                own_cgroups(&path)
            }
        })
        .collect()
}

fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").expect("/proc is mounted");
    text.split(' ').next().unwrap_or_default().to_owned()
}
