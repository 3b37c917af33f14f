//! Which pods are wanted, whoever says so.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wanted`] | a pod's name and uid, and what is wanted for it |
//! | [`folder`] | pods from a folder of Pod files |
//! | [`watch`] | pods from the API server |
//! | [`observed`] | what the API server told of each pod, kept for its uid |
//! | [`health`] | whether the API server answers |

pub mod folder;
pub mod health;
pub mod observed;
pub mod wanted;
pub mod watch;
