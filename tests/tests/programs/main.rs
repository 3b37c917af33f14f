//! Programs that people use, through two real sidecars, once on TCP and then with the shortcut as far as it reaches: the
//! answers must be the same, byte for byte.

mod programs;
mod servers;
mod world;

use sidestep_kit::needs;
use std::{collections::BTreeMap, sync::LazyLock, time::Instant};

use programs::ALL;
use world::{Reach, World};

/// What becomes of messages whose two ends take part: past TCP, or by TCP for order or memory.
const DECIDED: [&str; 5] = ["redirected", "unread", "busy", "full", "scarce"];

/// What a program's client printed, and what became of messages meanwhile.
struct Answer {
    printed: String,
    /// Went past TCP.
    redirected: u64,
    /// Might have.
    decided: u64,
}

impl Answer {
    fn of(world: &World, run: impl FnOnce() -> String) -> Self {
        let counts = || world.shortcut().counts;
        let before = counts();
        let printed = run();
        let counts = counts();
        let since = |name: &str| counts[name] - before[name];
        Self {
            printed,
            redirected: since("redirected"),
            decided: DECIDED.into_iter().map(since).sum(),
        }
    }
}

fn answers(world: &World) -> BTreeMap<&'static str, Answer> {
    ALL.iter()
        .map(|program| {
            let start = Instant::now();
            let answer = Answer::of(world, || (program.run)(world));
            println!("{}: {:.1} s", program.name, start.elapsed().as_secs_f64());
            assert!(!answer.printed.is_empty(), "{} says nothing", program.name);
            (program.name, answer)
        })
        .collect()
}

static PLAIN: LazyLock<BTreeMap<&str, Answer>> = LazyLock::new(|| answers(&World::new(Reach::Off)));

fn same_answers(reach: Reach) {
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
        let (name, redirected, decided) = (program.name, short.redirected, short.decided);
        println!("{reach:?}: {name}: {redirected} of {decided} messages past TCP");
        assert_eq!(short.printed, plain.printed, "{name}");
        assert_eq!(plain.decided, 0, "{name}: off is not off");
        let keeps_to_tcp = !takes_part || program.blocks && reach == Reach::PodAsked;
        // All of a stream whose writer is always ahead of its reader goes by TCP.
        assert!(decided > 0 || keeps_to_tcp, "{name}: it took no part");
    }
    let past = short.values().any(|answer| answer.redirected > 0);
    assert!(past || !takes_part, "nothing went past TCP");
}

#[needs(root, "curl", "redis-server")]
fn programs_get_the_same_answers_within_pods() {
    same_answers(Reach::Pod);
}

#[needs(root, "curl", "redis-server")]
fn programs_get_the_same_answers_where_the_clients_author_asks_for_it() {
    same_answers(Reach::PodAsked);
}

#[needs(root, "curl", "redis-server")]
fn programs_get_the_same_answers_between_the_pods_of_a_node() {
    same_answers(Reach::Node);
}
