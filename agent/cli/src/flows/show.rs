//! Connections as a table.

use sidestep_agent_api::{Bytes, Direction, Flow, Flows, Stage, Way};

use crate::status::word;
use crate::table::table;

/// All of a pod's.
pub(super) fn all(flows: &Flows) -> String {
    if flows.flows.is_empty() {
        return "no connections\n".to_owned();
    }
    let headings = [
        "OF",
        "DIRECTION",
        "FROM",
        "TO",
        "ROW",
        "WAY",
        "SENT",
        "RECEIVED",
        "PAST TCP",
    ];
    let mut text = table(headings, flows.flows.iter().map(cells));
    if flows.more {
        text.push_str("the pod has more sockets than are listed\n");
    }
    text
}

fn cells(flow: &Flow) -> [String; 9] {
    let (from, to) = between(flow);
    [
        word(&flow.of),
        word(&flow.direction),
        from,
        to,
        flow.row.clone().unwrap_or_default(),
        way(flow),
        size(total(flow.sent)),
        size(total(flow.received)),
        past_tcp(flow),
    ]
}

/// From where to where it wanted to go.
pub(super) fn between(flow: &Flow) -> (String, String) {
    match flow.direction {
        Direction::Out => {
            let to = flow.captured_from.unwrap_or(flow.remote);
            (flow.local.to_string(), to.to_string())
        }
        Direction::In => (flow.remote.to_string(), flow.local.to_string()),
    }
}

/// How its bytes go, and why by TCP where they do.
pub(super) fn way(flow: &Flow) -> String {
    let way = match (flow.way, &flow.because) {
        (Way::Tcp, Some(because)) => format!("tcp: {}", word(because)),
        (way, _) => word(&way),
    };
    match flow.stage {
        Stage::Established => way,
        stage => format!("{way} ({})", word(&stage)),
    }
}

pub(super) const fn total(bytes: Bytes) -> u64 {
    bytes.tcp + bytes.shortcut
}

/// How much of it went past TCP; nothing where nothing did.
pub(super) fn past_tcp(flow: &Flow) -> String {
    let past = flow.sent.shortcut + flow.received.shortcut;
    let all = total(flow.sent) + total(flow.received);
    match past.saturating_mul(100).checked_div(all) {
        Some(percent) if past > 0 => format!("{percent} %"),
        _ => String::new(),
    }
}

/// A number of bytes in a few digits.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A captured connection of an application's, with these fields besides.
    pub(in crate::flows) fn flow(changes: &serde_json::Value) -> Flow {
        let mut flow = json!({
            "of": "application", "direction": "out", "stage": "established",
            "local": "10.0.0.5:40000", "remote": "127.128.1.2:15001", "captured_from": "10.0.0.9:80",
            "row": "out-12", "way": "shortcut", "because": null,
            "sent": {"tcp": 100, "shortcut": 1948}, "received": {"tcp": 0, "shortcut": 3_145_728},
        });
        for (name, value) in changes.as_object().expect("an object") {
            flow[name] = value.clone();
        }
        serde_json::from_value(flow).expect("a flow")
    }

    #[test]
    fn a_table_tells_where_it_wanted_to_go_and_how_its_bytes_go() {
        let inbound = json!({
            "of": "proxy", "direction": "in", "local": "10.0.0.5:8080", "remote": "10.0.0.9:33333", "captured_from": null,
            "row": "in-all", "way": "tcp", "because": "nothing-yet", "stage": "closing",
            "sent": {"tcp": 7, "shortcut": 0}, "received": {"tcp": 0, "shortcut": 0},
        });
        let flows = Flows {
            flows: vec![flow(&json!({})), flow(&inbound)],
            more: true,
        };
        let wanted = "\
OF            DIRECTION   FROM             TO              ROW      WAY                          SENT      RECEIVED   PAST TCP
application   out         10.0.0.5:40000   10.0.0.9:80     out-12   shortcut                     2.0 KiB   3.0 MiB    99 %
proxy         in          10.0.0.9:33333   10.0.0.5:8080   in-all   tcp: nothing-yet (closing)   7 B       0 B        -
the pod has more sockets than are listed
";
        assert_eq!(all(&flows), wanted);
        let none = Flows {
            flows: Vec::new(),
            more: false,
        };
        assert_eq!(all(&none), "no connections\n");
    }

    #[test]
    fn sizes_have_a_few_digits() {
        for (bytes, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (102_399, "99.9 KiB"),
            (102_400, "100 KiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }
}
