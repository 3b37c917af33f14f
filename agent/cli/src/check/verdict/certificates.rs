//! Whom the API server trusts, and with what the webhook serves.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use sidestep_certs::cert::Cert;

use crate::check::facts::Facts;
use crate::check::finding::Verdict;

/// A certificate is near its end when so much of its life is left. The webhook renews its own well before.
const NEAR: Duration = Duration::from_hours(14 * 24);

/// The API server knows whom to trust.
pub(in crate::check) fn ca_bundle(facts: &Facts) -> Option<Verdict> {
    let (_, ours) = facts.ours()?;
    let written = "the webhook's leader writes it, or cert-manager, or the value certificates.provided.caBundle: look at the webhook's logs";
    Some(match &ours.trusted {
        Err(why) => Verdict::failure(format!("it is no certificate: {why}"), written),
        Ok(trusted) if trusted.is_empty() => Verdict::failure(
            "it is missing, so the API server trusts no webhook",
            written,
        ),
        Ok(trusted) => {
            let latest = trusted.iter().max_by_key(|cert| cert.not_after)?;
            of_time(latest, facts.now, written)
        }
    })
}

/// The webhook's certificate is good, and signed by whom the API server trusts.
pub(in crate::check) fn serving_certificate(facts: &Facts) -> Option<Verdict> {
    facts.ours()?;
    let hint =
        "the webhook's leader renews it, or whoever keeps the Secret: look at the webhook's logs";
    let chain = match &facts.certificates {
        Err(why) => return Some(Verdict::unknown(why)),
        Ok(chain) => chain,
    };
    Some(match chain.first() {
        None => Verdict::failure("its Secret is not there", hint),
        Some(_) if facts.is_trusted() == Some(false) => {
            Verdict::failure("no certificate in caBundle signed it", hint)
        }
        Some(leaf) => of_time(leaf, facts.now, hint),
    })
}

/// Whether a certificate is good for a while.
fn of_time(cert: &Cert, now: Timestamp, hint: &str) -> Verdict {
    let now = SystemTime::from(now);
    let ends = Timestamp::try_from(cert.not_after)
        .map(|ends| ends.strftime("%Y-%m-%d").to_string())
        .unwrap_or_default();
    if !cert.is_valid_at(now) && cert.not_after < now {
        Verdict::failure(format!("it expired on {ends}"), hint)
    } else if !cert.is_valid_at(now) {
        let hint = "look at the clocks of this machine and of the nodes";
        Verdict::failure("it is not valid yet".to_owned(), hint)
    } else if now + near(cert) > cert.not_after {
        Verdict::warning(format!("it expires on {ends}"), hint)
    } else {
        Verdict::good(format!("good until {ends}"))
    }
}

/// A certificate that lives shortly is near its end later: in the last sixth of its life.
fn near(cert: &Cert) -> Duration {
    let life = cert.not_after.duration_since(cert.not_before);
    NEAR.min(life.unwrap_or_default() / 6)
}
