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

/// Where an application that names its proxy finds it, on 127.0.0.1: [`Sidecar::explicit`].
pub const EXPLICIT_PORT: u16 = 15080;

/// The same for plain TCP, there and at the other sidecar.
pub const EXPLICIT_STREAM_PORT: u16 = 15081;

/// Where an application takes plain TCP. No service says so: to a sidecar it is one of the ports that it passes through.
pub const STREAM_PORT: u16 = 9000;

/// Where inbound connections come from when the proxy makes them to the application.
const INBOUND_SOURCE: &str = "127.0.0.6";

/// The listener and the cluster of plain TCP, where nothing is redirected.
const STREAM: &str = "stream";

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
    /// Nothing is redirected: the application calls its one service at [`EXPLICIT_PORT`], and sidecars call each other at
    /// [`INBOUND_PORT`].
    pub explicit: bool,
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
        if self.explicit {
            let (host, port) = self.explicit_stream();
            listeners.push(stream_listener());
            clusters.push(cluster(STREAM, fixed(STREAM, &address(&host, port), None)));
        }
        for port in &self.inbound {
            let name = inbound_name(*port);
            let application = if self.explicit {
                fixed(&name, &address("127.0.0.1", *port), Some(INBOUND_SOURCE))
            } else {
                original_destination(Some(INBOUND_SOURCE))
            };
            clusters.push(cluster(&name, application));
        }
        for service in &self.services {
            listeners.push(service_listener(service, self.explicit));
            clusters.push(cluster(&service.cluster(), self.endpoint(service)));
        }
        json!({
            "node": {"id": format!("sidecar~{0}~{0}.demo", self.pod), "cluster": format!("{}.demo", self.pod)},
            "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        })
    }

    /// Where plain TCP goes next: from the sidecar that knows the service to the other, from there to the application.
    fn explicit_stream(&self) -> (String, u16) {
        match self.services.first() {
            Some(service) => (service.address.ip().to_string(), EXPLICIT_STREAM_PORT),
            None => ("127.0.0.1".to_owned(), STREAM_PORT),
        }
    }

    fn virtual_inbound(&self) -> Value {
        let mut chains = Vec::new();
        if !self.explicit {
            chains.push(json!({
                "name": "virtualInbound-blackhole",
                "filter_chain_match": {"destination_port": INBOUND_PORT},
                "filters": [tcp_proxy("BlackHoleCluster")],
            }));
        }
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
            "filter_chain_match": {"destination_port": if self.explicit { INBOUND_PORT } else { port }},
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
        let port = if self.explicit {
            INBOUND_PORT
        } else {
            service.address.port()
        };
        let host = address(&service.address.ip().to_string(), port);
        let mut config = fixed(&service.cluster(), &host, None);
        config["transport_socket"] = filter(
            "tls",
            "transport_sockets.tls.v3.UpstreamTlsContext",
            context,
        );
        config
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

/// Not bound: 15001 hands it the connections whose original destination is this address. Unless they come by themselves.
fn service_listener(service: &Service, explicit: bool) -> Value {
    let name = format!("{}_{}", service.address.ip(), service.address.port());
    let at = if explicit {
        address("127.0.0.1", EXPLICIT_PORT)
    } else {
        address(&service.address.ip().to_string(), service.address.port())
    };
    json!({
        "name": name,
        "traffic_direction": "OUTBOUND",
        "address": at,
        "bind_to_port": explicit,
        "filter_chains": [{"filters": [http("outbound", &service.cluster(), json!({}))]}],
    })
}

fn stream_listener() -> Value {
    json!({
        "name": STREAM,
        "address": address("0.0.0.0", EXPLICIT_STREAM_PORT),
        "filter_chains": [{"filters": [tcp_proxy(STREAM)]}],
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
    from(
        source,
        json!({"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}),
    )
}

fn fixed(cluster: &str, host: &Value, source: Option<&str>) -> Value {
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": host}}]}]);
    let assignment = json!({"cluster_name": cluster, "endpoints": endpoints});
    from(
        source,
        json!({"type": "STATIC", "load_assignment": assignment}),
    )
}

fn from(source: Option<&str>, mut config: Value) -> Value {
    if let Some(source) = source {
        config["upstream_bind_config"] =
            json!({"source_address": {"address": source, "port_value": 0}});
    }
    config
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}
