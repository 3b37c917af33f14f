//! Networks made of namespaces: a router with a bridge, hosts on it, and an outside host behind it.
//!
//! Every interface is made inside one of our own namespaces, so the machine's own network is never touched. Names are
//! `ss-<pid>-<n>-<role>`; a namespace goes away when its value is dropped, and those of test processes that were killed
//! are swept when the next one starts.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Once,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
};

static SEQUENCE: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A name which no other test, nor another test process, has: `ss-<pid>-<n>-<role>`.
pub fn unique_name(role: &str) -> String {
    let n = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    format!("ss-{}-{n}-{role}", std::process::id())
}

/// Whether `name` was given out by [`unique_name`] in a process which is no more.
pub fn is_stale(name: &str) -> bool {
    let pid = name
        .strip_prefix("ss-")
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists())
}

/// Runs a command to its end and panics with its output when it failed.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn ip(words: &str) -> Output {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// A network namespace of its own with `lo` up; deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    named: AtomicBool,
}

impl Namespace {
    /// Makes a namespace whose name ends in `role`.
    pub fn new(role: &str) -> Self {
        SWEEP.call_once(sweep);
        let namespace = Self {
            name: unique_name(role),
            named: AtomicBool::new(true),
        };
        namespace.add();
        namespace
    }

    /// Gives the namespace that a process is in a name.
    pub fn of_process(role: &str, pid: u32) -> Self {
        SWEEP.call_once(sweep);
        let namespace = Self {
            name: unique_name(role),
            named: AtomicBool::new(true),
        };
        ip(&format!("netns attach {} {pid}", namespace.name));
        namespace.prepare();
        namespace
    }

    /// Deletes it and makes an empty one of the same name.
    pub fn remake(&self) {
        ip(&format!("netns delete {}", self.name));
        self.add();
    }

    /// Takes its name away. It lives on as long as processes are in it.
    pub fn forget_name(&self) {
        self.named.store(false, Ordering::Relaxed);
        ip(&format!("netns delete {}", self.name));
    }

    fn add(&self) {
        ip(&format!("netns add {}", self.name));
        self.prepare();
    }

    fn prepare(&self) {
        // Duplicate address detection would leave every IPv6 address unusable for a second. A kernel may have no IPv6.
        if Path::new("/proc/sys/net/ipv6").exists() {
            self.sysctl("net/ipv6/conf/default/accept_dad", "0");
            self.sysctl("net/ipv6/conf/all/accept_dad", "0");
        }
        self.ip("link set lo up");
    }

    /// The name under which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for this namespace.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/var/run/netns").join(&self.name)
    }

    /// Runs `ip` inside: `namespace.ip("route add default via 10.77.0.1")`.
    pub fn ip(&self, words: &str) -> Output {
        ip(&format!("-n {} {words}", self.name))
    }

    /// Sets a sysctl of this namespace; the key is a path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.enter(|| {
            std::fs::write(format!("/proc/sys/{key}"), value)
                .unwrap_or_else(|error| panic!("sysctl {key}={value}: {error}"));
        });
    }

    /// A command whose process runs inside this namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.command_enters(&mut command);
        command
    }

    /// Lets the process of `command` enter this namespace before it starts the program.
    pub fn command_enters(&self, command: &mut Command) {
        let file = self.open();
        // SAFETY: the closure only makes one system call on a descriptor it owns.
        unsafe { command.pre_exec(move || enter(&file)) };
    }

    /// Runs `work` on a thread of its own inside this namespace and returns what it returns.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = self.open();
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(&file).expect("a namespace that we made can be entered");
                    work()
                })
                .join()
        });
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn open(&self) -> File {
        let path = self.path();
        File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if *self.named.get_mut() {
            delete(&self.name);
        }
    }
}

fn enter(file: &File) -> std::io::Result<()> {
    // SAFETY: setns takes a descriptor, which `file` keeps open, and touches no memory of ours.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Deletes without a panic: this also runs while a failed test unwinds.
fn delete(name: &str) {
    let deleted = Command::new("ip").args(["netns", "delete", name]).output();
    match deleted {
        Ok(output) if output.status.success() => {}
        other => eprintln!("namespace {name} was not deleted: {other:?}"),
    }
}

fn sweep() {
    let Ok(entries) = std::fs::read_dir("/var/run/netns") else {
        return;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_stale(name))
        .for_each(|name| delete(&name));
}

/// The router's address on the bridge, the default route of every host on it.
pub const ROUTER_V4: &str = "10.77.0.1";
/// The router's IPv6 address on the bridge.
pub const ROUTER_V6: &str = "fd77::1";
/// The host that is not on the bridge but one hop behind the router.
pub const OUTSIDE_V4: &str = "10.78.0.2";
/// The IPv6 address of the outside host.
pub const OUTSIDE_V6: &str = "fd78::2";

/// A bridge `10.77.0.0/16`, `fd77::/64` in a router namespace, and one outside host behind the router.
///
/// Two networks share nothing, so their hosts may have the same addresses.
#[derive(Debug)]
pub struct Network {
    router: Namespace,
    outside: Namespace,
    ports: AtomicU32,
}

impl Network {
    /// Makes the router, its bridge and the outside host.
    pub fn new() -> Self {
        let router = Namespace::new("router");
        let outside = Namespace::new("outside");
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        // With an address of its own: the kernel's choice is the lowest of the ports', and changes while pods come and go.
        router.ip("link add br0 address 02:00:00:00:00:01 type bridge");
        router.ip("link set br0 up");
        router.ip(&format!("addr add {ROUTER_V4}/16 dev br0"));
        router.ip(&format!("addr add {ROUTER_V6}/64 dev br0 nodad"));

        router.ip(&format!(
            "link add outside type veth peer name eth0 netns {}",
            outside.name()
        ));
        router.ip("link set outside up");
        router.ip("addr add 10.78.0.1/16 dev outside");
        router.ip("addr add fd78::1/64 dev outside nodad");
        configure(&outside, &[OUTSIDE_V4, OUTSIDE_V6], "10.78.0.1", "fd78::1");
        Self {
            router,
            outside,
            ports: AtomicU32::new(0),
        }
    }

    /// The namespace with the bridge.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The host behind the router.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// Adds a host to the bridge, with these addresses (`10.77.…` as /16, `fd77::…` as /64) on its `eth0`.
    pub fn host(&self, role: &str, addresses: &[&str]) -> Namespace {
        let host = Namespace::new(role);
        self.attach(&host, addresses);
        host
    }

    /// Connects a namespace to the bridge, with these addresses on its `eth0`.
    pub fn attach(&self, host: &Namespace, addresses: &[&str]) {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        self.router.ip(&format!(
            "link add port{port} type veth peer name eth0 netns {}",
            host.name()
        ));
        self.router
            .ip(&format!("link set port{port} master br0 up"));
        configure(host, addresses, ROUTER_V4, ROUTER_V6);
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

fn configure(host: &Namespace, addresses: &[&str], gateway_v4: &str, gateway_v6: &str) {
    for address in addresses {
        if address.contains(':') {
            host.ip(&format!("addr add {address}/64 dev eth0 nodad"));
        } else {
            host.ip(&format!("addr add {address}/16 dev eth0"));
        }
    }
    host.ip("link set eth0 up");
    for (mark, gateway) in [('.', gateway_v4), (':', gateway_v6)] {
        if addresses.iter().any(|address| address.contains(mark)) {
            host.ip(&format!("route add default via {gateway}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::needs;

    #[needs(root)]
    fn a_host_reaches_the_outside_over_both_families_at_once() {
        let network = Network::new();
        let host = network.host("host", &["10.77.1.2", "fd77::2"]);
        for target in [OUTSIDE_V4, OUTSIDE_V6] {
            let listener = network
                .outside()
                .enter(|| std::net::TcpListener::bind((target, 80)).expect("a free port"));
            let stream =
                host.enter(|| std::net::TcpStream::connect((target, 80)).expect("a listener"));
            let (_, peer) = listener.accept().expect("a connection");
            assert_eq!(peer, stream.local_addr().expect("an open stream"));
        }
    }

    #[needs(root)]
    fn a_dropped_namespace_is_gone() {
        let namespace = Namespace::new("gone");
        let path = namespace.path();
        assert!(path.exists());
        drop(namespace);
        assert!(!path.exists());
    }

    #[test]
    fn only_names_of_dead_processes_are_stale() {
        assert!(!is_stale(&unique_name("live")));
        assert!(is_stale("ss-4194399-0-dead"));
        assert!(!is_stale("cni-4194399"));
    }
}
