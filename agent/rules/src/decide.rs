//! What the programs would decide with a pod's rules: the same function, on the same entries.

use std::net::{IpAddr, SocketAddr};

use sidestep_ebpf_common::{
    Addr, AddrKey, AddrSet, Attempt, GroupKey, GroupSet, Lookups, PortKey, PortSet, Proto, Row,
    decide::is_local, inbound, outbound,
};

use crate::{Rules, addr};

/// A connection that a program of the pod makes, or a datagram that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// TCP or UDP.
    pub proto: Proto,
    /// Where the program wants it to go.
    pub to: SocketAddr,
    /// The address that the program bound its socket to, if it did.
    pub bound: Option<IpAddr>,
    /// The filesystem uid of the socket's creator.
    pub uid: u32,
    /// The filesystem gid of the socket's creator.
    pub gid: u32,
}

impl Rules {
    /// The row that decides where a connection of the pod goes.
    pub fn outbound(&self, connection: &Outgoing) -> Row {
        let Outgoing {
            proto,
            to,
            bound,
            uid,
            gid,
        } = *connection;
        let bound = bound.map_or(Addr::UNSPECIFIED, addr);
        let dst = addr(to.ip()).meant_from(&bound);
        let attempt = Attempt {
            proto,
            dst,
            port: to.port(),
            bound,
            local: is_local(&self.record, self, &dst),
            uid,
            gid,
        };
        outbound(&self.record, self, &attempt)
    }

    /// The row that decides what happens to a TCP connection that comes from outside of the pod.
    pub fn inbound(&self, to: SocketAddr) -> Row {
        inbound(&self.record, self, &addr(to.ip()), to.port())
    }
}

/// As the kernel's tries and hash map answer.
impl Lookups for Rules {
    fn port(&self, set: PortSet, port: u16) -> bool {
        let key = PortKey::new(self.record.rules, set, port);
        let mut prefixes = self.ports.iter();
        prefixes.any(|prefix| prefix.key.begins_as(&key, prefix.length))
    }

    fn addr(&self, set: AddrSet, addr: &Addr) -> bool {
        let key = AddrKey::new(self.record.rules, set, addr);
        let mut prefixes = self.addrs.iter();
        prefixes.any(|prefix| prefix.key.begins_as(&key, prefix.length))
    }

    fn group(&self, set: GroupSet, gid: u32) -> bool {
        let key = GroupKey::new(self.record.rules, set, gid);
        self.groups.contains(&key)
    }
}
