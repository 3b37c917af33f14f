//! One replica: the program, with its ServiceAccount's token.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use sidestep_kit::{apiserver::ApiServer, binary, chart::NAMESPACE, process::Running};
use tempfile::TempDir;

use crate::{PATIENCE, until};

pub(crate) struct Replica<'a> {
    server: &'a ApiServer,
    address: &'a str,
    running: Running,
    folder: TempDir,
}

impl<'a> Replica<'a> {
    /// Starts one; its certificates are its own.
    pub(crate) fn start(
        server: &'a ApiServer,
        name: &str,
        address: &'a str,
        arguments: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, credentials(server).to_string()).expect("a file");
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = server.namespace().command(binary("sidestep-webhook"));
        command
            .arg("--certificates=managed")
            .arg(format!("--listen={address}:8443"))
            .arg(format!("--admin-listen={address}:8080"))
            .arg("--shutdown-delay=2")
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", NAMESPACE)
            .env(
                "RUST_LOG",
                "info,sidestep_webhook=debug,sidestep_certs=debug",
            )
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            server,
            address,
            running: Running::start(&mut command),
            folder,
        }
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What a path of its admin port answers.
    pub(crate) fn ask(&self, path: &str) -> String {
        let address = format!("{}:8080", self.address);
        let asked = self.server.namespace().enter(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        });
        asked.unwrap_or_default()
    }

    /// Whether it says that it leads.
    pub(crate) fn leads(&self) -> bool {
        self.ask("/metrics")
            .contains("\nsidestep_webhook_leader 1\n")
    }

    /// Waits until it is ready.
    #[track_caller]
    pub(crate) fn ready(&self) {
        let is_ready = || self.ask("/readyz").starts_with("HTTP/1.1 200");
        let in_time = sidestep_kit::process::eventually(PATIENCE, is_ready);
        assert!(
            in_time,
            "never ready: {}\n{}",
            self.ask("/readyz"),
            self.log()
        );
    }

    /// Ends it as kubelets do; returns how it ended.
    pub(crate) fn stop(mut self) {
        let pid = self.running.child().id();
        let pid = libc::pid_t::try_from(pid).expect("a pid");
        // SAFETY: the process is our child and was not waited for, so the pid is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        until("it ends", || self.running.exited().is_some());
        let status = self.running.exited().expect("it has ended");
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Ends it as a crash does.
    pub(crate) fn crash(self) {
        drop(self);
    }
}

/// The administrator's kubeconfig with the ServiceAccount's token in it.
fn credentials(server: &ApiServer) -> Value {
    let text = fs::read_to_string(server.kubeconfig()).expect("a kubeconfig");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let token = server.must(&format!("create token sidestep-webhook -n {NAMESPACE}"));
    config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    config
}
