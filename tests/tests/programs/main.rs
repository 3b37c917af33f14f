//! Programs that people use, through two real sidecars, once on TCP and then with the shortcut as far as it reaches: the
//! answers must be the same, byte for byte.

mod programs;
mod servers;
mod world;

use std::{collections::BTreeMap, sync::LazyLock, time::Instant};

use programs::ALL;
use sidestep_tests::{can_run, envoy};
use world::{Reach, World};

/// What a program's client printed, and how many messages went past TCP meanwhile.
struct Answer {
    printed: String,
    redirected: u64,
}

fn answers(world: &World) -> BTreeMap<&'static str, Answer> {
    ALL.iter()
        .map(|program| {
            let before = world.shortcut().counts["redirected"];
            let start = Instant::now();
            let printed = (program.run)(world);
            println!("{}: {:.1} s", program.name, start.elapsed().as_secs_f64());
            assert!(!printed.is_empty(), "{} says nothing", program.name);
            let redirected = world.shortcut().counts["redirected"] - before;
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

static PLAIN: LazyLock<BTreeMap<&str, Answer>> = LazyLock::new(|| answers(&World::new(Reach::Off)));

fn same_answers(reach: Reach) {
    if !can_run(&["curl", "redis-server"]) {
        return;
    }
    if let Err(error) = envoy::program() {
        panic!("{error}");
    }
    let world = World::new(reach);
    // The first connection of each client's program stays with TCP: it shows whether that blocks.
    if reach != Reach::Node {
        answers(&world);
    }
    let short = answers(&world);
    // Where the kernel lets applications notice, their sockets take part only if their authors say so.
    let takes_part = reach != Reach::Pod || world.shortcut().not_from_applications.is_none();
    for program in &ALL {
        let (plain, short) = (&PLAIN[program.name], &short[program.name]);
        let (name, redirected) = (program.name, short.redirected);
        println!("{reach:?}: {name}: {redirected} messages past TCP");
        assert_eq!(short.printed, plain.printed, "{name}");
        assert_eq!(plain.redirected, 0, "{name}: off is not off");
        let keeps_to_tcp = !takes_part || program.blocks && reach == Reach::PodAsked;
        assert!(
            redirected > 0 || keeps_to_tcp,
            "{name}: nothing went past TCP"
        );
    }
}

#[test]
fn programs_get_the_same_answers_within_pods() {
    same_answers(Reach::Pod);
}

#[test]
fn programs_get_the_same_answers_where_the_clients_author_asks_for_it() {
    same_answers(Reach::PodAsked);
}

#[test]
fn programs_get_the_same_answers_between_the_pods_of_a_node() {
    same_answers(Reach::Node);
}
