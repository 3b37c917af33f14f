//! The machine that the node believes to be: network, mounts and host name of its own, and a cgroup for all its processes.
//!
//! One process, the holder, keeps the namespaces. Everything mounted is in its mount namespace, so that it goes when the last process goes.

use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    hierarchy,
    place::{NODE, NODE_ADDRESS, Place, SERVICES},
};

/// What the kubelet would set on the whole machine; it finds them so already, in files of the cluster's own.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Arguments: the cluster's folder, the folder of the parts, the node's name, and the file that kills a tied cluster (else nothing).
const HOLD: &str = r#"
folder=$1 parts=$2 node=$3
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock /run/parts
mount --rbind "$parts" /run/parts
mount -t bpf bpf /sys/fs/bpf
own=/run/parts${folder#"$parts"}
for place in lib log; do
    mkdir -p "$own/var/$place"
    mount --bind "$own/var/$place" "/var/$place"
done
# Where the checkout itself is in one of them.
[ -e "$folder" ] || { mkdir -p "$parts"; mount --rbind /run/parts "$parts"; }
(cd "$folder/sysctls" && find . -type f) | while read -r file; do
    mount --bind "$folder/sysctls/$file" "/proc/sys/$file"
done
# Only now: the node's mounts reach its pods, and nothing else.
mount --make-rshared /
hostname "$node"
echo ready
exec >/dev/null
[ -n "$4" ] || exec sleep infinity
# The process that the cluster belongs to holds the other end.
cat
echo 1 >"$4"
"#;

/// Where the node's own address is, and where other machines are attached.
pub const BRIDGE: &str = "node0";

/// How long the cluster lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Until it is taken down.
    Detached,
    /// No longer than this process: the cluster's processes are killed when it ends, however it ends.
    Tied,
}

/// What is written down of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    /// In clock ticks since boot: tells a process from a later one with the same id.
    start_time: u64,
}

/// The namespaces, for as long as the holder lives.
#[derive(Debug)]
pub struct Host {
    place: Place,
    holder: Holder,
    // Dropping it ends a tied cluster.
    _tie: Option<(Child, ChildStdin)>,
}

impl Host {
    /// Makes cgroup, namespaces and mounts.
    pub fn make(place: &Place, life: Life) -> anyhow::Result<Self> {
        for (key, value) in SYSCTLS {
            let file = place.file("sysctls").join(key);
            fs::create_dir_all(file.parent().context("a key has a folder")?)?;
            fs::write(file, format!("{value}\n"))?;
        }
        hierarchy::make(place.name(), &place.shared_out())?;
        ip(&format!("netns add {}", place.name()))?;
        for words in [
            "link set lo up",
            // With an address of its own, which does not change when a machine's port comes.
            &format!("link add {BRIDGE} address 02:00:00:00:00:01 type bridge"),
            &format!("addr add {NODE_ADDRESS}/24 dev {BRIDGE}"),
            &format!("link set {BRIDGE} up"),
            // A process of the node that calls a service needs a route before kube-proxy's rules see it.
            &format!("route add {SERVICES} dev {BRIDGE}"),
        ] {
            ip(&format!("-n {} {words}", place.name()))?;
        }
        let mut child = hold(place, life)?;
        let holder = Holder {
            pid: child.id(),
            start_time: start_time(child.id()).context("the holder ended at once")?,
        };
        fs::write(place.file("holder.json"), serde_json::to_string(&holder)?)?;
        let mut said = String::new();
        let output = child.stdout.take().context("its output is piped")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(
            said == "ready\n",
            "the node's mounts failed: {}",
            fs::read_to_string(place.log("holder")).unwrap_or_default()
        );
        let tie = child.stdin.take().map(|stdin| (child, stdin));
        Ok(Self {
            place: place.clone(),
            holder,
            _tie: tie,
        })
    }

    /// The host of a cluster that is up.
    pub fn find(place: &Place) -> anyhow::Result<Self> {
        let name = place.name();
        let missing = || format!("no cluster {name} is up: run `make cluster`");
        let text = fs::read_to_string(place.file("holder.json")).with_context(missing)?;
        let holder: Holder = serde_json::from_str(&text).with_context(missing)?;
        if start_time(holder.pid) != Some(holder.start_time) {
            bail!(missing());
        }
        Ok(Self {
            place: place.clone(),
            holder,
            _tie: None,
        })
    }

    /// A command inside: network, mounts, host name and cgroup are the node's, and it is in the cluster's folder. It outlives a Ctrl-C here.
    pub fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let namespaces = ["net", "mnt", "uts"].map(|kind| {
            let path = format!("/proc/{}/ns/{kind}", self.holder.pid);
            File::open(&path).context(path)
        });
        let [net, mnt, uts] = namespaces;
        let namespaces = [net?, mnt?, uts?];
        // After entering the mounts a process is at their root.
        let folder = CString::new(self.place.folder().as_os_str().as_bytes())?;
        let mut command = Command::new(program);
        join_cgroup(&mut command, &self.place)?;
        // SAFETY: the closure only makes system calls on descriptors that it owns; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                for namespace in &namespaces {
                    enter(namespace)?;
                }
                check(libc::chdir(folder.as_ptr()))?;
                check(libc::setsid())
            });
        }
        command.env_clear();
        let bin = self.place.parts().join("cluster/bin");
        command.env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        );
        command.env("HOME", self.place.folder());
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `work` on a thread of its own in the node's network and returns what it returns.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let path = self.place.netns();
        let network = File::open(&path).with_context(|| path.display().to_string())?;
        let outcome = thread::scope(|scope| {
            let thread = scope.spawn(|| enter(&network).map(|()| work()));
            thread.join()
        });
        let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.context("the network cannot be entered")
    }

    /// Asks a server from the node, by HTTP without TLS; each wait for the answer has this limit.
    ///
    /// # Panics
    /// If the node's network cannot be entered.
    pub fn ask_in_plain_text(&self, server: SocketAddr, patience: Duration) -> io::Result<String> {
        let ask = || {
            let mut stream = TcpStream::connect(server)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        self.in_network(ask)
            .expect("the node's network can be entered")
    }

    /// The holder's process: `/proc/<pid>/root` is the node's view of files.
    pub fn pid(&self) -> u32 {
        self.holder.pid
    }
}

fn hold(place: &Place, life: Life) -> anyhow::Result<Child> {
    let path = place.netns();
    let net = File::open(&path).with_context(|| path.display().to_string())?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--uts", "--propagation", "private"])
        .args(["sh", "-euc", HOLD, "holder"])
        .args([place.folder(), place.parts(), Path::new(NODE)])
        .arg(match life {
            Life::Tied => hierarchy::kill_file(place.name()),
            Life::Detached => PathBuf::new(),
        })
        .stdout(Stdio::piped())
        .stderr(File::create(place.log("holder"))?);
    match life {
        Life::Tied => command.stdin(Stdio::piped()),
        Life::Detached => command.stdin(Stdio::null()),
    };
    join_cgroup(&mut command, place)?;
    // SAFETY: as in `command`.
    unsafe {
        command.pre_exec(move || {
            enter(&net)?;
            check(libc::setsid())
        });
    }
    command.spawn().context("unshare")
}

fn join_cgroup(command: &mut Command, place: &Place) -> anyhow::Result<()> {
    let path = hierarchy::procs(place.name());
    let mut procs = OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    // SAFETY: the closure only writes to a descriptor that it owns.
    unsafe { command.pre_exec(move || procs.write_all(b"0")) };
    Ok(())
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which is open, and touches no memory of ours.
    check(unsafe { libc::setns(namespace.as_raw_fd(), 0) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Runs a command of iproute2's.
pub fn ip(words: &str) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .context("ip")?;
    ensure!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// When a process started, in clock ticks since boot; nothing where it is none or has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok())?
}
