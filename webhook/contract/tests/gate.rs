//! How the gate is made, and what is taken for one.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{is_gate, istio_init, istio_iptables, make, pod, policy};
use k8s_openapi::api::core::v1::{Capabilities, Container, SecurityContext};
use sidestep_contract::gate::PROBE_TIMEOUT;
use sidestep_contract::{Leave, Policy};

const GATE_FLAGS: [&str; 3] = [
    "--run-validation",
    "--skip-rule-apply",
    "--probe-timeout=300s",
];

fn injected(args: &[&str]) -> Container {
    istio_init(istio_iptables(args), vec![])
}

fn gate(args: &[&str]) -> Container {
    make(&injected(args), PROBE_TIMEOUT).expect("these arguments can be gated")
}

fn reason(container: Container) -> &'static str {
    let policy = Policy::from_pod(&pod(vec![container]));
    policy.expect_err("the pod must be left").reason()
}

#[test]
fn a_gate_validates_and_has_no_privilege() {
    let container = injected(&["-u", "0,1338"]);
    let gate = make(&container, PROBE_TIMEOUT).expect("one id is not root's");
    assert_eq!(gate.image, container.image);
    let args = [&["-u", "0,1338"], GATE_FLAGS.as_slice()].concat();
    assert_eq!(gate.args, Some(istio_iptables(&args)));
    let context = gate.security_context.expect("a security context");
    assert_eq!(
        (context.run_as_user, context.run_as_group),
        (Some(1338), Some(1338))
    );
    assert_eq!(context.run_as_non_root, Some(true));
    assert_eq!(context.privileged, Some(false));
    assert_eq!(context.allow_privilege_escalation, Some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    let capabilities = context.capabilities.expect("capabilities");
    assert_eq!(capabilities.add, None);
    assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(
        context.seccomp_profile.expect("a profile").type_,
        "RuntimeDefault"
    );
}

#[test]
fn a_gate_is_recognised_and_keeps_the_policy() {
    let args = ["-u1337", "-b*", "--probe-timeout=5s", "word"];
    assert!(!is_gate(&injected(&args)));
    assert!(is_gate(&gate(&args)));
    assert_eq!(policy(&gate(&args)), policy(&injected(&args)));
}

#[test]
fn a_gate_stays_as_it_is() {
    let gate = gate(&["-u1337"]);
    assert_eq!(make(&gate, PROBE_TIMEOUT), Ok(gate.clone()));
}

#[test]
fn the_gates_flags_stand_before_two_dashes() {
    let gate = gate(&["-u1337", "--", "-u2"]);
    let args = [&["-u1337"], GATE_FLAGS.as_slice(), &["--", "-u2"]].concat();
    assert_eq!(gate.args, Some(istio_iptables(&args)));
    assert!(is_gate(&gate));
}

#[test]
fn a_pod_whose_proxy_is_only_root_is_left() {
    let made = make(&injected(&["-u", "0,0"]), PROBE_TIMEOUT);
    assert!(matches!(made, Err(Leave::OnlyRoot { value, .. }) if value == "0,0"));
}

#[test]
fn a_container_that_validates_already_and_is_not_our_gate_is_left() {
    let foreign = "foreign-validation";
    assert_eq!(reason(injected(&["-u1337", "--run-validation"])), foreign);
    assert_eq!(
        reason(injected(&["-u1337", "--skip-rule-apply=false"])),
        foreign
    );
    let twice = [&["-u1337", "--run-validation"], GATE_FLAGS.as_slice()].concat();
    let context = gate(&["-u1337"]).security_context;
    let with = |args: &[&str]| Container {
        security_context: context.clone(),
        ..injected(args)
    };
    assert_eq!(reason(with(&twice)), foreign);
    assert_eq!(
        reason(with(&[
            "-u1337",
            "--skip-rule-apply",
            "--run-validation",
            "--probe-timeout=300s"
        ])),
        foreign
    );
    assert_eq!(
        reason(with(&[GATE_FLAGS.as_slice(), &["-u1337"]].concat())),
        foreign
    );
    let hidden = [&["-u1337", "--log_caller"], GATE_FLAGS.as_slice()].concat();
    assert_eq!(
        reason(with(&hidden)),
        foreign,
        "--run-validation is the value of another flag"
    );
    let behind = [&["-u1337", "--"], GATE_FLAGS.as_slice()].concat();
    assert!(
        !is_gate(&with(&behind)),
        "nothing behind two dashes is a flag"
    );
}

#[test]
fn a_container_with_a_privilege_is_no_gate() {
    let privileges: &[fn(&mut SecurityContext)] = &[
        |context| context.privileged = Some(true),
        |context| context.allow_privilege_escalation = None,
        |context| context.run_as_non_root = Some(false),
        |context| context.run_as_user = Some(0),
        |context| context.run_as_user = None,
        |context| context.capabilities = None,
        |context| {
            context.capabilities = Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            });
        },
    ];
    for (index, privilege) in privileges.iter().enumerate() {
        let mut container = gate(&["-u1337"]);
        privilege(container.security_context.get_or_insert_default());
        assert!(!is_gate(&container), "privilege {index}");
        assert_eq!(reason(container), "foreign-validation");
    }
    let mut container = gate(&["-u1337"]);
    container.security_context = None;
    assert!(!is_gate(&container));
    let mut container = gate(&["-u1337"]);
    container.name = "istio-validation".to_owned();
    assert!(!is_gate(&container));
}
