//! The content of `caBundle`. Pure.

use std::time::SystemTime;

use crate::authority::COMMON_NAME;
use crate::cert::Cert;
use crate::holding::Holding;

/// Most CAs in a bundle. A rotation needs three at most, and each lost Secret adds one; a bundle must not grow for ever.
const MOST: usize = 16;

/// The CAs that API servers must trust: of the leaf that replicas serve, of the leaf that they will serve next, and of
/// the leaves that a replica may still serve. When in doubt, keep one CA too many: a CA of ours that stands in a bundle
/// stays until it expires, because replicas whose Secret was lost go on serving the leaf they have in memory. `None` if
/// the Secret holds nothing; then the bundle stays as it is.
pub fn wanted(holding: &Holding, bundles: &[&[u8]], now: SystemTime) -> Vec<Cert> {
    let mut wanted: Vec<Cert> = Vec::new();
    let mut add = |cert: &Cert| {
        if !wanted.contains(cert) {
            wanted.push(cert.clone());
        }
    };
    holding.authorities().for_each(&mut add);
    ours(bundles, now).iter().for_each(add);
    if holding.authorities().next().is_some() {
        wanted
    } else {
        Vec::new()
    }
}

/// The bundle as PEM.
pub fn pem(certs: &[Cert]) -> String {
    certs.iter().map(Cert::pem).collect()
}

/// Whether a bundle holds exactly these CAs, in any order and any spelling of PEM.
pub fn is(bundle: &[u8], certs: &[Cert]) -> bool {
    let Ok(found) = Cert::all_in(bundle) else {
        return false;
    };
    found.iter().all(|cert| certs.contains(cert)) && certs.iter().all(|cert| found.contains(cert))
}

/// Whether an API server that reads this bundle trusts that CA.
pub fn holds(bundle: &[u8], cert: &Cert) -> bool {
    Cert::all_in(bundle).is_ok_and(|found| found.contains(cert))
}

/// The CAs in a bundle that this crate made and that have not expired.
fn ours(bundles: &[&[u8]], now: SystemTime) -> Vec<Cert> {
    let found = bundles
        .iter()
        .filter_map(|bundle| Cert::all_in(bundle).ok());
    let mut ours: Vec<Cert> = found.flatten().collect();
    ours.retain(|cert| {
        cert.is_authority && cert.common_name.starts_with(COMMON_NAME) && cert.is_valid_at(now)
    });
    ours.sort_by(|a, b| b.not_after.cmp(&a.not_after).then(a.der().cmp(b.der())));
    ours.dedup();
    ours.truncate(MOST);
    ours
}
