//! The objects name each other rightly, and are what the design asks for.

use serde_json::{Value, json};
use sidestep_kit::{
    chart::{NAMESPACE, object, objects},
    needs,
};

use crate::{CERT_MANAGER, EVERYTHING, LITTLE, PROVIDED, SETTINGS};

/// Whether the labels satisfy a selector of single labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("a selector");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

fn has_port(workload: &Value, name: &Value) -> bool {
    let ports = container(workload)["ports"].as_array().expect("ports");
    ports.iter().any(|port| port["name"] == *name)
}

fn arguments(workload: &Value) -> Vec<String> {
    let words = container(workload)["args"].as_array().expect("arguments");
    let words = words.iter().map(|word| word.as_str().expect("a string"));
    words.map(str::to_owned).collect()
}

#[needs(part("helm"))]
fn selectors_ports_and_accounts_are_those_of_the_pods() {
    for settings in SETTINGS {
        let objects = objects(settings);
        for (kind, name) in [
            ("Deployment", "sidestep-webhook"),
            ("DaemonSet", "sidestep-agent"),
        ] {
            let workload = object(&objects, kind, name);
            let spec = &workload["spec"]["template"]["spec"];
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert!(selects(
                &workload["spec"]["selector"]["matchLabels"],
                labels
            ));
            assert_eq!(labels["sidecar.istio.io/inject"], "false");
            assert_eq!(spec["serviceAccountName"], name);
            object(&objects, "ServiceAccount", name);
            for probe in ["livenessProbe", "readinessProbe"] {
                let probe = &container(workload)[probe];
                let by_port = has_port(workload, &probe["httpGet"]["port"]);
                // What every pod reaches is no place to ask the agent.
                assert_eq!(by_port, kind == "Deployment", "{name}");
                assert_eq!(probe["exec"].is_object(), kind == "DaemonSet", "{name}");
            }
            let mounts = container(workload)["volumeMounts"].as_array();
            for mount in mounts.into_iter().flatten() {
                let volumes = spec["volumes"].as_array().expect("volumes");
                assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]));
            }
            for other in objects.iter().filter(|it| it["metadata"]["name"] == name) {
                let spec = &other["spec"];
                match other["kind"].as_str().expect("a kind") {
                    "Service" => {
                        assert!(selects(&spec["selector"], labels));
                        assert!(has_port(workload, &spec["ports"][0]["targetPort"]));
                    }
                    "PodDisruptionBudget" => {
                        assert!(selects(&spec["selector"]["matchLabels"], labels));
                    }
                    "PodMonitor" => {
                        assert!(selects(&spec["selector"]["matchLabels"], labels));
                        assert!(has_port(workload, &spec["podMetricsEndpoints"][0]["port"]));
                        assert_eq!(other["metadata"]["labels"]["release"], "prometheus");
                    }
                    "NetworkPolicy" => {
                        assert!(selects(&spec["podSelector"]["matchLabels"], labels));
                        for port in spec["ingress"][0]["ports"].as_array().expect("ports") {
                            assert!(has_port(workload, &port["port"]));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

#[needs(part("helm"))]
fn every_object_has_our_labels_and_its_namespace() {
    for settings in SETTINGS {
        for object in objects(settings) {
            let metadata = &object["metadata"];
            let name = &metadata["name"];
            assert_eq!(
                metadata["labels"]["app.kubernetes.io/part-of"], "sidestep",
                "{name}"
            );
            let in_cluster = ["Cluster", "Mutating", "Validating"];
            let kind = object["kind"].as_str().expect("a kind");
            let expected = if in_cluster.iter().any(|prefix| kind.starts_with(prefix)) {
                json!(null)
            } else if name == "sidestep-webhook-events" || name == "sidestep-test-trial" {
                // Of what is said about nodes, and where a pod is tried.
                json!("default")
            } else {
                json!(NAMESPACE)
            };
            assert_eq!(metadata["namespace"], expected, "{kind} {name}");
        }
    }
    for object in objects(EVERYTHING) {
        assert_eq!(object["metadata"]["labels"]["team"], "mesh");
    }
}

#[needs(part("helm"))]
fn the_registration_is_harmless_and_names_the_service() {
    for settings in SETTINGS {
        let objects = objects(settings);
        let registration = object(&objects, "MutatingWebhookConfiguration", "sidestep-webhook");
        let webhook = &registration["webhooks"][0];
        assert_eq!(webhook["failurePolicy"], "Ignore");
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        assert!(
            webhook["timeoutSeconds"]
                .as_u64()
                .is_some_and(|seconds| seconds <= 5)
        );
        let to = &webhook["clientConfig"]["service"];
        let service = object(&objects, "Service", to["name"].as_str().expect("a name"));
        assert_eq!(to["namespace"], service["metadata"]["namespace"]);
        assert_eq!(to["port"], service["spec"]["ports"][0]["port"]);
        let name = registration["metadata"]["name"].as_str().expect("a name");
        // The API server asks in the order of names; Istio's are istio-sidecar-injector and istio-revision-tag-….
        assert!(name > "istio-\u{10ffff}");
        assert!(
            !registration.to_string().contains("istio.io"),
            "istioctl takes it for an injector"
        );
        let excluded = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
        assert_eq!(excluded[0], NAMESPACE);
    }
}

#[needs(part("helm"))]
fn the_ca_is_written_by_whom_the_certificates_setting_says() {
    let of = |settings| {
        let objects = objects(settings);
        let registration =
            object(&objects, "MutatingWebhookConfiguration", "sidestep-webhook").clone();
        let annotation =
            registration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"].clone();
        (
            registration["webhooks"][0]["clientConfig"]["caBundle"].clone(),
            annotation,
        )
    };
    assert_eq!(of(&[]), (json!(null), json!(null)));
    assert_eq!(of(PROVIDED), (json!("QUJD"), json!(null)));
    assert_eq!(
        of(CERT_MANAGER),
        (json!(null), json!("sidestep-system/webhook"))
    );
}

#[needs(part("helm"))]
fn settings_reach_the_webhooks_arguments() {
    let of = |settings| arguments(object(&objects(settings), "Deployment", "sidestep-webhook"));
    let plain = [
        "--enrolment=opt-out",
        "--istio-cni=all",
        "--shortcut=namespace",
        "--probe-timeout=300",
        "--avoid-unsupported-nodes",
        "--label-unsupported-nodes",
        "--label-without-agent=5",
        "--ready-percent=90",
    ];
    let waiting = ["--waiting-report=60", "--waiting-delete=0"];
    let managed = ["--certificates=managed", "--certificate-lifetime=7776000"];
    assert_eq!(of(&[]), [&plain[..], &waiting, &managed].concat());
    let everything = [
        "--enrolment=opt-in",
        "--istio-cni=gate-first",
        "--shortcut=node",
        "--probe-timeout=86400",
        "--avoid-unsupported-nodes",
        "--label-unsupported-nodes",
        "--label-without-agent=60",
        "--ready-percent=50",
        "--waiting-report=30",
        "--waiting-delete=600",
        "--certificates=managed",
        "--certificate-lifetime=3600",
    ];
    assert_eq!(of(EVERYTHING), everything);
    assert_eq!(
        of(PROVIDED),
        [&plain[..], &waiting, &["--certificates=files"]].concat()
    );
}

#[needs(part("helm"))]
fn what_happens_before_uninstalling_is_what_the_settings_say() {
    let of = |settings| {
        let objects = objects(settings);
        let mut jobs = objects.into_iter().filter(|it| it["kind"] == "Job");
        let job = jobs.next()?;
        assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete");
        Some(arguments(&job))
    };
    assert_eq!(of(&[]), Some(vec!["--timeout=240".to_owned()]));
    let everything = ["--roll-back", "--timeout=3600"].map(str::to_owned);
    assert_eq!(of(EVERYTHING), Some(everything.to_vec()));
    assert_eq!(of(&["uninstall.acceleratedPods=ignore"]), None);
    let kept = objects(&["uninstall.acceleratedPods=ignore"]);
    let hooks = kept
        .iter()
        .map(|it| &it["metadata"]["annotations"]["helm.sh/hook"]);
    // What is left is run by `helm test`.
    assert!(
        hooks
            .filter(|hook| !hook.is_null())
            .all(|hook| hook == "test")
    );
}

#[needs(part("helm"))]
fn settings_reach_the_pods() {
    let many = objects(EVERYTHING);
    let webhook = object(&many, "Deployment", "sidestep-webhook");
    assert_eq!(webhook["spec"]["replicas"], 3);
    assert_eq!(
        container(webhook)["image"],
        "registry.example/sidestep/webhook:v9"
    );
    assert_eq!(
        webhook["spec"]["template"]["metadata"]["annotations"]["a"],
        "b"
    );
    let agent = object(&many, "DaemonSet", "sidestep-agent");
    assert_eq!(
        container(agent)["image"],
        "registry.example/sidestep/agent:v9"
    );
    for argument in [
        "--shortcut=pod",
        "--shortcut-limit=16777216",
        "--allow-raw-sockets",
        "--cgroup=/sys/fs/cgroup/pods",
        "--api-patience=300",
        "--sandbox-patience=30",
    ] {
        assert!(
            arguments(agent).contains(&argument.to_owned()),
            "{argument}"
        );
    }
    assert_eq!(
        agent["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        2
    );
    let security = &agent["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(security["seLinuxOptions"]["type"], "spc_t");
    let account = object(&many, "ServiceAccount", "sidestep-agent");
    assert_eq!(
        account["imagePullSecrets"],
        json!([{"name": "one"}, {"name": "two"}])
    );

    let few = objects(LITTLE);
    for (kind, name) in [
        ("Deployment", "sidestep-webhook"),
        ("DaemonSet", "sidestep-agent"),
    ] {
        let spec = &object(&few, kind, name)["spec"]["template"]["spec"];
        for field in [
            "priorityClassName",
            "nodeSelector",
            "tolerations",
            "affinity",
        ] {
            assert_eq!(spec[field], json!(null), "{name} {field}");
        }
    }
    let provided = objects(PROVIDED);
    let webhook = object(&provided, "Deployment", "sidestep-webhook");
    let volumes = &webhook["spec"]["template"]["spec"]["volumes"];
    assert_eq!(volumes[0]["secret"]["secretName"], "tls");
}

/// Only then does what it mounts get out to the node; the agent itself stays as it is.
#[needs(part("helm"))]
fn the_container_that_mounts_a_bpffs_is_there_if_asked_for_and_mounts_where_the_agent_pins() {
    let of = |settings| {
        let objects = objects(settings);
        object(&objects, "DaemonSet", "sidestep-agent")["spec"]["template"]["spec"].clone()
    };
    assert_eq!(of(&[])["initContainers"], json!(null));
    let pod = of(EVERYTHING);
    let init = &pod["initContainers"][0];
    assert_eq!(init["args"][0], "mount-bpffs");
    let pin = &init["args"][1];
    let agent = &pod["containers"][0];
    assert!(
        agent["args"]
            .as_array()
            .is_some_and(|all| all.contains(pin))
    );
    assert_eq!(init["securityContext"]["privileged"], true);
    assert_eq!(agent["securityContext"]["privileged"], false);
    let mount =
        json!([{"name": "bpffs", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"}]);
    assert_eq!(init["volumeMounts"], mount);
}

/// As GKE's own controller wants it; on a cluster that wants none it would only be in the way.
#[needs(part("helm"))]
fn the_priority_classes_are_allowed_where_the_cluster_is_gkes_or_somebody_says_so() {
    let of = |settings: &[&str]| {
        let all = objects(settings).into_iter();
        let mut quotas = all.filter(|object| object["kind"] == "ResourceQuota");
        let quota = quotas.next()?;
        Some(quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"].clone())
    };
    let both = json!(["system-node-critical", "system-cluster-critical"]);
    let gke = "--kube-version=1.34.1-gke.1829001";
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[gke]), Some(both.clone()));
    assert_eq!(of(&["resourceQuota=always"]), Some(both));
    assert_eq!(of(&[gke, "resourceQuota=never"]), None);
    let one = ["resourceQuota=always", "webhook.priorityClassName="];
    assert_eq!(of(&one), Some(json!(["system-node-critical"])));
    assert_eq!(of(&[&["resourceQuota=always"], LITTLE].concat()), None);
}

#[needs(part("helm"))]
fn both_run_on_the_architectures_that_there_are_images_for() {
    let objects = objects(&[]);
    for (kind, name) in [
        ("Deployment", "sidestep-webhook"),
        ("DaemonSet", "sidestep-agent"),
    ] {
        let spec = &object(&objects, kind, name)["spec"]["template"]["spec"];
        assert_eq!(
            spec["nodeSelector"],
            json!({"kubernetes.io/os": "linux"}),
            "{name}"
        );
        let required =
            &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let wanted =
            json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]});
        let terms = required["nodeSelectorTerms"].as_array().expect("terms");
        for term in terms {
            let expressions = term["matchExpressions"].as_array().expect("expressions");
            assert!(expressions.contains(&wanted), "{name}: {term}");
        }
    }
}

#[needs(part("helm"))]
fn the_agent_has_the_capabilities_it_was_shown_to_need_and_no_more() {
    let objects = objects(&[]);
    let agent = object(&objects, "DaemonSet", "sidestep-agent");
    let spec = &agent["spec"]["template"]["spec"];
    assert_eq!(spec["hostNetwork"], json!(null));
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let security = &container(agent)["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    let needed = json!({"drop": ["ALL"], "add": ["DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]});
    assert_eq!(security["capabilities"], needed);
    let paths = spec["volumes"].as_array().expect("volumes").iter();
    let paths: Vec<&Value> = paths.map(|volume| &volume["hostPath"]["path"]).collect();
    assert_eq!(paths, ["/sys/fs/bpf", "/sys/fs/cgroup", "/run/sidestep"]);
}

#[needs(part("helm"))]
fn network_policies_let_in_what_listens_and_scrapes_from_whom_the_settings_say() {
    let of = |settings| {
        let all: Vec<Value> = objects(settings);
        let policies = all.into_iter().filter(|it| it["kind"] == "NetworkPolicy");
        policies.collect::<Vec<_>>()
    };
    for policy in of(&[]) {
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(policy["spec"]["ingress"][0]["from"], json!(null));
    }
    assert_eq!(of(&[]).len(), 2, "they are there unless somebody refuses");
    assert_eq!(of(LITTLE).len(), 0);
    let agents = object(&objects(EVERYTHING), "NetworkPolicy", "sidestep-agent").clone();
    let from = &agents["spec"]["ingress"][0]["from"];
    assert_eq!(from[0]["podSelector"]["matchLabels"]["app"], "prometheus");
}
