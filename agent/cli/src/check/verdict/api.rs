//! The API server.

use crate::check::facts::{Facts, listed};
use crate::check::finding::{Stage, Verdict};

/// The oldest version that Sidestep runs on.
const KUBERNETES: (u32, u32) = (1, 30);

/// It is new enough.
pub(in crate::check) fn server(facts: &Facts) -> Verdict {
    let (wanted_major, wanted_minor) = KUBERNETES;
    match facts.kubernetes {
        version @ (major, minor) if version < KUBERNETES => Verdict::failure(
            format!("Kubernetes {major}.{minor} is older than {wanted_major}.{wanted_minor}"),
            "its API server cannot hold the policies that protect Sidestep's labels: upgrade it",
        ),
        (major, minor) => Verdict::good(format!("Kubernetes {major}.{minor}")),
    }
}

/// Whoever runs this may do what it takes.
pub(in crate::check) fn rights(facts: &Facts) -> Verdict {
    let unknown = facts
        .rights
        .iter()
        .find_map(|one| one.allowed.as_ref().err());
    if let Some(why) = unknown {
        return Verdict::unknown(why);
    }
    let denied = facts.rights.iter().filter(|one| one.allowed == Ok(false));
    let denied = listed(denied.map(|one| &one.what));
    match facts.stage {
        _ if denied.is_empty() => Verdict::good("you may do what this takes"),
        Stage::Before => Verdict::failure(
            format!("to install Sidestep you may not: {denied}"),
            "let an administrator of the cluster install it",
        ),
        Stage::After => Verdict::warning(
            format!("you may not: {denied}"),
            "what takes these rights is not checked; the file lists all rights, under Rights",
        ),
    }
}

/// Nothing of another installation is in the way.
pub(in crate::check) fn not_installed(facts: &Facts) -> Verdict {
    match (&facts.registrations, facts.ours()) {
        (Err(why), _) => Verdict::unknown(why),
        (Ok(_), None) => Verdict::good("Sidestep is not installed"),
        (Ok(_), Some((registration, _))) => Verdict::warning(
            format!(
                "Sidestep is installed already: MutatingWebhookConfiguration {}",
                registration.name
            ),
            "`sidestep check` without --pre checks what is installed",
        ),
    }
}
