//! Two pods with the shortcut's programs and no agent; both ends of every connection are in the test's own hands.

use std::{
    io::{self, ErrorKind, Read, Result, Write},
    net::TcpStream,
    ops::Deref,
    os::fd::AsFd,
    time::Duration,
};

use sidestep_agent::shortcut::{Allowed, Options, Participant, Reach, Shortcut};
use sidestep_ebpf_common::{Ids, shortcut::Count};
use sidestep_kernel::netns::Namespace as AgentNamespace;
use sidestep_kit::{
    actor::{Actor, Identity, Kind, Socket, sys},
    cgroup::Cgroup,
    net::{Namespace, Network},
};

/// The pods' addresses.
pub const ADDRESSES: [&str; 2] = ["10.77.0.10", "10.77.0.11"];

/// Everything that a pod can allow without knowing how its application reads.
pub const NODE: Allowed = Allowed {
    reach: Reach::Node,
    from_application: true,
    into_application: false,
};

/// A pod: its application, its proxy, and where both listen.
pub struct Pod {
    pub app: Actor,
    pub proxy: Actor,
    pub outbound: Socket,
    pub inbound: Socket,
    pub server: Socket,
    pub namespace: Namespace,
    cookie: u64,
    addresses: Vec<String>,
}

impl Pod {
    fn in_namespace(
        namespace: Namespace,
        cgroup: &Cgroup,
        cookie: u64,
        addresses: Vec<String>,
        server: Kind,
    ) -> Self {
        let app = Actor::spawn(&namespace, cgroup, &Identity::app());
        let proxy = Actor::spawn(&namespace, cgroup, &Identity::proxy());
        Self {
            outbound: proxy.listen("[::]:15001"),
            inbound: proxy.listen("[::]:15006"),
            server: app.listen_as(server, "[::]:8080"),
            app,
            proxy,
            cookie,
            namespace,
            addresses,
        }
    }

    /// How it takes part.
    pub fn participant(&self, allowed: Allowed) -> Participant {
        participant(self.cookie, &self.addresses, allowed)
    }
}

fn participant(cookie: u64, addresses: &[String], allowed: Allowed) -> Participant {
    Participant {
        cookie,
        outbound_port: 15001,
        inbound_port: 15006,
        uids: Ids::new(&[1337]).expect("one id"),
        gids: Ids::new(&[1337]).expect("one id"),
        addresses: addresses
            .iter()
            .map(|a| a.parse().expect("an address"))
            .collect(),
        allowed,
        namespace: String::new(),
    }
}

/// Both ends of a connection.
pub struct Ends {
    pub near: Stream,
    pub far: Stream,
}

/// An end that does not block, as the programs see it; who reads or writes here waits all the same, for some seconds.
pub struct Stream(TcpStream);

impl Stream {
    /// What an actor made.
    pub fn take(socket: Socket) -> Self {
        let stream = socket.take();
        stream.set_nodelay(true).expect("an open socket");
        Self(stream)
    }

    fn patiently<T>(
        &self,
        events: i16,
        mut call: impl FnMut(&TcpStream) -> Result<T>,
    ) -> Result<T> {
        loop {
            match call(&self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            sys::wait(self.0.as_fd(), events, Duration::from_secs(5))
                .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
    }
}

impl Deref for Stream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.patiently(libc::POLLIN, |mut stream| stream.read(buffer))
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.patiently(libc::POLLOUT, |mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Both pods, and the programs on their cgroup.
pub struct Stage {
    // Dropped in this order: programs, pods, what they are in.
    pub shortcut: Option<Shortcut>,
    pub pods: [Pod; 2],
    pub cgroup: Cgroup,
    pub network: Network,
}

impl Stage {
    /// With programs, and everything allowed but into applications.
    pub fn new() -> Self {
        Self::with(Some(Options::default()), NODE, Kind::Tcp)
    }

    /// With these, or without any.
    pub fn with(options: Option<Options>, allowed: Allowed, server: Kind) -> Self {
        let network = Network::new();
        let cgroup = Cgroup::new("stage");
        // Programs see who begins to listen, so they come before the pods' processes do, and pods after their cookies.
        let mut shortcut = options.map(|options| {
            Shortcut::load(cgroup.path(), options).unwrap_or_else(|error| panic!("{error}"))
        });
        let pods = ADDRESSES.map(|address| {
            let namespace = network.host("pod", &[address]);
            namespace.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
            let opened = AgentNamespace::open(namespace.name()).expect("a namespace of ours");
            let cookie = opened.cookie().expect("it has a cookie");
            let addresses = vec![address.to_owned()];
            if let Some(shortcut) = &mut shortcut {
                let pod = participant(cookie, &addresses, allowed);
                shortcut.admit(&pod).expect("there is room");
            }
            Pod::in_namespace(namespace, &cgroup, cookie, addresses, server)
        });
        let stage = Self {
            shortcut,
            pods,
            cgroup,
            network,
        };
        if stage.shortcut.is_some() && allowed.from_application && !allowed.into_application {
            stage.learn();
        }
        stage
    }

    /// The first connection of each kind stays with TCP: it shows that the application does not block.
    fn learn(&self) {
        for connect in [Self::app_to_proxy, Self::proxy_to_app] {
            let Ends { near, far } = connect(self);
            carries(&near, &far, "of whichever is the application's");
            carries(&far, &near, "of whichever is the application's");
        }
    }

    /// Changes what a pod allows.
    pub fn allow(&mut self, pod: usize, allowed: Allowed) {
        let participant = self.pods[pod].participant(allowed);
        let shortcut = self.shortcut.as_mut().expect("a stage with programs");
        shortcut.admit(&participant).expect("there is room");
    }

    /// How often something was counted.
    pub fn counted(&self, what: Count) -> u64 {
        let mut tally = self.tally().into_iter();
        tally
            .find_map(|(count, value)| (count == what).then_some(value))
            .unwrap_or(0)
    }

    /// All counts.
    pub fn tally(&self) -> Vec<(Count, u64)> {
        let tally = self.shortcut.as_ref().map(Shortcut::tally);
        tally.unwrap_or_default()
    }

    /// Ends of connections that take part now.
    pub fn ends(&self) -> usize {
        self.shortcut.as_ref().map_or(0, Shortcut::ends)
    }

    /// The first pod's application, and its own proxy.
    pub fn app_to_proxy(&self) -> Ends {
        connect(&self.pods[0].app, "127.0.0.1:15001", &self.pods[0].outbound)
    }

    /// The first pod's proxy, and its own application.
    pub fn proxy_to_app(&self) -> Ends {
        connect(&self.pods[0].proxy, "127.0.0.1:8080", &self.pods[0].server)
    }

    /// The first pod's proxy, and the second's.
    pub fn proxy_to_proxy(&self) -> Ends {
        let to = format!("{}:15006", ADDRESSES[1]);
        connect(&self.pods[0].proxy, &to, &self.pods[1].inbound)
    }
}

/// Connects, accepts, and takes both ends.
pub fn connect(from: &Actor, to: &str, at: &Socket) -> Ends {
    let near = from
        .connect(to)
        .unwrap_or_else(|errno| panic!("{to}: {errno}"));
    let (far, _) = at.accept().expect("a connection");
    let [near, far] = [near, far].map(Stream::take);
    Ends { near, far }
}

/// Sends, and expects exactly this at the other end.
#[track_caller]
pub fn carries(mut from: &Stream, to: &Stream, text: &str) {
    from.write_all(text.as_bytes()).expect("there is room");
    gets(to, text);
}

/// Expects exactly this.
#[track_caller]
pub fn gets(mut at: &Stream, text: &str) {
    let mut got = vec![0; text.len()];
    at.read_exact(&mut got).expect("it arrives");
    assert_eq!(String::from_utf8_lossy(&got), text);
}

/// A connection of which the near end's messages go past TCP from now on.
#[track_caller]
pub fn warm(stage: &Stage, ends: &Ends) {
    let before = stage.counted(Count::Redirected);
    for _ in 0..3 {
        carries(&ends.near, &ends.far, "warm");
    }
    assert!(stage.counted(Count::Redirected) > before, "it goes by TCP");
}

impl Stage {
    /// A third pod, which takes part with this address.
    pub fn hostile(&mut self, address: &str) -> Pod {
        let namespace = self.network.host("pod", &["10.77.0.99"]);
        namespace.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
        let opened = AgentNamespace::open(namespace.name()).expect("a namespace of ours");
        let cookie = opened.cookie().expect("it has a cookie");
        let addresses = vec![address.to_owned()];
        if let Some(shortcut) = &mut self.shortcut {
            let pod = participant(cookie, &addresses, NODE);
            shortcut.admit(&pod).expect("there is room");
        }
        Pod::in_namespace(namespace, &self.cgroup, cookie, addresses, Kind::Tcp)
    }
}

/// Words of four bytes that hold their own position.
pub fn words() -> Vec<u8> {
    (0..1_u32 << 19).flat_map(u32::to_be_bytes).collect()
}
