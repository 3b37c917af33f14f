//! A real Kubernetes API server with its etcd and nothing else: no controller, no node. What is created stays as it is.
//!
//! Both run in a network namespace of their own. Services are reached by their EndpointSlices, so a webhook can run in
//! that namespace, at [`ADDRESS`].

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    net::Namespace,
    parts,
    process::{Running, eventually},
};

/// The programs it needs.
pub const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// An address in its namespace that an EndpointSlice may name.
pub const ADDRESS: &str = "10.77.0.1";

/// Where it listens, in its namespace.
pub const LISTENS: &str = "127.0.0.1:6443";
/// The same as its kubeconfig has it.
pub const URL: &str = "https://127.0.0.1:6443";

const PATIENCE: Duration = Duration::from_mins(1);

/// A running API server; it ends when dropped.
#[derive(Debug)]
pub struct ApiServer {
    namespace: Namespace,
    folder: TempDir,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

static SHARED: Mutex<Option<Arc<ApiServer>>> = Mutex::new(None);

extern "C" fn end_shared() {
    let server = SHARED.lock().map(|mut shared| shared.take());
    // A panic must not leave this function, and there is nobody to tell.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(server)));
}

impl ApiServer {
    /// Starts etcd and the API server, and waits until it answers.
    pub fn start() -> Self {
        let namespace = Namespace::new("api");
        namespace.ip("link add eth0 type bridge");
        namespace.ip(&format!("addr add {ADDRESS}/24 dev eth0"));
        namespace.ip("link set eth0 up");
        let folder = tempfile::tempdir().expect("a folder");
        write_files(folder.path());
        let (stop, stopped) = mpsc::channel();
        let commands = [etcd(folder.path()), server(folder.path())]
            .map(|command| enter(&namespace, folder.path(), command));
        // They end with the thread that started them, so that none outlives a test that is killed; a test's own thread
        // may end before the server does.
        let keeper = thread::spawn(move || keep(commands, &stopped));
        let server = Self {
            namespace,
            folder,
            stop: Some(stop),
            keeper: Some(keeper),
        };
        server.wait();
        server
    }

    /// The one that all tests of a process share. It ends with the process.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.get_or_insert_with(|| {
            // SAFETY: the function may run at exit: it unwinds into nobody.
            unsafe { libc::atexit(end_shared) };
            Arc::new(Self::start())
        });
        Arc::clone(server)
    }

    /// The network namespace that it runs in.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The administrator's kubeconfig, which works in its network namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A command in its network namespace that finds it: a program of the cluster, such as `helm`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.command(parts::program(program));
        let folder = self.folder.path();
        command.env("KUBECONFIG", self.kubeconfig());
        for variable in [
            "KUBECACHEDIR",
            "HELM_CACHE_HOME",
            "HELM_CONFIG_HOME",
            "HELM_DATA_HOME",
        ] {
            command.env(variable, folder.join("cache"));
        }
        command
    }

    /// What `kubectl` prints; or, where it fails, what it complains of.
    pub fn kubectl<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
    ) -> Result<String, String> {
        parts::finish(self.command("kubectl").args(words))
    }

    /// What `kubectl` prints, its words separated by spaces; it must not fail.
    #[track_caller]
    pub fn must(&self, words: &str) -> String {
        self.kubectl(words.split_whitespace())
            .unwrap_or_else(|error| panic!("kubectl {words}: {error}"))
    }

    /// Feeds an object, or a List of them, to a `kubectl` command with `-f -`: `server.feed("create", &pod)`.
    pub fn feed(&self, words: &str, object: &Value) -> Result<String, String> {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        file.write_all(object.to_string().as_bytes())
            .expect("a file can be written");
        let mut command = self.command("kubectl");
        command
            .args(words.split_whitespace())
            .arg("-f")
            .arg(file.path());
        parts::finish(&mut command)
    }

    /// An object as the API server has it: `server.get("pod web -n demo")`.
    #[track_caller]
    pub fn get(&self, words: &str) -> Value {
        let text = self.must(&format!("get {words} -o json"));
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    fn wait(&self) {
        let ended = || self.keeper.as_ref().is_none_or(JoinHandle::is_finished);
        let ready = eventually(PATIENCE, || {
            ended() || self.kubectl(["get", "--raw", "/readyz"]).is_ok()
        });
        let log = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        assert!(
            ready && !ended(),
            "the API server does not start\n{}\n{}",
            tail(&log("etcd.log")),
            tail(&log("kube-apiserver.log"))
        );
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            // Its panic, if any, was already told of.
            let _ = keeper.join();
        }
    }
}

fn keep(commands: [Command; 2], stopped: &mpsc::Receiver<()>) {
    let mut running = commands.map(|mut command| Running::start(&mut command));
    // Ends when one of them does, or when nobody holds the other end of the channel any more.
    while running.iter_mut().all(|program| program.exited().is_none()) {
        let waited = stopped.recv_timeout(Duration::from_millis(100));
        if waited == Err(mpsc::RecvTimeoutError::Disconnected) {
            break;
        }
    }
}

fn etcd(folder: &Path) -> (&'static str, Vec<String>) {
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
    ];
    ("etcd", arguments.to_vec())
}

fn server(folder: &Path) -> (&'static str, Vec<String>) {
    let file = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--advertise-address={ADDRESS}"),
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--enable-aggregator-routing".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--allow-privileged".to_owned(),
        // It wants service accounts that a controller makes.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        format!("--cert-dir={}", file("pki")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            file("accounts.key")
        ),
    ];
    ("kube-apiserver", arguments.to_vec())
}

fn enter(namespace: &Namespace, folder: &Path, (name, arguments): (&str, Vec<String>)) -> Command {
    let log = File::create(folder.join(format!("{name}.log"))).expect("a log file");
    let mut command = namespace.command(parts::program(name));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log);
    command
}

fn write_files(folder: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "api", "cluster": {
            "server": URL,
            "certificate-authority": folder.join("pki/apiserver.crt"),
        }}],
        "users": [{"name": "admin", "user": {"token": "admin"}}],
        "contexts": [{"name": "api", "context": {"cluster": "api", "user": "admin"}}],
        "current-context": "api",
    });
    for (name, text) in [
        ("accounts.key", key.serialize_pem()),
        ("accounts.pub", key.public_key_pem()),
        (
            "tokens.csv",
            "admin,admin,admin,system:masters\n".to_owned(),
        ),
        ("kubeconfig", kubeconfig.to_string()),
    ] {
        fs::write(folder.join(name), text).expect("a file can be written");
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
