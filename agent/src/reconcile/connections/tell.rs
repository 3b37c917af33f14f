//! What is told of each connection. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use sidestep_agent_api::{Because, Bytes, Direction, Flow, Flows, ShortcutStatus, Side, Way};
use sidestep_contract::Reach;
use sidestep_ebpf_common::{
    Origin, Proto, Row, SockState,
    flow::{ACCEPTED, HAS_CREATOR},
    row::Verdict,
    shortcut::{EndKey, EndState, HAS_REDIRECTED, IN_SOCKHASH, IS_PROXY},
};

use crate::{
    rules::{Allowed, Outgoing, PASSTHROUGH6, Rules, ip},
    sandbox::connections::{Connection, Sockets},
};

/// The address from which Envoy calls its application.
const PASSTHROUGH4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// What is known beside a pod's sockets.
pub(super) struct Known<'a> {
    pub(super) rules: &'a Rules,
    pub(super) shortcut: &'a ShortcutStatus,
    /// Whether an address is of a pod of this node that takes part in the shortcut; and then, whether both pods are of one
    /// Kubernetes namespace.
    pub(super) beside: &'a dyn Fn(IpAddr) -> Option<bool>,
    /// How many bytes this end redirected.
    pub(super) redirected_by: &'a dyn Fn(&EndKey) -> u64,
}

impl Known<'_> {
    /// A pod's connections, the application's first.
    pub(super) fn tell(&self, sockets: &Sockets) -> Flows {
        let ends = |one: &Connection| (canonical(one.ends.0), canonical(one.ends.1));
        let sides: HashMap<_, _> = sockets
            .connections
            .iter()
            .map(|one| (ends(one), self.side(one)))
            .collect();
        let mut flows = Vec::new();
        for one in &sockets.connections {
            let (local, remote) = ends(one);
            let side = sides[&(local, remote)];
            let direction = direction(one, &sockets.listening);
            let within = sides.get(&(remote, local)).copied();
            let is_told = match (side, within) {
                (_, None) | (Side::Application, Some(Side::Proxy)) => true,
                (Side::Application, Some(Side::Application)) => direction == Direction::Out,
                (Side::Proxy, Some(_)) => false,
            };
            if is_told {
                flows.push(self.flow(one, (local, remote), side, direction, within));
            }
        }
        flows.sort_by_key(|flow| (flow.of, flow.direction, flow.captured_from.is_none()));
        Flows {
            flows,
            more: sockets.more,
        }
    }

    fn side(&self, one: &Connection) -> Side {
        let record = &self.rules.record;
        let state = one.state.unwrap_or_default();
        let by_group = state.flags & HAS_CREATOR != 0 && record.gids.hold(state.gid);
        let end = one.end.map_or(0, |end| end.flags);
        let is_proxy = state.flags & ACCEPTED != 0
            || end & IS_PROXY != 0
            || record.uids.hold(one.uid)
            || by_group;
        if is_proxy {
            Side::Proxy
        } else {
            Side::Application
        }
    }

    fn flow(
        &self,
        one: &Connection,
        (local, remote): (SocketAddr, SocketAddr),
        of: Side,
        direction: Direction,
        within: Option<Side>,
    ) -> Flow {
        let captured_from = one.state.and_then(origin);
        let row = match direction {
            Direction::Out => self.outbound(one, local, captured_from, remote),
            Direction::In if within.is_some() => None,
            Direction::In => Some(self.rules.inbound(local))
                .filter(|row| (row.verdict() == Verdict::Inbound) == (of == Side::Proxy)),
        };
        let end = one.end.filter(|end| end.flags & IN_SOCKHASH != 0);
        let received = end.map_or(0, |end| (self.redirected_by)(&end.peer_key));
        let has_redirected = end.is_some_and(|end| end.flags & HAS_REDIRECTED != 0);
        let because = (!has_redirected && received == 0).then(|| match of {
            Side::Application => self.why_of_application(one, captured_from, within),
            Side::Proxy => self.why_of_proxy(one, remote.ip()),
        });
        Flow {
            of,
            direction,
            stage: one.stage,
            local,
            remote,
            captured_from,
            row: row.map(|row| row.name().to_owned()),
            way: if because.is_some() {
                Way::Tcp
            } else {
                Way::Shortcut
            },
            because,
            sent: Bytes {
                tcp: one.sent,
                shortcut: end.map_or(0, |end| end.queue.total()),
            },
            received: Bytes {
                tcp: one.received,
                shortcut: received,
            },
        }
    }

    /// The row, unless it would have done something else than what was done: the pod was not active yet, or nobody knows whose
    /// group it was.
    fn outbound(
        &self,
        one: &Connection,
        local: SocketAddr,
        captured_from: Option<SocketAddr>,
        remote: SocketAddr,
    ) -> Option<Row> {
        let creator = one.state.filter(|state| state.flags & HAS_CREATOR != 0);
        let is_passthrough =
            local.ip() == IpAddr::V4(PASSTHROUGH4) || local.ip() == IpAddr::V6(PASSTHROUGH6);
        let row = self.rules.outbound(&Outgoing {
            proto: Proto::Tcp,
            to: captured_from.unwrap_or(remote),
            bound: is_passthrough.then(|| local.ip()),
            uid: creator.map_or(one.uid, |creator| creator.uid),
            gid: creator.map_or(one.uid, |creator| creator.gid),
        });
        let passes = row.verdict() == Verdict::Pass;
        (passes == captured_from.is_none()).then_some(row)
    }

    fn why_of_application(
        &self,
        one: &Connection,
        captured_from: Option<SocketAddr>,
        within: Option<Side>,
    ) -> Because {
        let allowed = self.allowed();
        if captured_from.is_none() && within != Some(Side::Proxy) {
            Because::Direct
        } else if !self.shortcut.on {
            Because::Off
        } else if allowed.reach < Reach::Pod {
            Because::Reach
        } else if !allowed.from_application {
            Because::Applications
        } else {
            of_end(one.end)
        }
    }

    fn why_of_proxy(&self, one: &Connection, remote: IpAddr) -> Because {
        let reach = self.allowed().reach;
        match (self.beside)(remote) {
            _ if !self.shortcut.on => Because::Off,
            None => Because::Elsewhere,
            Some(true) if reach < Reach::Namespace => Because::Reach,
            Some(false) if reach < Reach::Node => Because::Reach,
            Some(_) => of_end(one.end),
        }
    }

    /// What of the pod's wishes the agent and the kernel grant.
    fn allowed(&self) -> Allowed {
        let allowed = self.rules.allowed.within(self.shortcut.reach);
        Allowed {
            from_application: self.shortcut.not_from_applications.is_none()
                || allowed.into_application,
            ..allowed
        }
    }
}

fn of_end(end: Option<EndState>) -> Because {
    match end {
        Some(end) if end.hazard != 0 => Because::Hazard,
        Some(end) if end.flags & IN_SOCKHASH != 0 => Because::NothingYet,
        Some(_) | None => Because::NoEnd,
    }
}

/// Where a client's socket wanted to go.
fn origin(state: SockState) -> Option<SocketAddr> {
    let Origin { addr, port, .. } = state.origin;
    (state.origin.is_some() && state.flags & ACCEPTED == 0).then(|| SocketAddr::new(ip(addr), port))
}

/// Whoever has an original destination asked, whoever accepted it did not; a local port on which somebody listens is of what was
/// accepted.
fn direction(one: &Connection, listening: &[SocketAddr]) -> Direction {
    let state = one.state.unwrap_or_default();
    let is_accepted = if state.origin.is_some() {
        state.flags & ACCEPTED != 0
    } else {
        listening.iter().any(|at| at.port() == one.ends.0.port())
    };
    if is_accepted {
        Direction::In
    } else {
        Direction::Out
    }
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

#[cfg(test)]
mod tests;
