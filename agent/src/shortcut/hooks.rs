//! The shortcut's two hooks on the pods' cgroup.

use sidestep_kernel::{
    AttachType,
    link::{Hook, hook},
};

use super::{left, object};

/// Who marks an end is there before who makes one.
pub(super) static HOOKS: [Hook; 2] = [
    hook(left::GUARD, object::ON_OPTION, AttachType::Setsockopt),
    hook("sock_ops", object::ON_CONNECTION, AttachType::SockOps),
];
