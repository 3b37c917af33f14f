//! Which pods to evict.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

/// How long after the webhook's removal an API server may still ask it: it hears of the removal by a watch.
pub(super) const SETTLE: Duration = Duration::from_secs(10);

/// Who makes a pod anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What to do with a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Its controller makes another.
    Evict,
    /// Not yet.
    Wait,
    /// It cannot be replaced from here, and why.
    Leave(String),
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By uid: when the pod was first seen, after the webhook's removal.
    pods: HashMap<String, Duration>,
    /// Controllers that make accelerated pods by themselves.
    gated: HashSet<String>,
    looked: bool,
}

impl Plan {
    /// Takes note of pods and their controllers, this long after the webhook was removed.
    pub(super) fn look<'a>(
        &mut self,
        pods: impl Iterator<Item = (&'a str, Controller)>,
        now: Duration,
    ) {
        // What there was at the first look may wait for minutes for its turn.
        let seen = if self.looked { now } else { Duration::ZERO };
        for (pod, controller) in pods {
            let first = *self.pods.entry(pod.to_owned()).or_insert(seen);
            if first > SETTLE {
                self.gated.insert(controller.uid);
            }
        }
        self.looked = true;
    }

    /// What to do with a pod now. Nothing is evicted again and again: what is made after the webhook's removal is evicted
    /// once at most, when it can be no late answer of the webhook's that made it what it is.
    pub(super) fn action(
        &self,
        pod: &str,
        controller: Option<&Controller>,
        now: Duration,
    ) -> Action {
        let Some(controller) = controller else {
            return Action::Leave(
                "it has no controller that would make it again; delete it and create it anew"
                    .to_owned(),
            );
        };
        if controller.kind == "Job" {
            return Action::Leave(format!(
                "{controller} might fail without it: wait until it ends, or delete the Job"
            ));
        }
        if self.gated.contains(&controller.uid) {
            return Action::Leave(format!(
                "{controller} makes its pods with a gate, which is in their template: give it Istio's own istio-init back"
            ));
        }
        match self.pods.get(pod) {
            Some(first) if *first > Duration::ZERO && now <= SETTLE => Action::Wait,
            _ => Action::Evict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(kind: &str) -> Controller {
        Controller {
            kind: kind.to_owned(),
            name: "web".to_owned(),
            uid: format!("uid of {kind}"),
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn look(plan: &mut Plan, pods: &[&str], now: u64) {
        let set = || controller("ReplicaSet");
        plan.look(pods.iter().map(|pod| (*pod, set())), seconds(now));
    }

    #[test]
    fn what_was_there_is_evicted_however_long_it_waits_for_its_turn() {
        let mut plan = Plan::default();
        look(&mut plan, &["a"], 20);
        look(&mut plan, &["a"], 400);
        let set = controller("ReplicaSet");
        assert_eq!(plan.action("a", Some(&set), seconds(400)), Action::Evict);
    }

    #[test]
    fn what_is_made_at_the_webhooks_removal_is_evicted_once_later() {
        let mut plan = Plan::default();
        let set = controller("ReplicaSet");
        look(&mut plan, &["a"], 0);
        look(&mut plan, &["late"], 2);
        assert_eq!(plan.action("late", Some(&set), seconds(2)), Action::Wait);
        look(&mut plan, &["late"], 12);
        assert_eq!(plan.action("late", Some(&set), seconds(12)), Action::Evict);
    }

    #[test]
    fn a_controller_whose_template_holds_a_gate_is_left_alone() {
        let mut plan = Plan::default();
        let (set, other) = (controller("ReplicaSet"), controller("StatefulSet"));
        look(&mut plan, &["a"], 0);
        look(&mut plan, &["late"], 2);
        look(&mut plan, &["late", "again"], 14);
        for pod in ["late", "again"] {
            let Action::Leave(why) = plan.action(pod, Some(&set), seconds(14)) else {
                panic!("{pod} would be evicted for ever");
            };
            assert!(
                why.contains("ReplicaSet/web") && why.contains("template"),
                "{why}"
            );
        }
        assert_eq!(plan.action("db", Some(&other), seconds(14)), Action::Evict);
    }

    #[test]
    fn pods_that_nobody_makes_again_and_those_of_jobs_are_left() {
        let plan = Plan::default();
        assert!(matches!(
            plan.action("a", None, seconds(0)),
            Action::Leave(_)
        ));
        let job = controller("Job");
        assert!(matches!(
            plan.action("a", Some(&job), seconds(0)),
            Action::Leave(_)
        ));
    }
}
