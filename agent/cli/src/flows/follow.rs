//! What became of connections between two looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use sidestep_agent_api::{Flow, Flows, Side};

use super::show::{between, past_tcp, size, total, way};
use crate::status::word;

/// A line for each connection that came (`+`), went (`-`), or whose bytes go another way than before (`~`).
pub(super) fn changes(before: &Flows, now: &Flows) -> String {
    let (old, new) = (by_ends(before), by_ends(now));
    let mut out = String::new();
    for flow in &before.flows {
        if !new.contains_key(&ends(flow)) {
            line(&mut out, '-', flow);
        }
    }
    for flow in &now.flows {
        match old.get(&ends(flow)) {
            None => line(&mut out, '+', flow),
            Some(old) if way(old) != way(flow) => line(&mut out, '~', flow),
            Some(_) => {}
        }
    }
    out
}

type Ends = (Side, SocketAddr, SocketAddr);

const fn ends(flow: &Flow) -> Ends {
    (flow.of, flow.local, flow.remote)
}

fn by_ends(flows: &Flows) -> BTreeMap<Ends, &Flow> {
    flows.flows.iter().map(|flow| (ends(flow), flow)).collect()
}

fn line(out: &mut String, sign: char, flow: &Flow) {
    let (from, to) = between(flow);
    let (side, direction) = (word(&flow.of), word(&flow.direction));
    let row = flow.row.as_deref().unwrap_or("-");
    let way = way(flow);
    let _infallible = write!(out, "{sign} {side} {direction} {from} → {to}  {row}  {way}");
    if sign != '+' {
        let (sent, received) = (size(total(flow.sent)), size(total(flow.received)));
        let _infallible = write!(out, "  sent {sent}, received {received}");
        let past = past_tcp(flow);
        if !past.is_empty() {
            let _infallible = write!(out, ", {past} past TCP");
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::show::tests::flow;
    use super::*;

    #[test]
    fn what_comes_goes_and_changes_its_way_is_told() {
        let flows = |flows: Vec<Flow>| Flows { flows, more: false };
        let stays = json!({"local": "10.0.0.5:40001", "sent": {"tcp": 1, "shortcut": 0}});
        let grows = json!({"local": "10.0.0.5:40001", "sent": {"tcp": 2, "shortcut": 0}});
        let slow = json!({"local": "10.0.0.5:40002", "way": "tcp", "because": "nothing-yet"});
        let fast = json!({"local": "10.0.0.5:40002"});
        let new = json!({"local": "10.0.0.5:40003"});
        let before = flows(vec![flow(&json!({})), flow(&stays), flow(&slow)]);
        let now = flows(vec![flow(&grows), flow(&fast), flow(&new)]);
        let wanted = "\
- application out 10.0.0.5:40000 → 10.0.0.9:80  out-12  shortcut  sent 2.0 KiB, received 3.0 MiB, 99 % past TCP
~ application out 10.0.0.5:40002 → 10.0.0.9:80  out-12  shortcut  sent 2.0 KiB, received 3.0 MiB, 99 % past TCP
+ application out 10.0.0.5:40003 → 10.0.0.9:80  out-12  shortcut
";
        assert_eq!(changes(&before, &now), wanted);
        assert_eq!(changes(&now, &now), "");
    }
}
