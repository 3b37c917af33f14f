//! Records many cases at once, each worker in namespaces of its own.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, ScopedJoinHandle},
};

use crate::{case::Case, host::Host, plan::Planned};

/// Records every case of a plan, with `count` connections each, in the plan's order.
pub fn record(plan: &[Planned], count: usize) -> Vec<Case> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let mut cases: Vec<(usize, Case)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| take(plan, count, &next)))
            .collect();
        let done = workers.into_iter().map(ScopedJoinHandle::join);
        done.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    cases.sort_by_key(|(index, _)| *index);
    cases.into_iter().map(|(_, case)| case).collect()
}

fn take(plan: &[Planned], count: usize, next: &AtomicUsize) -> Vec<(usize, Case)> {
    let mut hosts = HashMap::new();
    let mut cases = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(planned) = plan.get(index) else {
            return cases;
        };
        let host = hosts
            .entry(planned.kind)
            .or_insert_with(|| Host::new(planned.kind));
        cases.push((index, Case::record(host, planned, count)));
    }
}
