//! What pflag makes of arguments, and which source of a value wins.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{istio_init, istio_iptables, parse, variable};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVarSource};
use sidestep_contract::{Dns, Inbound, Leave, Policy};

fn policy(args: &[&str]) -> Policy {
    parse(args, &[]).unwrap_or_else(|leave| panic!("{args:?}: {leave}"))
}

fn leave(args: &[&str]) -> Leave {
    parse(args, &[]).expect_err("something here must be refused")
}

#[test]
fn the_last_repetition_wins() {
    let policy = policy(&["-u", "1", "--proxy-uid=2", "-u3", "-z", "1", "-z=15007"]);
    assert_eq!(policy.proxy_uids, [3]);
    assert_eq!(policy.inbound_port.get(), 15007);
}

#[test]
fn a_short_boolean_may_stand_before_another_short_flag() {
    assert_eq!(leave(&["-u1", "-nz", "15007"]).reason(), "not-an-injectors");
    let policy = policy(&["-nz15007", "-n=false", "-u1"]);
    assert_eq!(policy.inbound_port.get(), 15007);
}

#[test]
fn a_boolean_never_takes_the_next_word() {
    let policy = policy(&["-u1", "--redirect-dns", "false"]);
    assert_eq!(
        policy.dns,
        Dns::ToServers,
        "`false` is a word of its own, which Istio ignores"
    );
    assert_eq!(leave(&["-u1", "--redirect-dns="]).reason(), "bad-value");
    assert_eq!(leave(&["-u1", "--redirect-dns=yes"]).reason(), "bad-value");
}

#[test]
fn a_flag_takes_the_next_word_whatever_it_looks_like() {
    let leave = leave(&["-u", "-z", "15007"]);
    assert_eq!(
        leave.to_string(),
        r#"-u (--proxy-uid): "-z" is not a user or group id"#
    );
}

#[test]
fn an_equals_sign_alone_is_the_value_of_a_short_flag() {
    let leave = leave(&["-u1", "-z="]);
    assert_eq!(
        leave.to_string(),
        r#"-z (--inbound-capture-port): "=" is not a port from 1 to 65535"#
    );
}

#[test]
fn nothing_behind_two_dashes_is_a_flag() {
    let policy = policy(&["-u1", "--", "-u2", "--frobnicate"]);
    assert_eq!(policy.proxy_uids, [1]);
}

#[test]
fn an_empty_value_is_a_value() {
    let policy = policy(&["-u1", "-b", "*", "-b", ""]);
    assert_eq!(policy.inbound, Inbound::Only(vec![]));
    assert_eq!(leave(&["-u1", "-u", ""]).reason(), "no-uid");
    assert_eq!(leave(&[]).reason(), "no-uid");
}

#[test]
fn refusals_name_flag_and_value() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["-u1", "--frobnicate=7"],
            r#"unknown flag --frobnicate in argument "--frobnicate=7""#,
        ),
        (&["-u1", "-ny"], r#"unknown flag -y in argument "-ny""#),
        (&["-u1", "--=7"], r#"argument "--=7" is not a flag"#),
        (&["-u1", "-p"], "-p (--envoy-port) has no value"),
        (
            &["-uroot"],
            r#"-u (--proxy-uid): "root" is a name, whose id only the image knows"#,
        ),
        (
            &["-u1", "-o", "22,ssh"],
            r#"-o (--istio-local-outbound-ports-exclude): "ssh" is a service name, whose port only the image knows"#,
        ),
        (
            &["-u1", "-g1,2,3,4,5,6,7,8,9"],
            "-g (--proxy-gid) has 9 ids, at most 8 are supported",
        ),
        (
            &["-u4294967295"],
            r#"-u (--proxy-uid): "4294967295" is not a user or group id"#,
        ),
        (
            &["-u1", "-b*", "-d010"],
            r#""010" is not a port from 1 to 65535 or a range like 8000:9000"#,
        ),
        (
            &["-u1", "--probe-timeout=5"],
            r#"--probe-timeout: "5" is not a duration like 5s"#,
        ),
        (
            &["-u1", "-i::ffff:10.0.0.0/104"],
            r#""::ffff:10.0.0.0/104" is not a network"#,
        ),
    ];
    for (args, expected) in cases {
        let message = leave(args).to_string();
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn excluded_inbound_ports_count_only_where_all_are_included() {
    let policy = policy(&["-u1", "-b", "80", "-d", "not-even-a-port"]);
    assert!(matches!(policy.inbound, Inbound::Only(ports) if ports.len() == 1));
}

#[test]
fn the_command_line_wins_over_the_second_name_and_that_over_the_first() {
    let env = [("DUAL_STACK", "true"), ("ISTIO_DUAL_STACK", "false")];
    let with = |args: &[&str]| parse(args, &env).expect("a policy").dual_stack;
    assert!(!with(&["-u1"]));
    assert!(with(&["-u1", "--dual-stack"]));
}

#[test]
fn a_boolean_variable_that_does_not_parse_means_false() {
    // pflag assigns Go's zero value before it reports the error that Istio drops.
    let env = [("DUAL_STACK", "true"), ("ISTIO_DUAL_STACK", "yes")];
    assert!(!parse(&["-u1"], &env).expect("a policy").dual_stack);
    let policy = parse(&["-u1"], &[("PROBE_TIMEOUT", "soon"), ("DRY_RUN", "")]);
    policy.expect("neither fails the pod");
}

#[test]
fn variables_whose_value_the_pod_does_not_hold_are_refused() {
    let container = istio_init(istio_iptables(&["-u1"]), vec![variable("FOO", "$(BAR)")]);
    let refused = |change: fn(&mut k8s_openapi::api::core::v1::Container)| {
        let mut container = container.clone();
        change(&mut container);
        common::policy(&container).map_err(|leave| leave.reason())
    };
    assert!(
        refused(|_| ()).is_ok(),
        "variables that Istio does not read do not matter"
    );
    let reason = refused(|container| {
        let mut variable = variable("PROXY_GID", "7");
        (variable.value, variable.value_from) = (None, Some(EnvVarSource::default()));
        container.env = Some(vec![variable]);
    });
    assert_eq!(reason, Err("value-from"));
    let reason = refused(|container| container.env_from = Some(vec![EnvFromSource::default()]));
    assert_eq!(reason, Err("env-from"));
    let reason = refused(|container| container.env = Some(vec![variable("PROXY_GID", "$(GID)")]));
    assert_eq!(reason, Err("variable-reference"));
    let reason = refused(|container| {
        container.env = Some(vec![variable("PROXY_GID", "1"), variable("PROXY_GID", "2")]);
    });
    assert_eq!(reason, Err("env-twice"));
    let reason = refused(|container| container.args = Some(istio_iptables(&["-u", "$(USER)"])));
    assert_eq!(reason, Err("variable-reference"));
}
