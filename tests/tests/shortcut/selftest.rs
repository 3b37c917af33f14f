//! The agent's own proof, and proof that it can fail.

use std::time::Duration;

use sidestep_agent::shortcut::{
    Mode, Options, Readers,
    selftest::{Proves, examine_with, prove},
};
use sidestep_tests::{binary, can_run, cgroup::Cgroup};

#[test]
fn the_running_kernel_passes_within_three_seconds() {
    if !can_run(&[]) {
        return;
    }
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

#[test]
fn the_usual_recipe_does_not_pass() {
    if !can_run(&[]) {
        return;
    }
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let checks = examine_with(&binary("sidestep-agent"), pods.path(), of(Mode::Naive));
    let failed = checks.map(|checks| {
        let of_it = checks
            .into_iter()
            .filter(|check| check.proves == Proves::Shortcut);
        let failed = of_it.filter_map(|check| check.failure);
        failed.collect::<Vec<_>>()
    });
    assert_ne!(failed, Ok(Vec::new()), "a recipe known to be wrong passes");
}

#[test]
fn programs_that_redirect_nothing_do_not_pass() {
    if !can_run(&[]) {
        return;
    }
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let checks = examine_with(&binary("sidestep-agent"), pods.path(), of(Mode::Pass))
        .expect("it comes to an end");
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
#[test]
fn bytes_put_into_any_application_do_not_pass() {
    if !can_run(&[]) {
        return;
    }
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let options = Options {
        readers: Readers::Trusted,
        ..Options::default()
    };
    let checks = examine_with(&binary("sidestep-agent"), pods.path(), options);
    let checks = checks.expect("it comes to an end");
    let of_it = checks
        .iter()
        .filter(|check| check.proves == Proves::IntoApplication);
    let failed = of_it.filter(|check| check.failure.is_some());
    assert_eq!(failed.count(), 2, "{checks:#?}");
}

fn of(mode: Mode) -> Options {
    Options {
        mode,
        ..Options::default()
    }
}
