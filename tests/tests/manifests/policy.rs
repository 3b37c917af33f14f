//! What the policies are about.

use std::collections::BTreeSet;

use sidestep_contract::{gate, keys};
use sidestep_kit::{
    chart::{object, objects},
    needs,
};

#[needs(part("helm"))]
fn the_policies_know_every_key_of_ours_that_a_pod_may_have() {
    let source = include_str!("../../../webhook/contract/src/keys.rs");
    let mut wanted = texts(source, '"');
    for key in [
        keys::PREFIX,
        keys::UNSUPPORTED,
        keys::WITHOUT_AGENT,
        keys::READS,
    ] {
        assert!(wanted.remove(key), "{key}");
    }
    assert!(wanted.contains(keys::ACCELERATED));
    let objects = objects(&[]);
    for name in ["sidestep-label", "sidestep-label-binding"] {
        let policy = object(&objects, "ValidatingAdmissionPolicy", name);
        let variables = policy["spec"]["variables"].as_array().expect("variables");
        let ours = variables.iter().find(|variable| variable["name"] == "ours");
        let ours = ours.expect("our keys")["expression"].as_str();
        assert_eq!(texts(ours.expect("a text"), '\''), wanted, "{name}");
    }
}

#[needs(part("helm"))]
fn agents_tell_which_gates_they_read() {
    let objects = objects(&[]);
    let agents = object(&objects, "DaemonSet", "sidestep-agent");
    let reads = &agents["spec"]["template"]["metadata"]["labels"][keys::READS];
    assert_eq!(*reads, gate::LANGUAGE.to_string());
}

/// The texts between quotes that begin as our keys do.
fn texts(source: &str, quote: char) -> BTreeSet<&str> {
    let pieces = source.split(quote);
    pieces
        .filter(|piece| piece.starts_with(keys::PREFIX))
        .collect()
}
