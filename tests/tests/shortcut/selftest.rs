//! The agent's own proof, and proof that it can fail.

use std::time::Duration;

use sidestep_agent::shortcut::{
    Mode,
    selftest::{Proves, examine_mode, prove},
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
    assert_eq!(verdict.checks.len(), 13, "{verdict:#?}");
    assert!(verdict.took < Duration::from_secs(3), "{verdict:#?}");
}

#[test]
fn the_usual_recipe_does_not_pass() {
    if !can_run(&[]) {
        return;
    }
    let all = Cgroup::new("selftest");
    let pods = all.child("pods");
    let checks = examine_mode(&binary("sidestep-agent"), pods.path(), Mode::Naive);
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
    let checks = examine_mode(&binary("sidestep-agent"), pods.path(), Mode::Pass)
        .expect("it comes to an end");
    let of_it = checks
        .iter()
        .filter(|check| check.proves == Proves::Shortcut);
    let failed = of_it.filter(|check| check.failure.is_some());
    let failed: Vec<_> = failed.map(|check| check.name.as_str()).collect();
    assert_eq!(
        failed,
        [
            "bytes go past TCP",
            "an application's bytes to its proxy, in order",
            "an upper layer protocol keeps its connection to TCP"
        ]
    );
}
