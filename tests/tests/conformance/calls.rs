//! Calls that can be made in one pod after the other, and what came of each.

use std::{
    cell::RefCell,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use sidestep_kit::{
    actor::{Actor, Errno, Family, Identity, Kind, Report, Seen, Socket},
    redirect::Pod,
};

use crate::unmapped;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// A program of the pod with these ids; nobody where somebody outside calls.
    pub(crate) who: Option<Identity>,
    pub(crate) how: How,
    pub(crate) bound: Option<IpAddr>,
    pub(crate) to: SocketAddr,
}

/// With which kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Tcp,
    /// The first bytes go with the SYN: the kernel connects when they are sent.
    FastOpen,
    Mptcp,
    /// A datagram and its answer.
    Udp {
        connected: bool,
    },
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The name of the server that answered.
    pub(crate) by: Option<String>,
    /// All that can be compared.
    pub(crate) text: String,
}

impl Call {
    /// A word for calls like this one.
    pub(crate) fn kind(&self) -> &'static str {
        let mapped = matches!(self.to.ip(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        match (self.how, &self.who) {
            (_, None) => "inbound",
            (How::Mptcp, _) => "MPTCP",
            (How::FastOpen, _) => "TCP Fast Open",
            (How::Udp { connected: true }, _) => "UDP connected",
            (How::Udp { connected: false }, _) => "UDP unconnected",
            (How::Tcp, _) if self.bound.is_some() => "TCP bound",
            (How::Tcp, _) if mapped => "TCP IPv4-mapped",
            (How::Tcp, _) if self.to.is_ipv6() => "TCP IPv6",
            (How::Tcp, _) => "TCP IPv4",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.kind(), self.to)?;
        if let Some(Identity { uids, gids, .. }) = &self.who {
            let (uid, gid) = (uids.1, gids.1);
            write!(f, " by uid {uid} ({}), gid {gid} ({})", uids.0, gids.0)?;
        }
        self.bound
            .map_or(Ok(()), |bound| write!(f, ", bound to {bound}"))
    }
}

/// The processes of one pod, and one outside, that make calls.
pub(crate) struct Callers<'a> {
    pod: &'a Pod,
    outside: &'a Actor,
    actors: RefCell<Vec<(Identity, Actor)>>,
}

impl<'a> Callers<'a> {
    pub(crate) fn new(pod: &'a Pod, outside: &'a Actor) -> Self {
        Self {
            pod,
            outside,
            actors: RefCell::default(),
        }
    }

    /// Makes a call; who does not answer in time does not answer.
    pub(crate) fn make(&self, call: &Call, patience: Duration) -> Outcome {
        let made = match &call.who {
            None => self.outside.call(&call.to.to_string()).map(described),
            Some(identity) => try_call(&self.actor(identity), call, patience),
        };
        made.unwrap_or_else(|errno| Outcome {
            by: None,
            text: errno.to_string(),
        })
    }

    fn actor(&self, identity: &Identity) -> Actor {
        let mut actors = self.actors.borrow_mut();
        let known = actors.iter().find(|(it, _)| it == identity);
        if let Some((_, actor)) = known {
            return actor.clone();
        }
        let actor = self.pod.actor(identity);
        actors.push((identity.clone(), actor.clone()));
        actor
    }
}

fn try_call(actor: &Actor, call: &Call, patience: Duration) -> Result<Outcome, Errno> {
    let family = if call.to.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let kind = match call.how {
        How::Tcp | How::FastOpen => Kind::Tcp,
        How::Mptcp => Kind::Mptcp,
        How::Udp { .. } => Kind::Udp,
    };
    let socket = actor.socket(family, kind)?;
    if let Some(bound) = call.bound {
        let bound = match (bound, family) {
            (IpAddr::V4(v4), Family::V6) => v4.to_ipv6_mapped().into(),
            (bound, _) => bound,
        };
        socket.bind(&SocketAddr::new(bound, 0).to_string())?;
    }
    let to = call.to.to_string();
    match call.how {
        How::Udp { connected } => ask(&socket, &to, connected, patience),
        How::Tcp | How::Mptcp => {
            socket.connect_within(&to, patience)?;
            socket.seen_within(patience).map(described)
        }
        How::FastOpen => {
            socket.set_option(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
            socket.connect_within(&to, patience)?;
            socket.send(b"?")?;
            socket.seen_within(patience).map(described)
        }
    }
}

fn ask(socket: &Socket, to: &str, connected: bool, patience: Duration) -> Result<Outcome, Errno> {
    if connected {
        socket.connect_within(to, patience)?;
        socket.send(b"?")?;
    } else {
        socket.send_to(b"?", to)?;
    }
    let (bytes, from) = socket.receive_from_within(patience)?;
    let Report { name, peer, .. } = serde_json::from_slice(&bytes).expect("a report");
    let asker = unmapped(peer.ip());
    Ok(Outcome {
        text: format!("{name}, asked from {asker}, the answer from {from:?}"),
        by: Some(name),
    })
}

/// What can be compared: ports that the kernel chose differ, and of a call that was not redirected only conntrack knows
/// an original destination.
fn described(seen: Seen) -> Outcome {
    let original = match (seen.by.as_str(), seen.original) {
        ("outbound" | "inbound" | "dns", Ok(original)) => original.to_string(),
        ("outbound" | "inbound" | "dns", Err(errno)) => errno.to_string(),
        _ => "none".to_owned(),
    };
    let source = unmapped(seen.source.ip());
    let (by, peer) = (seen.by, seen.peer_name);
    Outcome {
        text: format!("{by}, from {source}, original {original}, getpeername {peer}"),
        by: Some(by),
    }
}
