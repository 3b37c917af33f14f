//! `nft`'s JSON, as far as Istio's rules use it. Everything is named: serde refuses a property that is not.

use std::ops::RangeInclusive;

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

use crate::{
    Protocol, Unknown,
    model::{Test, network},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    pub(super) nftables: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Object {
    Metainfo(IgnoredAny),
    Table(Named),
    Chain(Chain),
    Rule(Rule),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) family: String,
    pub(super) name: String,
    #[serde(rename = "handle")]
    _handle: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    #[serde(rename = "handle")]
    _handle: u64,
    #[serde(rename = "type")]
    _type: Option<String>,
    pub(super) hook: Option<String>,
    #[serde(rename = "prio")]
    _priority: Option<i32>,
    pub(super) policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    #[serde(rename = "handle")]
    _handle: u64,
    pub(super) expr: Vec<Value>,
}

impl Rule {
    /// Its statements without the counters, as `nft` prints them in JSON.
    pub(super) fn text(&self) -> String {
        let statements = self.expr.iter().filter(|it| it.get("counter").is_none());
        let texts: Vec<_> = statements.map(Value::to_string).collect();
        texts.join(" ")
    }
}

/// A statement of a rule, understood.
pub(super) enum Statement {
    Counter,
    /// All of these, of which the last one may be negated.
    Match {
        negated: bool,
        tests: Vec<Test>,
    },
    Return,
    Accept,
    Jump(String),
    Redirect(u16),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    Counter(IgnoredAny),
    Match {
        op: String,
        left: Left,
        right: Value,
    },
    Return(()),
    Accept(()),
    Jump {
        target: String,
    },
    Redirect {
        port: u16,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Left {
    Meta { key: String },
    Payload { protocol: String, field: String },
}

pub(super) fn statement(value: &Value, rule: &str) -> Result<Statement, Unknown> {
    Ok(match read(value, "a statement in which", rule)? {
        Raw::Counter(_) => Statement::Counter,
        Raw::Return(()) => Statement::Return,
        Raw::Accept(()) => Statement::Accept,
        Raw::Jump { target } => Statement::Jump(target),
        Raw::Redirect { port } => Statement::Redirect(port),
        Raw::Match { op, left, right } => {
            let negated = match op.as_str() {
                "==" => false,
                "!=" => true,
                _ => return Err(Unknown::new("the operator", &op, rule)),
            };
            let tests = left.asked(&right, rule)?;
            Statement::Match { negated, tests }
        }
    })
}

impl Left {
    /// What is asked of the packet: what looking there implies of it, and last the value.
    fn asked(&self, right: &Value, rule: &str) -> Result<Vec<Test>, Unknown> {
        let id = || read(right, "an id in which", rule);
        match self {
            Self::Meta { key } => Ok(vec![match key.as_str() {
                "l4proto" => Test::Protocol(read(right, "a protocol in which", rule)?),
                "oifname" if right == "lo" => Test::Loopback,
                "oifname" => return Err(Unknown::new("the interface", &right.to_string(), rule)),
                "skuid" => Test::Uid(id()?),
                "skgid" => Test::Gid(id()?),
                _ => return Err(Unknown::new("the meta key", key, rule)),
            }]),
            Self::Payload { protocol, field } => match (protocol.as_str(), field.as_str()) {
                ("tcp", "dport") => Ok(vec![Test::Protocol(Protocol::Tcp), ports(right, rule)?]),
                ("udp", "dport") => Ok(vec![Test::Protocol(Protocol::Udp), ports(right, rule)?]),
                ("ip" | "ip6", "saddr" | "daddr") => {
                    let address = address(right, rule)?;
                    let value = if field == "saddr" {
                        Test::Source(address)
                    } else {
                        Test::Destination(address)
                    };
                    Ok(vec![Test::Ipv6(protocol == "ip6"), value])
                }
                _ => Err(Unknown::new(
                    "the field",
                    &format!("{protocol} {field}"),
                    rule,
                )),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Ports {
    One(u16),
    Range { range: (u16, u16) },
    Set { set: Vec<Ports> },
}

fn ports(value: &Value, rule: &str) -> Result<Test, Unknown> {
    let ports: Ports = read(value, "ports in which", rule)?;
    let mut ranges = Vec::new();
    ports.add_to(&mut ranges);
    Ok(Test::Ports(ranges))
}

impl Ports {
    fn add_to(&self, ranges: &mut Vec<RangeInclusive<u16>>) {
        match self {
            Self::One(port) => ranges.push(*port..=*port),
            Self::Range {
                range: (first, last),
            } => ranges.push(*first..=*last),
            Self::Set { set } => set.iter().for_each(|ports| ports.add_to(ranges)),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Address {
    One(String),
    Prefix { prefix: Prefix },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefix {
    addr: String,
    len: u8,
}

fn address(value: &Value, rule: &str) -> Result<ipnet::IpNet, Unknown> {
    let text = match read(value, "an address in which", rule)? {
        Address::One(address) => address,
        Address::Prefix { prefix } => format!("{}/{}", prefix.addr, prefix.len),
    };
    network(&text).ok_or_else(|| Unknown::new("the network", &text, rule))
}

fn read<T: DeserializeOwned>(value: &Value, what: &'static str, rule: &str) -> Result<T, Unknown> {
    T::deserialize(value).map_err(|error| Unknown::new(what, &format!("{value}: {error}"), rule))
}
