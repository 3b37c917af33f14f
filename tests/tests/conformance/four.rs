//! Four answers to where a call goes: Istio's rules with sockets, which is right by definition; the walk over the same rules
//! as text; the decision as a pure function; Sidestep with sockets.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use sidestep_kit::{
    net::{Namespace, OUTSIDE_V4, OUTSIDE_V6},
    redirect::Node,
};
use sidestep_oracle::{attempts::Attempt, ours::Ours};
use sidestep_walker::{Arrival, Protocol, Rules, Way};

use crate::{
    calls::{Call, How, Outcome},
    world::World,
};

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
            How::Tcp | How::FastOpen | How::Mptcp => Protocol::Tcp,
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

/// All that is said of one call.
struct Answers {
    /// Of Istio's rules and of Sidestep, with sockets.
    sockets: [Outcome; 2],
    /// Of the walk and of the function.
    predicted: Option<[Predicted; 2]>,
}

impl Answers {
    /// Whether the walk, the function and Sidestep with sockets answer otherwise than Istio's rules with sockets.
    fn differ(&self) -> [bool; 3] {
        let [istio, sidestep] = &self.sockets;
        let listener = listener_of(istio);
        let [walked, decided] = match &self.predicted {
            None => [false; 2],
            Some(both) => both.each_ref().map(|it| it.by != listener),
        };
        [walked, decided, istio != sidestep]
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [istio, sidestep] = self.sockets.each_ref().map(|it| it.text.as_str());
        let [walked, decided] = match &self.predicted {
            None => ["no such connection"; 2],
            Some(both) => both.each_ref().map(|it| it.text.as_str()),
        };
        for (who, text) in [
            ("Istio's rules, sockets", istio),
            ("Istio's rules, walked", walked),
            ("Sidestep, function", decided),
            ("Sidestep, sockets", sidestep),
        ] {
            write!(f, "\n    {who:<24}{text}")?;
        }
        Ok(())
    }
}

/// Where nobody answers, nobody answers within this.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longer than a busy machine stands still.
const LONG_PATIENCE: Duration = Duration::from_secs(10);

/// How many calls of each kind, and how many answers differ from those of Istio's rules with sockets.
#[derive(Default)]
pub(crate) struct Table {
    kinds: BTreeMap<&'static str, [usize; 4]>,
    differences: Vec<String>,
}

impl Table {
    /// Makes calls in both worlds, of which the first has Istio's rules. One of which answers seem to differ is made again, with
    /// more time.
    pub(crate) fn add(
        &mut self,
        calls: &[Call],
        worlds: [&World; 2],
        predictions: &Predictions<'_>,
    ) {
        let callers = worlds.map(World::callers);
        for call in calls {
            let answers = |patience| Answers {
                sockets: callers.each_ref().map(|it| it.make(call, patience)),
                predicted: predictions.of(call),
            };
            let mut all = answers(PATIENCE);
            if all.differ().contains(&true) {
                all = answers(LONG_PATIENCE);
            }
            let counts = self.kinds.entry(call.kind()).or_default();
            counts[0] += 1;
            for (count, differs) in counts[1..].iter_mut().zip(all.differ()) {
                *count += usize::from(differs);
            }
            if all.differ().contains(&true) {
                self.differences.push(format!("{call}{all}"));
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
