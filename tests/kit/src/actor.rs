//! Actors: processes inside a pod that use sockets as its containers would, driven by the test.
//!
//! `app.connect("10.77.1.5:80")` is one system call made by a process of the right namespace, cgroup and user.

mod channel;
mod pidfd;
pub mod protocol;
mod seen;
pub mod server;
mod socket;
pub mod sys;

use std::{net::SocketAddr, process::Command, sync::Arc};

use serde::{Deserialize, Serialize};

use self::{
    channel::{Channel, unexpected},
    protocol::{Answer, Request, Traffic},
};
pub use self::{
    protocol::{Errno, Family, Kind, Load, Report},
    seen::{Seen, assert_captured, assert_straight},
    socket::Socket,
};
use crate::{binary, cgroup::Cgroup, net::Namespace};

/// The ids of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Real user id, and effective one (also the filesystem's).
    pub uids: (u32, u32),
    /// Real group id, and effective one (also the filesystem's).
    pub gids: (u32, u32),
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// A user and a group.
    pub fn new(uid: u32, gid: u32) -> Self {
        Self {
            uids: (uid, uid),
            gids: (gid, gid),
            groups: Vec::new(),
        }
    }

    /// What an application usually runs as.
    pub fn app() -> Self {
        Self::new(1000, 1000)
    }

    /// What the proxy runs as by default.
    pub fn proxy() -> Self {
        Self::new(1337, 1337)
    }

    /// As a setuid program leaves it: started by one user, acting as another.
    #[must_use]
    pub fn acting_as(mut self, uid: u32) -> Self {
        self.uids.1 = uid;
        self
    }

    /// As a setgid program leaves it.
    #[must_use]
    pub fn acting_as_group(mut self, gid: u32) -> Self {
        self.gids.1 = gid;
        self
    }

    /// Adds supplementary groups.
    #[must_use]
    pub fn with_groups(mut self, groups: &[u32]) -> Self {
        self.groups.extend(groups);
        self
    }
}

/// A process in a pod. It ends when the value and all of its sockets are dropped.
#[derive(Debug, Clone)]
pub struct Actor {
    channel: Arc<Channel>,
}

impl Actor {
    /// Starts it inside the namespace and the cgroup.
    pub fn spawn(namespace: &Namespace, cgroup: &Cgroup, identity: &Identity) -> Self {
        let mut command = Command::new(binary("sidestep-actor"));
        command.arg(serde_json::to_string(identity).expect("an identity is JSON"));
        namespace.command_enters(&mut command);
        cgroup.command_joins(&mut command);
        Self {
            channel: Arc::new(Channel::open(command)),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.channel.pid()
    }

    /// Takes other ids, as a program does that started as root. Its sockets remain those of who made them.
    pub fn become_user(&self, identity: &Identity) {
        let identity = identity.clone();
        self.channel
            .done(&Request::BecomeUser { identity })
            .expect("root can become anybody");
    }

    /// Ends it as `kill -9` does, with all of its sockets.
    pub fn kill(&self) {
        self.channel.kill();
    }

    /// Makes a socket.
    pub fn socket(&self, family: Family, kind: Kind) -> Result<Socket, Errno> {
        match self.channel.ask(&Request::Socket { family, kind })? {
            Answer::Socket(id) => Ok(Socket::new(Arc::clone(&self.channel), id)),
            other => unexpected(&other),
        }
    }

    /// Connects a new TCP socket of the address's family.
    pub fn connect(&self, address: &str) -> Result<Socket, Errno> {
        let address = parse(address);
        let socket = self.socket(family_of(address), Kind::Tcp)?;
        socket.connect_to(address)?;
        Ok(socket)
    }

    /// Connects to a server of [`Socket::serve`] and compares what both ends see.
    pub fn call(&self, address: &str) -> Result<Seen, Errno> {
        self.connect(address)?.seen()
    }

    /// Makes a TCP listener.
    pub fn listen(&self, address: &str) -> Socket {
        self.listen_as(Kind::Tcp, address)
    }

    /// Makes a listener of this kind.
    pub fn listen_as(&self, kind: Kind, address: &str) -> Socket {
        let socket = self.bound(kind, address);
        socket
            .listen()
            .unwrap_or_else(|errno| panic!("listen on {address}: {errno}"));
        socket
    }

    /// Listens (TCP, MPTCP) or binds (UDP) and answers everybody with what it sees of them.
    pub fn serve(&self, name: &str, kind: Kind, address: &str) -> Socket {
        let socket = match kind {
            Kind::Udp => self.bound(kind, address),
            _ => self.listen_as(kind, address),
        };
        socket.serve(name);
        socket
    }

    /// Makes `count` connections one after the other, to each address in turn, and closes each.
    pub fn connect_many(&self, addresses: &[String], count: u32) -> Load {
        let addresses = addresses.iter().map(|address| parse(address)).collect();
        self.load_of(Traffic::Series { addresses, count })
    }

    /// Starts traffic to a server: `fresh` workers with a connection per request, `kept` with one for all.
    pub fn start_load(&self, address: &str, fresh: u32, kept: u32) {
        let request = Request::Traffic(Traffic::Start {
            address: parse(address),
            fresh,
            kept,
        });
        self.channel.done(&request).expect("load starts");
    }

    /// Stops that traffic and tells how it went.
    pub fn stop_load(&self) -> Load {
        self.load_of(Traffic::Stop)
    }

    fn load_of(&self, traffic: Traffic) -> Load {
        match self.channel.ask(&Request::Traffic(traffic)) {
            Ok(Answer::Load(load)) => load,
            other => panic!("no load: {other:?}"),
        }
    }

    fn bound(&self, kind: Kind, address: &str) -> Socket {
        let parsed = parse(address);
        let prepare = || {
            let socket = self.socket(family_of(parsed), kind)?;
            socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            if kind != Kind::Udp {
                socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            }
            socket.bind(address)?;
            Ok(socket)
        };
        prepare().unwrap_or_else(|errno: Errno| panic!("bind {address}: {errno}"))
    }
}

fn parse(address: &str) -> SocketAddr {
    address
        .parse()
        .unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}
