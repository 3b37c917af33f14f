//! Which pods are wanted, whoever says so.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wanted`] | a pod's name and uid, and what is wanted for it |
//! | [`folder`] | pods from a folder of Pod files |
//! | [`watch`] | pods from the API server |
//! | [`observed`] | what the API server told of each pod, kept for its uid |
//! | [`connection`] | the watch's connection, which notices that its other end is gone |
//! | [`timing`] | when the API server is asked, and for how long the agent waits |
//! | [`health`] | whether the API server answers |

pub mod connection;
pub mod folder;
pub mod health;
pub mod observed;
pub mod timing;
pub mod wanted;
pub mod watch;

use self::wanted::{Entry, PodName, PodUid};

/// What a change means.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything may be other than it was.
    Everything,
    /// This pod is new or has changed.
    Apply(PodName),
    /// This pod is not wanted any more.
    Forget(PodName),
    /// Nothing.
    Nothing,
}

/// Where pods come from.
pub trait Source {
    /// How it tells of changes.
    type Change;

    /// Takes a change in.
    fn take(&mut self, change: Self::Change) -> Step;

    /// Every pod, and what is to be done about it.
    fn entries(&self) -> impl Iterator<Item = (&PodName, &Entry)>;

    /// What is to be done about a pod.
    fn entry(&self, name: &PodName) -> Option<&Entry>;

    /// A pod's uid, where it has one.
    fn uid(&self, name: &PodName) -> Option<&PodUid>;

    /// What is wrong with it, for people.
    fn errors(&self) -> Vec<String>;
}
