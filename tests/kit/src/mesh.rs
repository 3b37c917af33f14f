//! A mesh of two pods: a client that calls a server, each with a real sidecar, and mutual TLS between the two.
//!
//! The client calls the server's own address. Nothing in a request tells whether it was redirected: the sidecars'
//! counters and the certificate's name that reaches the server do.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};

use crate::{
    app::Seen,
    binary,
    certs::Authority,
    envoy::{
        self, EXPLICIT_PORT, EXPLICIT_STREAM_PORT, Envoy, INBOUND_REQUESTS, OUTBOUND_REQUESTS,
        STREAM_PORT, Service, Sidecar,
    },
    load::Measured,
    process::{PATIENCE, Program, Running, eventually},
    redirect::{Node, Pod},
    traffic::{Load, Traffic},
};

/// The user and group of the application.
const APP: (u32, u32) = (1000, 1000);
const APP_PORT: u16 = 8080;
const CLIENT: &str = "10.77.0.10";
const SERVER: &str = "10.77.0.11";

/// The client, the server, and what runs in them.
#[derive(Debug)]
pub struct Mesh {
    // Dropped in this order: processes, pods, the machine they are on.
    sidecars: Option<(Envoy, Envoy)>,
    _app: Running,
    client: Pod,
    server: Pod,
    configs: (Sidecar, Sidecar),
    way: Way,
    node: Node,
}

/// How requests come to the sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They do not.
    Direct,
    /// The application calls its sidecar, and sidecars each other.
    Explicit,
    /// They are redirected.
    Redirected,
}

/// Requests that each sidecar has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// The client's, for its own application.
    pub outbound: u64,
    /// The server's, for the client.
    pub inbound: u64,
}

/// Processor time, as cgroups count it: of these pods only, whatever else the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTime {
    /// In programs.
    pub user: Duration,
    /// In the kernel on behalf of them.
    pub kernel: Duration,
}

impl CpuTime {
    /// Of everything that ever was in a cgroup.
    pub fn of_cgroup(folder: &Path) -> Self {
        let path = folder.join("cpu.stat");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let read = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            let value = value.and_then(|value| value.trim().parse().ok());
            Duration::from_micros(value.unwrap_or_default())
        };
        Self {
            user: read("user_usec"),
            kernel: read("system_usec"),
        }
    }
}

impl std::ops::Add for CpuTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            kernel: self.kernel + other.kernel,
        }
    }
}

impl std::ops::Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            kernel: self.kernel.saturating_sub(earlier.kernel),
        }
    }
}

impl std::ops::Sub for Requests {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            outbound: self.outbound.saturating_sub(earlier.outbound),
            inbound: self.inbound.saturating_sub(earlier.inbound),
        }
    }
}

impl Mesh {
    /// Makes both pods on this machine, redirected as it redirects, and starts everything in them.
    pub fn new(node: Node) -> Self {
        Self::make(node, Way::Redirected, Node::pod, |_, _| ())
    }

    /// Makes both pods without any redirection: the sidecars run and see nothing.
    pub fn direct(node: Node) -> Self {
        Self::make(node, Way::Direct, Node::bare_pod, |_, _| ())
    }

    /// The same, where the application itself calls its sidecar, and sidecars call each other: what a mesh costs without
    /// anything that redirects.
    pub fn explicit(node: Node) -> Self {
        Self::make(node, Way::Explicit, Node::bare_pod, |_, _| ())
    }

    /// Like [`Self::new`], with pods that are made another way, and something to do before anything runs in them.
    pub fn with_pods(
        node: Node,
        pod: impl Fn(&Node, &str, &[&str]) -> Pod,
        prepare: impl FnOnce(&Pod, &Pod),
    ) -> Self {
        Self::make(node, Way::Redirected, pod, prepare)
    }

    fn make(
        node: Node,
        way: Way,
        pod: impl Fn(&Node, &str, &[&str]) -> Pod,
        prepare: impl FnOnce(&Pod, &Pod),
    ) -> Self {
        let client = pod(&node, "client", &[CLIENT]);
        let server = pod(&node, "server", &[SERVER]);
        prepare(&client, &server);
        let app = start_app(&server, APP_PORT, &["serve", "--pod", "server"]);
        let authority = Authority::new();
        let certificate = authority.certify("demo", "server");
        let service = Service {
            name: "server.demo.svc.cluster.local".into(),
            address: server_address(),
            spiffe_id: certificate.spiffe_id.clone(),
        };
        let configs = (
            Sidecar {
                pod: client.name().to_owned(),
                certificate: authority.certify("demo", "client"),
                inbound: vec![],
                services: vec![service],
                explicit: way == Way::Explicit,
            },
            Sidecar {
                pod: server.name().to_owned(),
                certificate,
                inbound: vec![APP_PORT],
                services: vec![],
                explicit: way == Way::Explicit,
            },
        );
        let mut mesh = Self {
            sidecars: None,
            _app: app,
            client,
            server,
            configs,
            way,
            node,
        };
        mesh.start_sidecars();
        mesh
    }

    /// Starts both sidecars, in place of those that run.
    pub fn start_sidecars(&mut self) {
        self.sidecars = None;
        self.sidecars = Some((
            Envoy::start(&self.client, &self.configs.0),
            Envoy::start(&self.server, &self.configs.1),
        ));
        if self.way == Way::Redirected {
            self.node.wait_active(&self.client);
            self.node.wait_active(&self.server);
        }
    }

    /// The client's pod.
    pub fn client(&self) -> &Pod {
        &self.client
    }

    /// The server's pod.
    pub fn server(&self) -> &Pod {
        &self.server
    }

    /// The machine they are on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How many requests the sidecars have finished since they started.
    pub fn requests(&self) -> Requests {
        let read = |pod: &Pod, name| {
            let counters = envoy::counters(pod.namespace());
            counters.get(name).copied().unwrap_or_default()
        };
        Requests {
            outbound: read(&self.client, OUTBOUND_REQUESTS),
            inbound: read(&self.server, INBOUND_REQUESTS),
        }
    }

    /// The processor time that everything in the two pods has used so far.
    pub fn cpu(&self) -> CpuTime {
        let of = |pod: &Pod| CpuTime::of_cgroup(pod.cgroup().path());
        of(&self.client) + of(&self.server)
    }

    /// Waits until the sidecars have counted as many requests as these.
    pub fn wait_for_requests(&self, earlier: Requests, count: u64) -> Requests {
        let mut seen = self.requests() - earlier;
        eventually(PATIENCE, || {
            seen = self.requests() - earlier;
            seen.outbound >= count && seen.inbound >= count
        });
        seen
    }

    /// Sends requests from the client's application to the server, one after the other.
    pub fn get(&self, count: usize, close: bool) -> anyhow::Result<Vec<Seen>> {
        let mut client = Program::new(
            &binary("sidestep-app"),
            self.client.namespace(),
            self.client.cgroup(),
            APP,
        )
        .args(["get", "--from", &self.called().to_string()])
        .args(["--count", &count.to_string()]);
        if close {
            client = client.args(["--close"]);
        }
        let output = finish(client, || false)?;
        output
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    /// Loads the server from the client's application. `stop` ends it early, as an error.
    pub fn load(&self, what: &Load, stop: impl Fn() -> bool) -> anyhow::Result<Measured> {
        let stream = what.traffic == Traffic::Stream;
        let _sink = stream.then(|| start_app(&self.server, STREAM_PORT, &["sink"]));
        let generator = what.generator(if stream {
            self.called_by_tcp()
        } else {
            self.called()
        })?;
        let program = self.program_in_client(&generator.program);
        what.measured(&finish(program.args(&generator.arguments), stop)?)
    }

    /// Sends so many MiB by plain TCP to the server's application and back, each on a connection of its own whose one half
    /// is closed when all is sent, and checks every byte.
    pub fn exchange(&self, count: usize) -> anyhow::Result<()> {
        let _echo = start_app(&self.server, STREAM_PORT, &["echo"]);
        let client = self
            .program_in_client(&binary("sidestep-app"))
            .args(["exchange", "--with", &self.called_by_tcp().to_string()])
            .args(["--count", &count.to_string()]);
        finish(client, || false).map(drop)
    }

    /// What the application calls.
    fn called(&self) -> SocketAddr {
        match self.way {
            Way::Explicit => SocketAddr::from(([127, 0, 0, 1], EXPLICIT_PORT)),
            Way::Direct | Way::Redirected => server_address(),
        }
    }

    /// What it calls by plain TCP.
    fn called_by_tcp(&self) -> SocketAddr {
        match self.way {
            Way::Explicit => SocketAddr::from(([127, 0, 0, 1], EXPLICIT_STREAM_PORT)),
            Way::Direct | Way::Redirected => SocketAddr::new(server_address().ip(), STREAM_PORT),
        }
    }

    fn program_in_client(&self, path: &Path) -> Program {
        Program::new(path, self.client.namespace(), self.client.cgroup(), APP)
    }
}

fn server_address() -> SocketAddr {
    SocketAddr::new(SERVER.parse().expect("an address"), APP_PORT)
}

fn start_app(pod: &Pod, port: u16, what: &[&str]) -> Running {
    let listen = format!("0.0.0.0:{port}");
    let mut program = Program::new(&binary("sidestep-app"), pod.namespace(), pod.cgroup(), APP)
        .args(what)
        .args(["--listen", &listen]);
    program.command().stdin(Stdio::null());
    let app = program.start();
    let listens = eventually(PATIENCE, || {
        // A connection over loopback, which nothing redirects.
        pod.namespace()
            .enter(|| std::net::TcpStream::connect(("127.0.0.1", port)))
            .is_ok()
    });
    assert!(listens, "the application of {} does not listen", pod.name());
    app
}

/// Runs a program to its end and returns what it printed.
fn finish(mut program: Program, stop: impl Fn() -> bool) -> anyhow::Result<String> {
    let output = tempfile::tempfile()?;
    let errors = tempfile::tempfile()?;
    program
        .command()
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?);
    let mut running = program.start();
    let Some(status) = running.wait(stop) else {
        bail!("interrupted");
    };
    let output = read_back(output)?;
    ensure!(status.success(), "{status}: {output}{}", read_back(errors)?);
    Ok(output)
}

fn read_back(mut file: std::fs::File) -> anyhow::Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}
