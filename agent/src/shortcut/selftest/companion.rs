//! Kernels that let MPTCP's sockets into a sockhash may crash when one of them accepts a plain connection that is in one. To
//! try that is to crash, so its companion is asked: the fix came together with another, since which the kernel refuses an
//! MPTCP listener there with EOPNOTSUPP. Versions tell nothing: distributions have both fixes under old numbers.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with},
};
use sidestep_ebpf_common::shortcut::MPTCP_PORT;

use super::{
    super::kernel::{self, Kernel},
    bench::mptcp_answer,
    pair::Outcome,
};

/// The switch of the network namespace that the process is in, as it and as the host sees it: a container's own may be
/// read-only.
const SWITCHES: [&str; 2] = [
    "/proc/sys/net/mptcp/enabled",
    "/proc/1/root/proc/sys/net/mptcp/enabled",
];

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It has no MPTCP: there is nothing to fear.
    NoMptcp,
    /// It has, but not here, and it cannot be turned on to be asked.
    TurnedOff,
    /// To a listener in a sockhash: an error's number; 1 where it took it, 0 where it was not seen to listen. Linux 6.17.8,
    /// which has no fix, says EINVAL.
    Of(u64),
}

/// Whether the kernel has the fix.
pub(super) fn holds() -> Outcome {
    judge(ask()?, &Kernel::running())
}

fn judge(answer: Answer, kernel: &Kernel) -> Outcome {
    const REFUSED: u64 = libc::EOPNOTSUPP as u64;
    match answer {
        Answer::NoMptcp | Answer::Of(REFUSED) => Ok(()),
        Answer::TurnedOff => Err(format!(
            "{kernel}: the kernel cannot be asked about MPTCP, which is off in new network namespaces and cannot be turned on \
             ({} cannot be written); a pod could still turn it on",
            SWITCHES[0]
        )),
        Answer::Of(0) => Err("the kernel does not see an MPTCP listener".to_owned()),
        Answer::Of(_) => Err(format!("{kernel}: {}", kernel::mptcp_crash(kernel.stable))),
    }
}

fn ask() -> Outcome<Answer> {
    let listener = match make() {
        // A namespace of the self-test's own, in which it may be turned on.
        Err(Errno::NOPROTOOPT) => {
            let mut written = SWITCHES.iter().map(|switch| fs::write(switch, "1"));
            if !written.any(|done| done.is_ok()) {
                return Ok(Answer::TurnedOff);
            }
            make()
        }
        made => made,
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(Errno::PROTONOSUPPORT | Errno::INVAL) => return Ok(Answer::NoMptcp),
        Err(e) => return Err(e.to_string()),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, MPTCP_PORT));
    bind(&listener, &address).map_err(|e| e.to_string())?;
    listen(&listener, 1).map_err(|e| e.to_string())?;
    mptcp_answer().map(Answer::Of)
}

fn make() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::MPTCP),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shortcut::kernel::Release;

    #[test]
    fn only_a_kernel_that_refuses_or_knows_no_mptcp_is_safe() {
        let ubuntu = Kernel {
            release: "6.8.0-1059-azure".to_owned(),
            stable: Some(Release(6, 8, 12)),
        };
        let of = |answer| judge(answer, &ubuntu);
        // Whatever its number says.
        assert_eq!(of(Answer::Of(95)), Ok(()));
        assert_eq!(of(Answer::NoMptcp), Ok(()));
        for unfixed in [1, 22] {
            assert_eq!(
                of(Answer::Of(unfixed)),
                Err(
                    "Linux 6.8.0-1059-azure (from 6.8.12): this kernel may crash when an MPTCP listener accepts a connection \
                     that is in a sockhash; fixed in 6.1.159, 6.6.118, 6.12.60, 6.17.10 and 6.18"
                        .to_owned()
                )
            );
        }
        for unclear in [Answer::TurnedOff, Answer::Of(0)] {
            assert!(of(unclear).is_err(), "{unclear:?}");
        }
    }
}
