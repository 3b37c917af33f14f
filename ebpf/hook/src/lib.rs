//! What the hooks of both BPF objects share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`context`] | the kernel's context structs, one word at a time ([`load!`], [`load6!`], [`store!`]) |
//! | [`ends`] | both ends of the socket of a `sockops` callback |
//! | [`memory`] | kernel memory, socket storage, and the constants that the agent sets ([`constants!`]) |
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the kernel's context fields are wider than what they hold"
)]
#![expect(
    clippy::inline_always,
    reason = "a hook must end up in one function: the verifier follows context pointers poorly through calls"
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod context;
pub mod ends;
pub mod memory;

/// AF_INET.
pub const AF_INET: u32 = 2;
/// AF_INET6.
pub const AF_INET6: u32 = 10;
/// `BPF_NOEXIST`: an update that only adds.
pub const NOEXIST: u64 = 1;
/// `BPF_EXIST`: an update that only replaces.
pub const EXIST: u64 = 2;
