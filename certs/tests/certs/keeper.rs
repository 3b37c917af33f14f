//! The keeper against an API server that is a few values: first start, rotations, and everything that others may do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::common::{DAY, NAMES, begun, holding, lifetimes, nearly_overlapped, start};
use crate::fake::Fake;
use k8s_openapi::ByteString;
use sidestep_certs::cert::Cert;
use sidestep_certs::holding::keys;
use sidestep_certs::keeper::{Keeper, Pass, Trouble};
use sidestep_certs::plan::Step;
use sidestep_certs::store::StoreError;
use tokio::sync::{Notify, watch};
use tokio::time::advance;

pub(crate) fn keeper(fake: &Fake) -> Keeper<Fake> {
    let names = NAMES.map(str::to_owned).to_vec();
    Keeper::new(fake.clone(), names, lifetimes())
}

/// Lets a keeper work until there is nothing to do; returns its steps and the time then.
async fn settle(
    fake: &Fake,
    keeper: &mut Keeper<Fake>,
    mut now: SystemTime,
) -> (Vec<Step>, SystemTime) {
    let mut steps = Vec::new();
    for _ in 0..200 {
        match keeper.pass(now).await {
            Ok(Pass::Took(step)) => steps.push(step),
            Ok(Pass::Rest(rest)) => {
                if !fake.data().contains_key(keys::NEXT_CERT) {
                    return (steps, now);
                }
                advance(rest).await;
                now += rest;
            }
            Err(Trouble::Store(StoreError::Conflict(_))) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("it never comes to rest: {steps:?}");
}

fn trusts(bundle: &[u8], leaf: &Cert) -> bool {
    let all = Cert::all_in(bundle).expect("a bundle is PEM");
    all.iter().any(|ca| leaf.is_signed_by(ca))
}

pub(crate) fn all_trust(fake: &Fake, leaf: &Cert) -> bool {
    let state = fake.state();
    let bundles = state.bundles.as_ref().expect("a configuration");
    bundles.iter().all(|bundle| trusts(bundle, leaf))
}

#[tokio::test(start_paused = true)]
async fn on_an_empty_cluster_the_ca_is_trusted_before_the_first_leaf_is_there() {
    let fake = Fake::new();
    let mut keeper = keeper(&fake);
    assert_eq!(
        keeper.pass(start()).await.expect("a step"),
        Pass::Took(Step::AddNext)
    );
    assert!(holding(&fake.data()).leaf.is_none());
    let (steps, _) = settle(&fake, &mut keeper, start()).await;
    assert_eq!(steps, [Step::Promote]);
    let leaf = holding(&fake.data()).leaf.expect("a leaf").cert;
    assert_eq!(leaf.names, NAMES);
    assert!(all_trust(&fake, &leaf));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_comes_later_gets_its_bundle() {
    let fake = Fake::new();
    let bundles = fake.state().bundles.take();
    let mut keeper = keeper(&fake);
    let (steps, now) = settle(&fake, &mut keeper, start()).await;
    assert_eq!(steps, [Step::AddNext, Step::Promote]);
    fake.state().bundles = bundles;
    settle(&fake, &mut keeper, now).await;
    let leaf = holding(&fake.data()).leaf.expect("a leaf").cert;
    assert!(all_trust(&fake, &leaf));
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_somebody_changed_is_put_right_and_left_alone_while_it_is() {
    let fake = Fake::new();
    let mut keeper = keeper(&fake);
    let (_, now) = settle(&fake, &mut keeper, start()).await;
    let right = fake.state().bundles.clone();
    let writes = fake.state().bundle_writes;
    settle(&fake, &mut keeper, now).await;
    assert_eq!(fake.state().bundle_writes, writes, "nothing to do");
    for bad in [vec![], b"garbage".to_vec()] {
        fake.state().bundles.as_mut().expect("a configuration")[1] = bad;
        settle(&fake, &mut keeper, now).await;
        assert_eq!(fake.state().bundles, right);
    }
    // Order and spelling are nobody's business.
    let respelled = [
        b"# trusted\n",
        right.as_ref().expect("bundles")[0].as_slice(),
    ]
    .concat();
    fake.state().bundles.as_mut().expect("a configuration")[0] = respelled.clone();
    settle(&fake, &mut keeper, now).await;
    assert_eq!(
        fake.state().bundles.as_ref().expect("bundles")[0],
        respelled
    );
}

#[tokio::test(start_paused = true)]
async fn a_bundle_taken_away_during_a_rotation_starts_the_wait_again() {
    let fake = Fake::new();
    let mut keeper = keeper(&fake);
    let (_, now) = settle(&fake, &mut keeper, start()).await;
    let now = now + DAY * 601;
    assert_eq!(
        keeper.pass(now).await.expect("a step"),
        Pass::Took(Step::AddNext)
    );
    let old = fake.state().bundles.clone();
    keeper.pass(now).await.expect("the bundle is written");
    advance(nearly_overlapped()).await;
    fake.state().bundles = old;
    keeper.pass(now).await.expect("the bundle is written again");
    advance(nearly_overlapped()).await;
    let pass = keeper.pass(now).await.expect("it waits");
    assert_eq!(pass, Pass::Rest(Duration::from_secs(1)));
    advance(Duration::from_secs(1)).await;
    let pass = keeper.pass(now).await.expect("a step");
    assert_eq!(pass, Pass::Took(Step::Promote));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_waits_by_its_own_clock() {
    let fake = Fake::new();
    let mut first = keeper(&fake);
    let (_, now) = settle(&fake, &mut first, start()).await;
    let now = now + DAY * 601;
    first.pass(now).await.expect("a next CA");
    first.pass(now).await.expect("the bundle is written");
    advance(DAY).await;
    let mut second = keeper(&fake);
    let pass = second.pass(now).await.expect("it waits");
    assert!(matches!(pass, Pass::Rest(_)), "{pass:?}");
    assert!(holding(&fake.data()).next.is_some());
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_secret_is_not_touched() {
    let fake = Fake::new();
    let mut keeper = keeper(&fake);
    for data in [
        begun(start()).write(),
        [("password".to_owned(), ByteString(b"x".to_vec()))].into(),
        [].into(),
    ] {
        fake.put(data.clone(), false);
        let refused = keeper.pass(start()).await.expect_err("not ours");
        let said = refused.to_string();
        assert!(
            said.contains("sidestep-system/sidestep-webhook-tls"),
            "{said}"
        );
        assert!(said.contains("sidestep.dev/certificates=managed"), "{said}");
        assert_eq!(fake.data(), data);
        assert_eq!(fake.state().bundle_writes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_keep_in_our_secret_stays() {
    let fake = Fake::new();
    let note = ("note".to_owned(), ByteString(b"x".to_vec()));
    fake.put([note.clone()].into(), true);
    settle(&fake, &mut keeper(&fake), start()).await;
    assert_eq!(fake.data().get(&note.0), Some(&note.1));
}

#[tokio::test(start_paused = true)]
async fn garbage_in_our_secret_is_replaced_and_no_good_leaf_is_lost_over_it() {
    for key in [
        keys::CA_CERT,
        keys::CA_KEY,
        keys::LEAF_CERT,
        keys::LEAF_KEY,
        keys::PREVIOUS,
    ] {
        let fake = Fake::new();
        let mut keeper = keeper(&fake);
        let (_, now) = settle(&fake, &mut keeper, start()).await;
        let served = holding(&fake.data()).leaf.expect("a leaf").cert;
        let mut data = fake.data();
        data.insert(key.to_owned(), ByteString(b"garbage".to_vec()));
        fake.put(data, true);
        for _ in 0..5 {
            keeper.pass(now).await.expect("it goes on");
            assert!(all_trust(&fake, &served), "{key}: replicas still serve it");
        }
        settle(&fake, &mut keeper, now).await;
        let held = holding(&fake.data());
        assert!(all_trust(&fake, &held.leaf.expect("a leaf").cert));
        assert!(all_trust(&fake, &served), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_loses_a_race_reads_again() {
    let fake = Fake::new();
    let mut keeper = keeper(&fake);
    fake.state().race = true;
    let lost = keeper.pass(start()).await.expect_err("somebody was first");
    assert!(matches!(lost, Trouble::Store(StoreError::Conflict(_))));
    settle(&fake, &mut keeper, start()).await;
    assert!(holding(&fake.data()).leaf.is_some());
}

#[tokio::test(start_paused = true)]
async fn two_leaders_at_once_leave_one_set_of_certificates() {
    let fake = Fake::new();
    let (mut one, mut two) = (keeper(&fake), keeper(&fake));
    let mut now = start();
    for _ in 0..40 {
        for keeper in [&mut one, &mut two] {
            match keeper.pass(now).await {
                Ok(_) | Err(Trouble::Store(StoreError::Conflict(_))) => {}
                Err(other) => panic!("{other}"),
            }
        }
        advance(Duration::from_secs(1)).await;
        now += Duration::from_secs(1);
    }
    let held = holding(&fake.data());
    assert!(held.next.is_none());
    assert!(all_trust(&fake, &held.leaf.expect("a leaf").cert));
}

#[tokio::test(start_paused = true)]
async fn it_works_only_while_it_leads_and_says_what_is_wrong() {
    let fake = Fake::new();
    fake.put([].into(), false);
    let (leads, leading) = watch::channel(false);
    let (trouble, mut troubled) = watch::channel(None);
    let running = keeper(&fake).run(leading, Arc::new(Notify::new()), trouble);
    let running = tokio::spawn(running);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(troubled.borrow_and_update().is_none());
    leads.send_replace(true);
    let said = troubled.wait_for(Option::is_some).await.expect("it runs");
    assert!(said.as_deref().unwrap_or_default().contains("not changed"));
    drop(said);
    fake.put([].into(), true);
    let well = troubled.wait_for(Option::is_none).await.expect("it runs");
    drop(well);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(holding(&fake.data()).leaf.is_some());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_told_of_and_asked_again() {
    let fake = Fake::new();
    fake.state().hangs = true;
    let (leads, leading) = watch::channel(true);
    let (trouble, mut troubled) = watch::channel(None);
    let running = tokio::spawn(keeper(&fake).run(leading, Arc::new(Notify::new()), trouble));
    let said = troubled
        .wait_for(Option::is_some)
        .await
        .expect("it runs")
        .clone();
    let said = said.unwrap_or_default();
    assert!(said.contains("does not answer within 30 seconds"), "{said}");
    // Who leads no more waits for nothing.
    leads.send_replace(false);
    let well = troubled.wait_for(Option::is_none).await.expect("it runs");
    drop(well);
    fake.state().hangs = false;
    leads.send_replace(true);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(holding(&fake.data()).leaf.is_some());
    running.abort();
}
