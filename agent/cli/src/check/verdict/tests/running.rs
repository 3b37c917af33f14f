//! Agents, pods, Events.

use super::*;

/// The first agents tell this.
fn tell(some: usize, fields: &Value) -> impl FnOnce(&mut Facts) + use<> {
    let status = status(fields);
    move |facts| {
        for (_, answer) in &mut facts.agents.as_mut().expect("known")[..some] {
            *answer = Ok(status.clone());
        }
    }
}

/// The first agents do not answer.
fn mute(some: usize) -> impl FnOnce(&mut Facts) {
    move |facts| {
        for (pod, answer) in &mut facts.agents.as_mut().expect("known")[..some] {
            *answer = Err(format!("its pod {} did not answer", pod.name));
        }
    }
}

#[test]
fn agents_that_do_not_answer_are_named_with_the_cause() {
    let one = "1 of 2 do not answer: one (its pod POD did not answer)";
    assert_found(Check::AgentAnswers, Warning, one, mute(1));
    let both = "none answers: one, two (its pod POD did not answer)";
    assert_found(Check::AgentAnswers, Failure, both, mute(2));
    for check in [Check::AgentReady, Check::AgentShortcut, Check::AgentRepairs] {
        assert_not_made(check, mute(2));
    }
    assert_not_made(Check::AgentAnswers, |facts| facts.agents = Ok(vec![]));
}

#[test]
fn what_an_agent_says_of_itself_is_told() {
    let not_ready = json!({"ready": false, "errors": ["no BTF"]});
    assert_found(
        Check::AgentReady,
        Failure,
        "one (no BTF)",
        tell(1, &not_ready),
    );
    assert_found(
        Check::AgentReady,
        Failure,
        "one, two (no BTF)",
        tell(2, &not_ready),
    );
    let trouble = json!({"errors": ["sightings are gone"]});
    assert_found(
        Check::AgentReady,
        Warning,
        "one (sightings are gone)",
        tell(1, &trouble),
    );
    let repaired = json!({"repairs": ["link a", "link b"]});
    assert_found(
        Check::AgentRepairs,
        Warning,
        "one (link b)",
        tell(1, &repaired),
    );
}

#[test]
fn a_shortcut_that_is_off_is_a_warning_with_the_reason() {
    let off = |reason: Option<&str>| {
        let off = ShortcutStatus {
            reason: reason.map(ToOwned::to_owned),
            ..ShortcutStatus::default()
        };
        tell(1, &json!({"shortcut": off}))
    };
    assert_found(
        Check::AgentShortcut,
        Warning,
        "one (the kernel may crash)",
        off(Some("the kernel may crash")),
    );
    assert_found(
        Check::AgentShortcut,
        Warning,
        "one (not proven yet)",
        off(None),
    );
}

fn add(pod: SeenPod) -> impl FnOnce(&mut Facts) {
    move |facts| facts.pods.as_mut().expect("known").push(pod)
}

#[test]
fn a_pod_that_waits_at_its_gate_for_long_fails() {
    let gate = || Seen::Waits(Place::Gate("one".to_owned()));
    let long = pod("slow", gate(), Duration::from_mins(2));
    assert_found(Check::WaitingPods, Failure, "shop/slow", add(long));
    let short = pod("new", gate(), Duration::from_secs(10));
    assert_found(
        Check::WaitingPods,
        Warning,
        "just now: shop/new",
        add(short),
    );
    let nowhere = pod("big", Seen::Waits(Place::Nowhere(String::new())), HOUR);
    assert_found(
        Check::WaitingPods,
        Warning,
        "no node is found for: shop/big",
        add(nowhere),
    );
    let begins = pod("begins", Seen::Begins, Duration::from_secs(1));
    assert_found(Check::WaitingPods, Good, "none of 1", add(begins));
}

#[test]
fn a_pod_that_the_webhook_missed_is_named_unless_it_is_older_or_excluded() {
    let missed = pod("missed", Seen::NotAsked, HOUR);
    assert_found(
        Check::MissedPods,
        Warning,
        "shop/missed",
        add(missed.clone()),
    );
    let older = pod("older", Seen::NotAsked, 2 * DAY);
    assert_found(Check::MissedPods, Good, "every pod", add(older));
    assert_found(Check::MissedPods, Good, "every pod", |facts| {
        ours(facts).excluded.insert("shop".to_owned());
        add(missed)(facts);
    });
}

#[test]
fn warnings_of_the_last_hour_are_counted_by_reason() {
    let event = |note: &str, age: Duration| EventFact {
        reason: "NotArmed".to_owned(),
        object: "Pod/shop/web".to_owned(),
        note: note.to_owned(),
        at: Some(ago(age)),
    };
    let minute = Duration::from_mins(1);
    assert_found(
        Check::Events,
        Warning,
        "2 NotArmed (last: Pod/shop/web: b)",
        |facts| {
            facts.events = Ok(vec![
                event("a", 3 * minute),
                event("b", minute),
                event("old", 2 * HOUR),
            ]);
        },
    );
    assert_found(Check::Events, Good, "no Warning", |facts| {
        facts.events = Ok(vec![event("old", 2 * HOUR)]);
    });
}
