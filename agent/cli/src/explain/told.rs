//! What is told, for people and for programs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};
use sidestep_contract::Policy;
use sidestep_ebpf_common::{DNS_PROXY_PORT, Row, Verdict};

use super::rows;

/// What is told of a pod.
pub(super) struct Told {
    pub(super) asked: Asked,
    /// What else there is to know, a sentence each.
    pub(super) notes: Vec<String>,
}

/// What was asked.
pub(super) enum Asked {
    Connection(Connection),
    All(Policy),
}

/// What happens to a connection.
pub(super) struct Connection {
    row: &'static str,
    verdict: Verdict,
    to: SocketAddr,
    because: String,
    setting: Option<rows::Setting>,
    what: String,
}

impl Connection {
    pub(super) fn new(row: Row, policy: &Policy, to: SocketAddr, what: String) -> Self {
        let (because, setting) = rows::because(row, policy).unwrap_or_default();
        Self {
            row: row.name(),
            verdict: row.verdict(),
            to: target(row.verdict(), policy, to),
            because,
            setting,
            what,
        }
    }
}

impl Connection {
    /// Inbound UDP.
    pub(super) fn passes(to: SocketAddr, what: String) -> Self {
        Self {
            row: "in-udp",
            verdict: Verdict::Pass,
            to,
            because: "inbound UDP is never redirected".to_owned(),
            setting: None,
            what,
        }
    }
}

/// Where a connection arrives.
fn target(verdict: Verdict, policy: &Policy, to: SocketAddr) -> SocketAddr {
    let port = match verdict {
        Verdict::Pass | Verdict::Refuse => return to,
        Verdict::Inbound => policy.inbound_port.get(),
        Verdict::Outbound => policy.outbound_port.get(),
        Verdict::Dns => DNS_PROXY_PORT,
    };
    match to {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
            (Ipv6Addr::LOCALHOST, port).into()
        }
        _ => (Ipv4Addr::LOCALHOST, port).into(),
    }
}

impl Told {
    pub(super) fn json(&self) -> Value {
        let mut told = match &self.asked {
            Asked::Connection(connection) => connection.json(),
            Asked::All(policy) => {
                let rows = table(policy).map(|(row, because, setting)| {
                    let mut told = json!({"row": row.name(), "verdict": rows::word(row.verdict()), "because": because});
                    add(&mut told, setting);
                    told
                });
                json!({"policy": policy, "rows": rows.collect::<Vec<_>>()})
            }
        };
        told["notes"] = json!(self.notes);
        told
    }

    pub(super) fn text(&self) -> String {
        let mut lines = match &self.asked {
            Asked::Connection(connection) => connection.lines(),
            Asked::All(policy) => {
                let rows = table(policy).map(|(row, because, setting)| {
                    let flag = setting.map_or("", |setting| setting.flag);
                    format!(
                        "  {:<12} {:<9} {because}{}",
                        row.name(),
                        rows::word(row.verdict()),
                        by(flag)
                    )
                });
                [
                    format!("  {policy}"),
                    "  the first row that holds decides:".to_owned(),
                ]
                .into_iter()
                .chain(rows)
                .collect()
            }
        };
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        lines.join("\n")
    }
}

fn by(flag: &str) -> String {
    if flag.is_empty() {
        String::new()
    } else {
        format!("  ({flag})")
    }
}

/// The rows that a policy has, in order.
fn table(policy: &Policy) -> impl Iterator<Item = (Row, String, Option<rows::Setting>)> + '_ {
    Row::ALL.iter().filter_map(|row| {
        let (because, setting) = rows::because(*row, policy)?;
        Some((*row, because, setting))
    })
}

fn add(told: &mut Value, setting: Option<rows::Setting>) {
    if let Some(setting) = setting {
        told["flag"] = json!(setting.flag);
        told["annotation"] = json!(setting.annotation);
        told["installed"] = json!(setting.installed);
    }
}

impl Connection {
    fn json(&self) -> Value {
        let mut told = json!({
            "verdict": rows::word(self.verdict),
            "to": self.to.to_string(),
            "row": self.row,
            "because": self.because,
        });
        add(&mut told, self.setting);
        told
    }

    fn lines(&self) -> Vec<String> {
        let verdict = rows::word(self.verdict);
        let mut lines = vec![
            format!("  {}", self.what),
            match self.verdict {
                Verdict::Pass | Verdict::Refuse => format!("  {verdict}: {}", self.to),
                _ => format!("  {verdict} to {}", self.to),
            },
            format!("  row {}: {}", self.row, self.because),
        ];
        if let Some(setting) = self.setting {
            lines.push(format!("  flag: {}", setting.flag));
            let others = [
                ("annotation", setting.annotation),
                ("installed by", setting.installed),
            ];
            let others = others
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            lines.extend(others.map(|(name, value)| format!("  {name}: {value}")));
        }
        lines
    }
}
