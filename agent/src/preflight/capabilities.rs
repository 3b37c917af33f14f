//! What the agent must be allowed to do, and why: the one list, from which the chart's is written.

use std::fs;

use super::PreflightError;

/// A capability that the agent uses.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    bit: u32,
    /// Its name, as `capabilities(7)` has it.
    pub name: &'static str,
    /// What for.
    pub why: &'static str,
}

/// All of them. `CAP_BPF` and `CAP_PERFMON` are not among them: whoever may enter a network namespace has
/// `CAP_SYS_ADMIN`, and that implies both (the kernel's `bpf_capable`, `perfmon_capable`).
pub const NEEDED: [Capability; 4] = [
    Capability {
        bit: 2,
        name: "CAP_DAC_READ_SEARCH",
        why: "to see which descriptors another user's process has, and so the sockets of a proxy that listens already",
    },
    Capability {
        bit: 12,
        name: "CAP_NET_ADMIN",
        why: "to put ::6 on a pod's loopback device, to raise that of the probe's own namespace, and for the shortcut's programs",
    },
    Capability {
        bit: 19,
        name: "CAP_SYS_PTRACE",
        why: "to see which network namespace a pod's process is in, and to duplicate its sockets",
    },
    Capability {
        bit: 21,
        name: "CAP_SYS_ADMIN",
        why: "to enter a pod's network namespace and the node's cgroup namespace, and to load BPF programs and maps",
    },
];

/// Names the first that is missing.
pub fn check() -> Result<(), PreflightError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = effective(&status).unwrap_or(u64::MAX);
    let missing = NEEDED.iter().find(|c| effective >> c.bit & 1 == 0);
    missing.map_or(Ok(()), |capability| {
        Err(PreflightError::Capability(*capability))
    })
}

/// The effective set, from the text of `/proc/<pid>/status`.
fn effective(status: &str) -> Option<u64> {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000201004\n";
        assert_eq!(effective(status), Some(0x0020_1004));
    }
}
