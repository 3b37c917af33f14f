//! A node that is a few maps: network namespaces, what the kernel holds for them, and what its programs do by themselves. It
//! watches over what must hold at every moment, whoever does what.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    rc::Rc,
    time::{Duration, Instant},
};

use sidestep_agent::{clock::Now, rules::Rules};
use sidestep_kernel::netns::Cookie;

use crate::fault::{Fault, Interference, Verdict};

/// How far a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Lives,
    /// It lives, and its pod has another one by now.
    Replaced,
    Gone,
}

/// A network namespace.
pub(crate) struct Space {
    pub(crate) life: Life,
    /// Some process of its pod is in it.
    pub(crate) peopled: bool,
    /// The pods whose sandbox it is or was.
    pub(crate) owners: BTreeSet<usize>,
    /// The inode of the proxy's listening socket.
    pub(crate) listening: Option<u32>,
    /// Its addresses are this many changes away from the first.
    pub(crate) addresses: u8,
    pub(crate) passthrough6: bool,
    /// Its gate may have opened: from here on its connections must be captured.
    pub(crate) captured: bool,
    /// Its descriptor.
    pub(crate) file: Rc<File>,
}

impl Space {
    pub(crate) fn is_alive(&self) -> bool {
        self.life != Life::Gone
    }
}

/// What the maps hold of a set of rules.
pub(crate) struct Sets {
    rules: Rules,
    complete: bool,
}

/// A record of `PODS`.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) rules: u32,
    /// Tells whose policy it is, and which version.
    pub(crate) port: u16,
}

/// What outlives an agent, of one layout of the maps.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) records: BTreeMap<Cookie, Record>,
    pub(crate) sets: BTreeMap<u32, Sets>,
    /// Whether the pod is active.
    pub(crate) states: BTreeMap<Cookie, bool>,
    pub(crate) links: BTreeSet<Cookie>,
    pub(crate) listeners: BTreeMap<Cookie, BTreeSet<u32>>,
    /// Namespaces of which connections are remembered.
    pub(crate) connections: BTreeSet<Cookie>,
    /// How often they were looked through.
    pub(crate) scans: usize,
}

pub(crate) struct World {
    begin: Instant,
    pub(crate) passed: Duration,
    pub(crate) spaces: BTreeMap<Cookie, Space>,
    /// Where pods' processes are, by uid.
    pub(crate) sandboxes: BTreeMap<String, Cookie>,
    pub(crate) kernel: Kernel,
    /// What agents with other layouts left, whose programs are attached beside.
    pub(crate) others: BTreeMap<u32, Kernel>,
    /// The running agent's layout.
    pub(crate) layout: u32,
    /// Whose proxy's every socket was.
    pub(crate) sockets: BTreeMap<u32, Cookie>,
    /// Links that the running agent has open.
    pub(crate) opened: BTreeSet<Cookie>,
    pub(crate) last_rules: u32,
    last_cookie: Cookie,
    /// What must be captured stays so until its namespace is gone; else until no pod wants it.
    pub(crate) until_gone: bool,
    /// Namespaces that pods want, as the agent was told.
    pub(crate) wanted: BTreeSet<Cookie>,
    pub(crate) fault: Fault,
}

impl Kernel {
    fn captures(&self, cookie: Cookie) -> bool {
        self.records.contains_key(&cookie)
            && self.states.get(&cookie) == Some(&true)
            && self.links.contains(&cookie)
    }
}

impl World {
    pub(crate) fn new(until_gone: bool, begin: Instant) -> Self {
        Self {
            begin,
            passed: Duration::ZERO,
            spaces: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            kernel: Kernel::default(),
            others: BTreeMap::new(),
            layout: 0,
            sockets: BTreeMap::new(),
            opened: BTreeSet::new(),
            last_rules: 0,
            last_cookie: 0,
            until_gone,
            wanted: BTreeSet::new(),
            fault: Fault::default(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            at: self.begin + self.passed,
            kernel: u64::try_from(self.passed.as_nanos()).expect("a short life"),
        }
    }

    /// Each call of a verb that may fail. Whatever interferes does so before it.
    pub(crate) fn verb(&mut self) -> Verdict {
        let (verdict, interference) = self.fault.next();
        match interference {
            Some(Interference::Listens(n)) => self.listens(n),
            Some(Interference::Dies(n)) => self.dies(n),
            None => {}
        }
        verdict
    }

    /// A new namespace, which is the sandbox of this uid from now on.
    pub(crate) fn make_sandbox(&mut self, uid: String, owner: usize) {
        self.last_cookie += 1;
        let space = Space {
            life: Life::Lives,
            peopled: true,
            owners: BTreeSet::from([owner]),
            listening: None,
            addresses: 0,
            passthrough6: false,
            captured: false,
            file: Rc::new(File::open("/dev/null").expect("a descriptor")),
        };
        self.spaces.insert(self.last_cookie, space);
        self.place(uid, self.last_cookie);
    }

    /// The pod of this uid is found in this namespace from now on.
    pub(crate) fn place(&mut self, uid: String, cookie: Cookie) {
        let before = self.sandboxes.insert(uid, cookie);
        let before = before.filter(|before| *before != cookie);
        let space = before.and_then(|cookie| self.spaces.get_mut(&cookie));
        if let Some(space) = space.filter(|space| space.is_alive()) {
            space.life = Life::Replaced;
        }
    }

    pub(crate) fn is_alive(&self, cookie: Cookie) -> bool {
        self.spaces.get(&cookie).is_some_and(Space::is_alive)
    }

    /// The n-th of the namespaces that live, counted round and round.
    pub(crate) fn living(&self, n: usize) -> Option<Cookie> {
        let living: Vec<_> = self.spaces.iter().filter(|(_, of)| of.is_alive()).collect();
        let (cookie, _) = living.get(n.checked_rem(living.len())?)?;
        Some(**cookie)
    }

    pub(crate) fn dies(&mut self, n: usize) {
        if let Some(cookie) = self.living(n) {
            self.end_of(cookie);
        }
    }

    fn end_of(&mut self, cookie: Cookie) {
        let space = self.spaces.get_mut(&cookie).expect("a namespace");
        space.life = Life::Gone;
        space.listening = None;
        self.forget_listeners(cookie);
        self.sandboxes.retain(|_, of| *of != cookie);
    }

    /// What may take a while is done: processes are in every sandbox, and those that were replaced are gone.
    pub(crate) fn settle(&mut self) {
        for cookie in self.spaces.keys().copied().collect::<Vec<_>>() {
            let space = self.spaces.get_mut(&cookie).expect("a namespace");
            space.peopled = true;
            if space.life == Life::Replaced {
                self.end_of(cookie);
            }
        }
    }

    /// The proxy begins to listen, or listens anew. Programs notice where the namespace is armed.
    pub(crate) fn listens(&mut self, n: usize) {
        let Some(cookie) = self.living(n) else {
            return;
        };
        let last = self.sockets.last_key_value();
        let inode = last.map_or(1, |(inode, _)| inode + 1);
        self.sockets.insert(inode, cookie);
        let space = self.spaces.get_mut(&cookie).expect("a namespace");
        space.listening = Some(inode);
        self.forget_listeners(cookie);
        for kernel in self.kernels() {
            if kernel.records.contains_key(&cookie) {
                kernel.states.insert(cookie, true);
                kernel.listeners.insert(cookie, BTreeSet::from([inode]));
            }
        }
        self.check("listens");
    }

    pub(crate) fn closes(&mut self, n: usize) {
        if let Some(cookie) = self.living(n) {
            self.spaces.get_mut(&cookie).expect("a namespace").listening = None;
            self.forget_listeners(cookie);
        }
    }

    /// What is closed leaves the maps by itself.
    fn forget_listeners(&mut self, cookie: Cookie) {
        for kernel in self.kernels() {
            kernel.listeners.remove(&cookie);
        }
    }

    /// Of every layout.
    fn kernels(&mut self) -> impl Iterator<Item = &mut Kernel> {
        std::iter::once(&mut self.kernel).chain(self.others.values_mut())
    }

    /// The running agent ended, and one with this layout comes.
    pub(crate) fn change_layout(&mut self, layout: u32) {
        let kernel = std::mem::take(&mut self.kernel);
        self.others.insert(self.layout, kernel);
        self.kernel = self.others.remove(&layout).unwrap_or_default();
        self.layout = layout;
    }

    /// The layout of another agent that captures this namespace, or may.
    pub(crate) fn keeper(&self, cookie: Cookie) -> Option<u32> {
        let keeps = |kernel: &Kernel| kernel.records.contains_key(&cookie);
        let mut others = self.others.iter();
        others
            .find(|(_, kernel)| keeps(kernel))
            .map(|(layout, _)| *layout)
    }

    /// Layouts go with the last of their namespaces.
    pub(crate) fn look_after_others(&mut self) {
        let spaces = &self.spaces;
        let lives = |cookie: &Cookie| spaces[cookie].is_alive();
        self.others
            .retain(|_, kernel| kernel.records.keys().any(lives));
    }

    pub(crate) fn add_listener(&mut self, cookie: Cookie, inode: u32) {
        let open = |space: &Space| space.listening == Some(inode);
        if self.spaces.get(&cookie).is_some_and(open) {
            let listeners = self.kernel.listeners.entry(cookie).or_default();
            listeners.insert(inode);
        }
    }

    pub(crate) fn write_sets(&mut self, rules: &Rules, complete: bool) {
        let rules = rules.clone();
        let sets = Sets { rules, complete };
        self.kernel.sets.insert(sets.rules.record.rules, sets);
    }

    pub(crate) fn spoil_sets(&mut self, id: u32) {
        if let Some(sets) = self.kernel.sets.get_mut(&id) {
            sets.complete = false;
        }
    }

    pub(crate) fn has_sets(&self, rules: &Rules) -> bool {
        let sets = self.kernel.sets.get(&rules.record.rules);
        sets.is_some_and(|sets| sets.complete && sets.rules == *rules)
    }

    /// Sets that no record points to.
    pub(crate) fn sets_of_nobody(&self) -> Vec<u32> {
        let live: BTreeSet<u32> = self.kernel.records.values().map(|of| of.rules).collect();
        let all = self.kernel.sets.keys().copied();
        all.filter(|id| !live.contains(id)).collect()
    }

    pub(crate) fn is_active(&self, cookie: Cookie) -> bool {
        self.kernel.states.get(&cookie) == Some(&true)
    }

    /// Whether a connection in this namespace goes through the proxy, which is what its gate waits for.
    pub(crate) fn captures(&self, cookie: Cookie) -> bool {
        let listens = |kernel: &Kernel| kernel.listeners.contains_key(&cookie);
        self.any_kernel(|kernel| kernel.captures(cookie) && listens(kernel))
    }

    /// The same, whether or not the proxy listens just now.
    fn stays_captured(&self, cookie: Cookie) -> bool {
        self.any_kernel(|kernel| kernel.captures(cookie))
    }

    fn any_kernel(&self, which: impl Fn(&Kernel) -> bool) -> bool {
        which(&self.kernel) || self.others.values().any(which)
    }

    /// What must hold at every moment.
    pub(crate) fn check(&mut self, after: &str) {
        for cookie in self.kernel.records.keys() {
            let twice = self.keeper(*cookie);
            assert!(
                twice.is_none() || !self.is_alive(*cookie),
                "after {after} programs of two layouts, {twice:?} and the agent's, act on {cookie}"
            );
        }
        for (cookie, record) in &self.kernel.records {
            let sets = self.kernel.sets.get(&record.rules);
            assert!(
                sets.is_some_and(|sets| sets.complete),
                "after {after} the record of {cookie} points to missing sets {}",
                record.rules
            );
            assert!(
                self.kernel.states.contains_key(cookie),
                "after {after} {cookie} has a record and no state"
            );
        }
        for (cookie, active) in &self.kernel.states {
            assert!(
                !active || self.kernel.records.contains_key(cookie),
                "after {after} {cookie} is active without a record"
            );
        }
        let cookies: Vec<Cookie> = self.spaces.keys().copied().collect();
        for cookie in cookies {
            let captures = self.captures(cookie);
            let stays = self.stays_captured(cookie);
            let must = self.until_gone || self.wanted.contains(&cookie);
            let space = self.spaces.get_mut(&cookie).expect("a namespace");
            if !space.is_alive() {
                continue;
            }
            space.captured &= must;
            space.captured |= captures;
            assert!(
                !space.captured || stays,
                "after {after} {cookie} is not captured any more, and lives"
            );
            if captures && self.kernel.records.contains_key(&cookie) {
                self.kernel.connections.insert(cookie);
            }
        }
    }

    /// What is left in the kernel of namespaces other than these.
    pub(crate) fn left_but(&self, may_stay: &BTreeSet<Cookie>) -> Vec<String> {
        let kernel = &self.kernel;
        let mut left = Vec::new();
        let mut look = |what: &str, cookies: &mut dyn Iterator<Item = &Cookie>| {
            let others = cookies.filter(|cookie| !may_stay.contains(cookie));
            left.extend(others.map(|cookie| format!("{what} of {cookie}")));
        };
        look("the record", &mut kernel.records.keys());
        look("state", &mut kernel.states.keys());
        look("the link", &mut kernel.links.iter());
        look("listeners", &mut kernel.listeners.keys());
        look("connections", &mut kernel.connections.iter());
        let sets = self.sets_of_nobody();
        left.extend(sets.iter().map(|id| format!("sets {id}")));
        left
    }
}
