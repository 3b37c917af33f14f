//! The hooks on the pods' cgroup: which program goes where.

use sidestep_kernel::{
    AttachType,
    link::{Hook, hook},
};

/// Every cgroup hook, readers first: while the programs of two versions are mixed, nothing is written that the old
/// readers do not understand.
pub(super) static HOOKS: [Hook; 11] = [
    hook("getsockopt", "on_getsockopt", AttachType::Getsockopt),
    hook(
        "getpeername4",
        "on_getpeername4",
        AttachType::Inet4Getpeername,
    ),
    hook(
        "getpeername6",
        "on_getpeername6",
        AttachType::Inet6Getpeername,
    ),
    hook("recvmsg4", "on_recvmsg4", AttachType::Udp4Recvmsg),
    hook("recvmsg6", "on_recvmsg6", AttachType::Udp6Recvmsg),
    hook("sock_ops", "on_sock_ops", AttachType::SockOps),
    hook("sock_create", "on_sock_create", AttachType::InetSockCreate),
    hook("sendmsg4", "on_sendmsg4", AttachType::Udp4Sendmsg),
    hook("sendmsg6", "on_sendmsg6", AttachType::Udp6Sendmsg),
    hook("connect4", "on_connect4", AttachType::Inet4Connect),
    hook("connect6", "on_connect6", AttachType::Inet6Connect),
];

/// The program of each pod's namespace.
pub(super) const INBOUND: Hook = hook("sk_lookup", "on_sk_lookup", AttachType::SkLookup);
