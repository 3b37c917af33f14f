//! What is known of kernels by their versions. It decides nothing: the self-test does. It names the release that mends what
//! the self-test found.

use std::{fmt, fs};

/// A stable release of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32, pub u32);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// First releases of each series with "mptcp: Fix proto fallback detection with BPF" (c77b3b79a92e), and with its companion
/// "mptcp: Disallow MPTCP subflows from sockmap" (fbade4bd08ba). No stable release since 6.1 has one of them alone.
const MPTCP_FIXED: [Release; 4] = [
    Release(6, 1, 159),
    Release(6, 6, 118),
    Release(6, 12, 60),
    Release(6, 17, 10),
];

/// What is wrong with a kernel that takes an MPTCP listener into a sockhash.
pub fn mptcp_crash(stable: Option<Release>) -> String {
    let wrong =
        "this kernel may crash when an MPTCP listener accepts a connection that is in a sockhash";
    let of_series =
        |fixed: &&Release| stable.is_some_and(|own| (own.0, own.1) == (fixed.0, fixed.1));
    match MPTCP_FIXED.iter().find(of_series) {
        Some(fixed) => format!("{wrong}; fixed in {fixed}"),
        None => format!("{wrong}; fixed in 6.1.159, 6.6.118, 6.12.60, 6.17.10 and 6.18"),
    }
}

/// "bpf, sockmap: Fix FIONREAD for sockmap" (929e30f93125: 6.6.128, 6.12.75, 6.18.14, 6.19) counts redirected bytes only;
/// "Account for receive queue in FIONREAD without a verdict program" (04af4efde58a) mends that.
pub const FIONREAD: &str =
    "this kernel miscounts FIONREAD on sockets in a sockhash; fixed in 6.12.114 and 7.2";

/// The running kernel, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` tells it.
    pub release: String,
    /// The stable release it was made from, where anything tells.
    pub stable: Option<Release>,
}

impl Kernel {
    /// Reads what there is.
    pub fn running() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        let signature = fs::read_to_string("/proc/version_signature").unwrap_or_default();
        Self {
            stable: stable(&release, &uname.version().to_string_lossy(), &signature),
            release,
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}", self.release)?;
        match self.stable {
            Some(stable) if !self.release.starts_with(&stable.to_string()) => {
                write!(f, " (from {stable})")
            }
            _ => Ok(()),
        }
    }
}

/// The stable release behind `uname -r`. Ubuntu tells it in `/proc/version_signature`, Debian in `uname -v`. Other
/// distributions either keep the stable number, or count by themselves after a zero: then nothing is known.
pub fn stable(release: &str, version: &str, signature: &str) -> Option<Release> {
    let ubuntu = signature.split_whitespace().last().and_then(numbers);
    let debian = || numbers(version.split_once("Debian ")?.1);
    let own = || {
        let own = numbers(release)?;
        let counts_apart = own.2 == 0 && release.contains('-');
        (!counts_apart).then_some(own)
    };
    ubuntu.or_else(debian).or_else(own)
}

/// The version that a text begins with.
fn numbers(text: &str) -> Option<Release> {
    let version = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    let mut parts = version.split('.').map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    let minor = parts.next()?.ok()?;
    let patch = parts.next().and_then(Result::ok).unwrap_or(0);
    Some(Release(major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "#1 SMP PREEMPT_DYNAMIC";

    #[test]
    fn the_stable_release_is_found_where_anything_tells_it() {
        for (release, version, signature, want) in [
            ("6.18.44", PLAIN, "", Some(Release(6, 18, 44))),
            ("6.18.0", PLAIN, "", Some(Release(6, 18, 0))),
            (
                "6.1.0-41-cloud-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)",
                "",
                Some(Release(6, 1, 158)),
            ),
            (
                "6.12.117+deb12-cloud-amd64",
                "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1~deb12u1 (2026-11-14)",
                "",
                Some(Release(6, 12, 117)),
            ),
            (
                "6.8.0-1059-azure",
                "#66-Ubuntu SMP Tue Aug 12 16:34:23 UTC 2025",
                "Ubuntu 6.8.0-1059.66-azure 6.8.12\n",
                Some(Release(6, 8, 12)),
            ),
            (
                "6.17.0-12-generic",
                "#12~24.04.1-Ubuntu SMP PREEMPT_DYNAMIC",
                "Ubuntu 6.17.0-12.12~24.04.1-generic 6.17.9\n",
                Some(Release(6, 17, 9)),
            ),
            // Ubuntu's, in a container that does not show the signature.
            ("6.8.0-1059-azure", "#66-Ubuntu SMP", "", None),
            (
                "6.12.0-124.8.1.el10_1.x86_64",
                "#1 SMP PREEMPT_DYNAMIC Tue Nov 4 12:00:00 EST 2025",
                "",
                None,
            ),
            ("5.14.0-570.el9.x86_64", PLAIN, "", None),
            (
                "6.1.158-180.294.amzn2023.x86_64",
                PLAIN,
                "",
                Some(Release(6, 1, 158)),
            ),
            ("6.6.111+", PLAIN, "", Some(Release(6, 6, 111))),
            (
                "6.6.117.1-1.azl3",
                "#1 SMP PREEMPT_DYNAMIC Wed Nov 26 01:51:35 UTC 2025",
                "",
                Some(Release(6, 6, 117)),
            ),
            ("6.18.5-talos", PLAIN, "", Some(Release(6, 18, 5))),
            ("7.0.0-rc1", PLAIN, "", None),
            ("unknown", PLAIN, "", None),
        ] {
            assert_eq!(stable(release, version, signature), want, "{release}");
        }
    }

    #[test]
    fn a_message_names_the_release_that_mends_it() {
        for (stable, want) in [
            (
                Some(Release(6, 12, 59)),
                "is in a sockhash; fixed in 6.12.60",
            ),
            (
                Some(Release(6, 1, 158)),
                "is in a sockhash; fixed in 6.1.159",
            ),
            (
                Some(Release(6, 8, 12)),
                "is in a sockhash; fixed in 6.1.159, 6.6.118, 6.12.60, 6.17.10 and 6.18",
            ),
            (
                None,
                "is in a sockhash; fixed in 6.1.159, 6.6.118, 6.12.60, 6.17.10 and 6.18",
            ),
        ] {
            let message = mptcp_crash(stable);
            assert!(message.ends_with(want), "{message}");
        }
    }

    #[test]
    fn a_kernel_is_named_with_the_release_behind_its_own_count() {
        let named = |release: &str, stable| {
            let release = release.to_owned();
            Kernel { release, stable }.to_string()
        };
        assert_eq!(
            named("6.8.0-1059-azure", Some(Release(6, 8, 12))),
            "Linux 6.8.0-1059-azure (from 6.8.12)"
        );
        let debian = named("6.12.117+deb12-cloud-amd64", Some(Release(6, 12, 117)));
        assert_eq!(debian, "Linux 6.12.117+deb12-cloud-amd64");
        assert_eq!(
            named("6.12.0-124.el10.x86_64", None),
            "Linux 6.12.0-124.el10.x86_64"
        );
    }
}
