//! Anything may happen in any order.

use std::time::Duration;

use k8s_openapi::ByteString;
use proptest::prelude::*;
use sidestep_certs::cert::Cert;
use sidestep_certs::holding::{Holding, keys};
use sidestep_certs::keeper::{Pass, Trouble};
use sidestep_certs::store::StoreError;
use tokio::time::advance;

use crate::common::{DAY, holding, start};
use crate::fake::Fake;
use crate::keeper::{all_trust, keeper};

/// What may happen to a cluster.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Hours(u16),
    Days(u16),
    NewLeader,
    SecretGone,
    Garbage(usize),
    BundleGone,
    Race,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1..48_u16).prop_map(Happens::Hours),
        4 => (1..120_u16).prop_map(Happens::Days),
        1 => Just(Happens::NewLeader),
        1 => Just(Happens::SecretGone),
        1 => (0..7_usize).prop_map(Happens::Garbage),
        1 => Just(Happens::BundleGone),
        1 => Just(Happens::Race),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens, every leaf that a replica may still have in memory is trusted by every bundle, unless somebody
    /// took the bundle away; and in the end there is a good leaf.
    #[test]
    fn no_leaf_is_ever_served_that_is_not_trusted(events in prop::collection::vec(happens(), 1..15)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(live_through(events));
    }
}

async fn live_through(events: Vec<Happens>) {
    let fake = Fake::new();
    let mut one = keeper(&fake);
    let mut now = start();
    let mut served: Vec<Cert> = Vec::new();
    for event in events {
        match event {
            Happens::Hours(hours) => now += Duration::from_hours(1) * u32::from(hours),
            Happens::Days(days) => now += DAY * u32::from(days),
            Happens::NewLeader => one = keeper(&fake),
            Happens::SecretGone => fake.state().secret = None,
            Happens::Garbage(which) => {
                let all = [
                    keys::CA_CERT,
                    keys::CA_KEY,
                    keys::LEAF_CERT,
                    keys::LEAF_KEY,
                    keys::NEXT_CERT,
                    keys::NEXT_KEY,
                    keys::PREVIOUS,
                ];
                let secret = fake.state().secret.clone();
                if let Some(mut secret) = secret {
                    let garbage = ByteString(b"garbage".to_vec());
                    secret.data.insert(all[which].to_owned(), garbage);
                    fake.put(secret.data, true);
                }
            }
            Happens::BundleGone => {
                let mut state = fake.state();
                let bundles = state.bundles.as_mut().expect("a configuration");
                bundles.iter_mut().for_each(Vec::clear);
                // Those whose CA is known nowhere else are lost with it.
                let held = state
                    .secret
                    .as_ref()
                    .map(|secret| Holding::read(&secret.data));
                let held = held.unwrap_or_default();
                served.retain(|leaf| held.authorities().any(|ca| leaf.is_signed_by(ca)));
            }
            Happens::Race => fake.state().race = true,
        }
        for _ in 0..60 {
            let pass = one.pass(now).await;
            match &pass {
                Ok(_) | Err(Trouble::Store(StoreError::Conflict(_))) => {}
                Err(other) => panic!("{other}"),
            }
            let secret = fake.state().secret.clone();
            let leaf = secret.and_then(|secret| Holding::read(&secret.data).leaf);
            if let Some(leaf) = leaf
                && !served.contains(&leaf.cert)
            {
                assert!(all_trust(&fake, &leaf.cert), "a new leaf, {event:?}");
                served.push(leaf.cert);
            }
            served.retain(|leaf| leaf.is_valid_at(now));
            if pass.is_ok() {
                for leaf in &served {
                    assert!(all_trust(&fake, leaf), "an old leaf, {event:?}, {pass:?}");
                }
            }
            if let Ok(Pass::Rest(rest)) = pass {
                if !fake.data().contains_key(keys::NEXT_CERT) {
                    break;
                }
                advance(rest).await;
            }
        }
    }
    let held = holding(&fake.data());
    let leaf = held.leaf.expect("a leaf").cert;
    assert!(leaf.is_valid_at(now));
    assert!(all_trust(&fake, &leaf));
    let state = fake.state();
    let bundle = &state.bundles.as_ref().expect("a configuration")[0];
    assert!(Cert::all_in(bundle).expect("PEM").len() <= 19, "bounded");
}
