//! What there is to check: each check's name, its group, when it is made, and the function that decides it.

use serde::{Serialize, Serializer};

use super::facts::Facts;
use super::verdict::{agents, api, certificates, istio, nodes, pods, reach, sidestep};
pub(super) use crate::level::Level;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) level: Level,
    /// The state, with names and numbers.
    pub(super) said: String,
    /// What to do.
    pub(super) hint: Option<String>,
}

impl Verdict {
    pub(super) fn good(said: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            said: said.into(),
            hint: None,
        }
    }

    pub(super) fn warning(said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            said: said.into(),
            hint: Some(hint.into()),
        }
    }

    pub(super) fn failure(said: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            level: Level::Failure,
            ..Self::warning(said, hint)
        }
    }

    /// For what could not be read.
    pub(super) fn unknown(why: &str) -> Self {
        let hint = "the file lists the rights that this takes, under Rights";
        Self::warning(format!("not known: {why}"), hint)
    }
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Before Sidestep is installed.
    Before,
    /// When it is.
    After,
}

const BEFORE: &[Stage] = &[Stage::Before];
const AFTER: &[Stage] = &[Stage::After];
const BOTH: &[Stage] = &[Stage::Before, Stage::After];

macro_rules! checks {
    ($($(#[$meta:meta])* $variant:ident = $name:literal in $group:literal, $stages:expr, $decide:expr;)+) => {
        /// A check. Its name is stable, and the anchor of what the README says of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Check { $($(#[$meta])* $variant,)+ }

        impl Check {
            /// All, in the order in which they are shown.
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            pub(super) const fn group(self) -> &'static str {
                match self { $(Self::$variant => $group,)+ }
            }

            fn stages(self) -> &'static [Stage] {
                match self { $(Self::$variant => $stages,)+ }
            }

            /// `None` where there is nothing to look at, because another check fails.
            fn decide(self, facts: &Facts) -> Option<Verdict> {
                match self { $(Self::$variant => $decide(facts).into(),)+ }
            }
        }
    };
}

checks! {
    ApiServer = "api-server" in "API server", BOTH, api::server;
    Rights = "rights" in "API server", BOTH, api::rights;
    NotInstalled = "not-installed" in "API server", BEFORE, api::not_installed;
    Nodes = "nodes" in "Nodes", BOTH, nodes::supported;
    NodeLabels = "node-labels" in "Nodes", AFTER, nodes::labels;
    Istiod = "istiod" in "Istio", BOTH, istio::istiod;
    Injectors = "injectors" in "Istio", BOTH, istio::injectors;
    Redirector = "redirector" in "Istio", BOTH, istio::redirector;
    Namespace = "namespace" in "Sidestep", BOTH, sidestep::namespace;
    Registration = "registration" in "Sidestep", AFTER, sidestep::registration;
    WebhookOrder = "webhook-order" in "Sidestep", BOTH, istio::order;
    Webhook = "webhook" in "Sidestep", AFTER, sidestep::webhook;
    Agents = "agents" in "Sidestep", AFTER, sidestep::agents;
    CaBundle = "ca-bundle" in "Sidestep", AFTER, certificates::ca_bundle;
    ServingCertificate = "serving-certificate" in "Sidestep", AFTER, certificates::serving_certificate;
    Versions = "versions" in "Sidestep", AFTER, sidestep::versions;
    AdmissionPolicies = "admission-policies" in "Sidestep", AFTER, sidestep::policies;
    Leader = "leader" in "Sidestep", AFTER, sidestep::leader;
    WebhookAnswers = "webhook-answers" in "Reachability", AFTER, reach::answers;
    WouldAccelerate = "would-accelerate" in "Reachability", AFTER, reach::would_accelerate;
    AgentAnswers = "agent-answers" in "Agents", AFTER, agents::answer;
    AgentReady = "agent-ready" in "Agents", AFTER, agents::ready;
    AgentShortcut = "agent-shortcut" in "Agents", AFTER, agents::shortcut;
    AgentRepairs = "agent-repairs" in "Agents", AFTER, agents::repairs;
    WaitingPods = "waiting-pods" in "Pods", AFTER, pods::waiting;
    MissedPods = "missed-pods" in "Pods", AFTER, pods::missed;
    Events = "events" in "Pods", AFTER, pods::events;
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A check with what it found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) verdict: Verdict,
}

/// Every check of the facts' stage, decided.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let due = Check::ALL
        .iter()
        .filter(|check| check.stages().contains(&facts.stage));
    due.filter_map(|check| {
        let verdict = check.decide(facts)?;
        Some(Finding {
            check: *check,
            verdict,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_a_heading_for_every_check() {
        let readme = include_str!("../../README.md");
        for check in Check::ALL {
            let heading = format!("\n#### {}\n", check.name());
            assert!(readme.contains(&heading), "no heading for {}", check.name());
        }
        let headings = readme.lines().filter_map(|line| line.strip_prefix("#### "));
        for heading in headings {
            let known = Check::ALL.iter().any(|check| check.name() == heading);
            assert!(known, "{heading} is no check");
        }
    }
}
