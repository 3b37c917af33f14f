//! Whether Sidestep redirected what it should have, and nothing else: otherwise there was nothing to compare. Pure.

use sidestep_agent_api::{PodState, PodStatus};
use sidestep_ebpf_common::{Row, Verdict};

use super::plan::{Member, Side};
use crate::cluster::Seen;

/// The name of the case.
pub(super) const NAME: &str = "accelerated";

/// A pod, and what is known of it when all calls have been made.
pub(super) struct Witness<'a> {
    pub(super) member: &'a Member,
    /// What it says itself; `None` if Istio did not inject it.
    pub(super) seen: Option<Seen>,
    /// What its node's agent tells of it, if the agent knows it; or why it tells nothing.
    pub(super) told: Result<Option<PodStatus>, String>,
}

/// Whether every pod was redirected by whom it should be; otherwise the first one that was not.
pub(super) fn judged(witnesses: &[Witness<'_>]) -> Result<(), String> {
    witnesses.iter().try_for_each(|witness| {
        let name = witness.member.name;
        let judged = match witness.member.side {
            Some(Side::Sidestep) => witness.is_accelerated(),
            Some(Side::Istio) => witness.is_left(),
            None => Ok(()),
        };
        judged.map_err(|why| format!("pod {name} {why}"))
    })
}

impl Witness<'_> {
    fn is_left(&self) -> Result<(), String> {
        match &self.seen {
            Some(Seen::Left { .. }) => Ok(()),
            Some(Seen::NotAsked) | None => {
                Err("has no word of the webhook: it was not asked".to_owned())
            }
            Some(_) => Err("is accelerated, though it asks to be left to Istio".to_owned()),
        }
    }

    fn is_accelerated(&self) -> Result<(), String> {
        match &self.seen {
            Some(Seen::Left { word, sentence }) => {
                return Err(format!("was left to Istio: {word}: {sentence}"));
            }
            Some(Seen::NotAsked) | None => {
                return Err("was left to Istio: the webhook was not asked".to_owned());
            }
            Some(Seen::Passed | Seen::Begins | Seen::Waits(_)) => {}
        }
        let node = &self.member.node;
        let told = match &self.told {
            Ok(Some(told)) => told,
            Ok(None) => return Err(format!("is not known to the agent of node {node}")),
            Err(why) => return Err(format!("is not told of by the agent of node {node}: {why}")),
        };
        if told.state != PodState::Active {
            let reason = told
                .reason
                .as_deref()
                .unwrap_or("its agent gives no reason");
            return Err(format!("is {}: {reason}", told.state.name()));
        }
        let (verdict, what) = if self.member.is_server {
            (Verdict::Inbound, "to it")
        } else {
            (Verdict::Outbound, "by it")
        };
        if captured(told, verdict) > 0 {
            return Ok(());
        }
        let rows = told
            .rows
            .iter()
            .map(|(row, count)| format!("{row} {count}"));
        let rows: Vec<_> = rows.collect();
        let rows = rows.join(", ");
        Err(format!(
            "is active, and no connection {what} was captured (rows: {rows})"
        ))
    }
}

/// How many decisions of a pod had this verdict.
fn captured(told: &PodStatus, verdict: Verdict) -> u64 {
    let rows = Row::ALL.iter().filter(|row| row.verdict() == verdict);
    rows.filter_map(|row| told.rows.get(row.name())).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(side: Side, is_server: bool) -> Member {
        Member {
            name: "one",
            node: "a".to_owned(),
            side: Some(side),
            is_server,
        }
    }

    fn told(state: &str, row: &str, count: u64) -> PodStatus {
        let status = json!({
            "namespace": "test", "name": "one", "netns": null, "cookie": null, "state": state,
            "reason": "because", "policy": null, "programmed_us": null, "rows": {row: count}, "flows": 0,
        });
        serde_json::from_value(status).expect("a status")
    }

    fn verdict(
        member: &Member,
        seen: Option<Seen>,
        told: Result<Option<PodStatus>, String>,
    ) -> Result<(), String> {
        judged(&[Witness { member, seen, told }])
    }

    #[test]
    fn an_accelerated_pod_counted_what_was_captured() {
        let client = member(Side::Sidestep, false);
        let server = member(Side::Sidestep, true);
        let passed = || Some(Seen::Passed);
        for (member, row) in [(&client, "out-12"), (&server, "in-all")] {
            assert_eq!(
                verdict(member, passed(), Ok(Some(told("active", row, 3)))),
                Ok(())
            );
        }
        // What its sidecar sends counts, too, and is not captured.
        for (member, row) in [(&client, "out-5"), (&server, "in-excluded")] {
            let why = verdict(member, passed(), Ok(Some(told("active", row, 3))));
            let why = why.expect_err("nothing was captured");
            assert!(why.contains(&format!("rows: {row} 3")), "{why}");
        }
    }

    #[test]
    fn why_a_pod_is_not_accelerated_is_told() {
        let client = member(Side::Sidestep, false);
        let left = Seen::Left {
            word: "no-agent".to_owned(),
            sentence: "no agent is ready".to_owned(),
        };
        let active = || Ok(Some(told("active", "out-12", 3)));
        for (seen, told, wanted) in [
            (
                left,
                active(),
                "pod one was left to Istio: no-agent: no agent is ready",
            ),
            (Seen::NotAsked, active(), "the webhook was not asked"),
            (
                Seen::Passed,
                Ok(Some(told("pending", "out-12", 3))),
                "pod one is pending: because",
            ),
            (Seen::Passed, Ok(None), "not known to the agent of node a"),
            (
                Seen::Passed,
                Err("it is gone".to_owned()),
                "of node a: it is gone",
            ),
        ] {
            let why = verdict(&client, Some(seen), told).expect_err("it is not");
            assert!(why.contains(wanted), "{why}");
        }
    }

    #[test]
    fn a_pod_that_is_left_to_istio_must_be() {
        let client = member(Side::Istio, false);
        let left = Seen::Left {
            word: "opted-out".to_owned(),
            sentence: String::new(),
        };
        assert_eq!(verdict(&client, Some(left), Ok(None)), Ok(()));
        let why = verdict(&client, Some(Seen::Passed), Ok(None)).expect_err("it is not");
        assert!(why.contains("is accelerated"), "{why}");
    }
}
