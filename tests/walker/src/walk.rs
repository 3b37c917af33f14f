//! The walk itself.

use std::fmt;

use crate::{
    Packet, Unknown, Way, iptables,
    model::{Table, Target},
    nftables,
};

/// A pod's NAT rules, of both address families.
#[derive(Clone, Debug)]
pub struct Rules {
    v4: Table,
    v6: Table,
}

/// Where a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arrival {
    /// Where it wanted to go.
    Passed,
    /// At this port of its own host.
    Redirected(u16),
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decider {
    /// Its chain.
    pub chain: String,
    /// Its number in the chain, counted from 1.
    pub number: usize,
    /// Its text.
    pub text: String,
}

/// Where a packet arrives and why. Without a rule that decided, the packet came to the end of the hook's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Where it arrives.
    pub arrival: Arrival,
    /// The rule that decided, if one did.
    pub by: Option<Decider>,
}

/// What a chain did with a packet.
enum Outcome {
    Ended(Verdict),
    /// The chain ended, or returned by this rule.
    Returned(Option<Decider>),
}

/// Chains that jump deeper than this jump in a circle: Istio's are two deep.
const DEPTH: usize = 16;

impl Rules {
    /// The rules that `iptables-save` and `ip6tables-save` printed, comments and other tables included.
    pub fn of_iptables(v4: &str, v6: &str) -> Result<Self, Unknown> {
        Ok(Self {
            v4: iptables::parse(v4)?,
            v6: iptables::parse(v6)?,
        })
    }

    /// The rules that `nft -j list ruleset` printed, other tables included.
    pub fn of_nftables(json: &str) -> Result<Self, Unknown> {
        let (v4, v6) = nftables::parse(json)?;
        Ok(Self { v4, v6 })
    }

    /// Where a packet arrives, and which rule decides that.
    pub fn walk(&self, packet: &Packet) -> Result<Verdict, Unknown> {
        let table = if packet.destination.is_ipv6() {
            &self.v6
        } else {
            &self.v4
        };
        let hook = match packet.way {
            Way::Out { .. } => &table.output,
            Way::In => &table.prerouting,
        };
        let Some(chain) = hook else {
            return Ok(Verdict::passed(None));
        };
        Ok(match table.follow(chain, packet, DEPTH)? {
            Outcome::Ended(verdict) => verdict,
            Outcome::Returned(by) => Verdict::passed(by),
        })
    }
}

impl Table {
    fn follow(&self, name: &str, packet: &Packet, depth: usize) -> Result<Outcome, Unknown> {
        let rules = self.chains.get(name);
        let rules = rules.ok_or_else(|| Unknown::new("a jump to the chain", name, name))?;
        let mut returned = None;
        for (index, rule) in rules.iter().enumerate() {
            if !rule.matches(packet) {
                continue;
            }
            let by = || {
                Some(Decider {
                    chain: name.to_owned(),
                    number: index + 1,
                    text: rule.text.clone(),
                })
            };
            match &rule.target {
                Target::Return => return Ok(Outcome::Returned(by())),
                Target::Accept => return Ok(Outcome::Ended(Verdict::passed(by()))),
                Target::Redirect(port) => {
                    let arrival = Arrival::Redirected(*port);
                    return Ok(Outcome::Ended(Verdict { arrival, by: by() }));
                }
                Target::Jump(chain) => {
                    let deeper = depth.checked_sub(1);
                    let deeper =
                        deeper.ok_or_else(|| Unknown::new("a circle by", chain, &rule.text))?;
                    match self.follow(chain, packet, deeper)? {
                        ended @ Outcome::Ended(_) => return Ok(ended),
                        // What the last chain said is the reason, if nothing after it decides.
                        Outcome::Returned(by) => returned = by.or(returned),
                    }
                }
            }
        }
        Ok(Outcome::Returned(returned))
    }
}

impl Verdict {
    const fn passed(by: Option<Decider>) -> Self {
        Self {
            arrival: Arrival::Passed,
            by,
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("pass"),
            Self::Redirected(port) => write!(f, "redirect to {port}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrival = self.arrival;
        match &self.by {
            None => write!(f, "{arrival} by the end of the chain"),
            Some(Decider {
                chain,
                number,
                text,
            }) => write!(f, "{arrival} by {chain} {number}: {text}"),
        }
    }
}
