//! Where does a connection go? Istio's own program writes the rules of random policies into network namespaces; the
//! [walker](sidestep_walker) reads back what the kernel has, and follows it for connections near the policy's own values.
//! Sidestep's contract, rules and decision answer the same question from the policy's text. The answers must be equal.
//!
//! | step | module |
//! |---|---|
//! | which policies: alone, in pairs, at random, large | [`plan`] |
//! | a policy as people write it | [`policy`] |
//! | a pod's namespace, and what the kernel's routing says in it | [`host`] |
//! | Istio's own program, and the rules that the kernel has then | [`istio`] |
//! | which connections | [`attempts`] |
//! | all of that of one policy, recorded: from here on nothing needs root | [`case`](mod@case), [`record`](mod@record) |
//! | what Sidestep decides | [`ours`] |
//! | both, side by side; what differs, as small as it goes | [`compare`], [`shrink`](mod@shrink), [`report`] |
//! | whether a mistake in any row would be seen | [`mutants`] |

pub mod attempts;
pub mod case;
pub mod compare;
mod dimensions;
pub mod host;
pub mod istio;
mod lists;
pub mod mutants;
pub mod ours;
pub mod plan;
pub mod policy;
pub mod record;
pub mod report;
pub mod shrink;
mod spellings;
