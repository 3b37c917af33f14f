//! Which policies are tried: every setting alone with each of its values and with odd ones, all pairs of settings, random ones, large ones.

use fastrand::Rng;

use crate::{
    dimensions::{DIMENSIONS, Dimension},
    host::{Kind, NAME_SERVERS},
    policy::{NATIVE, Written},
    spellings::SPELLINGS,
};

/// A policy to be tried, in a pod of this kind.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What it is tried for.
    pub reason: Reason,
    /// The policy.
    pub policy: Written,
    /// The pod's addresses.
    pub kind: Kind,
    /// The pod's name servers.
    pub name_servers: &'static [&'static str],
    /// What its connections are chosen by.
    pub seed: u64,
}

/// What a policy is tried for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// One setting has one of its values, all others are as the injector writes them.
    Alone,
    /// One setting, at the edge of what parsers take.
    Spelling,
    /// Two settings.
    Pair,
    /// Any number of settings.
    Random,
    /// Lists of some thousand items.
    Large,
}

/// Most items of a list of a large policy.
const LARGE: usize = 2000;
/// How many large policies there are.
const LARGES: usize = 30;
/// Most items of any other random list.
const SMALL: usize = 6;

/// Settings that are lists of ports.
const PORT_LISTS: [&str; 5] = ["-b", "-d", "-o", "-q", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"];

/// The plan of a seed: all that is alone and in pairs, the large ones, and so many random ones.
pub fn plan(seed: u64, randoms: usize) -> Vec<Planned> {
    let mut rng = Rng::with_seed(seed);
    let mut plan = Vec::new();
    for dimension in DIMENSIONS {
        for value in dimension.values() {
            let mut policy = Written::plain();
            policy.set(dimension.name, value);
            plan.push(place(Reason::Alone, policy.clone(), &mut rng));
            plan.push(place(
                Reason::Alone,
                native(policy.clone(), &mut rng),
                &mut rng,
            ));
            if dimension.name == "-q" {
                // Where all networks are captured, no port is captured beside them.
                policy.set("-i", "10.1.0.0/16");
                plan.push(place(Reason::Alone, policy.clone(), &mut rng));
                plan.push(place(Reason::Alone, native(policy, &mut rng), &mut rng));
            }
        }
    }
    for (name, value) in SPELLINGS {
        for native in ["false", "true"] {
            let mut policy = Written::plain();
            policy.set(name, value);
            policy.set(NATIVE, native);
            plan.push(place(Reason::Spelling, policy, &mut rng));
        }
    }
    for (i, one) in DIMENSIONS.iter().enumerate() {
        for other in &DIMENSIONS[i + 1..] {
            let mut policy = Written::plain();
            one.vary(&mut policy, &mut rng, SMALL);
            other.vary(&mut policy, &mut rng, SMALL);
            if policy.is_native() || rng.u8(..3) == 0 {
                policy = native(policy, &mut rng);
            }
            plan.push(place(Reason::Pair, policy, &mut rng));
        }
    }
    for _ in 0..randoms {
        let some = rng.usize(3..DIMENSIONS.len());
        plan.push(random(Reason::Random, &mut rng, some, SMALL));
    }
    for _ in 0..LARGES {
        plan.push(random(Reason::Large, &mut rng, 5, LARGE));
    }
    plan
}

/// A policy in which any settings have any of their values.
pub fn random_policy(rng: &mut Rng) -> Written {
    let some = rng.usize(3..DIMENSIONS.len());
    random(Reason::Random, rng, some, SMALL).policy
}

fn random(reason: Reason, rng: &mut Rng, count: usize, most: usize) -> Planned {
    let mut policy = Written::plain();
    let mut chosen: Vec<&Dimension> = DIMENSIONS.iter().collect();
    rng.shuffle(&mut chosen);
    for dimension in &chosen[..count] {
        dimension.vary(&mut policy, rng, most);
    }
    if reason == Reason::Large {
        let lists = ["-i", "-x", "-o", "-q", "-b", "-d"];
        let name = lists[rng.usize(..lists.len())];
        policy.set(name, &large(rng, name));
    }
    if rng.bool() {
        policy = native(policy, rng);
    } else {
        policy.set(NATIVE, "false");
    }
    place(reason, policy, rng)
}

/// The same with nftables rules by Istio itself. They take no ranges with a colon, so most policies lose theirs.
fn native(mut policy: Written, rng: &mut Rng) -> Written {
    policy.set(NATIVE, "true");
    if rng.u8(..16) > 0 {
        for setting in &mut policy.settings {
            if PORT_LISTS.contains(&setting.name.as_str()) {
                let first =
                    |item: &str| item.split(':').find(|it| !it.is_empty()).map(str::to_owned);
                let ports: Vec<_> = setting.value.split(',').filter_map(first).collect();
                setting.value = ports.join(",");
            }
        }
    }
    policy
}

/// A list with exactly as many items.
fn large(rng: &mut Rng, name: &str) -> String {
    let items = |random: fn(&mut Rng, usize) -> String, rng: &mut Rng| {
        let items: Vec<_> = (0..LARGE).map(|_| random(rng, 1)).collect();
        items.join(",")
    };
    if ["-i", "-x"].contains(&name) {
        items(crate::lists::networks, rng)
    } else {
        items(crate::lists::ports, rng)
    }
}

fn place(reason: Reason, policy: Written, rng: &mut Rng) -> Planned {
    Planned {
        reason,
        policy,
        kind: Kind::ALL[rng.usize(..Kind::ALL.len())],
        name_servers: NAME_SERVERS[rng.usize(..NAME_SERVERS.len())],
        seed: rng.u64(..),
    }
}
