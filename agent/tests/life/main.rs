//! An agent's life without a kernel: pods come and go, are changed and made anew, calls fail, the agent is killed in the middle
//! of one, time passes. At every moment, and in the end, what must hold does: see [`world::World::check`],
//! [`agent::Agent::check`] and [`agent::Agent::settle`].
//!
//! `SEED` repeats a run, `STEPS` sets its length: half a million for each of the two modes under `CI`, else a tenth of it.

mod agent;
mod fake;
mod fault;
mod world;

use std::{
    cell::Cell,
    env,
    hash::{BuildHasher, RandomState},
    panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Once,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sidestep_contract::Policy;
use sidestep_ebpf_common::{Sighting, sighting::Seen};

use self::{
    agent::{Agent, Change, PODS, policies},
    fault::{Fault, Interference, Kill, Kind},
};

/// Steps of each of the two modes, unless told otherwise: under `CI`, and else.
const STEPS: [u32; 2] = [500_000, 50_000];
/// Most steps of one life.
const LONGEST: usize = 100;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// The source says something new of a pod, and the agent is told, or not yet.
    Changes(usize, Change, bool),
    /// The source has a pod no more.
    Removed(usize, bool),
    /// The agent is told of all pods there are.
    Listed,
    /// A pod gets a sandbox, or another one.
    Sandbox(usize),
    /// Two pods are found in one namespace.
    Shares(usize, usize),
    /// A namespace goes away.
    Dies(usize),
    /// No process, or one again, is in a namespace.
    Peopled(usize, bool),
    /// A namespace's addresses change.
    Addresses(usize),
    /// A proxy begins to listen.
    Listens(usize),
    /// It stops.
    Closes(usize),
    /// A program came upon a namespace: of a pod, of nobody, or of a process that has ended.
    Seen(usize, Seen, Whose),
    /// Sightings were lost.
    Missed,
    /// So many milliseconds.
    Passes(u32),
    /// The clock jumps by so many hours, as on a machine that was suspended: nothing was done meanwhile, and all is due.
    Jumps(u16),
    /// The agent is killed, and another one starts: it is told of its pods, or not yet.
    Killed(bool),
    /// The same, and the other one's maps have this layout.
    Upgraded(u32, bool),
    /// The agent ends, and another one starts.
    Leaves,
}

#[derive(Clone, Copy, Debug)]
enum Whose {
    Pods,
    Nobodys,
    Ended,
}

/// What happens, and what goes wrong in it.
type Step = (Happens, Option<(u8, Kind)>);

fn happens() -> impl Strategy<Value = Happens> {
    let pod = || 0..PODS;
    let space = || 0..2 * PODS;
    let change = prop_oneof![
        3 => Just(Change::Nothing),
        3 => Just(Change::Policy),
        1 => Just(Change::Addresses),
        1 => Just(Change::Ends),
        1 => Just(Change::IsLeft),
        1 => Just(Change::IsWanted),
        1 => Just(Change::IsReplaced),
        1 => pod().prop_map(Change::Moves),
    ];
    let told = || prop::bool::weighted(0.8);
    let seen = prop_oneof![Just(Seen::Exec), Just(Seen::Listen), Just(Seen::Active)];
    let whose = prop_oneof![
        6 => Just(Whose::Pods),
        1 => Just(Whose::Nobodys),
        1 => Just(Whose::Ended),
    ];
    prop_oneof![
        5 => (pod(), change, told()).prop_map(|(pod, change, told)| Happens::Changes(pod, change, told)),
        2 => (pod(), told()).prop_map(|(pod, told)| Happens::Removed(pod, told)),
        1 => Just(Happens::Listed),
        5 => pod().prop_map(Happens::Sandbox),
        1 => (pod(), pod()).prop_map(|(one, other)| Happens::Shares(one, other)),
        2 => space().prop_map(Happens::Dies),
        1 => (space(), any::<bool>()).prop_map(|(space, are)| Happens::Peopled(space, are)),
        1 => space().prop_map(Happens::Addresses),
        4 => space().prop_map(Happens::Listens),
        1 => space().prop_map(Happens::Closes),
        4 => (space(), seen, whose).prop_map(|(space, seen, whose)| Happens::Seen(space, seen, whose)),
        1 => Just(Happens::Missed),
        3 => prop_oneof![0..200_u32, 0..8000_u32, 0..40_000_u32].prop_map(Happens::Passes),
        1 => (1..2000_u16).prop_map(Happens::Jumps),
        1 => told().prop_map(Happens::Killed),
        1 => (0..3_u32, told()).prop_map(|(layout, told)| Happens::Upgraded(layout, told)),
        1 => Just(Happens::Leaves),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let space = || 0..2 * PODS;
    let kind = prop_oneof![
        3 => (1..6_u8).prop_map(Kind::Fails),
        1 => Just(Kind::Fails(u8::MAX)),
        3 => Just(Kind::FailsHalf),
        2 => Just(Kind::Killed),
        2 => Just(Kind::KilledHalf),
        2 => space().prop_map(|space| Kind::Between(Interference::Listens(space))),
        1 => space().prop_map(|space| Kind::Between(Interference::Dies(space))),
    ];
    let fault = prop::option::weighted(0.4, (0..24_u8, kind));
    (happens(), fault)
}

fn happen(agent: &mut Agent, what: Happens) {
    let world = Rc::clone(&agent.world);
    match what {
        Happens::Changes(pod, change, told) => {
            agent.change(pod, change);
            if told {
                agent.tell(pod);
            }
        }
        Happens::Removed(pod, told) => {
            agent.said[pod] = None;
            if told {
                agent.tell(pod);
            }
        }
        Happens::Listed => agent.tell_all(),
        Happens::Sandbox(pod) => {
            if let Some(key) = agent.key(pod) {
                world.borrow_mut().make_sandbox(key, pod);
            }
        }
        Happens::Shares(one, other) => {
            if let (Some(one), Some(key)) = (agent.key(one), agent.key(other)) {
                let mut world = world.borrow_mut();
                if let Some(cookie) = world.sandboxes.get(&one).copied() {
                    world.place(key, cookie);
                    let space = world.spaces.get_mut(&cookie);
                    space.expect("a namespace").owners.insert(other);
                }
            }
        }
        Happens::Dies(space) => world.borrow_mut().dies(space),
        Happens::Peopled(space, are) => {
            let mut world = world.borrow_mut();
            if let Some(cookie) = world.living(space) {
                let space = world.spaces.get_mut(&cookie);
                space.expect("a namespace").peopled = are;
            }
        }
        Happens::Addresses(space) => {
            let mut world = world.borrow_mut();
            if let Some(cookie) = world.living(space) {
                let space = world.spaces.get_mut(&cookie).expect("a namespace");
                space.addresses = space.addresses.wrapping_add(1);
            }
        }
        Happens::Listens(space) => world.borrow_mut().listens(space),
        Happens::Closes(space) => world.borrow_mut().closes(space),
        Happens::Seen(space, seen, whose) => {
            let cookie = world.borrow().living(space);
            if let Some(cookie) = cookie {
                let pid = match whose {
                    Whose::Pods => u32::try_from(cookie).expect("few namespaces"),
                    Whose::Nobodys => fake::STRANGER,
                    Whose::Ended => fake::ENDED,
                };
                let at = world.borrow().now().kernel;
                agent.seen(&Sighting {
                    cookie,
                    cgroup: 1,
                    at,
                    pid,
                    seen: seen as u32,
                });
            }
        }
        Happens::Missed => agent.missed(),
        Happens::Passes(ms) => agent.wait(Duration::from_millis(ms.into())),
        Happens::Jumps(hours) => {
            world.borrow_mut().passed += Duration::from_hours(hours.into());
            agent.wait(Duration::ZERO);
        }
        Happens::Killed(told) => agent.restart(told),
        Happens::Upgraded(layout, told) => {
            if layout != world.borrow().layout {
                world.borrow_mut().change_layout(layout);
            }
            agent.restart(told);
        }
        Happens::Leaves => {
            agent.leave();
            agent.restart(true);
        }
    }
}

/// Whether the agent was killed in it.
fn survives(step: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(()) => true,
        Err(panic) if panic.is::<Kill>() => false,
        Err(panic) => resume_unwind(panic),
    }
}

fn live(on_node: bool, policies: &Rc<Vec<Policy>>, begin: Instant, steps: &[Step]) {
    let mut agent = Agent::new(on_node, Rc::clone(policies), begin);
    for (what, fault) in steps {
        agent.world.borrow_mut().fault = Fault::at(*fault);
        let lives = survives(|| happen(&mut agent, *what));
        let hit = agent.world.borrow().fault.hit;
        agent.world.borrow_mut().fault = Fault::default();
        if !lives {
            agent.restart(true);
        }
        agent.world.borrow_mut().fault.hit = hit;
        agent.world.borrow_mut().check("a step");
        agent.check();
    }
    agent.world.borrow_mut().fault = Fault::default();
    agent.settle();
    agent.end();
}

fn lives(on_node: bool) {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let seed: u64 = number("SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let steps = match number("STEPS") {
        Some(steps) => u32::try_from(steps).expect("fewer steps"),
        None => STEPS[usize::from(env::var_os("CI").is_none())],
    };
    let cases = steps / u32::try_from(LONGEST / 2).expect("a short life");
    eprintln!("SEED={seed}, {steps} steps in {cases} lives");
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    // Nobody guesses at it, and without optimisation the other one takes two thirds of the time.
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (policies, begin) = (policies(), Instant::now());
    let steps = prop::collection::vec(step(), 1..LONGEST);
    let done = quietly(|| {
        runner.run(&steps, |steps| {
            live(on_node, &policies, begin, &steps);
            Ok(())
        })
    });
    if let Err(error) = done {
        panic!("SEED={seed}: {error}");
    }
}

/// Lives that fail while the shortest one is looked for say nothing.
fn quietly<T>(f: impl FnOnce() -> T) -> T {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let done = f();
    QUIET.set(false);
    done
}

#[test]
fn on_a_node_what_runs_stays_captured_until_it_is_gone() {
    lives(true);
}

#[test]
fn with_pod_files_what_is_wanted_stays_captured() {
    lives(false);
}

#[test]
fn a_sighting_that_comes_too_soon_after_another_is_acted_on_as_soon_as_it_may_be() {
    let mut agent = Agent::new(true, policies(), Instant::now());
    let world = Rc::clone(&agent.world);
    let seen = Happens::Seen(0, Seen::Exec, Whose::Pods);
    happen(&mut agent, Happens::Changes(0, Change::Nothing, true));
    happen(&mut agent, Happens::Sandbox(0));
    happen(&mut agent, Happens::Peopled(0, false));
    // The next look that nobody asks for is in half a minute.
    happen(&mut agent, Happens::Passes(0));
    happen(&mut agent, seen);
    happen(&mut agent, Happens::Peopled(0, true));
    happen(&mut agent, seen);
    assert!(world.borrow().kernel.records.is_empty(), "too soon");
    happen(&mut agent, Happens::Passes(50));
    assert_eq!(world.borrow().kernel.records.len(), 1);
}

/// A pod of the same name again and again, each in a namespace of its own; then all of those are gone.
fn departed(pods: usize) -> Agent {
    let mut agent = Agent::new(true, policies(), Instant::now());
    for armed in 1..=pods {
        happen(&mut agent, Happens::Changes(0, Change::IsReplaced, true));
        happen(&mut agent, Happens::Sandbox(0));
        happen(&mut agent, Happens::Passes(100));
        happen(&mut agent, Happens::Missed);
        assert_eq!(agent.world.borrow().kernel.records.len(), armed);
    }
    happen(&mut agent, Happens::Removed(0, true));
    for _ in 0..pods {
        happen(&mut agent, Happens::Dies(0));
    }
    agent
}

#[test]
fn namespaces_that_go_together_are_let_go_some_a_turn_with_one_look_at_the_connections() {
    let mut agent = departed(150);
    let world = Rc::clone(&agent.world);
    for (turn, left) in [86, 22, 0].into_iter().enumerate() {
        agent.pass();
        let kernel = &world.borrow().kernel;
        assert_eq!((kernel.records.len(), kernel.scans), (left, turn + 1));
        let at_once = agent.next_due() == world.borrow().passed;
        assert_eq!(at_once, left > 0, "the others have the next turn");
    }
}

#[test]
fn a_namespace_that_cannot_be_let_go_holds_up_no_other() {
    // Whatever it is that fails.
    for call in 0..u8::MAX {
        let mut agent = departed(3);
        let world = Rc::clone(&agent.world);
        world.borrow_mut().fault = Fault::at(Some((call, Kind::Fails(1))));
        agent.pass();
        let left = world.borrow().kernel.records.len();
        assert!(left <= 1, "{left} of 3 are left where call {call} fails");
        if !world.borrow().fault.hit {
            assert!(call > 9, "few calls");
            return;
        }
    }
    panic!("calls without an end");
}
