//! A recorded case, answered by both: by the walk over Istio's rules, and by Sidestep.

use std::fmt;

use sidestep_ebpf_common::Row;
use sidestep_walker::{Unknown, Verdict, Way};

use crate::{
    attempts::Attempt,
    case::Case,
    istio::Loaded,
    ours::{Decision, Ours},
};

/// What came of a case.
#[derive(Debug)]
pub enum Answer {
    /// Sidestep leaves such a pod to Istio, for this reason. There is nothing to differ.
    Left(String),
    /// Istio's program writes no rules and its pod does not start; these were its last words. Sidestep would take the pod.
    Refused(String),
    /// Both answered about every connection.
    Compared {
        /// The rows that decided.
        rows: Vec<Row>,
        /// Where the answers differ.
        differences: Vec<Difference>,
    },
}

/// A connection that arrives elsewhere with Sidestep.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The connection.
    pub attempt: Attempt,
    /// Where Istio's rules send it.
    pub istio: Verdict,
    /// Where Sidestep does.
    pub sidestep: Decision,
}

/// Answers a case. What the walker does not know in Istio's rules is an error.
pub fn answer(case: &Case) -> Result<Answer, Unknown> {
    let ours = match Ours::of(&case.policy, &case.state) {
        Ok(ours) => ours,
        Err(reason) => return Ok(Answer::Left(reason)),
    };
    let rules = match (&case.loaded, case.loaded.rules()) {
        (_, Some(rules)) => rules?,
        (Loaded::Refused(words), _) => return Ok(Answer::Refused(words.clone())),
        (_, None) => unreachable!("only what was refused has no rules"),
    };
    let mut rows = Vec::new();
    let mut differences = Vec::new();
    for attempt in &case.attempts {
        let istio = rules.walk(&attempt.packet)?;
        let sidestep = ours.decide(attempt);
        rows.push(sidestep.row);
        if sidestep.arrival != Some(istio.arrival) {
            differences.push(Difference {
                attempt: attempt.clone(),
                istio,
                sidestep,
            });
        }
    }
    Ok(Answer::Compared { rows, differences })
}

/// A difference as a table, with the policy and the pod it was found in.
pub fn describe(case: &Case, difference: &Difference) -> String {
    let state = &case.state;
    let list = |all: &[std::net::IpAddr]| {
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        all.join(" ")
    };
    let Difference {
        attempt,
        istio,
        sidestep,
    } = difference;
    [
        ("policy", case.policy.to_string()),
        ("addresses", list(&state.addresses)),
        ("name servers", list(&state.name_servers)),
        ("connection", attempt.to_string()),
        ("Istio's rules", istio.to_string()),
        ("Sidestep", sidestep.to_string()),
    ]
    .map(|(what, text)| format!("  {what:<14} {text}\n"))
    .concat()
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = &self.packet;
        let protocol = format!("{:?}", packet.protocol).to_lowercase();
        match packet.way {
            Way::In => write!(
                f,
                "{protocol} from {} outside to {}",
                packet.source, self.to
            ),
            Way::Out { uid, gid, loopback } => {
                write!(f, "{protocol} to {} by uid {uid}, gid {gid}", self.to)?;
                if let Some(bound) = self.bound {
                    write!(f, ", bound to {bound}")?;
                }
                let interface = if loopback { "lo" } else { "eth0" };
                let (source, destination) = (packet.source, packet.destination.ip());
                write!(
                    f,
                    "; on the wire from {source} to {destination} by {interface}"
                )
            }
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row.name();
        match self.arrival {
            Some(arrival) => write!(f, "{arrival} by row {row}"),
            None => write!(f, "refuse by row {row}"),
        }
    }
}
