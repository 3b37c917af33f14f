//! A client's pod, a server's pod with every server in it, and a real sidecar in each.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sidestep_kit::{
    certs::Authority,
    envoy::{Envoy, Service, Sidecar},
    net::unique_name,
    parts,
    process::{PATIENCE, Program, Running, eventually},
    redirect::{Node, Pod, ShortcutStatus},
};
use tempfile::TempDir;

use crate::servers;

/// The user and group of applications.
pub const APP: (u32, u32) = (1000, 1000);
const CLIENT: &str = "10.77.0.10";
/// The server's address.
pub const SERVER: &str = "10.77.0.11";
/// The server's HTTP ports, with mutual TLS between the sidecars. Any other is passed on as it is.
const HTTP_PORTS: [u16; 5] = [8080, 8081, 8082, 8083, 8084];

/// How far the shortcut reaches, and what the pods' authors say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nowhere.
    Off,
    /// Within each pod.
    Pod,
    /// Within each pod, and the client's author asks for it for the client's own sockets.
    PodAsked,
    /// Also between the sidecars.
    Node,
}

impl Reach {
    fn annotations(self, fixture: &str) -> Vec<(&'static str, &'static str)> {
        let word = match self {
            Self::Off => "off",
            Self::Pod | Self::PodAsked => "pod",
            Self::Node => "node",
        };
        let mut annotations = vec![("sidestep.dev/shortcut", word)];
        if self == Self::PodAsked && fixture == "client" {
            annotations.push(("sidestep.dev/shortcut-into", "application"));
        }
        annotations
    }
}

pub struct World {
    // Dropped in this order: processes, pods, the machine they are on, what they wrote.
    _sidecars: [Envoy; 2],
    _servers: Vec<Running>,
    client: Pod,
    _server: Pod,
    node: Node,
    folder: TempDir,
}

impl World {
    /// Starts everything; both pods allow this reach.
    pub fn new(reach: Reach) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&unique_name("programs"))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("a temporary folder");
        chown(folder.path(), Some(APP.0), Some(APP.1)).expect("a folder of ours");
        let node = Node::alone();
        let [client, server] =
            [("client", CLIENT), ("server", SERVER)].map(|(fixture, address)| {
                let pod = node.bare_pod(fixture, &[address]);
                node.program(&pod, &pod.annotated(&reach.annotations(fixture)));
                pod
            });
        let servers = servers::start(&server, folder.path());
        let sidecars = sidecars(&client, &server);
        for pod in [&client, &server] {
            node.wait_active(pod);
        }
        Self {
            _sidecars: sidecars,
            _servers: servers,
            client,
            _server: server,
            node,
            folder,
        }
    }

    /// What the agent says of the shortcut.
    pub fn shortcut(&self) -> ShortcutStatus {
        let status = self.node.agent().status().expect("the agent answers");
        assert!(status.shortcut.on, "{:?}", status.shortcut.reason);
        status.shortcut
    }

    /// How many directions of the client's connections its kernel has encrypted, or decrypted; none where it cannot.
    pub fn sealed(&self) -> u64 {
        let text = self
            .client
            .namespace()
            .enter(|| fs::read_to_string("/proc/thread-self/net/tls_stat"));
        let text = text.unwrap_or_default();
        let counters = text
            .lines()
            .filter(|line| line.starts_with("TlsTxSw") || line.starts_with("TlsRxSw"));
        let number = |line: &str| line.split_whitespace().last()?.parse::<u64>().ok();
        counters.filter_map(number).sum()
    }

    /// A folder of the applications.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a program in the client's pod to its end, and says what it printed.
    pub fn run(&self, program: &Path, arguments: &[&str], input: Option<&Path>) -> String {
        let output = tempfile::tempfile().expect("a temporary file");
        let errors = tempfile::tempfile().expect("a temporary file");
        let pod = &self.client;
        let mut started = Program::new(program, pod.namespace(), pod.cgroup(), APP).args(arguments);
        let input = input.map_or_else(Stdio::null, |path| {
            Stdio::from(fs::File::open(path).expect("a file of ours"))
        });
        started
            .command()
            .stdin(input)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .stdout(output.try_clone().expect("a file of ours"))
            .stderr(errors.try_clone().expect("a file of ours"));
        let mut running = started.start();
        let start = std::time::Instant::now();
        let ended = running.wait(|| start.elapsed() > Duration::from_mins(2));
        let (output, errors) = (read_back(output), read_back(errors));
        assert!(
            ended.is_some_and(|status| status.success()),
            "{} {arguments:?}: {ended:?}\n{output}{errors}",
            program.display()
        );
        output
    }
}

fn read_back(mut file: fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    file.rewind().expect("a file of ours");
    file.read_to_string(&mut text).expect("text");
    text
}

fn sidecars(client: &Pod, server: &Pod) -> [Envoy; 2] {
    let authority = Authority::new();
    let certificate = authority.certify("demo", "server");
    let service = |port: &u16| Service {
        name: format!("server-{port}.demo.svc.cluster.local"),
        address: SocketAddr::new(SERVER.parse().expect("an address"), *port),
        spiffe_id: certificate.spiffe_id.clone(),
    };
    let of_client = Sidecar {
        pod: client.name().to_owned(),
        certificate: authority.certify("demo", "client"),
        inbound: vec![],
        services: HTTP_PORTS.iter().map(service).collect(),
        explicit: false,
    };
    let of_server = Sidecar {
        pod: server.name().to_owned(),
        certificate: certificate.clone(),
        inbound: HTTP_PORTS.to_vec(),
        services: vec![],
        explicit: false,
    };
    [
        Envoy::start(client, &of_client),
        Envoy::start(server, &of_server),
    ]
}

/// Starts a server in a pod, and waits until it listens on these ports.
pub fn serve(pod: &Pod, mut program: Program, log: &Path, ports: &[u16]) -> Running {
    let log = fs::File::create(log).expect("a folder of ours");
    program
        .command()
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file of ours"))
        .stderr(log.try_clone().expect("a file of ours"));
    let mut running = program.start();
    for port in ports {
        let listens = eventually(PATIENCE, || {
            let connects = || TcpStream::connect(("127.0.0.1", *port)).is_ok();
            running.exited().is_some() || pod.namespace().enter(connects)
        });
        assert!(
            listens && running.exited().is_none(),
            "nobody listens on {port}: {}",
            read_back(log)
        );
    }
    running
}

/// A file of the repository, or of what set-up made.
pub fn part(path: &str) -> PathBuf {
    let path = parts::workspace().join(path);
    let found = path.canonicalize();
    found.unwrap_or_else(|error| {
        panic!(
            "{}: {error}: run `tests/setup.sh programs` first",
            path.display()
        )
    })
}
