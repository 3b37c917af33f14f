//! What stands in `caBundle`. Pure.

use std::time::SystemTime;

use crate::authority::COMMON_NAME;
use crate::cert::Cert;
use crate::holding::Holding;

/// A rotation has three at most; each lost Secret adds one, and somewhere a bundle must stop growing.
const MOST: usize = 16;

/// The CAs that API servers must trust: of the leaf that replicas serve, of the one that they will serve, and of those
/// that one of them may still serve. In doubt one too many: what stands in a bundle and was made here stays until it
/// expires, for where the Secret was lost, replicas go on serving what they have in memory. None where nothing is held,
/// and then a bundle stays as it is.
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

/// As it is written.
pub fn pem(certs: &[Cert]) -> String {
    certs.iter().map(Cert::pem).collect()
}

/// Whether a bundle holds exactly these, in whatever order and however spelled.
pub fn is(bundle: &[u8], certs: &[Cert]) -> bool {
    let Ok(found) = Cert::all_in(bundle) else {
        return false;
    };
    found.iter().all(|cert| certs.contains(cert)) && certs.iter().all(|cert| found.contains(cert))
}

/// Whether who reads this bundle trusts that CA.
pub fn holds(bundle: &[u8], cert: &Cert) -> bool {
    Cert::all_in(bundle).is_ok_and(|found| found.contains(cert))
}

/// The CAs that were made here and are still good.
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
