//! Kernels on which nothing may enter a sockhash, whatever a test would say: a test would find out by a crash.

use std::ops::RangeInclusive;

/// Why the shortcut is not even tried on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Go's servers listen with MPTCP; a plain connection that one of them accepts crashes an unfixed kernel when it is in
    /// a sockhash ("mptcp: Fix proto fallback detection with BPF", c77b3b79a92e).
    #[error(
        "this kernel may crash when an MPTCP listener accepts a connection that is in a sockhash (fixed in 6.1.159, 6.6.118, 6.12.60, 6.17.10 and 6.18)"
    )]
    MptcpAccept,
    /// Connections that are in a sockhash stall for seconds: they are not told when they may write again.
    #[error("this kernel loses EPOLLOUT on sockets in a sockhash")]
    LostWakeups,
    /// The release does not start with a version.
    #[error("the kernel's release does not tell its version")]
    NoVersion,
}

/// Releases of which that is known. Each pair: the series, and the first release with the fix.
const MPTCP_FIXED: [((u32, u32), u32); 4] =
    [((6, 1), 159), ((6, 6), 118), ((6, 12), 60), ((6, 17), 10)];
/// Seen with 6.12.79, and not with 6.12.73; later ones the self-test judges.
const LOSE_WAKEUPS: RangeInclusive<(u32, u32, u32)> = (6, 12, 74)..=(6, 12, 79);

/// Judges a kernel by its release, as `uname -r` tells it. Distributions keep their own count after the dash, so where
/// `version` (`uname -v`) names the stable release, as Debian's does, that is taken.
pub fn judge(release: &str, version: &str) -> Result<(), Unfit> {
    let (major, minor, patch) = stable_in(version)
        .or_else(|| numbers(release))
        .ok_or(Unfit::NoVersion)?;
    if LOSE_WAKEUPS.contains(&(major, minor, patch)) {
        return Err(Unfit::LostWakeups);
    }
    if (major, minor) >= (6, 18) {
        return Ok(());
    }
    let fixed = MPTCP_FIXED
        .iter()
        .any(|(series, from)| *series == (major, minor) && patch >= *from);
    if fixed {
        Ok(())
    } else {
        Err(Unfit::MptcpAccept)
    }
}

/// `#1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)` → 6.1.158.
fn stable_in(version: &str) -> Option<(u32, u32, u32)> {
    let after = version.split_once("Debian ")?.1;
    numbers(after)
}

fn numbers(text: &str) -> Option<(u32, u32, u32)> {
    let version = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    let mut parts = version.split('.').map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    let minor = parts.next()?.ok()?;
    Some((major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_stable_release() {
        let plain = "#1 SMP PREEMPT_DYNAMIC";
        for (release, version, verdict) in [
            ("6.18.44", plain, Ok(())),
            ("7.0.0-rc1", plain, Ok(())),
            ("6.17.9", plain, Err(Unfit::MptcpAccept)),
            ("6.17.10", plain, Ok(())),
            ("6.12.59", plain, Err(Unfit::MptcpAccept)),
            ("6.12.60", plain, Ok(())),
            ("6.12.73", plain, Ok(())),
            ("6.12.74", plain, Err(Unfit::LostWakeups)),
            ("6.12.79", plain, Err(Unfit::LostWakeups)),
            ("6.12.80", plain, Ok(())),
            ("6.5.0-45-generic", plain, Err(Unfit::MptcpAccept)),
            ("5.14.0-570.el9.x86_64", plain, Err(Unfit::MptcpAccept)),
            (
                "6.1.0-41-cloud-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)",
                Err(Unfit::MptcpAccept),
            ),
            (
                "6.1.0-42-cloud-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.1.159-1 (2025-12-30)",
                Ok(()),
            ),
            ("unknown", plain, Err(Unfit::NoVersion)),
        ] {
            assert_eq!(judge(release, version), verdict, "{release} {version}");
        }
    }
}
