//! Programs that people use, through two real sidecars, once on TCP and then with the shortcut as far as it reaches: the
//! answers must be the same, byte for byte.

mod programs;
mod servers;
mod world;

use std::{collections::BTreeMap, fs, sync::LazyLock, time::Instant};

use programs::ALL;
use sidestep_kit::needs;
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
    /// Options that sockets were refused, or marked for.
    hazards: u64,
    /// Directions of connections that the client's kernel encrypts.
    sealed: u64,
}

impl Answer {
    fn of(world: &World, run: impl FnOnce() -> String) -> Self {
        let counts = || world.shortcut().counts;
        let (before, sealed) = (counts(), world.sealed());
        let printed = run();
        let counts = counts();
        let since = |name: &str| counts[name] - before[name];
        Self {
            printed,
            redirected: since("redirected"),
            decided: DECIDED.into_iter().map(since).sum(),
            hazards: since("hazards"),
            sealed: world.sealed() - sealed,
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
    let applications = world.shortcut().not_from_applications.is_none();
    let takes_part = reach != Reach::Pod || applications;
    let clients = reach == Reach::PodAsked || applications;
    for program in &ALL {
        let (plain, short) = (&PLAIN[program.name], &short[program.name]);
        let (name, redirected, decided) = (program.name, short.redirected, short.decided);
        println!("{reach:?}: {name}: {redirected} of {decided} messages past TCP");
        assert_eq!(short.printed, plain.printed, "{name}");
        assert_eq!(plain.decided, 0, "{name}: off is not off");
        let keeps_to_tcp = !takes_part || program.blocks && reach == Reach::PodAsked;
        // All of a stream whose writer is always ahead of its reader goes by TCP.
        assert!(decided > 0 || keeps_to_tcp, "{name}: it took no part");
        if program.asks_for_tls && clients {
            assert!(short.hazards > 0, "{name}: it does not ask");
            assert_eq!(short.sealed, 0, "{name}: it is not refused");
        }
    }
    let sealed: u64 = PLAIN.values().map(|answer| answer.sealed).sum();
    assert!(
        sealed > 0 || !has_tls(),
        "no client would have used the kernel's TLS"
    );
    let past = short.values().any(|answer| answer.redirected > 0);
    assert!(past || !takes_part, "nothing went past TCP");
}

/// Whether the kernel can encrypt for programs.
fn has_tls() -> bool {
    fs::exists("/proc/self/net/tls_stat").expect("/proc can be read")
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
