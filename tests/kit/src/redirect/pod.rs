//! A pod: a namespace, a cgroup, the fixture it follows, and the processes in it.

use std::net::IpAddr;

use crate::{
    actor::{Actor, Identity, Kind, Socket},
    cgroup::Cgroup,
    net::Namespace,
};

use super::Fixture;

/// The name server in the `resolv.conf` for which the fixtures' rules were recorded.
const NAME_SERVER: &str = "10.77.0.53";

/// A pod.
#[derive(Debug)]
pub struct Pod {
    fixture: Fixture,
    name: String,
    // The processes in the cgroup end before their namespace goes.
    cgroup: Cgroup,
    namespace: Namespace,
    addresses: Vec<IpAddr>,
}

impl Pod {
    pub(super) fn new(
        fixture: Fixture,
        name: String,
        namespace: Namespace,
        cgroup: Cgroup,
        addresses: &[&str],
    ) -> Self {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect();
        Self {
            fixture,
            name,
            cgroup,
            namespace,
            addresses,
        }
    }

    /// Its name, which is also that of its Pod file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its fixture.
    pub fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The first address it was given.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// All of them.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether it was given an IPv6 address.
    pub fn has_v6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// Its Pod file.
    pub fn manifest(&self) -> String {
        self.fixture
            .manifest(&self.name, self.namespace.name(), &[NAME_SERVER])
    }

    /// The same with these annotations.
    pub fn annotated(&self, annotations: &[(&str, &str)]) -> String {
        let manifest = self.manifest();
        let lines = annotations
            .iter()
            .map(|(key, value)| format!("    {key}: \"{value}\"\n"));
        let wish = format!("annotations:\n{}", lines.collect::<String>());
        let annotated = manifest.replacen("annotations:\n", &wish, 1);
        assert_ne!(annotated, manifest, "the file has no annotations");
        annotated
    }

    /// A process of the application.
    pub fn app(&self) -> Actor {
        self.actor(&Identity::app())
    }

    /// A process with these ids.
    pub fn actor(&self, identity: &Identity) -> Actor {
        Actor::spawn(&self.namespace, &self.cgroup, identity)
    }

    /// The proxy, as the user Istio gives it.
    pub fn proxy(&self) -> Proxy {
        self.proxy_as(&Identity::proxy())
    }

    /// The proxy as another user.
    pub fn proxy_as(&self, identity: &Identity) -> Proxy {
        Proxy::start(self.actor(identity), self.has_v6())
    }
}

/// An actor that listens where the sidecar does and tells what arrives: `outbound` on 15001, `inbound` on 15006, `dns` on
/// 15053.
#[derive(Debug)]
pub struct Proxy {
    actor: Actor,
    outbound: Option<Socket>,
    inbound: Option<Socket>,
    _dns: Vec<Socket>,
}

impl Proxy {
    fn start(actor: Actor, v6: bool) -> Self {
        let any = if v6 { "[::]" } else { "0.0.0.0" };
        let mut dns = vec![
            actor.serve("dns", Kind::Udp, "127.0.0.1:15053"),
            actor.serve("dns", Kind::Tcp, "127.0.0.1:15053"),
        ];
        if v6 {
            dns.push(actor.serve("dns", Kind::Udp, "[::1]:15053"));
            dns.push(actor.serve("dns", Kind::Tcp, "[::1]:15053"));
        }
        Self {
            outbound: Some(actor.serve("outbound", Kind::Tcp, &format!("{any}:15001"))),
            inbound: Some(actor.serve("inbound", Kind::Tcp, &format!("{any}:15006"))),
            _dns: dns,
            actor,
        }
    }

    /// The process, to make connections as the proxy.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Stops to listen for outbound connections.
    pub fn close_outbound(&mut self) {
        self.outbound.take().expect("it listens").close();
    }

    /// Stops to listen for inbound connections.
    pub fn close_inbound(&mut self) {
        self.inbound.take().expect("it listens").close();
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) {
        self.actor.kill();
    }
}
