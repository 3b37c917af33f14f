//! Whether the API server reaches the webhook, and what would become of a new pod.

use std::time::Duration;

use crate::check::facts::{Facts, OurWebhook, Probe};
use crate::check::finding::Verdict;
use crate::cluster::Seen;

/// How much less than its timeout a call may take that ran into it.
const SLACK: Duration = Duration::from_millis(200);

/// What to do where the way is shut.
const FIREWALL: &str = "let the API server reach port 8443 of the webhook's pods: a rule of the cloud's firewall (private GKE and EKS clusters \
                        have one), or a NetworkPolicy, keeps it away";

/// The webhook answers the API server.
pub(in crate::check) fn answers(facts: &Facts) -> Option<Verdict> {
    let (_, ours) = facts.ours()?;
    let probe = &facts.probe;
    let namespace = &probe.namespace;
    if ours.excluded.contains(namespace) {
        return Some(Verdict::warning(
            format!("not known: the webhook never sees pods of namespace {namespace}"),
            "name another with --probe-namespace",
        ));
    }
    Some(match &probe.answered {
        // So the API server says it where the failurePolicy is Fail.
        Err(why) if why.contains("failed calling webhook \"pods.sidestep.dev\"") => {
            Verdict::failure(why, FIREWALL)
        }
        Err(why) => Verdict::warning(
            format!("not known: namespace {namespace} takes no pod, not even as a trial: {why}"),
            "name another with --probe-namespace",
        ),
        Ok(true) => Verdict::good(format!(
            "it answered for a trial pod in namespace {namespace} ({} ms)",
            probe.took.as_millis()
        )),
        Ok(false) => silent(facts, ours, probe),
    })
}

/// Why there was no answer: what is known to be missing, else what the API server met on the way, else how long it waited.
fn silent(facts: &Facts, ours: &OurWebhook, probe: &Probe) -> Verdict {
    let ready = match &facts.webhook {
        Ok(Some(webhook)) => Some(webhook.ready),
        Ok(None) => Some(0),
        Err(_) => None,
    };
    let trusts_nobody = ours.trusted.as_ref().is_ok_and(Vec::is_empty);
    let trusts = !trusts_nobody && facts.is_trusted() != Some(false);
    let failed = |why: String, hint: &str| {
        Verdict::failure(
            format!("the API server got no answer, so new pods stay with Istio: {why}"),
            hint,
        )
    };
    if ready == Some(0) {
        let hint = "look at the pods of Deployment sidestep-webhook";
        return failed("no replica of the webhook is ready".to_owned(), hint);
    }
    if !trusts {
        let hint = "see ca-bundle and serving-certificate above";
        return failed(
            "it does not trust the webhook's certificate".to_owned(),
            hint,
        );
    }
    let timed_out = probe.took + SLACK >= ours.timeout;
    let waited = format!("it waited for {} s", ours.timeout.as_secs());
    match &probe.way {
        Some(Err(why)) if timed_out => failed(format!("{waited}; {why}"), FIREWALL),
        Some(Err(why)) => failed(why.clone(), FIREWALL),
        Some(Ok(())) if timed_out => failed(
            format!("{waited}, and reaches the webhook's Service now"),
            "the webhook may be overloaded or starting: check again, and look at its logs",
        ),
        None if timed_out => failed(format!("{waited}, though replicas are ready"), FIREWALL),
        Some(Ok(())) | None => failed(
            "it was refused at once".to_owned(),
            "look at the API server's log for `failed calling webhook`, and at the Service and EndpointSlices of sidestep-webhook",
        ),
    }
}

/// A new pod of an injected namespace would be accelerated.
pub(in crate::check) fn would_accelerate(facts: &Facts) -> Option<Verdict> {
    facts.ours()?;
    let Some(trial) = &facts.trial else {
        return Some(Verdict::warning(
            "not known: no namespace has the label istio-injection=enabled or istio.io/rev",
            "label a namespace for Istio, or name one with -n whose pods ask for injection",
        ));
    };
    let namespace = &trial.namespace;
    Some(match &trial.became {
        Err(why) => Verdict::warning(
            format!("not known: namespace {namespace} takes no trial pod: {why}"),
            "name another namespace with -n",
        ),
        Ok(None) => Verdict::warning(
            format!("Istio would not inject a new pod of namespace {namespace}"),
            "look at the injector, and at the namespace's labels: `istioctl analyze -n NAMESPACE`",
        ),
        Ok(Some(Seen::Left { word, sentence })) => Verdict::warning(
            format!("a new pod of namespace {namespace} would be left: {word}: {sentence}"),
            "webhook/README.md says of each reason what to do",
        ),
        Ok(Some(Seen::NotAsked)) => Verdict::failure(
            format!("the webhook would not be asked for a new pod of namespace {namespace}"),
            "see webhook-answers, webhook-order and registration above",
        ),
        Ok(Some(Seen::Passed | Seen::Begins | Seen::Waits(_))) => Verdict::good(format!(
            "a new pod of namespace {namespace} would be accelerated"
        )),
    })
}
