//! Every flow, compared with plain Istio in the same run: the same answers, and the same in Envoy's access log.

use sidestep_kit::needs;
use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use sidestep_cluster::{
    room::{Room, objects, until},
    twins::Twins,
};

use crate::world::shared;

/// A port of the server beside [`objects::PORT`].
const SECOND: u16 = 9090;

/// A server on two ports, with services of every kind, and a client.
fn pods() -> Vec<Value> {
    let serve = "sidestep-app serve --pod server --listen 0.0.0.0";
    let port = objects::PORT;
    let command = json!([
        "sh",
        "-c",
        format!("{serve}:{SECOND} & exec {serve}:{port}")
    ]);
    let service = |name: &str, spec: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": spec,
        })
    };
    let mut none = objects::service("none");
    none["spec"]["selector"]["app"] = json!("nobody");
    // A pod finds its own name among its hosts, and not the service of that name.
    let mut itself = objects::service("itself");
    itself["spec"]["selector"]["app"] = json!("server");
    vec![
        objects::pod("server", &command),
        objects::client("client"),
        objects::service("server"),
        none,
        itself,
        service(
            "headless",
            json!({"clusterIP": "None", "selector": {"app": "server"}, "ports": [{"name": "http", "port": port}]}),
        ),
        service(
            "alias",
            json!({"type": "ExternalName", "externalName": "kubernetes.default.svc.cluster.local"}),
        ),
    ]
}

#[needs(sidestep_cluster::programs)]
fn what_an_application_gets_is_what_it_gets_with_iptables() {
    let cluster = shared();
    let twins = Twins::new(&cluster, "flows", &pods());
    twins.warm("client", "http://server");
    twins.warm("client", "http://headless:8080");
    twins.warm("server", "http://itself");
    let get = |pod, url: &str| twins.run(pod, &format!("wget -qO- {url}"));
    let succeeds = |pod, url: &str, what: &str| {
        let said = get(pod, url);
        assert!(said.starts_with("Some(0)"), "{what}: {said}");
        said
    };
    let secret = "URI=spiffe://cluster.local/ns/NAMESPACE/sa/default";
    let by_name = succeeds("client", "http://server/", "a service");
    assert!(by_name.contains(secret), "{by_name}");
    let headless = succeeds("client", "http://headless:8080/", "a headless service");
    assert!(headless.contains(secret), "{headless}");
    succeeds("client", "http://{server}:8080/", "a pod's address");
    succeeds("client", "http://{server}:9090/", "a port of no service");
    succeeds("server", "http://itself/", "its own service");
    succeeds("server", "http://{server}:8080/", "its own address");
    succeeds(
        "server",
        "http://127.0.0.1:8080/",
        "its own loopback address",
    );
    succeeds("client", "http://server/bytes/300000", "a large answer");
    // These fail, and must fail in the same way.
    let fails = |pod, url: &str, how: &str| {
        let said = get(pod, url);
        assert!(said.starts_with("Some(1)") && said.contains(how), "{said}");
    };
    fails("client", "http://server/none", "404");
    fails("client", "http://none/", "503");
    fails("client", "http://{server}:8081/", "");
    fails("client", "http://nowhere.invalid/", "bad address");
    // Not in the mesh: the API server, which is asked without TLS.
    fails("client", "http://10.95.0.1:6443/", "400");
    fails("client", "http://alias:443/", "400");
    twins.logged_the_same(&[("client", 8), ("server", 6)]);
}

#[needs(sidestep_cluster::programs)]
fn strict_mutual_tls_resets_plain_text_from_outside_and_lets_the_mesh_in() {
    let cluster = shared();
    let twins = Twins::new(&cluster, "strict", &pods());
    let outside = cluster.room("outside", &[]);
    outside.apply(&[objects::client("client")]);
    outside.ready(&["client"]);
    twins.warm("client", "http://server");
    twins.warm("server", "http://itself");
    let plain = |room: &Room<'_>| {
        let address = SocketAddr::new(room.address("server"), objects::PORT);
        match cluster
            .host()
            .ask_in_plain_text(address, Duration::from_secs(20))
        {
            Ok(answer) => answer.lines().next().unwrap_or_default().to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    };
    let allowed = twins.agree("plain text from the node, permissive", plain);
    assert_eq!(allowed, "HTTP/1.1 200 OK");
    for room in twins.both() {
        room.apply(&[objects::strict()]);
        until("plain text is reset", || {
            plain(room) == format!("{:?}", ErrorKind::ConnectionReset)
        });
    }
    for port in [objects::PORT, SECOND] {
        let said = twins.agree("plain text from a pod outside the mesh", |room| {
            let url = format!("http://{}:{port}/", room.address("server"));
            let output = outside.try_exec("client", &format!("wget -qO- {url}"));
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        });
        assert!(said.contains("reset"), "{said}");
    }
    let said = twins.run("client", "wget -qO- http://server/");
    assert!(said.contains("x-forwarded-client-cert"), "{said}");
    let said = twins.run("server", "wget -qO- http://itself/");
    assert!(said.contains("x-forwarded-client-cert"), "{said}");
    // Plain text was tried until it was reset.
    twins.logged_alike(&[("client", 1), ("server", 4)]);
}

#[needs(sidestep_cluster::programs)]
fn excluded_ports_and_ranges_go_straight() {
    let cluster = shared();
    let traffic = |name: &str| format!("traffic.sidecar.istio.io/{name}");
    let mut objects = pods();
    objects[0]["metadata"]["annotations"] =
        json!({traffic("excludeInboundPorts"): SECOND.to_string()});
    let variants = [
        ("no-port", "excludeOutboundPorts", "8080"),
        (
            "no-range",
            "excludeOutboundIPRanges",
            "10.94.0.0/16,10.95.0.1/32",
        ),
        ("only-range", "includeOutboundIPRanges", "10.96.0.0/16"),
        ("only-port", "includeOutboundPorts", "9090"),
        ("no-inbound", "includeInboundPorts", ""),
    ];
    for (name, annotation, value) in variants {
        let mut client = objects::server(name);
        client["metadata"]["annotations"] = json!({traffic(annotation): value});
        if annotation == "includeOutboundPorts" {
            // It adds to what is captured, so nothing else may be.
            client["metadata"]["annotations"][traffic("includeOutboundIPRanges")] = json!("");
        }
        objects.push(client);
    }
    let twins = Twins::new(&cluster, "excluded", &objects);
    for (client, ..) in variants {
        for port in [objects::PORT, SECOND] {
            let said = twins.run(client, &format!("wget -qO- http://{{server}}:{port}/"));
            assert!(said.starts_with("Some(0)"), "{said}");
            // Who called, as the server's socket tells: its own sidecar, or the other pod.
            let straight = said.contains(&format!(r#""peer":"<pods/{client}>"#));
            assert_eq!(straight, port == SECOND, "{said}");
        }
        twins.run(client, "wget -qO- http://10.95.0.1:6443/");
    }
    // Nobody redirects what comes in there: the caller is seen as it is.
    let said = twins.run("client", "wget -qO- http://{no-inbound}:8080/");
    assert!(said.starts_with("Some(0)"), "{said}");
    twins.logged_the_same(&[
        ("client", 1),
        ("server", 1),
        ("no-port", 1),
        ("no-range", 0),
        ("only-range", 0),
        ("only-port", 0),
        ("no-inbound", 1),
    ]);
}
