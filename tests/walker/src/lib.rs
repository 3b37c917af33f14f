//! An independent reader of the rules that Istio's own program wrote: what `iptables-save`, `ip6tables-save` or
//! `nft -j list ruleset` printed of a pod is walked for one packet, as the kernel's NAT hooks would.
//!
//! It shares no code with Sidestep, so its answers can be compared with Sidestep's. It never guesses: a match, a target or a
//! property of a rule that it does not know is an [`Unknown`] error that names it.
//!
//! ```
//! use sidestep_walker::{Arrival, Packet, Protocol, Rules, Way};
//!
//! let save = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001\nCOMMIT\n";
//! let rules = Rules::of_iptables(save, "").expect("nothing unknown");
//! let packet = Packet {
//!     way: Way::Out { uid: 1000, gid: 1000, loopback: false },
//!     protocol: Protocol::Tcp,
//!     source: "10.0.0.5".parse().expect("an address"),
//!     destination: "10.0.0.9:80".parse().expect("an address and a port"),
//! };
//! let verdict = rules.walk(&packet).expect("chains that end");
//! assert_eq!(verdict.arrival, Arrival::Redirected(15001));
//! assert_eq!(verdict.to_string(), "redirect to 15001 by OUTPUT 1: -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001");
//! ```

#![forbid(unsafe_code)]

mod iptables;
mod model;
mod nftables;
mod packet;
mod walk;

use thiserror::Error;

pub use self::{
    packet::{Packet, Protocol, Way},
    walk::{Arrival, Decider, Rules, Verdict},
};

/// Something in the rules that the walker does not know, or that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} {word:?}, in the rule {rule:?}")]
pub struct Unknown {
    /// What it is: a match, a target, a table's property.
    pub what: &'static str,
    /// The word itself.
    pub word: String,
    /// The rule's text.
    pub rule: String,
}

impl Unknown {
    fn new(what: &'static str, word: &str, rule: &str) -> Self {
        Self {
            what,
            word: word.to_owned(),
            rule: rule.to_owned(),
        }
    }
}
