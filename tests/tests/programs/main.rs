//! Programs that people use, through two real sidecars, once on TCP and then with the shortcut as far as it reaches: the
//! answers must be the same, byte for byte.

mod programs;
mod servers;
mod world;

use std::{collections::BTreeMap, sync::LazyLock};

use programs::ALL;
use sidestep_tests::{can_run, envoy};
use world::World;

/// What a program's client printed, and how many messages went past TCP meanwhile.
struct Answer {
    printed: String,
    redirected: u64,
}

fn answers(reach: &str) -> BTreeMap<&'static str, Answer> {
    let world = World::new(reach);
    ALL.iter()
        .map(|program| {
            let before = world.redirected();
            let printed = (program.client)(&world);
            assert!(!printed.is_empty(), "{} says nothing", program.name);
            let redirected = world.redirected() - before;
            (
                program.name,
                Answer {
                    printed,
                    redirected,
                },
            )
        })
        .collect()
}

static PLAIN: LazyLock<BTreeMap<&str, Answer>> = LazyLock::new(|| answers("off"));

fn same_answers(reach: &str) {
    if !can_run(&["curl", "redis-server"]) {
        return;
    }
    if let Err(error) = envoy::program() {
        panic!("{error}");
    }
    let short = answers(reach);
    for program in &ALL {
        let (plain, short) = (&PLAIN[program.name], &short[program.name]);
        assert_eq!(short.printed, plain.printed, "{}", program.name);
        assert_eq!(plain.redirected, 0, "{}: off is not off", program.name);
        println!(
            "{reach}: {}: {} messages past TCP",
            program.name, short.redirected
        );
        assert!(
            short.redirected > 0,
            "{}: nothing went past TCP",
            program.name
        );
    }
}

#[test]
fn programs_get_the_same_answers_where_their_sidecars_are_reached_past_tcp() {
    same_answers("pod");
}

#[test]
fn programs_get_the_same_answers_where_sidecars_of_the_node_reach_each_other_too() {
    same_answers("node");
}
