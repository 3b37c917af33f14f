//! Random two-way streams. `make torture` runs a million of them.

use sidestep_agent::shortcut::{Mode, Options};
use sidestep_tests::{
    can_run,
    torture::run::{Progress, run},
};

fn play(mode: Mode, connections: u64) -> Progress {
    let options = Options {
        mode,
        ..Options::default()
    };
    run(
        Some(options),
        connections,
        Progress::default(),
        None,
        |_| {},
    )
    .expect("nothing is written to files")
}

#[test]
fn twenty_thousand_random_connections_arrive_byte_for_byte() {
    if !can_run(&[]) {
        return;
    }
    let done = play(Mode::Rule, 20_000);
    assert!(done.report.is_clean(), "{:#?}", done.report);
    assert!(
        done.counts["redirected"] > 20_000,
        "hardly anything went past TCP: {:#?}",
        done.counts
    );
    assert!(
        done.counts["unread"] > 0 && done.counts["alone"] > 0,
        "nothing tried the rule: {:#?}",
        done.counts
    );
}

#[test]
fn the_usual_recipe_fails_the_same_connections() {
    if !can_run(&[]) {
        return;
    }
    let done = play(Mode::Naive, 2_000);
    assert!(
        done.report.corrupted > 0,
        "a recipe known to be wrong passes, so this proves nothing: {:#?}",
        done.report
    );
}
