//! The captured connections that are remembered, and how many the programs count.

use std::collections::{HashMap, HashSet};

use sidestep_ebpf_common::FlowKey;
use sidestep_kernel::{maps::MapError, netns::Cookie};

use super::maps::Maps;

impl Maps {
    /// How many the programs count as open, by pod.
    pub(super) fn open(&self) -> Result<HashMap<Cookie, i64>, MapError> {
        self.open.iter().collect()
    }

    /// Those of some pods, in one scan.
    pub(super) fn remembered(
        &self,
        whose: impl Fn(Cookie) -> bool,
    ) -> HashMap<Cookie, HashSet<FlowKey>> {
        let mut remembered: HashMap<_, HashSet<_>> = HashMap::new();
        // Where entries come and go meanwhile, some are told of twice.
        for flow in self.flows.keys().flatten() {
            if whose(flow.cookie) {
                remembered.entry(flow.cookie).or_default().insert(flow);
            }
        }
        remembered
    }

    /// Removes all of some pods, in one scan.
    pub(super) fn forget_all(&mut self, whose: impl Fn(Cookie) -> bool) -> Result<(), MapError> {
        for (pod, flows) in self.remembered(whose) {
            self.forget(pod, &flows, 0)?;
        }
        Ok(())
    }

    /// Removes what has `ended` of a pod's, and corrects the count by that and by what was `miscounted`.
    pub(super) fn forget(
        &mut self,
        pod: Cookie,
        ended: &HashSet<FlowKey>,
        miscounted: i64,
    ) -> Result<(), MapError> {
        let mut less = miscounted;
        for flow in ended {
            less += i64::from(self.flows.remove(flow)?);
        }
        let count = self.open.get(&pod)?;
        if let Some(count) = count.filter(|_| less != 0) {
            // What programs add between the two calls is missing, until the next correction. A pod that was let go meanwhile
            // gets no entry.
            self.open.replace(pod, count - less)?;
        }
        Ok(())
    }
}
