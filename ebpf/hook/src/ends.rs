//! Both ends of the socket of a `sockops` callback.

use core::hint::black_box;

use aya_ebpf::bindings::bpf_sock_ops;
use sidestep_ebpf_common::Addr;

use crate::{AF_INET, load, load6};

/// Both ends of a socket. Read in one place: reads in several arms would be merged into one at a computed offset, which
/// the verifier takes for a context pointer that was changed.
#[derive(Clone, Copy)]
pub struct Ends {
    /// The socket's own address.
    pub local: Addr,
    /// Its own port, host byte order.
    pub local_port: u16,
    /// Its peer's address.
    pub remote: Addr,
    /// Its peer's port, host byte order.
    pub remote_port: u16,
}

impl Ends {
    /// Those of a socket of this family.
    #[inline(always)]
    pub fn of(ops: *mut bpf_sock_ops, family: u32) -> Self {
        let (local, remote) = if family == AF_INET {
            (
                Addr::v4(black_box(load!(ops, local_ip4))),
                Addr::v4(black_box(load!(ops, remote_ip4))),
            )
        } else {
            (load6!(ops, local_ip6), load6!(ops, remote_ip6))
        };
        Self {
            local,
            local_port: load!(ops, local_port) as u16,
            remote,
            // In network byte order, in the lower half of the word.
            remote_port: u32::from_be(load!(ops, remote_port)) as u16,
        }
    }
}
