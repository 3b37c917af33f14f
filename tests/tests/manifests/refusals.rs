//! Values that cannot be meant are refused with their names.

use sidestep_kit::{chart::template, needs};

/// Each of these settings, separated by spaces, is refused with a text that has all of these words.
#[track_caller]
fn assert_refused(refused: &[(&str, &[&str])]) {
    for (settings, words) in refused {
        let settings: Vec<&str> = settings.split(' ').collect();
        let Err(error) = template(&settings) else {
            panic!("{settings:?} is allowed");
        };
        for word in *words {
            let found = error.contains(word);
            assert!(found, "{settings:?}: {word:?} is not in: {error}");
        }
    }
}

#[needs(part("helm"))]
fn a_name_that_does_not_exist() {
    assert_refused(&[
        ("enrollment=opt-in", &["'enrollment'"]),
        ("webhook.replica=3", &["'/webhook'", "'replica'"]),
        ("waiting.delete=30", &["'/waiting'", "'delete'"]),
        ("monitoring.rule.enabled=true", &["'/monitoring'", "'rule'"]),
        (
            "certificates.lifetime=30",
            &["'/certificates'", "'lifetime'"],
        ),
        (
            "agent.resources.request.cpu=1",
            &["'/agent/resources'", "'request'"],
        ),
    ]);
}

#[needs(part("helm"))]
fn a_word_that_is_none_of_the_choices() {
    assert_refused(&[
        ("enrolment=always", &["'/enrolment'", "'opt-out', 'opt-in'"]),
        (
            "shortcut.reach=all",
            &["'/shortcut/reach'", "'off', 'pod', 'namespace', 'node'"],
        ),
        (
            "shortcut.most=all",
            &["'/shortcut/most'", "'off', 'pod', 'namespace', 'node'"],
        ),
        (
            "certificates.mode=x",
            &["'/certificates/mode'", "'managed', 'provided'"],
        ),
        (
            "resourceQuota=true",
            &["'/resourceQuota'", "'auto', 'always', 'never'"],
        ),
        (
            "image.pullPolicy=x",
            &["'/image/pullPolicy'", "'IfNotPresent'"],
        ),
    ]);
}

#[needs(part("helm"))]
fn a_number_out_of_range() {
    assert_refused(&[
        ("webhook.replicas=0", &["'/webhook/replicas'", "want 1"]),
        (
            "webhook.timeoutSeconds=6",
            &["'/webhook/timeoutSeconds'", "want 5"],
        ),
        (
            "shortcut.limitBytes=4095",
            &["'/shortcut/limitBytes'", "want 4,096"],
        ),
        (
            "probeTimeoutSeconds=0",
            &["'/probeTimeoutSeconds'", "want 1"],
        ),
        (
            "probeTimeoutSeconds=86401",
            &["'/probeTimeoutSeconds'", "want 86,400"],
        ),
        (
            "waiting.reportSeconds=-1",
            &["'/waiting/reportSeconds'", "want 0"],
        ),
        (
            "waiting.deleteSeconds=-1",
            &["'/waiting/deleteSeconds'", "want 0"],
        ),
        (
            "certificates.managed.lifetimeSeconds=1",
            &["'/certificates/managed/lifetimeSeconds'", "want 60"],
        ),
        (
            "readiness.percent=101",
            &["'/readiness/percent'", "want 100"],
        ),
        (
            "agent.maxUnavailable=0",
            &["'/agent/maxUnavailable'", "want 1"],
        ),
        (
            "agent.maxUnavailable=150%",
            &["'/agent/maxUnavailable'", "'150%'"],
        ),
    ]);
}

#[needs(part("helm"))]
fn a_value_of_another_type_or_form() {
    assert_refused(&[
        (
            "avoidUnsupportedNodes=2",
            &["'/avoidUnsupportedNodes'", "boolean"],
        ),
        (
            "probeTimeoutSeconds=5m",
            &["'/probeTimeoutSeconds'", "integer"],
        ),
        ("extraLabels.a=1", &["'/extraLabels/a'", "string"]),
        ("image.tag=1", &["'/image/tag'", "string"]),
        (
            "image.registry=example.com/",
            &["'/image/registry'", "'example.com/'"],
        ),
        (
            "webhook.excludedNamespaces={No}",
            &["'/webhook/excludedNamespaces/0'", "'No'"],
        ),
        ("agent.cgroup=kubepods", &["'/agent/cgroup'", "'kubepods'"]),
        (
            "agent.extraArgs={api-patience}",
            &["'/agent/extraArgs/0'", "'api-patience'"],
        ),
        (
            "podMonitor.interval=often",
            &["'/podMonitor/interval'", "'often'"],
        ),
        (
            "certificates.provided.certManager=webhook",
            &["'/certificates/provided/certManager'", "'webhook'"],
        ),
    ]);
}

#[needs(part("helm"))]
fn values_that_do_not_go_together() {
    assert_refused(&[
        (
            "waiting.deleteSeconds=5",
            &["waiting.deleteSeconds is 5", "at least 30"],
        ),
        (
            "certificates.mode=provided",
            &[
                "certificates.provided.secretName is empty",
                "name the Secret",
            ],
        ),
        (
            "certificates.mode=provided certificates.provided.secretName=x",
            &[
                "caBundle and certificates.provided.certManager are both empty",
                "give one",
            ],
        ),
        (
            "certificates.mode=provided certificates.provided.secretName=x \
             certificates.provided.caBundle=QQ== certificates.provided.certManager=a/b",
            &[
                "caBundle and certificates.provided.certManager are both set",
                "give one",
            ],
        ),
        (
            "certificates.provided.secretName=x",
            &[
                "certificates.provided is set",
                "set certificates.mode=provided",
            ],
        ),
    ]);
}
