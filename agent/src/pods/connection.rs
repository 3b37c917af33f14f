//! The connection of the watch of pods. Nothing may come on it for minutes, so it asks by itself whether its other end is
//! still there: HTTP/2's pings reach the API server through a load balancer, and TCP's own probes and its limit of
//! unacknowledged bytes notice a way that is cut, also where somebody between the two speaks only HTTP/1.

use axum::http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt as _},
};
use rustls::pki_types::ServerName;
use tower::{BoxError, ServiceBuilder, util::BoxService};

use super::timing::{Patience, QUIET, draw_watch, longest_watch};

/// Attempts of TCP to reach a silent other end before it gives up.
const PROBES: u32 = 3;

/// What answers the watch's requests.
pub type Connection = BoxService<Request<Body>, Response<Incoming>, BoxError>;

/// Prepares it; the connection is made with the first request, and again where it was lost.
pub fn connect(config: &Config, patience: Patience) -> anyhow::Result<Connection> {
    anyhow::ensure!(
        config.proxy_url.is_none(),
        "the agent reaches the API server through no proxy: take proxy-url out of the kubeconfig, or HTTPS_PROXY out of \
         the environment"
    );
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(patience.ping()));
    tcp.set_keepalive_interval(Some(patience.pong()));
    tcp.set_keepalive_retries(Some(PROBES));
    tcp.set_tcp_user_timeout(Some(patience.answer()));
    let mut tls = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone())?;
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let mut connector = TimeoutConnector::new(tls.enable_all_versions().wrap_connector(tcp));
    connector.set_connect_timeout(Some(patience.connect()));
    connector.set_read_timeout(Some(QUIET));
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(patience.ping())
        .http2_keep_alive_timeout(patience.pong())
        .http2_keep_alive_while_idle(true)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(BoxService::new(service))
}

/// Limits every request of a client that follows nothing.
pub fn limit(config: &mut Config, patience: Patience) {
    config.connect_timeout = Some(patience.connect());
    config.read_timeout = Some(patience.answer());
    config.write_timeout = Some(patience.answer());
}

/// Gives a watch a time of its own.
pub(super) fn draw_time(mut request: Request<Body>) -> Request<Body> {
    let asked = |seconds: u32| format!("timeoutSeconds={seconds}");
    let uri = request.uri().to_string();
    let drawn = uri.replace(&asked(longest_watch()), &asked(draw_watch()));
    if let Ok(drawn) = drawn.parse::<Uri>() {
        *request.uri_mut() = drawn;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str) -> String {
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        draw_time(request).uri().to_string()
    }

    #[test]
    fn each_watch_has_its_own_time_and_a_list_stays_as_it_is() {
        let watch = "/api/v1/pods?&watch=true&timeoutSeconds=600&resourceVersion=7";
        let drawn: std::collections::HashSet<String> = (0..100).map(|_| asked(watch)).collect();
        assert!(drawn.len() > 50, "{drawn:?}");
        assert!(drawn.iter().all(|uri| uri.ends_with("&resourceVersion=7")));
        assert_eq!(asked("/api/v1/pods?&limit=1"), "/api/v1/pods?&limit=1");
    }
}
