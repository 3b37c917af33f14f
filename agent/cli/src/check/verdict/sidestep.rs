//! Sidestep's own objects.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::check::facts::{Facts, Workload, listed};
use crate::check::finding::{Stage, Verdict};
use crate::cluster::SeenNode;

/// How long the leader may be silent; it renews its Lease every few seconds, by its own clock.
const SILENCE: Duration = Duration::from_mins(1);

/// The policies without which Sidestep's labels mean nothing.
const POLICIES: [&str; 3] = [
    "sidestep-label",
    "sidestep-label-at-creation",
    "sidestep-label-binding",
];

/// What makes the objects anew.
const REINSTALL: &str = "`helm upgrade` makes it anew";

/// The namespace is there, and takes the agents' pods.
pub(in crate::check) fn namespace(facts: &Facts) -> Verdict {
    let home = &facts.home;
    let apply = "`kubectl apply -f manifests/namespace.yaml` makes it, with the label \
                 pod-security.kubernetes.io/enforce=privileged, which the agents' pods need";
    match (&facts.namespace, facts.stage) {
        (Err(why), _) => Verdict::unknown(why),
        (Ok(None), Stage::Before) => Verdict::good(format!("{home} is not there yet")),
        (Ok(None), Stage::After) => Verdict::failure(
            format!("{home} is not there: Sidestep is not installed, or elsewhere"),
            "name its namespace with --sidestep-namespace",
        ),
        (Ok(Some(namespace)), _) => match namespace.enforces.as_deref() {
            None | Some("privileged") => Verdict::good(home),
            Some(standard) => Verdict::failure(
                format!("{home} enforces the Pod Security Standard {standard}"),
                apply,
            ),
        },
    }
}

/// The webhook is registered as the chart registers it.
pub(in crate::check) fn registration(facts: &Facts) -> Verdict {
    let registrations = match &facts.registrations {
        Err(why) => return Verdict::unknown(why),
        Ok(all) => all,
    };
    let Some((registration, ours)) = facts.ours() else {
        return Verdict::failure(
            "no MutatingWebhookConfiguration has the webhook pods.sidestep.dev: no new pod is accelerated",
            "after `sidestep uninstall --roll-back` that is so; otherwise `helm upgrade` makes it anew",
        );
    };
    let several = registrations.iter().filter(|one| one.ours.is_some());
    let several: Vec<_> = several.map(|one| one.name.as_str()).collect();
    let name = &registration.name;
    if several.len() > 1 {
        let said = format!("several register the same webhook: {}", listed(several));
        Verdict::warning(said, "remove what another installation left")
    } else if !ours.ignores_failures {
        Verdict::warning(
            format!(
                "{name} has failurePolicy Fail: no pod can be made while the webhook does not answer"
            ),
            format!("the chart sets Ignore: {REINSTALL}"),
        )
    } else if !ours.reinvoked {
        Verdict::warning(
            format!(
                "{name} has reinvocationPolicy Never: what other webhooks change later is not seen"
            ),
            format!("the chart sets IfNeeded: {REINSTALL}"),
        )
    } else {
        Verdict::good(name)
    }
}

/// The webhook's replicas are available.
pub(in crate::check) fn webhook(facts: &Facts) -> Verdict {
    let hint = format!(
        "new pods stay with Istio while no replica is ready: look at them, \
         `kubectl -n {} describe pods -l app.kubernetes.io/name=sidestep-webhook`",
        facts.home
    );
    match workload(&facts.webhook, "Deployment sidestep-webhook") {
        Err(verdict) => verdict,
        Ok(Workload { desired: 0, .. }) => Verdict::failure("it is scaled to no replica", hint),
        Ok(Workload {
            desired, ready: 0, ..
        }) => Verdict::failure(format!("none of {desired} replicas is available"), hint),
        Ok(Workload { desired, ready, .. }) if ready < desired => {
            Verdict::warning(format!("{ready} of {desired} replicas are available"), hint)
        }
        Ok(Workload { ready, .. }) => Verdict::good(format!("{ready} replicas are available")),
    }
}

/// Every node that should have an agent has one.
pub(in crate::check) fn agents(facts: &Facts) -> Verdict {
    let set = match workload(&facts.daemonset, "DaemonSet sidestep-agent") {
        Err(verdict) => return verdict,
        Ok(set) => set,
    };
    let (desired, ready) = (set.desired, set.ready);
    let lack = lack(facts);
    let hint =
        "`sidestep status` has the cause for each node; `kubectl describe node NAME` has Events";
    if desired == 0 {
        let hint =
            "look at the values agent.nodeSelector and agent.affinity, and at the nodes' labels";
        Verdict::failure("no node should have an agent", hint)
    } else if ready == 0 {
        Verdict::failure(format!("none of {desired} agents is ready"), hint)
    } else if ready < desired {
        Verdict::warning(format!("{ready} of {desired} agents are ready"), hint)
    } else if !lack.is_empty() {
        Verdict::warning(
            format!(
                "{ready} of {desired} agents are ready; nodes without one: {}",
                listed(lack)
            ),
            "the values agent.nodeSelector, agent.affinity and agent.tolerations say which nodes get one; accelerated pods keep off the others",
        )
    } else {
        Verdict::good(format!("{ready} of {desired} ready"))
    }
}

/// Nodes that can run an agent and have none.
fn lack(facts: &Facts) -> Vec<&str> {
    let (Ok(nodes), Ok(agents)) = (&facts.nodes, &facts.agents) else {
        return Vec::new();
    };
    let has = |node: &SeenNode| agents.iter().any(|(pod, _)| pod.node == node.name);
    let lack = nodes
        .iter()
        .filter(|node| node.unfit.is_none() && !has(node));
    lack.map(|node| node.name.as_str()).collect()
}

fn workload<'a>(
    known: &'a Result<Option<Workload>, String>,
    what: &str,
) -> Result<&'a Workload, Verdict> {
    match known {
        Err(why) => Err(Verdict::unknown(why)),
        Ok(None) => Err(Verdict::failure(format!("there is no {what}"), REINSTALL)),
        Ok(Some(workload)) => Ok(workload),
    }
}

/// Webhook, agents and this program are of one version.
pub(in crate::check) fn versions(facts: &Facts) -> Option<Verdict> {
    let tag = |image: &str| {
        let name = image.rsplit('/').next().unwrap_or(image);
        let name = name.split('@').next().unwrap_or(name);
        name.split_once(':').map(|(_, tag)| tag.to_owned())
    };
    let webhook = facts.webhook.as_ref().ok()?.as_ref();
    let webhook = webhook.and_then(|webhook| tag(&webhook.image));
    let agents = facts.agents.as_ref().ok()?;
    let tags: BTreeSet<_> = agents
        .iter()
        .filter_map(|(pod, _)| tag(&pod.image))
        .collect();
    let told = agents.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let told: BTreeSet<_> = told.map(|status| status.version.as_str()).collect();
    let own = env!("CARGO_PKG_VERSION");
    let other = told.iter().find(|version| **version != own);
    let all: BTreeSet<_> = tags.iter().chain(&webhook).collect();
    Some(if all.len() > 1 {
        let webhook = webhook.as_deref().unwrap_or("unknown");
        Verdict::warning(
            format!("images differ: webhook {webhook}, agents {}", listed(&tags)),
            "while an upgrade runs that is so; otherwise look at the rollouts of both",
        )
    } else if let Some(other) = other {
        Verdict::warning(
            format!("agents are of version {other}, this program of {own}"),
            "use the program of the installed version: it knows all that those agents tell",
        )
    } else {
        let images = all.first().map_or("unknown", |tag| tag.as_str());
        Verdict::good(format!("images {images}, this program {own}"))
    })
}

/// The API server protects Sidestep's labels.
pub(in crate::check) fn policies(facts: &Facts) -> Verdict {
    let bound = match &facts.policies {
        Err(why) => return Verdict::unknown(why),
        Ok(bound) => bound,
    };
    let missing = POLICIES.iter().filter(|name| !bound.contains(**name));
    let missing = listed(missing);
    if missing.is_empty() {
        Verdict::good(format!("{} are bound", bound.len()))
    } else {
        let hint = format!("without it anybody may change what Sidestep decided: {REINSTALL}");
        Verdict::failure(format!("not there, or not bound: {missing}"), hint)
    }
}

/// One replica leads.
pub(in crate::check) fn leader(facts: &Facts) -> Verdict {
    let hint = "without a leader certificates are not renewed and nodes not labelled: look at the webhook's logs";
    let lease = match &facts.lease {
        Err(why) => return Verdict::unknown(why),
        Ok(None) => return Verdict::warning("there is no Lease sidestep-webhook", hint),
        Ok(Some(lease)) => lease,
    };
    let silent = lease.renewed.map(|renewed| facts.age(renewed));
    match silent {
        _ if lease.holder.is_empty() => Verdict::warning("nobody holds the Lease", hint),
        Some(silent) if silent > SILENCE => Verdict::warning(
            format!(
                "{} has not renewed the Lease for {} s",
                lease.holder,
                silent.as_secs()
            ),
            hint,
        ),
        _ => Verdict::good(&lease.holder),
    }
}
