//! The node and the dataplane that an agent works with, on a [`World`].

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    rc::Rc,
    time::Duration,
};

use sidestep_agent::{
    clock::Now,
    dataplane::{Dataplane, DataplaneError, Repairs},
    pods::wanted::{Place, PodUid, Wanted},
    rules::{Rules, Users},
    sandbox::{
        Ends, Node, Owner, Sandbox,
        connections::Sockets,
        facts::{Facts, PASSTHROUGH6},
        listeners::{Found, Listener},
    },
};
use sidestep_contract::Policy;
use sidestep_ebpf_common::{Row, sighting::QuietKey};
use sidestep_kernel::{
    link::LinkError,
    netns::{Cookie, NetnsError},
    storage::Storage,
};

use crate::{
    fault::{Verdict, kill},
    world::{Kernel, Record, World},
};

/// The processes of pods have their namespace's cookie as their number; this one has ended.
pub(crate) const ENDED: u32 = 0;
/// This one is nobody's.
pub(crate) const STRANGER: u32 = u32::MAX;

#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<World>>);

pub(crate) struct FakeSandbox {
    world: Fake,
    cookie: Cookie,
    file: Rc<File>,
    given: Option<Vec<IpAddr>>,
}

fn failed() -> DataplaneError {
    LinkError::Attach {
        hook: "a verb that is made to fail",
        error: io::Error::other("for a test"),
    }
    .into()
}

fn unseen() -> NetnsError {
    NetnsError::Io {
        path: "a look that is made to fail".into(),
        error: io::Error::other("for a test"),
    }
}

impl Fake {
    /// A verb: `whole` does all of it, `half` as much as may have been done when it fails.
    fn verb(
        &self,
        name: &str,
        half: impl FnOnce(&mut World),
        whole: impl FnOnce(&mut World),
    ) -> Result<(), DataplaneError> {
        let mut world = self.0.borrow_mut();
        let verdict = world.verb();
        match verdict {
            Verdict::Works => whole(&mut world),
            Verdict::Fails => {}
            Verdict::FailsHalf | Verdict::KilledHalf => half(&mut world),
        }
        world.check(name);
        match verdict {
            Verdict::Works => Ok(()),
            Verdict::Fails | Verdict::FailsHalf => Err(failed()),
            Verdict::KilledHalf => kill(),
        }
    }

    /// A question: no answer where it fails.
    fn ask<T, E>(
        &self,
        error: impl FnOnce() -> E,
        answer: impl FnOnce(&World) -> T,
    ) -> Result<T, E> {
        let mut world = self.0.borrow_mut();
        match world.verb() {
            Verdict::Works => Ok(answer(&world)),
            _ => Err(error()),
        }
    }

    /// Takes over what an earlier agent left, as `Bpf::establish` does.
    pub(crate) fn establish(&self) {
        let mut world = self.0.borrow_mut();
        let world = &mut *world;
        world.look_after_others();
        let kernel = &mut world.kernel;
        world.opened.clear();
        for cookie in kernel.links.clone() {
            let alive = world.spaces[&cookie].is_alive();
            if !alive || !kernel.records.contains_key(&cookie) {
                kernel.links.remove(&cookie);
            } else {
                world.opened.insert(cookie);
            }
        }
        kernel
            .states
            .retain(|cookie, _| kernel.records.contains_key(cookie));
        kernel
            .listeners
            .retain(|cookie, _| kernel.records.contains_key(cookie));
        kernel
            .connections
            .retain(|cookie| kernel.records.contains_key(cookie));
        for id in world.sets_of_nobody() {
            world.kernel.sets.remove(&id);
        }
        let ids = world.kernel.records.values().map(|record| record.rules);
        world.last_rules = ids.max().unwrap_or(0);
        world.check("establishing");
    }
}

impl Node for Fake {
    type Sandbox = FakeSandbox;

    fn now(&self) -> Now {
        self.0.borrow().now()
    }

    fn find(&self, wanted: &Wanted) -> Result<Option<FakeSandbox>, NetnsError> {
        let (key, named) = match &wanted.place {
            Place::Cgroup(uid) => (uid.as_str(), false),
            Place::Named(name) => (name.as_str(), true),
        };
        let found = self.ask(unseen, |world| {
            let cookie = world.sandboxes.get(key).copied()?;
            (named || world.spaces[&cookie].peopled).then_some(cookie)
        })?;
        let Some(cookie) = found else {
            return if named {
                Err(NetnsError::Missing(key.into()))
            } else {
                Ok(None)
            };
        };
        let file = Rc::clone(&self.0.borrow().spaces[&cookie].file);
        Ok(Some(FakeSandbox {
            world: self.clone(),
            cookie,
            file,
            given: (!named).then(|| wanted.addresses.clone()),
        }))
    }

    fn owner(&self, pid: u32) -> Owner {
        if pid == ENDED {
            return Owner::Gone;
        }
        let world = self.0.borrow();
        let mut all = world.sandboxes.iter();
        let found = all.find(|(_, cookie)| **cookie == u64::from(pid));
        let uid = found.and_then(|(uid, _)| PodUid::new(uid));
        uid.map_or(Owner::Other, Owner::Pod)
    }
}

impl Sandbox for FakeSandbox {
    fn cookie(&self) -> Result<Cookie, NetnsError> {
        self.world.ask(unseen, |_| self.cookie)
    }

    fn netns(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn facts(&self) -> Result<Facts, NetnsError> {
        self.world.ask(unseen, |world| {
            let space = &world.spaces[&self.cookie];
            let mut addresses: Vec<IpAddr> =
                vec![[127, 0, 0, 1].into(), [10, 0, 0, space.addresses].into()];
            if space.passthrough6 {
                addresses.insert(usize::from(space.addresses) % 3, PASSTHROUGH6.into());
            }
            addresses.push([0xfd00, 0, 0, 0, 0, 0, 0, 1].into());
            Facts {
                cookie: self.cookie,
                addresses,
                source4: None,
                source6: None,
                name_servers: Vec::new(),
            }
        })
    }

    fn raise_passthrough6(&self) -> Result<(), NetnsError> {
        self.world.ask(unseen, |_| ())?;
        let mut world = self.world.0.borrow_mut();
        let space = world.spaces.get_mut(&self.cookie);
        space.expect("a namespace").passthrough6 = true;
        Ok(())
    }

    fn given(&self) -> Option<&[IpAddr]> {
        self.given.as_deref()
    }

    fn users(&self) -> Result<Option<Users>, NetnsError> {
        self.world.ask(unseen, |_| None)
    }

    fn listeners(&self, _: &Policy) -> Result<Found, NetnsError> {
        self.world.ask(unseen, |world| {
            let inbound = world.spaces[&self.cookie].listening.map(|inode| Listener {
                inode,
                wildcard: true,
                socket: None,
                pid: None,
            });
            Found {
                inbound: inbound.into_iter().collect(),
                outbound: Vec::new(),
                spread: true,
            }
        })
    }

    fn connected_to(&self, _: u16, _: usize) -> Result<Option<Vec<Ends>>, NetnsError> {
        Ok(None)
    }

    fn sockets(&self, _: &[Storage<'_>], _: usize) -> Result<Sockets, NetnsError> {
        Ok(Sockets::default())
    }
}

impl Dataplane for Fake {
    fn armed(&self) -> Result<Vec<Cookie>, DataplaneError> {
        self.ask(failed, |world| {
            world.kernel.records.keys().copied().collect()
        })
    }

    fn new_rules_id(&mut self) -> u32 {
        self.0.borrow().last_rules + 1
    }

    fn write_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        let id = rules.record.rules;
        let mut world = self.0.borrow_mut();
        world.last_rules = world.last_rules.max(id);
        let known = world.kernel.sets.contains_key(&id);
        drop(world);
        assert!(!known, "sets {id} are written twice");
        self.verb(
            "writing sets",
            |world| world.write_sets(rules, false),
            |world| world.write_sets(rules, true),
        )
    }

    fn delete_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        let id = rules.record.rules;
        let whole = |world: &mut World| {
            world.kernel.sets.remove(&id);
        };
        self.verb("deleting sets", |world| world.spoil_sets(id), whole)
    }

    fn sweep_rules(&mut self) -> Result<(), DataplaneError> {
        let some = |world: &mut World, most: usize| {
            for id in world.sets_of_nobody().into_iter().take(most) {
                world.kernel.sets.remove(&id);
            }
        };
        self.verb(
            "sweeping",
            |world| some(world, 1),
            |world| some(world, usize::MAX),
        )
    }

    fn open_state(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        let whole = |world: &mut World| {
            world.kernel.states.entry(pod).or_default();
        };
        self.verb("opening state", whole, whole)
    }

    fn attach_inbound(&mut self, pod: Cookie, netns: BorrowedFd<'_>) -> Result<(), DataplaneError> {
        let world = self.0.borrow();
        let own = world.spaces[&pod].file.as_fd().as_raw_fd();
        drop(world);
        assert_eq!(netns.as_raw_fd(), own, "the link of {pod} goes elsewhere");
        let whole = |world: &mut World| {
            world.kernel.links.insert(pod);
            world.opened.insert(pod);
        };
        self.verb("attaching", whole, whole)
    }

    fn add_listener(&mut self, pod: Cookie, listener: &Listener) -> Result<(), DataplaneError> {
        let whole = |world: &mut World| {
            let inode = listener.inode;
            let own = world.sockets.get(&inode) == Some(&pod);
            assert!(own, "{pod} gets a listener of another namespace");
            world.add_listener(pod, inode);
        };
        self.verb("adding a listener", whole, whole)
    }

    fn commit(&mut self, pod: Cookie, rules: &Rules) -> Result<(), DataplaneError> {
        let whole = |world: &mut World| {
            let alive = world.is_alive(pod);
            assert!(
                !alive || world.kernel.links.contains(&pod),
                "the record of {pod} is written before its link is attached"
            );
            assert!(
                world.has_sets(rules),
                "the record of {pod} is written before its sets"
            );
            assert!(
                world.kernel.states.contains_key(&pod),
                "the record of {pod} is written before its state"
            );
            let port = rules.record.outbound_port;
            let owner = usize::from(port / 100 % 100);
            // A Pod file may name any namespace.
            assert!(
                !world.until_gone || world.spaces[&pod].owners.contains(&owner),
                "{pod} gets the policy of pod {owner}"
            );
            let rules = rules.record.rules;
            world.kernel.records.insert(pod, Record { rules, port });
        };
        self.verb("writing the record", |_| {}, whole)
    }

    fn activate(&mut self, pod: Cookie, _: bool) -> Result<(), DataplaneError> {
        let whole = |world: &mut World| {
            assert!(
                world.kernel.records.contains_key(&pod),
                "{pod} is activated before its record is written"
            );
            let listened = world.sockets.values().any(|of| *of == pod);
            assert!(listened, "{pod} is activated, and its proxy never listened");
            let listening = world.spaces[&pod].listening;
            let known = world.kernel.listeners.contains_key(&pod);
            assert!(
                listening.is_none() || known,
                "{pod} is activated before its listener is known"
            );
            world.kernel.states.insert(pod, true);
        };
        self.verb("activating", whole, whole)
    }

    fn rules_of(&self, pod: Cookie) -> Result<Option<u32>, DataplaneError> {
        self.ask(failed, |world| {
            world.kernel.records.get(&pod).map(|record| record.rules)
        })
    }

    fn has_listener(&self, pod: Cookie) -> bool {
        self.0.borrow().kernel.listeners.contains_key(&pod)
    }

    fn is_active(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        self.ask(failed, |world| world.is_active(pod))
    }

    fn disarm(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        let armed = |world: &World| {
            let record = world.kernel.records.contains_key(&pod);
            let must = world.until_gone || world.wanted.contains(&pod);
            assert!(
                !(record && must && world.is_alive(pod)),
                "{pod} is disarmed, and lives"
            );
        };
        let half = |world: &mut World| {
            armed(world);
            world.opened.remove(&pod);
            world.kernel.links.remove(&pod);
        };
        let whole = |world: &mut World| {
            armed(world);
            world.opened.remove(&pod);
            world.kernel.links.remove(&pod);
            world.kernel.records.remove(&pod);
            world.kernel.states.remove(&pod);
            world.kernel.listeners.remove(&pod);
        };
        self.verb("disarming", half, whole)
    }

    fn is_attached(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        self.ask(failed, |world| {
            world.opened.contains(&pod) && world.is_alive(pod)
        })
    }

    fn counts(&self, _: Cookie) -> Vec<(Row, u64)> {
        Vec::new()
    }

    fn flows(&self) -> HashMap<Cookie, usize> {
        HashMap::new()
    }

    fn forget_all(&mut self, pods: &HashSet<Cookie>) -> Result<(), DataplaneError> {
        let whole = |world: &mut World| {
            world.kernel.scans += 1;
            for pod in pods {
                let record = world.kernel.records.contains_key(pod);
                assert!(
                    !record,
                    "connections of {pod}, which is armed, are forgotten"
                );
                world.kernel.connections.remove(pod);
            }
        };
        self.verb("forgetting connections", |_| {}, whole)
    }

    fn keeper(&self, pod: Cookie) -> Option<String> {
        let layout = self.0.borrow().keeper(pod)?;
        Some(format!("v{layout}"))
    }

    fn repair(&mut self) -> Repairs {
        self.0.borrow_mut().look_after_others();
        Repairs::default()
    }

    fn mute(&mut self, _: QuietKey, _: Duration) {}

    fn remove(&mut self) -> Result<(), DataplaneError> {
        let mut world = self.0.borrow_mut();
        for (cookie, space) in &world.spaces {
            let ours = world.kernel.records.contains_key(cookie);
            let must = world.until_gone && space.captured && space.is_alive();
            assert!(!(must && ours), "everything is taken away, and a pod lives");
        }
        world.opened.clear();
        world.kernel = Kernel::default();
        Ok(())
    }
}
