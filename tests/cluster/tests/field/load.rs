//! Requests without end from one pod to another, each by a connection of its own and several by one.

use serde_json::Value;
use sidestep_cluster::{agent::said, machine::PATIENCE, room::comes};

use crate::lab::{Pair, say};

/// Lets a pod ask another one until it is told to end. It runs by itself: what kubelet runs in a pod ends with kubelet.
pub(crate) fn begin(pair: &Pair<'_>, from: &str, to: &str) {
    let server = pair.service(to);
    let ask = format!("sidestep-app get --from {server}:80 --count 10");
    let script = format!(
        "(while [ ! -e /tmp/end ]; do {ask} --close || echo failed; {ask} || echo failed; done; true >/tmp/ended) \
         >/tmp/answers 2>/tmp/errors </dev/null &"
    );
    sh(pair, from, &script);
    // What is restarted is restarted under load.
    let begun = comes(PATIENCE, || {
        sh(pair, from, "head -n 1 /tmp/answers").contains('{')
    });
    assert!(
        begun,
        "{from} gets no answer: {}",
        sh(pair, from, "cat /tmp/errors")
    );
}

/// Ends it: every request was answered, over mutual TLS.
pub(crate) fn end(pair: &Pair<'_>, from: &str) {
    sh(pair, from, "true >/tmp/end");
    let ended = comes(PATIENCE, || sh(pair, from, "ls /tmp").contains("ended"));
    assert!(ended, "the load of {from} does not end");
    let answers = sh(pair, from, "cat /tmp/answers");
    let mut errors = sh(pair, from, "cat /tmp/errors");
    let mut count = 0;
    for answer in answers.lines() {
        match serde_json::from_str::<Value>(answer) {
            Ok(seen) if seen["headers"]["x-forwarded-client-cert"].is_string() => count += 1,
            _ => errors += answer,
        }
    }
    let name = pair.machine.name();
    say(format!("{name}: {count} answers to {from}"));
    assert_eq!(errors, "", "{name}: to {from}");
    assert!(count > 0, "{name}: {from} asked nothing");
}

fn sh(pair: &Pair<'_>, pod: &str, script: &str) -> String {
    let place = ["-n", pair.room.name(), "exec", pod, "-c", "app", "--"];
    let words = [&place[..], &["sh", "-c", script]].concat();
    let output = pair.room.cluster().admin().run(&words, "");
    let output = output.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(
        output.status.success(),
        "{script} in {pod}: {}",
        said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
