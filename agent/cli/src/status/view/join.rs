//! A pod as it says itself, joined with what its node's agent tells.

use sidestep_agent_api::{PodState, PodStatus, Status};
use sidestep_contract::waiting::Place;

use super::{State, told};
use crate::cluster::{Answer, Seen, SeenPod};

/// Why a pod waits whose containers have not started yet.
pub(in crate::status) const BEGINS: &str = "begins";

/// What became of a pod, as it says itself and as its node's agent says: the state, the reason if the pod itself has no word
/// for it, and a sentence.
pub(super) fn joined(
    pod: &SeenPod,
    answer: Option<&Answer>,
) -> (State, Option<&'static str>, Option<String>) {
    let status = answer.and_then(|answer| answer.as_ref().ok());
    let own = status.and_then(|status| told(status, pod));
    match &pod.seen {
        Seen::Left { sentence, .. } => (State::Left, None, Some(sentence.clone())),
        Seen::NotAsked => (
            State::Left,
            Some("not-asked"),
            Some("the webhook was not asked when it was made: it is older than Sidestep here, or the webhook did not answer".to_owned()),
        ),
        Seen::Begins => {
            let why = match &pod.node {
                Some(_) => "its gate has not begun",
                None => "it is on no node yet",
            };
            (State::Waiting, Some(BEGINS), Some(why.to_owned()))
        }
        Seen::Waits(Place::Nowhere(why)) => {
            (State::Waiting, Some("unschedulable"), Some(why.clone()))
        }
        Seen::Waits(Place::Gate(node)) => {
            (State::Waiting, Some("at-its-gate"), Some(shut(node, answer, own)))
        }
        Seen::Passed => passed(answer, own),
    }
}

/// Why a gate is shut.
fn shut(node: &str, answer: Option<&Answer>, own: Option<&PodStatus>) -> String {
    match (answer, own) {
        (None, _) => format!("node {node} has no agent"),
        (Some(Err(why)), _) => format!("the agent of node {node} does not answer: {why}"),
        (Some(Ok(_)), Some(own)) => match (own.state, &own.reason) {
            (PodState::Pending | PodState::Left, Some(why)) => why.clone(),
            (PodState::Pending, None) => "its agent is about to program it".to_owned(),
            _ => "its agent has programmed it, and its gate is about to open".to_owned(),
        },
        (Some(Ok(status)), None) => match errors(status) {
            Some(why) if !status.ready => format!("the agent of node {node} is not ready: {why}"),
            _ => format!("the agent of node {node} does not know of it yet"),
        },
    }
}

/// A pod that passed its gate is accelerated, unless its agent knows better.
fn passed(
    answer: Option<&Answer>,
    own: Option<&PodStatus>,
) -> (State, Option<&'static str>, Option<String>) {
    let accelerated = |message: &str| (State::Accelerated, None, Some(message.to_owned()));
    match (answer, own) {
        (None, _) => accelerated("its gate opened; its node has no agent now"),
        (Some(Err(_)), _) => accelerated("its gate opened; its node's agent does not answer now"),
        (Some(Ok(_)), None) => accelerated("its gate opened; its node's agent does not list it"),
        (Some(Ok(_)), Some(own)) => match own.state {
            PodState::Pending => (State::Waiting, Some("not-programmed"), own.reason.clone()),
            PodState::Left => (State::Left, Some("left-by-the-agent"), own.reason.clone()),
            _ => (State::Accelerated, None, own.reason.clone()),
        },
    }
}

/// Why an agent is not ready, or what troubles it.
pub(super) fn errors(status: &Status) -> Option<String> {
    let none = !status.ready && status.errors.is_empty();
    let none = none.then(|| "it is not ready, and does not say why".to_owned());
    none.or_else(|| Some(status.errors.join("; ")).filter(|errors| !errors.is_empty()))
}
