//! Pods come, change what they allow, and go.

use std::{net::IpAddr, os::fd::OwnedFd};

use sidestep_ebpf_common::{
    Addr,
    shortcut::{EndState, IS_PROXY, Member, PLACES, PodSwitch},
};

use super::{Allowed, Participant, Shortcut, ShortcutError, maps};
use crate::{netns::Cookie, rules};
use maps::error;

impl Shortcut {
    /// Lets a pod take part, or changes what it allows.
    pub fn admit(&mut self, pod: &Participant) -> Result<(), ShortcutError> {
        let place = match self.pods.get(&pod.cookie) {
            Some((_, Some(known))) if known == pod => return Ok(()),
            Some((place, _)) => *place,
            None => self.free_place(pod.cookie)?,
        };
        self.publish(pod.cookie, &pod.addresses)?;
        // The switch before the member: nothing reads a place that no member has.
        let allowed = Allowed {
            into_application: pod.allowed.into_application && self.watch_readers(),
            ..pod.allowed
        };
        self.switch(place, PodSwitch::new(pod.cookie, allowed.flags()))?;
        let member = Member {
            place,
            outbound_port: pod.outbound_port,
            inbound_port: pod.inbound_port,
            uids: pod.uids,
            gids: pod.gids,
        };
        self.enter(pod.cookie, member)?;
        self.pods.insert(pod.cookie, (place, Some(pod.clone())));
        Ok(())
    }

    /// Tells who the proxy of a pod is that listened before the pod took part: its process, and its listening sockets
    /// on the capture ports.
    pub fn adopt_proxy(
        &mut self,
        cookie: Cookie,
        process: u32,
        listeners: &[&OwnedFd],
    ) -> Result<(), ShortcutError> {
        let Some((place, _)) = self.pods.get(&cookie) else {
            return Ok(());
        };
        self.note_process(*place, process)?;
        for listener in listeners {
            let state = EndState::new(IS_PROXY);
            let write = self.maps.states.insert(*listener, state, 0);
            write.map_err(|e| error("STATES", &e))?;
        }
        Ok(())
    }

    /// Turns a pod off, at once and for every connection it has, and takes it out. Its sockets stay where they are until
    /// they are closed: what they have not read yet is not lost.
    pub fn dismiss(&mut self, cookie: Cookie) -> Result<(), ShortcutError> {
        let Some((place, _)) = self.pods.remove(&cookie) else {
            return Ok(());
        };
        self.leave(place, cookie)?;
        maps::gone(self.maps.members.remove(&cookie)).map_err(|e| error("MEMBERS", &e))?;
        self.publish(cookie, &[])
    }

    /// Dismisses whoever is not among these.
    pub fn keep_only(&mut self, pods: &[Cookie]) -> Result<(), ShortcutError> {
        let strangers = self.pods.keys().filter(|pod| !pods.contains(pod));
        for pod in strangers.copied().collect::<Vec<_>>() {
            self.dismiss(pod)?;
        }
        Ok(())
    }

    /// Gives every pod another place. Connections that are open remember the old one, and go by TCP from now on; new ones are
    /// as they were.
    pub(super) fn move_all(&mut self) -> Result<(), ShortcutError> {
        for cookie in self.pods.keys().copied().collect::<Vec<_>>() {
            let place = self.free_place(cookie)?;
            let read = self.maps.members.get(&cookie, 0);
            let member = read.map_err(|e| error("MEMBERS", &e))?;
            let old = member.place;
            let switch = self.maps.switches.get(&old, 0);
            let process = self.maps.proxies.get(&old, 0);
            self.switch(place, switch.map_err(|e| error("SWITCHES", &e))?)?;
            self.note_process(place, process.map_err(|e| error("PROXY_PROCESSES", &e))?)?;
            self.enter(cookie, Member { place, ..member })?;
            self.leave(old, cookie)?;
            if let Some((known, _)) = self.pods.get_mut(&cookie) {
                *known = place;
            }
        }
        Ok(())
    }

    fn enter(&mut self, cookie: Cookie, member: Member) -> Result<(), ShortcutError> {
        let write = self.maps.members.insert(cookie, member, 0);
        write.map_err(|e| error("MEMBERS", &e))
    }

    /// The place allows nothing, and remembers whose it was.
    fn leave(&mut self, place: u32, cookie: Cookie) -> Result<(), ShortcutError> {
        self.switch(place, PodSwitch::new(cookie, 0))?;
        self.note_process(place, 0)
    }

    fn switch(&mut self, place: u32, switch: PodSwitch) -> Result<(), ShortcutError> {
        let write = self.maps.switches.set(place, switch, 0);
        write.map_err(|e| error("SWITCHES", &e))
    }

    fn note_process(&mut self, place: u32, process: u32) -> Result<(), ShortcutError> {
        let write = self.maps.proxies.set(place, process, 0);
        write.map_err(|e| error("PROXY_PROCESSES", &e))
    }

    /// One that this pod did not have before: connections from that time stay as they are.
    fn free_place(&self, cookie: Cookie) -> Result<u32, ShortcutError> {
        let taken = |place: u32| self.pods.values().any(|(other, _)| *other == place);
        let had = |place: u32| {
            let switch = self.maps.switches.get(&place, 0);
            switch.is_ok_and(|switch| switch.cookie == cookie)
        };
        (1..PLACES)
            .find(|place| !taken(*place) && !had(*place))
            .ok_or(ShortcutError::Crowded)
    }

    /// Makes known that a pod has these addresses, as far as no other says so too.
    fn publish(&mut self, cookie: Cookie, addresses: &[IpAddr]) -> Result<(), ShortcutError> {
        let far = addresses.iter().filter(|address| !address.is_loopback());
        for (address, owner) in self.claims.replace(cookie, far.copied().map(rules::addr)) {
            let write = match owner {
                Some(owner) => self.maps.addresses.insert(address, owner, 0),
                None => maps::gone(self.maps.addresses.remove(&address)),
            };
            write.map_err(|e| error("ADDRESSES", &e))?;
        }
        Ok(())
    }

    /// What an earlier agent published of pods that are no members is nobody's.
    pub(super) fn sweep_addresses(&mut self) -> Result<(), ShortcutError> {
        let published: Vec<(Addr, Cookie)> = self.maps.addresses.iter().flatten().collect();
        for (address, owner) in published {
            if !self.pods.contains_key(&owner) {
                let removed = self.maps.addresses.remove(&address);
                maps::gone(removed).map_err(|e| error("ADDRESSES", &e))?;
            }
        }
        Ok(())
    }
}
