//! What pod and namespace say in labels and annotations of ours.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{RawSockets, UnknownWord, keys};

use crate::Reason;
use crate::cluster::Namespace;
use crate::settings::{Delivery, Reach};

/// Somebody's word about being accelerated.
pub(super) struct Said {
    pub(super) wanted: bool,
    /// Where they said it.
    pub(super) place: String,
}

/// The pod's word, else its namespace's.
pub(super) fn enabled(pod: &Pod, namespace: Option<&Namespace>) -> Result<Option<Said>, Reason> {
    let pods = [&pod.metadata.labels, &pod.metadata.annotations];
    let pods = pods
        .into_iter()
        .find_map(|all| value(all.as_ref(), keys::ENABLED));
    let found = pods
        .map(|value| ("the pod's", value))
        .or_else(|| of_namespace(namespace, keys::ENABLED).map(|value| ("the namespace's", value)));
    let Some((whose, value)) = found else {
        return Ok(None);
    };
    let place = format!("{whose} {}", keys::ENABLED);
    match value.parse() {
        Ok(wanted) => Ok(Some(Said { wanted, place })),
        Err(_) => Err(Reason::BadSetting {
            place,
            value: value.to_owned(),
            expected: "true or false",
        }),
    }
}

/// The pod's word, else its namespace's, else the cluster's. A word that means nothing switches the shortcut off.
pub(super) fn reach(
    pod: &Pod,
    namespace: Option<&Namespace>,
    default: Reach,
    warnings: &mut Vec<String>,
) -> Reach {
    let own = value(pod.metadata.annotations.as_ref(), keys::SHORTCUT);
    let Some(word) = own.or_else(|| of_namespace(namespace, keys::SHORTCUT)) else {
        return default;
    };
    word.parse().unwrap_or_else(|unknown| {
        warnings.push(said_nothing(
            keys::SHORTCUT,
            word,
            &unknown,
            Reach::Off.word(),
        ));
        Reach::Off
    })
}

/// The pod's word: who knows how a workload reads its sockets is who deploys it.
pub(super) fn delivery(
    pod: &Pod,
    namespace: Option<&Namespace>,
    warnings: &mut Vec<String>,
) -> Delivery {
    let default = (Delivery::Proxy, Delivery::Proxy.word());
    of_the_workload(keys::SHORTCUT_INTO, pod, namespace, default, warnings)
}

/// Warns of a word about raw sockets that means nothing, or of one in the wrong place.
pub(super) fn check_raw_sockets(
    pod: &Pod,
    namespace: Option<&Namespace>,
    warnings: &mut Vec<String>,
) {
    let default = (RawSockets::Refuse, RawSockets::Refuse.word());
    of_the_workload(keys::RAW_SOCKETS, pod, namespace, default, warnings);
}

/// A word that each workload says for itself, else the default.
fn of_the_workload<T: FromStr<Err = UnknownWord>>(
    key: &str,
    pod: &Pod,
    namespace: Option<&Namespace>,
    (default, used): (T, &str),
    warnings: &mut Vec<String>,
) -> T {
    if of_namespace(namespace, key).is_some() {
        warnings.push(format!(
            "{key} on the namespace is ignored: it is said by each workload for itself"
        ));
    }
    let Some(word) = value(pod.metadata.annotations.as_ref(), key) else {
        return default;
    };
    word.parse().unwrap_or_else(|unknown| {
        warnings.push(said_nothing(key, word, &unknown, used));
        default
    })
}

fn said_nothing(key: &str, word: &str, unknown: &dyn std::fmt::Display, used: &str) -> String {
    let text = format!("{key} is {word:?}, {unknown}: {used} is used");
    crate::reason::shortened(&text)
}

fn of_namespace<'a>(namespace: Option<&'a Namespace>, key: &str) -> Option<&'a str> {
    let Namespace {
        labels,
        annotations,
    } = namespace?;
    value(Some(labels), key).or_else(|| value(Some(annotations), key))
}

fn value<'a>(all: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    all?.get(key).map(String::as_str)
}
