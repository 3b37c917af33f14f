//! The agent as a process, and its folders.

mod status;

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Once,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    binary,
    cgroup::Cgroup,
    net::{is_stale, run, unique_name},
    process::PATIENCE,
};

pub use self::status::{PodState, PodStatus, ShortcutStatus, Status};

static SWEEP: Once = Once::new();

/// The folders, cgroup and socket of one agent. Its bpffs is a mount of its own, so that agents of tests which run at
/// the same time cannot see, nor unmount, each other's pins.
#[derive(Debug)]
pub struct AgentFolders {
    cgroup: PathBuf,
    root: TempDir,
    pub(super) arguments: Vec<String>,
    pub(super) disguise: Option<String>,
    pub(super) program: PathBuf,
}

impl AgentFolders {
    pub(super) fn new(pods: &Cgroup, arguments: &[&str]) -> Self {
        SWEEP.call_once(sweep);
        let root = tempfile::Builder::new()
            .prefix(&unique_name("agent"))
            .tempdir()
            .expect("a temporary folder");
        let folders = Self {
            cgroup: pods.path().to_owned(),
            root,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            disguise: None,
            program: binary("sidestep-agent"),
        };
        fs::create_dir(folders.pods()).expect("a new folder");
        fs::create_dir(folders.bpffs()).expect("a new folder");
        run(Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(folders.bpffs()));
        folders
    }

    /// The folder that all but the cgroup is in.
    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where Pod files are.
    pub fn pods(&self) -> PathBuf {
        self.root.path().join("pods")
    }

    /// The folder of the agent's pins.
    pub fn pins(&self) -> PathBuf {
        self.bpffs().join("sidestep")
    }

    fn bpffs(&self) -> PathBuf {
        self.root.path().join("bpf")
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("agent.sock")
    }

    fn log(&self) -> PathBuf {
        self.root.path().join("agent.log")
    }

    /// The command that starts an agent here.
    pub fn command(&self) -> Command {
        let mut command = disguised(self.disguise.as_deref(), &self.program);
        command.arg("--pods").arg(self.pods());
        command.arg("--cgroup").arg(&self.cgroup);
        command.arg("--pin").arg(self.pins());
        command.arg("--socket").arg(self.socket());
        command.args(&self.arguments);
        command
    }

    /// Writes a Pod file in one step.
    pub fn write_pod(&self, name: &str, manifest: &str) {
        let draft = self.root.path().join(format!("{name}.draft"));
        fs::write(&draft, manifest).expect("a folder of ours");
        fs::rename(draft, self.pods().join(format!("{name}.yaml"))).expect("a folder of ours");
    }

    /// Removes a Pod file.
    pub fn remove_pod(&self, name: &str) {
        fs::remove_file(self.pods().join(format!("{name}.yaml"))).expect("the file was there");
    }
}

impl Drop for AgentFolders {
    fn drop(&mut self) {
        // What an agent that was killed left pinned goes with the mount.
        let unmounted = Command::new("umount").arg(self.bpffs()).output();
        if !unmounted.is_ok_and(|output| output.status.success()) {
            eprintln!("{} was not unmounted", self.bpffs().display());
        }
    }
}

/// Removes what test processes that were killed left.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            // Either may be gone already.
            let _ = Command::new("umount")
                .arg(entry.path().join("bpf"))
                .output();
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A running agent; stopped when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts it in a cgroup of the machine, beside the pods'; it may not be ready yet.
    pub(super) fn start_in(cgroup: &Cgroup, folders: &AgentFolders) -> Self {
        let mut command = folders.command();
        cgroup.command_joins(&mut command);
        Self::start(command, folders.socket(), folders.log())
    }

    /// Starts it by a command that tells it to answer on this socket.
    pub fn start(mut command: Command, socket: PathBuf, log: PathBuf) -> Self {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a folder of ours");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file of ours"))
            .stderr(file)
            .spawn()
            .expect("the agent starts");
        Self { child, socket, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says of itself, if it answers.
    pub fn status(&self) -> Option<Status> {
        let body = get(&self.socket, "/status").ok()?;
        Some(serde_json::from_str(&body).unwrap_or_else(|error| panic!("status {body}: {error}")))
    }

    /// The connections of a pod, as the command line shows them of this agent.
    pub fn flows(&self, pod: &str) -> Vec<Value> {
        let mut command = Command::new(binary("sidestep"));
        command.args(["flows", &format!("pod/{pod}"), "-n", "demo", "-o", "json"]);
        let output = command.arg("--socket").arg(&self.socket).output();
        let output = output.expect("the command line is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{self}");
        let mut flows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(flows["more"], false);
        serde_json::from_value(flows["flows"].take()).expect("a list")
    }

    /// What it says of a pod, if it knows it.
    pub fn pod(&self, name: &str) -> Option<PodStatus> {
        let pods = self.status()?.pods;
        pods.into_iter().find(|pod| pod.name == name)
    }

    /// Waits until it is ready: in an emulated machine the kernel may verify its programs for half a minute.
    pub fn wait_until_ready(&self) {
        self.wait_at_most(6 * PATIENCE, "the agent to be ready", || {
            self.status().is_some_and(|status| status.ready)
        });
    }

    /// Waits until a pod's state is as wanted.
    pub fn wait_for(&self, pod: &str, wanted: impl Fn(PodState) -> bool) {
        self.wait(&format!("pod {pod}"), || {
            self.pod(pod).is_some_and(|status| wanted(status.state))
        });
    }

    /// Waits for a condition; with the agent's last words when it does not come true.
    pub fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        self.wait_at_most(PATIENCE, what, condition);
    }

    fn wait_at_most(&self, patience: Duration, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + patience;
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "waited for {what} in vain; {:#?}; {self}",
                self.status()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.exited()
            .unwrap_or_else(|| panic!("the agent does not end:\n{}", self.log()))
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Keeps it from running, as a machine without time for it does.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: kill touches no memory; the child was not waited for, so the id is still its own.
        unsafe { libc::kill(pid, signal) };
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        writeln!(f, "the agent's last words:")?;
        let tail = &lines[lines.len().saturating_sub(30)..];
        tail.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.terminate();
        if self.exited().is_none() {
            eprintln!("the agent was killed, it did not end by itself");
            // Both fail only where it is gone.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A program that sees the kernel's files as these shell commands leave them, in a mount namespace of its own.
pub(crate) fn disguised(mounts: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(mounts) = mounts else {
        return Command::new(program);
    };
    let script = format!("{mounts}; exec \"$@\"");
    let mut command = Command::new("unshare");
    // Namespaces that are made later are mounted, and have to be seen.
    let words = ["--mount", "--propagation", "slave", "sh", "-euc"];
    command.args(words).args([&script, "sh"]).arg(program);
    command
}

fn get(socket: &Path, path: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if head.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(std::io::Error::other(format!("{path}: {head}")))
    }
}
