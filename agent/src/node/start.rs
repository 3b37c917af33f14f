//! From nothing to programs that are attached, pinned where they outlive the agent, and proven.

use std::path::PathBuf;

use anyhow::Context;

use super::Settings;
use crate::{
    cgroup::sweep,
    dataplane::{Bpf, Sightings},
    preflight::{self, Lock, PinFolder},
    probe,
    sandbox::discover,
    shortcut,
    worker::prove,
};

/// What a start gives.
pub(super) struct Started {
    pub(super) dataplane: Bpf,
    pub(super) sightings: Sightings,
    pub(super) cgroup: PathBuf,
    pub(super) lock: Lock,
}

/// Does it. What an earlier agent pinned goes on with the programs it has until this agent's were seen to act.
pub(super) fn start(settings: &Settings) -> anyhow::Result<Started> {
    preflight::capabilities::check()?;
    let cgroup = match &settings.cgroup {
        Some(cgroup) => cgroup.clone(),
        None => discover::pods_cgroup()?,
    };
    if settings.pod.is_some() {
        discover::check_own_container(&cgroup)?;
    }
    let offsets = preflight::check(&cgroup)?;
    // Another agent that is about to end holds it for a moment.
    let lock = preflight::lock(&cgroup)?;
    let mut pins = PinFolder::lock(&settings.pin)?;
    preflight::check_pins(&settings.pin)?;
    sweep(&cgroup);
    if Bpf::is_pinned(&settings.pin) {
        probe::rehearse(&mut pins, &cgroup, offsets)
            .context("this agent's programs do not act; running pods keep the ones they have")?;
    }
    let proof = shortcut::Proof::start(settings.shortcut, &cgroup);
    let mut dataplane = Bpf::establish(pins, &cgroup, offsets)?;
    dataplane.take_shortcut(proof.establish(&settings.pin));
    let sightings = dataplane.sightings()?;
    prove(&mut dataplane, &cgroup)?;
    Ok(Started {
        dataplane,
        sightings,
        cgroup,
        lock,
    })
}
