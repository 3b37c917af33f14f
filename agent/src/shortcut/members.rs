//! Pods come, change what they allow, and go.

use std::{net::IpAddr, os::fd::OwnedFd};

use sidestep_ebpf_common::{
    Addr,
    shortcut::{EndState, IS_PROXY, Member, PLACES, PodSwitch},
};
use sidestep_kernel::{maps::MapError, netns::Cookie};

use super::{Allowed, Participant, Shortcut, ShortcutError};
use crate::rules;

impl Shortcut {
    /// Lets a pod take part, or changes what it allows.
    pub fn admit(&mut self, pod: &Participant) -> Result<(), ShortcutError> {
        let place = match self.pods.get(&pod.cookie) {
            Some((_, Some(known))) if known == pod => return Ok(()),
            Some((place, _)) => *place,
            None => {
                let place = self.free_place(pod.cookie)?;
                self.maps.begin_shares(place, None)?;
                place
            }
        };
        self.publish(pod.cookie, &pod.addresses)?;
        // The switch before the member: nothing reads a place that no member has.
        let allowed = Allowed {
            into_application: pod.allowed.into_application && self.watch_readers(),
            ..pod.allowed
        };
        let switch = PodSwitch::new(pod.cookie, allowed.flags())
            .of(self.namespaces.enter(pod.cookie, &pod.namespace));
        self.maps.switches.set(place, switch)?;
        let member = Member {
            place,
            outbound_port: pod.outbound_port,
            inbound_port: pod.inbound_port,
            uids: pod.uids,
            gids: pod.gids,
        };
        self.maps.members.insert(pod.cookie, member)?;
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
        self.maps.proxies.set(*place, process)?;
        for listener in listeners {
            self.maps
                .states
                .insert(*listener, EndState::new(IS_PROXY))?;
        }
        Ok(())
    }

    /// Turns a pod off, at once and for every connection it has, and takes it out. Its sockets stay where they are until
    /// they are closed: what they have not read yet is not lost.
    pub fn dismiss(&mut self, cookie: Cookie) -> Result<(), ShortcutError> {
        self.namespaces.leave(cookie);
        let Some((place, _)) = self.pods.remove(&cookie) else {
            return Ok(());
        };
        self.leave(place, cookie)?;
        self.maps.members.remove(&cookie)?;
        Ok(self.publish(cookie, &[])?)
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
            let member = self.maps.members.require(&cookie)?;
            let old = member.place;
            let switch = self.maps.switches.get(old)?;
            let process = self.maps.proxies.get(old)?;
            self.maps.switches.set(place, switch)?;
            self.maps.proxies.set(place, process)?;
            self.maps.begin_shares(place, Some(old))?;
            self.maps
                .members
                .insert(cookie, Member { place, ..member })?;
            self.leave(old, cookie)?;
            if let Some((known, _)) = self.pods.get_mut(&cookie) {
                *known = place;
            }
        }
        Ok(())
    }

    /// The place allows nothing, and remembers whose it was.
    fn leave(&mut self, place: u32, cookie: Cookie) -> Result<(), MapError> {
        self.maps.switches.set(place, PodSwitch::new(cookie, 0))?;
        self.maps.proxies.set(place, 0)
    }

    /// One that this pod did not have before: connections from that time stay as they are.
    fn free_place(&self, cookie: Cookie) -> Result<u32, ShortcutError> {
        let taken = |place: u32| self.pods.values().any(|(other, _)| *other == place);
        let had = |place: u32| {
            let switch = self.maps.switches.get(place);
            switch.is_ok_and(|switch| switch.cookie == cookie)
        };
        (1..PLACES)
            .find(|place| !taken(*place) && !had(*place))
            .ok_or(ShortcutError::Crowded)
    }

    /// Makes known that a pod has these addresses, as far as no other says so too.
    fn publish(&mut self, cookie: Cookie, addresses: &[IpAddr]) -> Result<(), MapError> {
        let far = addresses.iter().filter(|address| !address.is_loopback());
        for (address, owner) in self.claims.replace(cookie, far.copied().map(rules::addr)) {
            match owner {
                Some(owner) => self.maps.addresses.insert(address, owner)?,
                None => drop(self.maps.addresses.remove(&address)?),
            }
        }
        Ok(())
    }

    /// What an earlier agent published of pods that are no members is nobody's.
    pub(super) fn sweep_addresses(&mut self) -> Result<(), MapError> {
        let published: Vec<(Addr, Cookie)> = self.maps.addresses.iter().flatten().collect();
        for (address, owner) in published {
            if !self.pods.contains_key(&owner) {
                self.maps.addresses.remove(&address)?;
            }
        }
        Ok(())
    }
}
