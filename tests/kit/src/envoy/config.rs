//! A sidecar's bootstrap as Istio configures it: the virtual listeners on 15001 and 15006, original-destination clusters,
//! passthrough from 127.0.0.6, and mutual TLS between sidecars.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::certs::Certificate;

/// The port of the listener for what leaves the pod.
pub const OUTBOUND_PORT: u16 = 15001;
/// The port of the listener for what enters the pod.
pub const INBOUND_PORT: u16 = 15006;
/// The port of Envoy's own administration, on 127.0.0.1.
pub const ADMIN_PORT: u16 = 15000;
/// The port on which a sidecar says that it is ready; excluded from capture.
pub const READY_PORT: u16 = 15021;

/// Where inbound connections come from when the proxy makes them to the application.
const INBOUND_SOURCE: &str = "127.0.0.6";

/// What a sidecar is for.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// The pod's name.
    pub pod: String,
    /// What it proves its identity with.
    pub certificate: Certificate,
    /// The application's HTTP ports; mutual TLS is required on them, every other port is passed through.
    pub inbound: Vec<u16>,
    /// The services it knows; everything else is passed through.
    pub services: Vec<Service>,
}

/// An HTTP service as the mesh knows it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it is called.
    pub address: SocketAddr,
    /// The identity its sidecar must prove.
    pub spiffe_id: String,
}

/// The counter of requests that a sidecar finished for its own application.
pub const OUTBOUND_REQUESTS: &str = "http.outbound.downstream_rq_completed";
/// The counter of requests that a sidecar finished for others' applications.
pub const INBOUND_REQUESTS: &str = "http.inbound.downstream_rq_completed";

impl Sidecar {
    /// The bootstrap for Envoy.
    pub fn bootstrap(&self) -> Value {
        let mut listeners = vec![virtual_outbound(), self.virtual_inbound(), ready()];
        let mut clusters = vec![
            cluster("PassthroughCluster", original_destination(None)),
            cluster(
                "InboundPassthroughCluster",
                original_destination(Some(INBOUND_SOURCE)),
            ),
            cluster("BlackHoleCluster", json!({"type": "STATIC"})),
        ];
        for port in &self.inbound {
            let name = inbound_name(*port);
            clusters.push(cluster(&name, original_destination(Some(INBOUND_SOURCE))));
        }
        for service in &self.services {
            listeners.push(service_listener(service));
            clusters.push(cluster(&service.cluster(), self.endpoint(service)));
        }
        json!({
            "node": {"id": format!("sidecar~{0}~{0}.demo", self.pod), "cluster": format!("{}.demo", self.pod)},
            "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        })
    }

    fn virtual_inbound(&self) -> Value {
        let mut chains = vec![json!({
            "name": "virtualInbound-blackhole",
            "filter_chain_match": {"destination_port": INBOUND_PORT},
            "filters": [tcp_proxy("BlackHoleCluster")],
        })];
        chains.extend(self.inbound.iter().map(|port| self.inbound_chain(*port)));
        json!({
            "name": "virtualInbound",
            "traffic_direction": "INBOUND",
            "address": address("0.0.0.0", INBOUND_PORT),
            "listener_filters": [
                filter("envoy.filters.listener.original_dst", "filters.listener.original_dst.v3.OriginalDst", json!({})),
                filter("envoy.filters.listener.tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector", json!({})),
            ],
            "filter_chains": chains,
            "default_filter_chain": {
                "name": "virtualInbound-catchall-tcp",
                "filters": [tcp_proxy("InboundPassthroughCluster")],
            },
        })
    }

    /// Matches the port whatever the transport; without a client certificate there is no connection.
    fn inbound_chain(&self, port: u16) -> Value {
        let mut context = self.tls(json!({}), &["h2", "http/1.1"]);
        context["require_client_certificate"] = json!(true);
        let client = json!({
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true},
        });
        json!({
            "name": format!("0.0.0.0_{port}"),
            "filter_chain_match": {"destination_port": port},
            "transport_socket": filter("tls", "transport_sockets.tls.v3.DownstreamTlsContext", context),
            "filters": [http("inbound", &inbound_name(port), client)],
        })
    }

    fn endpoint(&self, service: &Service) -> Value {
        let sans = json!({
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": service.spiffe_id}},
            ],
        });
        let mut context = self.tls(sans, &["istio"]);
        context["sni"] = json!(format!(
            "outbound_.{}_._.{}",
            service.address.port(),
            service.name
        ));
        let host = address(&service.address.ip().to_string(), service.address.port());
        json!({
            "type": "STATIC",
            "transport_socket": filter("tls", "transport_sockets.tls.v3.UpstreamTlsContext", context),
            "load_assignment": {
                "cluster_name": service.cluster(),
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": host}}]}],
            },
        })
    }

    fn tls(&self, mut validation: Value, protocols: &[&str]) -> Value {
        let own = &self.certificate;
        validation["trusted_ca"] = json!({"inline_string": own.authority});
        json!({
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": protocols,
                "tls_certificates": [{
                    "certificate_chain": {"inline_string": own.certificate},
                    "private_key": {"inline_string": own.key},
                }],
                "validation_context": validation,
            },
        })
    }
}

impl Service {
    fn cluster(&self) -> String {
        format!("outbound|{}||{}", self.address.port(), self.name)
    }
}

fn inbound_name(port: u16) -> String {
    format!("inbound|{port}||")
}

fn virtual_outbound() -> Value {
    json!({
        "name": "virtualOutbound",
        "traffic_direction": "OUTBOUND",
        "address": address("0.0.0.0", OUTBOUND_PORT),
        "use_original_dst": true,
        "filter_chains": [
            {
                "name": "virtualOutbound-blackhole",
                "filter_chain_match": {"destination_port": OUTBOUND_PORT},
                "filters": [tcp_proxy("BlackHoleCluster")],
            },
            {"name": "virtualOutbound-catchall-tcp", "filters": [tcp_proxy("PassthroughCluster")]},
        ],
    })
}

/// Not bound: 15001 hands it the connections whose original destination is this address.
fn service_listener(service: &Service) -> Value {
    let name = format!("{}_{}", service.address.ip(), service.address.port());
    json!({
        "name": name,
        "traffic_direction": "OUTBOUND",
        "address": address(&service.address.ip().to_string(), service.address.port()),
        "bind_to_port": false,
        "filter_chains": [{"filters": [http("outbound", &service.cluster(), json!({}))]}],
    })
}

fn ready() -> Value {
    let route = json!({"match": {"path": "/healthz/ready"}, "direct_response": {"status": 200}});
    json!({
        "name": "agent",
        "address": address("0.0.0.0", READY_PORT),
        "filter_chains": [{"filters": [manager("agent", &route, json!({}))]}],
    })
}

fn http(prefix: &str, cluster: &str, more: Value) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}});
    manager(prefix, &route, more)
}

fn manager(prefix: &str, route: &Value, mut more: Value) -> Value {
    more["stat_prefix"] = json!(prefix);
    more["normalize_path"] = json!(true);
    more["use_remote_address"] = json!(false);
    more["route_config"] = json!({
        "name": prefix,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    });
    more["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    more["http_filters"] = json!([filter(
        "envoy.filters.http.router",
        "filters.http.router.v3.Router",
        json!({})
    )]);
    filter(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        more,
    )
}

fn tcp_proxy(cluster: &str) -> Value {
    filter(
        "envoy.filters.network.tcp_proxy",
        "filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": cluster, "cluster": cluster}),
    )
}

fn filter(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{kind}"));
    json!({"name": name, "typed_config": config})
}

/// Istio puts no limit on a cluster; Envoy's own would be 1,024. Requests go on by the version of HTTP they came with.
fn cluster(name: &str, mut config: Value) -> Value {
    config["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "use_downstream_protocol_config": {"http2_protocol_options": {}},
        },
    });
    let unlimited = u32::MAX;
    config["name"] = json!(name);
    config["connect_timeout"] = json!("10s");
    config["circuit_breakers"] = json!({"thresholds": [{
        "max_connections": unlimited,
        "max_pending_requests": unlimited,
        "max_requests": unlimited,
        "max_retries": unlimited,
    }]});
    config
}

fn original_destination(source: Option<&str>) -> Value {
    let mut config = json!({"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"});
    if let Some(source) = source {
        config["upstream_bind_config"] =
            json!({"source_address": {"address": source, "port_value": 0}});
    }
    config
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}
