//! Workloads and services of every kind, compared with plain Istio.

use serde_json::{Value, json};
use sidestep_cluster::{
    agent::said,
    room::{Room, objects, until},
    twins::Twins,
};
use sidestep_kit::needs;

use crate::world::shared;

#[needs(sidestep_cluster::programs)]
fn each_pod_of_a_stateful_set_answers_by_its_own_name() {
    let cluster = shared();
    let serve = format!(
        "exec sidestep-app serve --pod $HOSTNAME --listen 0.0.0.0:{}",
        objects::PORT
    );
    let pod = objects::pod("db", &json!(["sh", "-c", serve]));
    let mut set = objects::controller("StatefulSet", "db", 2, &pod);
    set["spec"]["serviceName"] = json!("db");
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    let mut service = objects::service("db");
    service["spec"]["clusterIP"] = json!("None");
    service["spec"]["ports"][0]["port"] = json!(objects::PORT);
    let all = [set, service, objects::client("client")];
    let twins = Twins::with_more_pods(&cluster, "stateful", &all, &["db-0", "db-1"]);
    for name in ["db-0", "db-1"] {
        let url = format!("http://{name}.db:{}", objects::PORT);
        twins.warm("client", &url);
        let said = twins.run("client", &format!("wget -qO- {url}/"));
        assert!(said.contains(&format!(r#""pod":"{name}""#)), "{said}");
        assert!(said.contains("x-forwarded-client-cert"), "{said}");
    }
    twins.logged_the_same(&[("client", 2), ("db-0", 1), ("db-1", 1)]);
}

#[needs(sidestep_cluster::programs)]
fn a_job_calls_a_service_and_completes() {
    let cluster = shared();
    // Its sidecar learns of the server when it does; what comes before is not compared.
    let known = "case $(wget -qO- http://server/warm 2>&1) in *404*) break;; esac; sleep 1";
    // Istio kills Envoy with its Job, however much of its log, written once a second, it still holds: the Job ends when told to.
    let told = "until [ -e /tmp/end ]; do sleep 0.1; done";
    let ask = format!("while :; do {known}; done; wget -qO- http://server/ && echo && {told}");
    let twins = Twins::new(
        &cluster,
        "job",
        &[objects::server("server"), objects::service("server")],
    );
    for room in twins.both() {
        room.apply(&[objects::job("once", &json!(["sh", "-c", ask]))]);
    }
    let said = twins.agree("a job's log", |room| {
        let mut log = String::new();
        until("a job's log", || {
            let output = room.try_kubectl("logs job/once -c app");
            log = String::from_utf8_lossy(&output.stdout).into_owned();
            !log.is_empty()
        });
        log.lines().last().expect("it was answered").to_owned()
    });
    assert!(said.contains("x-forwarded-client-cert"), "{said}");
    twins.logged_the_same(&[("job/once", 1), ("server", 1)]);
    for room in twins.both() {
        room.exec("job/once", "sh -c :>/tmp/end");
        room.kubectl("wait --for=condition=Complete --timeout=120s job/once");
    }
}

#[needs(sidestep_cluster::programs)]
fn captured_dns_answers_what_only_istio_knows() {
    let cluster = shared();
    let mut capturing = objects::client("capturing");
    capturing["metadata"]["annotations"] = json!({
        "proxy.istio.io/config": r#"{"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}"#,
    });
    let all = [
        objects::server("server"),
        objects::service("server"),
        objects::client("plain"),
        capturing,
        made_up(),
    ];
    let twins = Twins::new(&cluster, "dns", &all);
    twins.warm("capturing", "http://made-up.example");
    let said = twins.run("capturing", "wget -qO- http://made-up.example/");
    assert!(said.contains("x-forwarded-client-cert"), "{said}");
    let said = twins.run("plain", "wget -qO- http://made-up.example/");
    assert!(said.contains("bad address"), "{said}");
    let said = look_up(&twins, "capturing", "made-up.example");
    assert!(said.contains("240.10.20.30"), "{said}");
    for client in ["capturing", "plain"] {
        let said = look_up(&twins, client, "kubernetes.default.svc.cluster.local");
        assert!(said.contains("10.96.0.1"), "{said}");
        let said = look_up(&twins, client, "nowhere.cluster.local");
        assert!(said.contains("NXDOMAIN"), "{said}");
    }
    twins.logged_the_same(&[("capturing", 1), ("plain", 0), ("server", 1)]);
}

/// What a name means to a pod. Both families are asked for at once, and answered in any order.
fn look_up(twins: &Twins<'_>, pod: &str, name: &str) -> String {
    let said = twins.agree(&format!("{name} in {pod}"), |room| {
        let output = room.try_exec(pod, &format!("nslookup {name} 10.96.0.10"));
        let said = said(&output);
        let mut lines: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        lines.join("\n")
    });
    // It comes from the server that was asked, whoever gave it.
    assert!(said.contains("10.96.0.10:53"), "{said}");
    said
}

/// A host that is in no DNS.
fn made_up() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "made-up"},
        "spec": {
            "hosts": ["made-up.example"],
            "addresses": ["240.10.20.30"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": objects::PORT}],
            "resolution": "STATIC",
            "location": "MESH_INTERNAL",
            "workloadSelector": {"labels": {"app": "server"}},
            "exportTo": ["."],
        },
    })
}

#[needs(sidestep_cluster::programs)]
fn probes_of_every_kind_find_the_application() {
    let cluster = shared();
    let port = objects::PORT;
    let mut server = objects::server("server");
    server["spec"]["containers"][0]["startupProbe"] =
        json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
    server["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/", "port": port}, "periodSeconds": 1});
    server["spec"]["containers"][0]["livenessProbe"] =
        json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    // etcd answers as gRPC's health checking protocol wants it.
    let etcd = "exec etcd --data-dir /tmp/etcd --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://localhost:2379";
    let mut etcd = objects::pod("etcd", &json!(["sh", "-c", etcd]));
    let grpc = json!({"grpc": {"port": 2379}, "periodSeconds": 1});
    etcd["spec"]["containers"][0]["startupProbe"] = grpc.clone();
    etcd["spec"]["containers"][0]["readinessProbe"] = grpc;
    let twins = Twins::new(&cluster, "probes", &[server.clone(), etcd.clone()]);
    // Those that are asked for what they do not have are restarted.
    let failing = [
        (
            &mut server,
            json!({"httpGet": {"path": "/none", "port": port}}),
        ),
        (
            &mut etcd,
            json!({"grpc": {"port": 2379, "service": "nobody"}}),
        ),
    ];
    let failing = failing.map(|(pod, mut probe)| {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        pod["metadata"]["name"] = json!(format!("failing-{name}"));
        probe["periodSeconds"] = json!(1);
        probe["failureThreshold"] = json!(1);
        pod["spec"]["containers"][0]["livenessProbe"] = probe;
        pod.clone()
    });
    for room in twins.both() {
        room.apply(&failing);
        for pod in ["failing-server", "failing-etcd"] {
            until(&format!("{pod} is restarted"), || restarts(room, pod) > 0);
        }
    }
    for pod in ["server", "etcd"] {
        let good = twins.agree(pod, |room| restarts(room, pod).to_string());
        assert_eq!(good, "0", "restarts of {pod}");
    }
}

/// How often a pod's application was started again.
fn restarts(room: &Room<'_>, pod: &str) -> u64 {
    let pod = room.get(&format!("pod {pod}"));
    let statuses = pod["status"]["containerStatuses"].as_array();
    let mut statuses = statuses.into_iter().flatten();
    let app = statuses.find(|status| status["name"] == "app");
    app.and_then(|app| app["restartCount"].as_u64())
        .unwrap_or(0)
}
