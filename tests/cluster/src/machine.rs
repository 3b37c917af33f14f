//! Machines of the field lab: Debians with systemd that QEMU emulates, as further nodes of the cluster.
//!
//! The system disks are made once, by `tests/cluster/field.sh`, and no run changes them. What belongs to a run is on a second disk
//! ([`disk`]): images, keys and configuration. A machine is one of the cluster's processes, and goes with it.

mod disk;

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use sidestep_kit::parts::workspace;

use super::{
    Cluster,
    host::{BRIDGE, ip},
    images,
    parts::Parts,
    place::NODE_ADDRESS,
};

/// How long a machine may take to be a Ready node, or to answer: it is emulated, and others use this machine, too.
pub const PATIENCE: Duration = Duration::from_mins(8);

/// Where a machine's shell listens (`tests/cluster/field/shell.socket`).
const SHELL: u16 = 1;

/// The emulator, as `tests/setup.sh` found or fetched it.
pub fn qemu() -> PathBuf {
    workspace().join(".parts/bin/qemu-system-x86_64")
}

/// What a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name, also as a node.
    pub name: &'static str,
    number: u8,
}

/// All there are; they are made by `tests/cluster/field.sh`, which says what they are.
pub const KINDS: [Kind; 3] = [
    Kind {
        name: "debian-13",
        number: 1,
    },
    Kind {
        name: "debian-12",
        number: 2,
    },
    Kind {
        name: "debian-13-backports",
        number: 3,
    },
];

impl Kind {
    /// The kind of this name.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let kind = KINDS.into_iter().find(|kind| kind.name == name);
        kind.with_context(|| {
            let names = KINDS.map(|kind| kind.name).join(", ");
            format!("there is no machine {name:?}: the field lab has {names}")
        })
    }

    /// Its address, beside the node's own.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 95, 0, 10 + self.number)
    }

    /// The range of its pods.
    fn pods(self) -> String {
        format!("10.94.{}.0/24", 128 + self.number)
    }

    fn part(self, cluster: &Cluster, file: &str) -> anyhow::Result<PathBuf> {
        let path = cluster.place().parts().join("field").join(self.name);
        let path = path.join(file);
        ensure!(
            path.exists(),
            "{} is missing: run `tests/setup.sh field {}`",
            path.display(),
            self.name
        );
        Ok(path)
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Machine {
    kind: Kind,
    /// From power-on until it was a Ready node, where that was seen.
    pub took: Option<Duration>,
    // Killed with the cluster's other processes.
    _process: Vec<Child>,
}

impl Machine {
    /// Starts machines one after the other, each with these image archives in its store, and waits until they are Ready nodes.
    pub fn start_all(
        cluster: &Cluster,
        kinds: &[Kind],
        archives: &[PathBuf],
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Vec<Self>> {
        let store = images::store(cluster.place(), cluster.host(), archives)?;
        let start = |kind: &Kind| {
            say(&format!("{} starts", kind.name));
            let machine = Self::start(cluster, *kind, &store)?;
            let seconds = machine.took.unwrap_or_default().as_secs();
            say(&format!("{} is Ready after {seconds} s", kind.name));
            Ok(machine)
        };
        kinds.iter().map(start).collect()
    }

    /// A machine of a cluster that is up, which was started by another process.
    pub fn attach(kind: Kind) -> Self {
        Self {
            kind,
            took: None,
            _process: Vec::new(),
        }
    }

    fn start(cluster: &Cluster, kind: Kind, store: &Path) -> anyhow::Result<Self> {
        let place = cluster.place();
        let disk = disk::make(place, kind, store)?;
        let network = place.name();
        let tap = format!("machine{}", kind.number);
        ip(&format!("-n {network} tuntap add dev {tap} mode tap"))?;
        ip(&format!("-n {network} link set {tap} master {BRIDGE} up"))?;
        let (pods, address) = (kind.pods(), kind.address());
        ip(&format!("-n {network} route add {pods} via {address}"))?;
        let file = |name| {
            kind.part(cluster, name)
                .map(|path| path.display().to_string())
        };
        let name = kind.name;
        let arguments = [
            // Emulated, with one processor: tests/qemu/run.sh says why.
            "-accel tcg -cpu max -smp 1 -m 3072 -nodefaults -no-user-config -display none"
                .to_owned(),
            format!(
                "-kernel {} -initrd {}",
                file("vmlinuz")?,
                file("initramfs")?
            ),
            // What is written to the first is forgotten when QEMU ends; a reboot does not end it.
            format!(
                "-drive if=virtio,format=raw,snapshot=on,file={}",
                file("system.img")?
            ),
            format!(
                "-drive if=virtio,format=raw,cache=unsafe,file={}",
                disk.display()
            ),
            format!("-netdev tap,id=net,ifname={tap},script=no,downscript=no"),
            format!(
                "-device virtio-net-pci,netdev=net,mac=52:54:00:00:00:{:02x}",
                kind.number
            ),
            "-device virtio-rng-pci -serial stdio".to_owned(),
        ];
        let arguments = arguments.iter().flat_map(|line| line.split(' '));
        let append = format!(
            "root=/dev/vda rw console=ttyS0 quiet panic=-1 net.ifnames=0 systemd.show_status=1 systemd.hostname={name}"
        );
        let arguments: Vec<_> = arguments.chain(["-append", append.as_str()]).collect();
        let log = format!("machine-{name}");
        let mut parts = Parts::new(place, cluster.host());
        let began = Instant::now();
        parts.start_as(&log, &qemu(), &arguments)?;
        // Each waits, for the cluster's other work needs the processors.
        let node = format!("node/{name}");
        let comes = |what| {
            let words = ["wait", what, &node, "--timeout=10s"];
            cluster.admin().succeeds(&words)
        };
        parts.wait(&log, &format!("{name} is a Ready node"), PATIENCE, || {
            comes("--for=create") && comes("--for=condition=Ready")
        })?;
        Ok(Self {
            kind,
            took: Some(began.elapsed()),
            _process: parts.into_children(),
        })
    }

    /// The machine's name, also as a node.
    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.kind.address()
    }

    /// What a shell script prints that the machine runs as root; an error if it fails.
    pub fn run(&self, cluster: &Cluster, script: &str) -> anyhow::Result<String> {
        run(cluster, self.kind, script)
    }

    /// Imports an image archive into its store.
    pub fn import(&self, cluster: &Cluster, archive: &Path) -> anyhow::Result<()> {
        let listener = cluster
            .host()
            .in_network(|| TcpListener::bind((NODE_ADDRESS, 0)))??;
        let at = listener.local_addr()?;
        let archive = archive.to_owned();
        let sent = thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            std::io::copy(&mut File::open(archive)?, &mut stream).map(drop)
        });
        let (ip, port) = (at.ip(), at.port());
        let script = format!(
            "bash -c 'cat </dev/tcp/{ip}/{port} >/tmp/image.tar' && ctr -n k8s.io images import /tmp/image.tar && rm /tmp/image.tar"
        );
        self.run(cluster, &script)?;
        sent.join().expect("no panic").context("sending an image")
    }
}

/// Runs a shell script in a machine of a cluster.
pub fn run(cluster: &Cluster, kind: Kind, script: &str) -> anyhow::Result<String> {
    let shell = SocketAddr::from((kind.address(), SHELL));
    let talk = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&shell, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "(\n{script}\n) 2>&1\necho \"exit $?\"\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    let said = cluster.host().in_network(talk)?;
    let said = said.with_context(|| format!("the shell of {}", kind.name))?;
    match said.strip_suffix("exit 0\n") {
        Some(output) => Ok(output.to_owned()),
        None => anyhow::bail!("{script} on {}: {said}", kind.name),
    }
}
