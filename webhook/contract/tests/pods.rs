//! From a pod to its policy, or to the reason why it is left to Istio.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{istio_init, istio_iptables, pod};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sidestep_contract::{Policy, Runtime, keys, refuse_for_life};

fn injected() -> Container {
    let args = [
        "-p15001",
        "-z15006",
        "-u1337",
        "-mREDIRECT",
        "-i",
        "*",
        "-x",
        "",
        "-b",
        "*",
        "-d",
        "15090,15021",
    ];
    istio_init(istio_iptables(&args), vec![])
}

fn named(name: &str) -> Container {
    Container {
        name: name.to_owned(),
        security_context: None,
        ..injected()
    }
}

fn reason(pod: &Pod) -> &'static str {
    Policy::from_pod(pod)
        .expect_err("the pod must be left")
        .reason()
}

fn annotated(key: &str, value: &str) -> Pod {
    let mut pod = pod(vec![injected()]);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
    pod
}

#[test]
fn an_injected_pod_has_a_policy() {
    let policy = Policy::from_pod(&pod(vec![named("wait"), injected()])).expect("a policy");
    assert_eq!(
        policy.to_string(),
        "out 15001: all; in 15006: all but 15090,15021; proxy uid 1337 gid 1337"
    );
}

#[test]
fn the_policy_in_short_stays_short() {
    let ports: Vec<String> = (1..=500).map(|port| port.to_string()).collect();
    let mut container = injected();
    let args = container.args.get_or_insert_default();
    args.extend(["-o".to_owned(), ports.join(",")]);
    args.extend(["--redirect-dns", "--dual-stack", "-e15009", "-q80"].map(str::to_owned));
    let policy = Policy::from_pod(&pod(vec![container])).expect("a policy");
    assert_eq!(
        policy.to_string(),
        "out 15001: all and ports 80, not ports 1,2,3,4,5,6 +494 more; in 15006: all but 15090,15021; \
         proxy uid 1337 gid 1337; dns to servers; dual-stack; tunnel 15009"
    );
}

#[test]
fn a_pod_without_exactly_one_istio_init_is_left() {
    assert_eq!(reason(&Pod::default()), "no-istio-init");
    assert_eq!(reason(&pod(vec![named("istio-init-2")])), "no-istio-init");
    assert_eq!(
        reason(&pod(vec![injected(), injected()])),
        "several-istio-init"
    );
    let validation = || named(keys::ISTIO_VALIDATION);
    let both = pod(vec![validation(), validation()]);
    assert_eq!(reason(&both), "several-istio-init");
}

#[test]
fn an_istio_validation_is_read_like_an_istio_init_if_it_writes_no_rules() {
    let validation = |more: &[&str]| {
        let mut container = named(keys::ISTIO_VALIDATION);
        let args = container.args.get_or_insert_default();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        container
    };
    let as_istio_writes_it = validation(&["--run-validation", "--skip-rule-apply"]);
    let wanted = Policy::from_pod(&pod(vec![injected()])).expect("a policy");
    let read = |containers: Vec<Container>| Policy::from_pod(&pod(containers));
    assert_eq!(read(vec![as_istio_writes_it.clone()]), Ok(wanted));
    for writes_rules in [
        validation(&[]),
        validation(&["--run-validation"]),
        validation(&["--skip-rule-apply"]),
        validation(&[
            "--run-validation",
            "--skip-rule-apply",
            "--skip-rule-apply=0",
        ]),
    ] {
        assert_eq!(reason(&pod(vec![writes_rules])), "not-an-injectors");
    }
    // Beside an istio-init, istio-cni's plugin does nothing.
    let mut tproxy = injected();
    tproxy
        .args
        .get_or_insert_default()
        .push("-mTPROXY".to_owned());
    assert_eq!(reason(&pod(vec![as_istio_writes_it, tproxy])), "tproxy");
}

#[test]
fn an_istio_init_that_runs_something_else_is_left() {
    let with = |change: fn(&mut Container)| {
        let mut container = injected();
        change(&mut container);
        let leave = Policy::from_pod(&pod(vec![container])).expect_err("the pod must be left");
        assert_eq!(leave.reason(), "not-istio-iptables");
        leave.to_string()
    };
    with(|container| container.args = None);
    with(|container| container.args = Some(vec![]));
    let message = with(|container| container.args = Some(vec!["sh".to_owned()]));
    assert!(message.contains("\"sh\""), "{message}");
    let message = with(|container| container.command = Some(vec!["/bin/true".to_owned()]));
    assert!(message.contains("/bin/true"), "{message}");
}

#[test]
fn pods_whose_network_is_not_their_own_and_single_are_left() {
    let with = |change: fn(&mut k8s_openapi::api::core::v1::PodSpec)| {
        let mut pod = pod(vec![injected()]);
        change(pod.spec.get_or_insert_default());
        reason(&pod)
    };
    assert_eq!(with(|spec| spec.host_network = Some(true)), "host-network");
    assert_eq!(
        reason(&annotated(keys::MULTUS_NETWORKS, "storage")),
        "several-networks"
    );
    assert!(Policy::from_pod(&annotated(keys::MULTUS_NETWORKS, "")).is_ok());
    let interfaces = |networks: &[&str]| {
        let of = |network: &&str| serde_json::json!({"interfaceName": "eth", "network": network});
        let list: serde_json::Value = networks.iter().map(of).collect();
        Policy::from_pod(&annotated(keys::GKE_INTERFACES, &list.to_string()))
    };
    for further in [&["default", "dataplane"][..], &["dataplane"]] {
        let leave = interfaces(further).expect_err("a further network");
        assert_eq!(leave.reason(), "several-networks");
        assert!(
            leave
                .to_string()
                .starts_with("annotation networking.gke.io/interfaces"),
            "{leave}"
        );
    }
    assert!(interfaces(&["default"]).is_ok());
    assert!(Policy::from_pod(&annotated(keys::GKE_INTERFACES, "")).is_ok());
    assert!(Policy::from_pod(&annotated(keys::GKE_INTERFACES, "eth1")).is_err());
    assert_eq!(reason(&annotated(keys::MIRROR, "7b5e")), "mirror-pod");
}

/// Packets that a pod forwards are no socket's of its own.
#[test]
fn a_pod_that_may_forward_is_left_unless_it_says_that_it_may() {
    let container = |name: &str, right: serde_json::Value| {
        let container = serde_json::json!({"name": name, "image": "i", "securityContext": right});
        serde_json::from_value::<Container>(container).expect("a container")
    };
    let privileged = || serde_json::json!({"privileged": true});
    let adds = |right: &str| serde_json::json!({"capabilities": {"add": ["NET_RAW", right]}});
    let with = |container: Container, is_init: bool| {
        let mut pod = pod(vec![injected()]);
        let spec = pod.spec.get_or_insert_default();
        if is_init {
            spec.init_containers.get_or_insert_default().push(container);
        } else {
            spec.containers.push(container);
        }
        pod
    };
    for right in [
        privileged(),
        adds("NET_ADMIN"),
        adds("CAP_NET_ADMIN"),
        adds("ALL"),
    ] {
        for is_init in [false, true] {
            let mut pod = with(container("dind", right.clone()), is_init);
            let leave = Policy::from_pod(&pod).expect_err("it may forward");
            assert_eq!(leave.reason(), "may-forward");
            assert!(leave.to_string().contains("\"dind\""), "{leave}");
            let mut say = |word: &str| {
                let annotations = pod.metadata.annotations.get_or_insert_default();
                annotations.insert(keys::RAW_SOCKETS.to_owned(), word.to_owned());
                Policy::from_pod(&pod)
            };
            assert!(say("allow").is_ok());
            assert!(say("refuse").is_err() && say("Allow").is_err());
        }
        let proxy = with(container("istio-proxy", right.clone()), true);
        assert!(Policy::from_pod(&proxy).is_ok(), "the mesh's own");
    }
    for right in [adds("SYS_PTRACE"), serde_json::json!({"privileged": false})] {
        assert!(Policy::from_pod(&with(container("app", right), false)).is_ok());
    }
}

#[test]
fn of_a_pod_with_a_gate_only_what_nobody_can_change_decides() {
    let network = annotated(keys::MULTUS_NETWORKS, "storage");
    let mut class = pod(vec![injected()]);
    let spec = class.spec.get_or_insert_default();
    spec.runtime_class_name = Some("kata".to_owned());
    for pod in [network, class] {
        assert!(Policy::from_pod(&pod).is_err());
        assert!(refuse_for_life(&pod).is_ok());
    }
    let mut host = pod(vec![injected()]);
    host.spec.get_or_insert_default().host_network = Some(true);
    for pod in [host, annotated(keys::MIRROR, "7b5e")] {
        assert!(refuse_for_life(&pod).is_err());
    }
}

#[test]
fn a_pod_with_a_kernel_of_its_own_is_left_and_one_that_shares_the_nodes_is_not() {
    let with = |class: &str, overhead: &[(&str, &str)]| {
        let mut pod = pod(vec![injected()]);
        let spec = pod.spec.get_or_insert_default();
        spec.runtime_class_name = Some(class.to_owned());
        let overhead = overhead.iter();
        let overhead =
            overhead.map(|(what, much)| ((*what).to_owned(), Quantity((*much).to_owned())));
        spec.overhead = Some(overhead.collect());
        pod
    };
    for class in [
        "kata-vm-isolation",
        "gvisor",
        "runsc",
        "my-Kata",
        "sysbox-runc",
    ] {
        let pod = with(class, &[]);
        assert_eq!(Runtime::of(&pod), Runtime::Sandboxed, "{class}");
        assert_eq!(reason(&pod), "sandboxed-runtime");
    }
    let pod = with("isolated", &[("memory", "160Mi")]);
    let leave = Policy::from_pod(&pod).expect_err("the pod must be left");
    let said = "runtime class \"isolated\" gives the pod a kernel of its own, by its overhead or by its name";
    assert_eq!(leave.to_string(), said);
    assert_eq!(reason(&with("runc", &[("cpu", "1m")])), "sandboxed-runtime");
    for class in ["", "runc", "crun", "nvidia"] {
        let pod = with(class, &[]);
        assert_eq!(Runtime::of(&pod), Runtime::Shared, "{class}");
        assert!(Policy::from_pod(&pod).is_ok());
    }
    assert_eq!(Runtime::of(&Pod::default()), Runtime::Shared);
    assert_eq!(Runtime::of(&with("fast", &[])), Runtime::Unknown("fast"));
}

#[test]
fn a_policy_and_a_reason_can_be_written_as_json() {
    let policy = Policy::from_pod(&pod(vec![injected()])).expect("a policy");
    let json = serde_json::to_value(&policy).expect("a policy is JSON");
    assert_eq!(json["inbound"]["all_except"][0], "15090");
    assert_eq!(json["include_cidrs"], "all");
    let leave = Policy::from_pod(&Pod::default()).expect_err("the pod must be left");
    let json = serde_json::to_value(&leave).expect("a reason is JSON");
    assert_eq!(json["reason"], "no-istio-init");
    assert_eq!(
        json["message"],
        "no init container is named istio-init or istio-validation"
    );
}
