//! Four answers to where a call goes: Istio's rules with sockets, which is right by definition; the walk over the same rules
//! as text; the decision as a pure function; Sidestep with sockets.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use sidestep_kit::{
    net::{Namespace, OUTSIDE_V4, OUTSIDE_V6},
    redirect::Node,
};
use sidestep_oracle::{attempts::Attempt, ours::Ours};
use sidestep_walker::{Arrival, Protocol, Rules, Way};

use crate::calls::{Call, How, Outcome};

/// Where the DNS proxy listens.
pub(crate) const DNS: u16 = 15053;

/// What predicts a call: Istio's rules as text, and Sidestep's for the same pod; and where its proxy listens.
pub(crate) struct Predictions<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) rules: Rules,
    pub(crate) ours: Ours,
    pub(crate) outbound: u16,
    pub(crate) inbound: u16,
}

/// What a prediction says of who answers: a listener of the proxy's, or somebody else or nobody.
struct Predicted {
    by: Option<&'static str>,
    text: String,
}

impl Predictions<'_> {
    /// What the walk and the pure function say. Nothing where the kernel has no such connection, whoever redirects.
    fn of(&self, call: &Call) -> Option<[Predicted; 2]> {
        let attempt = self.attempt(call)?;
        let walked = self.rules.walk(&attempt.packet).expect("chains that end");
        let decided = self.ours.decide(&attempt);
        let predicted = |arrival: Option<Arrival>, text| Predicted {
            by: arrival.and_then(|arrival| self.listener(arrival, &attempt)),
            text,
        };
        Some([
            predicted(Some(walked.arrival), walked.to_string()),
            predicted(decided.arrival, decided.to_string()),
        ])
    }

    fn attempt(&self, call: &Call) -> Option<Attempt> {
        let Some(identity) = &call.who else {
            let outside = if call.to.is_ipv4() {
                OUTSIDE_V4
            } else {
                OUTSIDE_V6
            };
            return Some(Attempt::into(outside.parse().expect("an address"), call.to));
        };
        let protocol = match call.how {
            How::Tcp | How::Mptcp => Protocol::Tcp,
            How::Udp { .. } => Protocol::Udp,
        };
        // Rules compare the ids that a file's creator had for the filesystem.
        let ids = (identity.uids.1, identity.gids.1);
        let namespace = self.namespace;
        namespace.enter(|| Attempt::out(protocol, call.to, call.bound, ids))
    }

    /// Who of the proxy's listens where a connection arrives.
    fn listener(&self, arrival: Arrival, attempt: &Attempt) -> Option<&'static str> {
        let to = attempt.packet.destination;
        let port = match (arrival, attempt.packet.way) {
            (Arrival::Redirected(port), _) => port,
            (
                Arrival::Passed,
                Way::Out {
                    loopback: false, ..
                },
            ) => return None,
            // The DNS proxy listens on the loopback addresses alone.
            (Arrival::Passed, _) if to.port() == DNS && !is_loopback(to.ip()) => return None,
            (Arrival::Passed, _) => to.port(),
        };
        let tcp = attempt.packet.protocol == Protocol::Tcp;
        match port {
            DNS => Some("dns"),
            port if tcp && port == self.outbound => Some("outbound"),
            port if tcp && port == self.inbound => Some("inbound"),
            _ => None,
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ["127.0.0.1", "::1"].iter().any(|it| ip.to_string() == *it)
}

/// The name of the proxy's listener that answered, if it was one.
fn listener_of(outcome: &Outcome) -> Option<&str> {
    let by = outcome.by.as_deref();
    by.filter(|name| ["outbound", "inbound", "dns"].contains(name))
}

/// How many calls of each kind, and how many answers differ from those of Istio's rules with sockets.
#[derive(Default)]
pub(crate) struct Table {
    kinds: BTreeMap<&'static str, [usize; 4]>,
    differences: Vec<String>,
}

impl Table {
    /// Adds a pod's calls, with what came of them under Istio's rules and under Sidestep.
    pub(crate) fn add(
        &mut self,
        calls: &[Call],
        outcomes: &[[Outcome; 2]],
        predictions: &Predictions<'_>,
    ) {
        for (call, [istio, sidestep]) in calls.iter().zip(outcomes) {
            let [walked, decided] = predictions
                .of(call)
                .map_or([None, None], |both| both.map(Some));
            let wrong =
                |it: &Option<Predicted>| it.as_ref().is_some_and(|it| it.by != listener_of(istio));
            let text =
                |it: Option<Predicted>| it.map_or("no such connection".to_owned(), |it| it.text);
            let differs = [wrong(&walked), wrong(&decided), istio != sidestep];
            let counts = self.kinds.entry(call.kind()).or_default();
            counts[0] += 1;
            for (count, differs) in counts[1..].iter_mut().zip(differs) {
                *count += usize::from(differs);
            }
            if differs.contains(&true) {
                self.differences.push(format!(
                    "{call}\n    Istio's rules, sockets: {}\n    Istio's rules, walked:  {}\n    \
                     Sidestep, function:     {}\n    Sidestep, sockets:      {}",
                    istio.text,
                    text(walked),
                    text(decided),
                    sidestep.text,
                ));
            }
        }
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.kinds.values().map(|counts| counts[0]).sum()
    }

    /// Prints itself, and panics where answers differ; `what` tells what they are about.
    #[track_caller]
    pub(crate) fn assert_equal(&self, what: &str) {
        println!("{what}: {self}");
        let (count, all) = (self.differences.len(), self.calls());
        let shown: Vec<_> = self
            .differences
            .iter()
            .take(20)
            .map(String::as_str)
            .collect();
        assert!(
            shown.is_empty(),
            "{what}: {count} of {all} calls differ, of which the first are:\n{}",
            shown.join("\n")
        );
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |(kind, [calls, ..]): (&&str, &[usize; 4])| format!("{kind} {calls}");
        let kinds: Vec<_> = self.kinds.iter().map(kind).collect();
        let sum = |answer: usize| self.kinds.values().map(|it| it[answer]).sum::<usize>();
        write!(
            f,
            "{} calls ({}); unlike Istio's rules with sockets answer: the walk {}, the function {}, Sidestep {}",
            self.calls(),
            kinds.join(", "),
            sum(1),
            sum(2),
            sum(3),
        )
    }
}

/// Lets the host behind the router answer for every address that is nobody's, so that any destination can be tried.
pub(crate) fn answer_for_everybody(node: &Node) {
    let (router, outside) = (node.network().router(), node.network().outside());
    for (family, gateway, all) in [("-4", OUTSIDE_V4, "0.0.0.0/0"), ("-6", OUTSIDE_V6, "::/0")] {
        router.ip(&format!("{family} route add default via {gateway}"));
        // What this host sends is routed first; of the rest, which arrives, every address is its own.
        for words in [
            "rule add pref 10 iif lo lookup main",
            "rule del pref 0",
            "rule add pref 20 lookup local",
            &format!("route add local {all} dev lo table local"),
        ] {
            outside.ip(&format!("{family} {words}"));
        }
    }
}
