//! The agent's own proof, and proof that it can fail.

use std::time::Duration;

use sidestep_agent::shortcut::{
    Options, Switches,
    selftest::{Proves, RECEIVER_LIMIT, examine_with, prove},
};
use sidestep_kit::{binary, cgroup::Cgroup, needs};

#[needs(root)]
fn the_running_kernel_passes_within_three_seconds() {
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let verdict = prove(&binary("sidestep-agent"), pods.path());
    assert_eq!(verdict.shortcut, Ok(()), "{verdict:#?}");
    let into_application = if verdict.into_application.is_ok() {
        2
    } else {
        0
    };
    assert_eq!(verdict.checks.len(), 15 + into_application, "{verdict:#?}");
    // Other tests run beside this one: the quickest of three counts.
    let again = || prove(&binary("sidestep-agent"), pods.path()).took;
    let in_time = |took: Duration| took < Duration::from_secs(3);
    assert!(in_time(verdict.took) || in_time(again()) || in_time(again()));
}

#[needs(root)]
fn the_usual_recipe_does_not_pass() {
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let usual = Options {
        switches: Switches {
            naive: true,
            ..Switches::default()
        },
        ..plain()
    };
    let checks = examine_with(&binary("sidestep-agent"), pods.path(), usual);
    let failed = checks.map(|checks| {
        let of_it = checks
            .into_iter()
            .filter(|check| check.proves == Proves::Shortcut);
        let failed = of_it.filter_map(|check| check.failure);
        failed.collect::<Vec<_>>()
    });
    assert_ne!(failed, Ok(Vec::new()), "a recipe known to be wrong passes");
}

#[needs(root)]
fn programs_that_redirect_nothing_do_not_pass() {
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    // To whom nothing may be put, gets everything by TCP.
    let nothing = Options {
        limit: 0,
        ..plain()
    };
    let checks =
        examine_with(&binary("sidestep-agent"), pods.path(), nothing).expect("it comes to an end");
    let of_it = checks
        .iter()
        .filter(|check| check.proves == Proves::Shortcut);
    let passed = of_it.filter(|check| check.failure.is_none());
    let passed: Vec<_> = passed.map(|check| check.name.as_str()).collect();
    assert_eq!(
        passed,
        ["a full sender is woken where TCP carries everything",]
    );
}

/// Where nobody watches how applications read, bytes are put before readers who do not see them, or see later ones first.
#[needs(root)]
fn bytes_put_into_any_application_do_not_pass() {
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let options = Options {
        switches: Switches::TRUSTING,
        ..plain()
    };
    let checks = examine_with(&binary("sidestep-agent"), pods.path(), options);
    let checks = checks.expect("it comes to an end");
    let of_it = checks
        .iter()
        .filter(|check| check.proves == Proves::IntoApplication);
    let failed = of_it.filter(|check| check.failure.is_some());
    assert_eq!(failed.count(), 2, "{checks:#?}");
}

fn plain() -> Options {
    Options {
        limit: RECEIVER_LIMIT,
        ..Options::default()
    }
}
