//! An agent on a [`World`], and what the API server or the Pod files say of its pods.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Container;
use serde_json::json;
use sidestep_agent::{
    pods::wanted::{Entry, LeaveReason, Place, PodName, PodUid, Wanted},
    reconcile::{Mode, PodEvent, Reconciler},
    rules::Allowed,
    status::{PodState, PodStatus},
};
use sidestep_contract::{IstioInit, Policy, RawSockets};

use crate::{fake::Fake, world::World};

/// As many pods as a life has, by name.
pub(crate) const PODS: usize = 3;
/// And as many versions of each one's policy.
pub(crate) const VERSIONS: u16 = 4;

/// Between checks of an agent.
const CHECK: Duration = Duration::from_secs(5);
/// By when all is as it should be, if nothing fails: a pod's link is looked at every 30 seconds.
const SETTLES: Duration = Duration::from_mins(1);
/// When an Event says that a pod has no sandbox.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest between two attempts.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What is said of a pod, or how it may change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Nothing,
    Policy,
    Addresses,
    Ends,
    IsLeft,
    IsWanted,
    /// Another pod has its name.
    IsReplaced,
    /// Its file names the namespace of another.
    Moves(usize),
}

/// A pod as the source has it.
#[derive(Clone)]
pub(crate) struct Said {
    version: u16,
    uid: u32,
    addresses: u8,
    ended: bool,
    left: bool,
    /// Whose namespace its file names.
    at: usize,
}

/// One mode's agent, started anew as often as need be.
pub(crate) struct Agent {
    pub(crate) world: Rc<RefCell<World>>,
    mode: Mode,
    reconciler: Reconciler<Fake, Fake>,
    events: Receiver<(PodName, &'static str)>,
    pub(crate) said: Vec<Option<Said>>,
    /// What the agent was told, which may be behind.
    told: BTreeMap<PodName, Entry>,
    uids: u32,
    policies: Rc<Vec<Policy>>,
    /// Pods of which the agent said that they have no sandbox.
    missed: BTreeSet<PodName>,
    next_check: Duration,
}

/// Every policy of every pod, which its outbound port tells.
pub(crate) fn policies() -> Rc<Vec<Policy>> {
    let policy = |pod: usize, version: u16| {
        let port = 10_000 + pod * 100 + usize::from(version);
        let words = format!(
            "istio-iptables -p {port} -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021 --dual-stack"
        );
        let args: Vec<&str> = words.split(' ').collect();
        let init: Container = serde_json::from_value(json!({"name": "istio-init", "args": args}))
            .expect("istio-init");
        IstioInit::read(0, &init).policy.expect("a policy")
    };
    let all = (0..PODS).flat_map(|pod| (0..VERSIONS).map(move |version| policy(pod, version)));
    Rc::new(all.collect())
}

fn name(pod: usize) -> PodName {
    PodName {
        namespace: "demo".to_owned(),
        name: format!("pod-{pod}"),
    }
}

impl Agent {
    pub(crate) fn new(on_node: bool, policies: Rc<Vec<Policy>>, begin: Instant) -> Self {
        let mode = if on_node {
            Mode::node(true, PATIENCE)
        } else {
            Mode::standalone(true)
        };
        let world = Rc::new(RefCell::new(World::new(on_node, begin)));
        let (reconciler, events) = start(&world, mode);
        Self {
            world,
            mode,
            reconciler,
            events,
            said: vec![None; PODS],
            told: BTreeMap::new(),
            uids: 0,
            policies,
            missed: BTreeSet::new(),
            next_check: Duration::ZERO,
        }
    }

    pub(crate) fn on_node(&self) -> bool {
        self.world.borrow().until_gone
    }

    /// The key by which a sandbox of this pod's is found.
    pub(crate) fn key(&self, pod: usize) -> Option<String> {
        let said = self.said[pod].as_ref()?;
        Some(if self.on_node() {
            uid(said.uid)
        } else {
            format!("ns-{pod}")
        })
    }

    fn entry(&self, pod: usize, said: &Said) -> Entry {
        if said.left {
            return Err(LeaveReason::NoGate);
        }
        Ok(Wanted {
            place: if self.on_node() {
                Place::Cgroup(PodUid::new(&uid(said.uid)).expect("a uid"))
            } else {
                Place::Named(format!("ns-{}", said.at))
            },
            policy: self.policies[pod * usize::from(VERSIONS) + usize::from(said.version)].clone(),
            allowed: Allowed::default(),
            raw_sockets: RawSockets::default(),
            name_servers: Vec::new(),
            addresses: vec![[10, 0, 0, said.addresses].into()],
            ended: said.ended,
        })
    }

    /// What the source says of a pod changes.
    pub(crate) fn change(&mut self, pod: usize, change: Change) {
        let on_node = self.on_node();
        let new = || Said {
            version: 0,
            uid: 0,
            addresses: 0,
            ended: false,
            left: false,
            at: pod,
        };
        let mut said = self.said[pod].clone();
        if said.is_none() || matches!(change, Change::IsReplaced) {
            self.uids += 1;
            said = Some(Said {
                uid: self.uids,
                ..new()
            });
        }
        if let Some(said) = &mut said {
            match change {
                Change::Nothing | Change::IsReplaced => {}
                Change::Policy => said.version = (said.version + 1) % VERSIONS,
                Change::Addresses => said.addresses = said.addresses.wrapping_add(1),
                Change::Ends => said.ended = on_node,
                Change::IsLeft => said.left = true,
                Change::IsWanted => said.left = false,
                Change::Moves(to) => said.at = if on_node { pod } else { to },
            }
        }
        self.said[pod] = said;
    }

    /// The namespaces that the agent knows to be wanted by Pod files: those of pods that are armed, and, unless something fails,
    /// of those that it is told of for the first time now.
    fn note_wanted(&self) {
        if self.on_node() {
            return;
        }
        let all = self.reconciler.status();
        let mut world = self.world.borrow_mut();
        // Of an agent that has just started, what it finds armed stays so, whatever fails.
        let sure = !world.fault.is_planned() || all.is_empty();
        let mut wanted = BTreeSet::new();
        for (name, entry) in &self.told {
            let Ok(Wanted {
                place: Place::Named(place),
                ..
            }) = entry
            else {
                continue;
            };
            let Some(cookie) = world.sandboxes.get(place).copied() else {
                continue;
            };
            let status = all.iter().find(|of| of.name == name.name);
            if status.is_none() && sure || status.is_some_and(|of| of.cookie == Some(cookie)) {
                wanted.insert(cookie);
            }
        }
        world.wanted = wanted;
    }

    /// The agent is told of one pod. With Pod files it is always told everything.
    pub(crate) fn tell(&mut self, pod: usize) {
        if !self.on_node() {
            return self.tell_all();
        }
        if let Some(said) = self.said[pod].clone() {
            let entry = self.entry(pod, &said);
            self.told.insert(name(pod), entry.clone());
            self.reconciler.apply(&name(pod), &entry);
        } else {
            self.told.remove(&name(pod));
            self.reconciler.forget(&name(pod));
        }
    }

    /// The agent is told of all pods.
    pub(crate) fn tell_all(&mut self) {
        let all = self.said.iter().enumerate();
        let all = all.filter_map(|(pod, said)| Some((name(pod), self.entry(pod, said.as_ref()?))));
        self.told = all.collect();
        self.note_wanted();
        let done = self.reconciler.want(&self.told);
        let hit = self.world.borrow().fault.hit;
        assert!(done.is_ok() || hit, "nothing failed, but {done:?}");
    }

    pub(crate) fn seen(&mut self, sighting: &sidestep_ebpf_common::Sighting) {
        self.reconciler.seen(sighting);
    }

    pub(crate) fn missed(&mut self) {
        self.reconciler.missed();
    }

    pub(crate) fn pass(&mut self) {
        let done = self.reconciler.pass();
        let hit = self.world.borrow().fault.hit;
        let failure = done.failure();
        assert!(failure.is_none() || hit, "nothing failed, but {failure:?}");
        self.next_check = self.world.borrow().passed + CHECK;
    }

    /// Another agent begins with what is there. One of a node may not have been told of any pod yet.
    pub(crate) fn restart(&mut self, told: bool) {
        (self.reconciler, self.events) = start(&self.world, self.mode);
        self.told.clear();
        self.missed.clear();
        self.next_check = Duration::ZERO;
        if told || !self.on_node() {
            self.tell_all();
        }
    }

    /// The agent is told to end.
    pub(crate) fn leave(&mut self) {
        if self.on_node() {
            let idle = self.reconciler.remove_if_idle();
            if matches!(idle, Ok(true)) {
                assert_eq!(self.left(&BTreeSet::new()), Vec::<String>::new());
            }
        } else {
            let mut world = self.world.borrow_mut();
            world.wanted.clear();
            drop(world);
            self.reconciler.remove().expect("a fake that works");
        }
    }

    /// Time passes, with a pass whenever one is due.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.note_wanted();
        let end = self.world.borrow().passed + time;
        let mut passes = 0;
        loop {
            let due = self.next_due().max(self.world.borrow().passed);
            if due > end {
                break;
            }
            self.world.borrow_mut().passed = due;
            self.pass();
            passes += 1;
            assert!(passes < 2000, "passes without an end");
        }
        self.world.borrow_mut().passed = end;
    }

    pub(crate) fn next_due(&self) -> Duration {
        let (now, passed) = (self.world.borrow().now().at, self.world.borrow().passed);
        let retry = self.reconciler.next_retry();
        let retry = retry.map_or(Duration::MAX, |at| {
            passed + at.saturating_duration_since(now)
        });
        retry.min(self.next_check)
    }

    fn left(&self, may_stay: &BTreeSet<u64>) -> Vec<String> {
        self.world.borrow().left_but(may_stay)
    }

    /// What must hold after every step.
    pub(crate) fn check(&mut self) {
        let all = self.reconciler.status();
        let mut armed = BTreeSet::new();
        for status in &all {
            if let Some(cookie) = status.cookie {
                let alone = armed.insert(cookie);
                assert!(alone, "two pods hold namespace {cookie}: {all:?}");
            }
            if status.state == PodState::Pending {
                assert!(status.reason.is_some(), "waits for nothing: {status:?}");
            }
        }
        let world = self.world.borrow();
        if let Some(retry) = self.reconciler.next_retry() {
            let most = world.now().at + LAST_RETRY;
            assert!(retry <= most, "tries again too late");
        }
        for (name, event) in self.events.try_iter() {
            match event {
                "armed" if !world.fault.hit => {
                    let status = all.iter().find(|of| of.name == name.name);
                    let cookie = status.and_then(|status| status.cookie);
                    let listens = |cookie: &u64| world.spaces[cookie].listening.is_some();
                    if let Some(cookie) = cookie.filter(listens) {
                        let captures = world.captures(cookie);
                        assert!(captures, "{cookie} is armed, and its proxy not noticed");
                    }
                }
                "no-sandbox" => {
                    self.missed.insert(name);
                }
                _ => {}
            }
        }
    }

    /// Nothing fails any more, every process is there, and the agent is told everything: soon all is as it should be.
    pub(crate) fn settle(&mut self) {
        self.world.borrow_mut().settle();
        self.tell_all();
        self.wait(SETTLES);
        self.check();
        let all = self.reconciler.status();
        let world = self.world.borrow();
        let mut may_stay = BTreeSet::new();
        // Of a pod that cannot be found nobody knows which namespace it has.
        let mut in_doubt = self.on_node();
        for (pod, said) in self.said.iter().enumerate() {
            let Some(said) = said.as_ref().filter(|said| !said.left) else {
                continue;
            };
            let key = match self.entry(pod, said).expect("a pod that is wanted").place {
                Place::Cgroup(uid) => uid.to_string(),
                Place::Named(name) => name,
            };
            let status = all.iter().find(|of| of.name == name(pod).name);
            let status = status.expect("a status");
            let Some(cookie) = world.sandboxes.get(&key).copied() else {
                let told = self.missed.contains(&name(pod)) || said.ended || !self.on_node();
                assert!(told, "nobody was told that {status:?} has no sandbox");
                // A file that names a namespace which is not there yet keeps the one that it named before.
                let kept = status
                    .cookie
                    .filter(|cookie| !self.on_node() && world.is_alive(*cookie));
                assert_eq!(status.cookie, kept, "{status:?} is gone");
                may_stay.extend(kept);
                in_doubt = true;
                continue;
            };
            may_stay.insert(cookie);
            let rivals = all
                .iter()
                .any(|of| of.cookie == Some(cookie) && of.name != status.name);
            if rivals {
                assert!(refused(status), "{status:?}");
                may_stay.extend(status.cookie);
                continue;
            }
            if let Some(layout) = world.keeper(cookie) {
                assert_eq!(status.state, PodState::Kept, "by v{layout}: {status:?}");
                continue;
            }
            assert_eq!(status.cookie, Some(cookie), "{status:?} is not armed");
            let port = world.kernel.records[&cookie].port;
            let wanted = 10_000 + u16::try_from(pod).expect("a pod") * 100 + said.version;
            // What is said of a pod that has ended changes nothing any more.
            assert!(
                port == wanted || said.ended,
                "{status:?} has another policy, {port}"
            );
            if world.spaces[&cookie].listening.is_some() {
                assert!(world.captures(cookie), "{status:?} is not active");
            }
        }
        if in_doubt {
            let cookies = world.spaces.keys().copied();
            may_stay.extend(cookies.filter(|cookie| world.is_alive(*cookie)));
        }
        drop(world);
        let left = self.left(&may_stay);
        assert!(left.is_empty(), "is left: {left:?}");
    }

    /// Every pod goes, and every namespace: nothing is left.
    pub(crate) fn end(&mut self) {
        self.said.fill(None);
        while self.world.borrow().living(0).is_some() {
            self.world.borrow_mut().dies(0);
        }
        self.tell_all();
        self.wait(Duration::from_secs(10));
        let left = self.left(&BTreeSet::new());
        assert!(left.is_empty(), "is left at the end: {left:?}");
        let others = self.world.borrow().others.len();
        assert_eq!(others, 0, "{others} other layouts are left at the end");
    }
}

fn refused(status: &PodStatus) -> bool {
    let reason = status.reason.as_deref().unwrap_or_default();
    reason.contains("already that of pod")
}

/// As Kubernetes writes them, or long enough.
fn uid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn start(
    world: &Rc<RefCell<World>>,
    mode: Mode,
) -> (Reconciler<Fake, Fake>, Receiver<(PodName, &'static str)>) {
    let fake = Fake(Rc::clone(world));
    fake.establish();
    let (outbox, events) = channel();
    let tell = move |name: &PodName, event: PodEvent<'_>| {
        let kind = match event {
            PodEvent::Armed { .. } => "armed",
            PodEvent::NoSandbox => "no-sandbox",
            _ => return,
        };
        let _nobody_asks = outbox.send((name.clone(), kind));
    };
    let reconciler = Reconciler::new(fake.clone(), fake, mode, Box::new(tell));
    (reconciler, events)
}
