//! Real Envoy as a pod's sidecar.

mod config;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Stdio,
    sync::Once,
    time::Duration,
};

use anyhow::ensure;
use tempfile::TempDir;

pub use self::config::{
    ADMIN_PORT, EXPLICIT_PORT, EXPLICIT_STREAM_PORT, INBOUND_PORT, INBOUND_REQUESTS, OUTBOUND_PORT,
    OUTBOUND_REQUESTS, READY_PORT, STREAM_PORT, Service, Sidecar,
};
use crate::{
    net::{Namespace, is_stale, unique_name},
    parts,
    process::{PATIENCE, Program, Running, eventually},
    redirect::Pod,
};

/// The user and group of the proxy.
const PROXY: (u32, u32) = (1337, 1337);

/// Threads that serve connections, each with its own listening sockets.
const WORKERS: u32 = 2;

static SWEEP: Once = Once::new();

/// The program: what `SIDESTEP_ENVOY` says, else what the set-up script installed.
pub fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("SIDESTEP_ENVOY").map_or_else(
        || parts::workspace().join(".parts/bin/envoy"),
        PathBuf::from,
    );
    ensure!(
        path.exists(),
        "Envoy is missing: run `make setup`, or set SIDESTEP_ENVOY"
    );
    Ok(path)
}

/// A running sidecar; killed when dropped.
#[derive(Debug)]
pub struct Envoy {
    process: Running,
    folder: TempDir,
}

impl Envoy {
    /// Starts it in the pod and waits until it listens.
    pub fn start(pod: &Pod, sidecar: &Sidecar) -> Self {
        let mut envoy = Self::spawn(pod, sidecar);
        let listens = eventually(PATIENCE, || {
            envoy.process.exited().is_some() || is_live(pod.namespace())
        });
        assert!(
            listens && envoy.process.exited().is_none(),
            "Envoy of {} did not start:\n{}",
            sidecar.pod,
            envoy.log()
        );
        envoy
    }

    /// Starts it without waiting.
    fn spawn(pod: &Pod, sidecar: &Sidecar) -> Self {
        SWEEP.call_once(sweep);
        let folder = tempfile::Builder::new()
            .prefix(&unique_name("envoy-"))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder");
        let config = folder.path().join("envoy.json");
        fs::write(&config, sidecar.bootstrap().to_string()).expect("a folder of ours");
        // It holds the private key.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("a file of ours");
        chown(&config, Some(PROXY.0), Some(PROXY.1)).expect("a file of ours");
        let log = fs::File::create(folder.path().join("log")).expect("a folder of ours");

        let program = program().unwrap_or_else(|error| panic!("{error}"));
        let mut program = Program::new(&program, pod.namespace(), pod.cgroup(), PROXY)
            .args(["--disable-hot-restart", "--log-level", "warning"])
            .args(["--concurrency", &WORKERS.to_string()])
            .args(["--drain-time-s", "1", "--config-path"])
            .args([&config]);
        program
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            process: program.start(),
            folder,
        }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// Removes the folders of processes that were killed.
fn sweep() {
    let entries = fs::read_dir(std::env::temp_dir());
    for entry in entries.into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            // Another process may be sweeping too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The counters of the sidecar in this namespace.
pub fn counters(namespace: &Namespace) -> BTreeMap<String, u64> {
    let answer = namespace
        .enter(|| ask_admin("/stats?usedonly"))
        .expect("a sidecar that runs answers");
    answer
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn is_live(namespace: &Namespace) -> bool {
    namespace
        .enter(|| ask_admin("/ready"))
        .is_ok_and(|answer| answer.trim() == "LIVE")
}

fn ask_admin(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", ADMIN_PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if head.split(' ').nth(1) == Some("200") {
        Ok(unchunk(head, body))
    } else {
        Err(std::io::Error::other(format!("{path}: {head}")))
    }
}

fn unchunk(head: &str, body: &str) -> String {
    if !head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return body.to_owned();
    }
    let mut plain = String::new();
    let mut rest = body;
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        let (Some(chunk), true) = (tail.get(..size), size > 0) else {
            break;
        };
        plain.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    plain
}
