//! What is measured: two pods with sidecars, somewhere.

use std::collections::BTreeMap;

use super::Setting;
use sidestep_kit::{
    app::Seen,
    load::Measured,
    mesh::{CpuTime, Requests},
    traffic::Load,
};

/// A client's pod and a server's, redirected in one way.
pub trait Stage {
    /// Which way.
    fn setting(&self) -> Setting;

    /// Makes new connections between the sidecars, where that can be done: those there are stay for an hour, and each
    /// round shall have its own luck with Envoy's workers.
    fn renew(&mut self);

    /// What the server saw of so many requests.
    fn answers(&self, count: usize) -> anyhow::Result<Vec<Seen>>;

    /// Loads the server from the client's pod.
    fn load(&self, what: &Load) -> anyhow::Result<Measured>;

    /// Processor time that everything in the two pods has used so far.
    fn cpu(&self) -> CpuTime;

    /// Requests that the sidecars have finished, where they are asked.
    fn requests(&self) -> Option<Requests>;

    /// Waits until the sidecars have counted as many more.
    fn wait_for_requests(&self, before: Requests, count: u64) -> Requests;

    /// What the shortcut's programs counted, by name.
    fn counts(&self) -> BTreeMap<String, u64>;
}
