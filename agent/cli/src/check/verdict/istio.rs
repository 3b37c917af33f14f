//! Istio.

use std::collections::BTreeMap;

use crate::check::facts::{Facts, Istiod, listed};
use crate::check::finding::{Stage, Verdict};

/// The oldest version that Sidestep runs with.
const ISTIO: (u32, u32) = (1, 24);

/// The name that our registration has, or will have: it decides who is asked before.
const OURS: &str = "sidestep-webhook";

/// There is a control plane, and it is new enough.
pub(in crate::check) fn istiod(facts: &Facts) -> Verdict {
    let all = match &facts.istiods {
        Err(why) => return Verdict::unknown(why),
        Ok(all) => all,
    };
    let said = |one: &Istiod| {
        let version = one.version.as_deref().unwrap_or("of unknown version");
        format!("{} {version} (revision {})", one.place, one.revision)
    };
    let (major, minor) = ISTIO;
    let which = |is: &dyn Fn(&Istiod) -> bool| {
        let some: Vec<_> = all.iter().filter(|one| is(one)).map(said).collect();
        (!some.is_empty()).then(|| listed(some))
    };
    let read = |one: &Istiod| one.version.as_deref().and_then(number);
    let old = which(&|one| read(one).is_some_and(|version| version < ISTIO));
    let unread = which(&|one| read(one).is_none());
    let down = which(&|one| one.available == 0);
    if all.is_empty() {
        Verdict::failure(
            "there is no istiod (no Deployment with the label app=istiod)",
            "install Istio first; where istiod runs outside of the cluster, the following checks tell whether it injects",
        )
    } else if let Some(old) = old {
        Verdict::failure(
            format!("older than {major}.{minor}: {old}"),
            "Sidestep reads the arguments of newer injectors: upgrade Istio, or keep the namespaces of this revision out with the label \
             sidestep.dev/enabled=false",
        )
    } else if let Some(down) = down {
        Verdict::warning(
            format!("not available: {down}"),
            "without istiod no pod is injected: look at its pods",
        )
    } else if let Some(unread) = unread {
        let hint = format!("Sidestep needs Istio {major}.{minor} or later: see that it is");
        Verdict::warning(unread, hint)
    } else {
        Verdict::good(listed(all.iter().map(said)))
    }
}

/// `1.31.0-distroless` → (1, 31).
fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Somebody injects sidecars.
pub(in crate::check) fn injectors(facts: &Facts) -> Verdict {
    let all = match &facts.registrations {
        Err(why) => return Verdict::unknown(why),
        Ok(all) => all,
    };
    let mut injectors = BTreeMap::new();
    for one in all {
        if let Some(revision) = &one.injects {
            injectors.insert(&one.name, revision);
        }
    }
    let said = |(name, revision): (&&String, &&String)| format!("{name} (revision {revision})");
    if injectors.is_empty() {
        Verdict::failure(
            "no MutatingWebhookConfiguration injects sidecars",
            "Sidestep accelerates pods that Istio injects: install Istio with its injector",
        )
    } else {
        Verdict::good(listed(injectors.iter().map(said)))
    }
}

/// Who redirects pods that Sidestep does not accelerate.
pub(in crate::check) fn redirector(facts: &Facts) -> Verdict {
    match &facts.istio_cni {
        Err(why) => Verdict::unknown(why),
        Ok(true) => Verdict::good("istio-cni redirects the pods that Sidestep leaves"),
        Ok(false) => Verdict::good("istio-init redirects the pods that Sidestep leaves"),
    }
}

/// Injectors are asked before us: the API server asks in the order of the registrations' names.
pub(in crate::check) fn order(facts: &Facts) -> Option<Verdict> {
    let all = facts.registrations.as_ref().ok()?;
    let ours = match (facts.stage, facts.ours()) {
        (Stage::Before, _) => OURS,
        (Stage::After, Some((ours, _))) => &ours.name,
        (Stage::After, None) => return None,
    };
    let injectors = all.iter().filter(|one| one.injects.is_some());
    let late: Vec<_> = injectors
        .map(|one| one.name.as_str())
        .filter(|name| *name > ours)
        .collect();
    Some(if late.is_empty() {
        Verdict::good(format!("every injector is asked before {ours}"))
    } else {
        Verdict::failure(
            format!("asked after {ours}: {}", listed(&late)),
            "the API server asks in the order of names, so pods of these injectors are injected too late and stay with Istio: give the \
             injector's MutatingWebhookConfiguration a name that sorts before",
        )
    })
}
