//! The floor that the agent stands on: BPF programs, maps and links, network namespaces, and the few system calls that no
//! library offers. All `unsafe` code of the agent is here, and no type of the BPF library leaves this crate. It knows
//! nothing of pods, policies or Kubernetes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`object`] | [`Object`](object::Object): a BPF object whose maps are open, and its programs, loaded one by one |
//! | [`maps`] | its maps by type; each error names the map |
//! | [`template`] | a program that is loaded many times, each time with another constant |
//! | [`storage`] | what is kept with sockets, and whether the kernel can keep anything with one |
//! | [`ring`] | what programs tell, awaited |
//! | [`link`] | one program at one hook: attached, pinned, taken over with new code |
//! | [`hooks`] | a table of such links on one cgroup, and what restores them |
//! | [`repaired`] | what was lost of links and pins, and is back or not |
//! | [`any_map`] | a pinned map of which no layout is known, such as an earlier version's |
//! | [`netns`] | network namespaces: opened, entered for a step, told apart by their cookies |
//! | [`cgroups`] | a cgroup by its id: where it is, or that it is gone |
//! | [`usage`] | how long programs ran, and how much maps can hold |
//! | [`btf`] | where the running kernel keeps the members of its structs |
//! | [`ancestors`] | the processes that brought this one about |
//! | [`process`] | what this process asks of the kernel for itself |
//! | `fdinfo` | what the kernel says of a descriptor |
//! | `sys` | bpf(2), as far as the BPF library does not have it |
//! | `verifier` | what the verifier says of a program that it refuses, cut to its last lines |
//!
//! Pins decide how long things live. A link without a pin ends with its descriptor, so an agent that ends without one lets
//! go of what it attached. Where something cannot be read, the answer is an error and never "it is gone".

pub mod ancestors;
pub mod any_map;
pub mod btf;
pub mod cgroups;
mod fdinfo;
pub mod hooks;
pub mod link;
pub mod maps;
pub mod netns;
pub mod object;
pub mod process;
pub mod repaired;
pub mod ring;
pub mod storage;
mod sys;
pub mod template;
pub mod usage;
mod verifier;

/// A type whose bytes may be copied to and from the kernel: a key or a value of a map, or a constant of a program.
pub use aya::Pod as Plain;
/// Embeds a BPF object at build time, aligned as the loader needs it.
pub use aya::include_bytes_aligned;
pub use sys::AttachType;
