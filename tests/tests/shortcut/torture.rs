//! Random two-way streams. `make torture` runs a million of them.

use sidestep_kit::needs;

use sidestep_agent::shortcut::{Allowed, Options, Reach, Switches};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_torture::{
    Flow, World,
    run::{Progress, run},
};

use crate::stage::NODE;

const RULE: Switches = Switches::TRUSTING;
/// The usual recipe.
const NAIVE: Switches = Switches {
    naive: true,
    ..RULE
};

fn play(switches: Switches, limit: u32, connections: u64) -> Progress {
    let options = Options {
        limit,
        switches,
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

#[needs(root)]
fn sixteen_thousand_random_connections_arrive_byte_for_byte() {
    let done = play(RULE, 1 << 20, 16_000);
    assert!(done.report.is_clean(), "{:#?}", done.report);
    assert!(
        done.counts["redirected"] > 16_000,
        "hardly anything went past TCP: {:#?}",
        done.counts
    );
    assert!(
        done.counts["unread"] > 0 && done.counts["alone"] > 0,
        "nothing tried the rule: {:#?}",
        done.counts
    );
}

/// A connection that sends half a megabyte to a reader of 43 bytes at a time, and resets.
const RESETS: u64 = 915_382;

/// What was redirected counts as received. Where that is more than the kernel lets a socket have, it drops what TCP brings
/// while the socket is being read; a reset is never sent again.
#[needs(root)]
fn a_reader_who_is_far_behind_is_told_of_a_reset() {
    let world = World::new(Some(Options::default()), NODE);
    world.steer_packets(true);
    for _ in 0..200 {
        let report = world.play(Flow::ProxyToProxy, true, RESETS, 1, 1);
        assert!(report.is_clean(), "{report:#?}");
    }
}

#[needs(root)]
fn the_usual_recipe_fails_the_same_connections() {
    let done = play(NAIVE, 1 << 20, 2_000);
    assert!(
        done.report.corrupted > 0,
        "a recipe known to be wrong passes, so this proves nothing: {:#?}",
        done.report
    );
}

#[needs(root)]
fn eight_thousand_that_change_between_tcp_and_the_shortcut_all_the_time() {
    let done = play(RULE, 4 << 10, 8_000);
    assert!(done.report.is_clean(), "{:#?}", done.report);
    assert!(
        done.counts["full"] > 1_000,
        "hardly any receiver was full: {:#?}",
        done.counts
    );
}

#[needs(root)]
fn applications_that_never_block_take_part_though_nothing_is_put_into_them() {
    let allowed = Allowed {
        reach: Reach::Pod,
        ..NODE
    };
    let world = World::new(Some(Options::default()), allowed);
    for flow in [Flow::AppToProxy, Flow::ProxyToApp, Flow::Chain] {
        let before = counted(&world, Count::Redirected);
        let report = world.play(flow, false, 0, 200, 4);
        assert!(report.is_clean(), "{report:#?}");
        let redirected = counted(&world, Count::Redirected) - before;
        assert!(redirected > 200, "{flow:?}: {redirected}");
    }
}

fn counted(world: &World, wanted: Count) -> u64 {
    let tally = world.tally();
    let found = tally.into_iter().find(|(count, _)| *count == wanted);
    found.map_or(0, |(_, value)| value)
}

/// The kernel's count of TCP's memory is below zero now and then, for each CPU keeps some pages back. That is no shortage.
#[needs(root)]
fn streams_on_a_machine_with_memory_never_go_by_tcp_for_want_of_it() {
    let options = Options {
        switches: RULE,
        ..Options::default()
    };
    let world = World::to_measure(
        Some(options),
        Allowed {
            reach: Reach::Pod,
            into_application: true,
            ..NODE
        },
    );
    for _ in 0..4 {
        world.pour(64 << 10, 20_000);
        world.pour(1 << 20, 1_000);
    }
    assert!(counted(&world, Count::Redirected) > 0);
    assert_eq!(counted(&world, Count::Scarce), 0);
}
