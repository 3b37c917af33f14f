//! The cases: which pod calls whom, what it should see, and what to do where it sees something else. All of it is pure.

mod judge;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use self::judge::{Certificate, Wants};
use super::call::Call;
use super::plan::{OUTSIDE, Path, Side, client, server};
use super::ports::{CLOSED, Port};

/// Bytes that are sent and come back.
const BYTES: usize = 1 << 20;

/// Requests of the crowd.
const REQUESTS: usize = 200;

/// Of which so many are on their way at the same time.
const AT_ONCE: usize = 16;

/// A case.
pub(super) struct Case {
    /// Its name, which is stable.
    pub(super) name: &'static str,
    /// Whether a server takes part, so that it matters where that is.
    pub(super) has_path: bool,
    /// Whether it may be tried again while the sidecars still learn of each other.
    pub(super) settles: bool,
    steps: fn(&Scene<'_>) -> Vec<Step>,
}

/// Where a case is played.
pub(super) struct Scene<'a> {
    pub(super) side: Side,
    pub(super) path: Path,
    pub(super) place: &'a Place,
}

/// The addresses of the test's objects, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) pods: BTreeMap<String, IpAddr>,
    pub(super) services: BTreeMap<String, IpAddr>,
}

/// One call of a case.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Which pod calls.
    pub(super) from: &'static str,
    pub(super) call: Call,
    wants: Wants,
    /// Where it goes to, for whoever looks for the cause.
    to: Option<SocketAddr>,
}

/// All cases with calls, in the order in which they are made.
pub(super) const CASES: [Case; 12] = [
    Case {
        steps: |scene| vec![scene.http(scene.service(), Port::Http, Certificate::Any)],
        ..Case::on_paths("http")
    },
    Case {
        steps: |scene| vec![scene.http(&scene.address(), Port::Http, Certificate::Any)],
        ..Case::on_paths("http-by-address")
    },
    Case {
        steps: |scene| vec![scene.http(scene.service(), Port::Http, Certificate::Shown)],
        ..Case::on_paths("mutual-tls")
    },
    Case {
        steps: |scene| vec![scene.echo(false)],
        ..Case::on_paths("tcp")
    },
    Case {
        steps: |scene| vec![scene.echo(true)],
        ..Case::on_paths("half-close")
    },
    Case {
        steps: |scene| {
            let (host, port) = (scene.service().to_owned(), Port::Grpc.number());
            vec![scene.step(Call::Grpc { host, port }, Wants::Success)]
        },
        ..Case::on_paths("grpc")
    },
    Case {
        steps: |scene| vec![scene.http(scene.service(), Port::Strict, Certificate::Shown)],
        ..Case::on_paths("strict")
    },
    Case {
        steps: |scene| {
            // That it is answered elsewhere shows that it is the port's policy that refuses it.
            let answered = scene.http(&scene.address(), Port::Http, Certificate::Absent);
            let refused = Step {
                wants: Wants::Refusal,
                ..scene.http(&scene.address(), Port::Strict, Certificate::Any)
            };
            [answered, refused].map(Step::by_outsider).into()
        },
        ..Case::on_paths("strict-plain-text")
    },
    Case {
        steps: |scene| {
            let (host, port) = (scene.address(), Port::Excluded.number());
            vec![scene.step(Call::Peer { host, port }, Wants::NoProxy)]
        },
        ..Case::on_paths("excluded-port")
    },
    Case {
        steps: |scene| {
            let (host, port) = (scene.address(), CLOSED);
            vec![scene.step(Call::Knock { host, port }, Wants::Success)]
        },
        ..Case::on_paths("closed-port")
    },
    Case {
        settles: false,
        steps: |scene| {
            let call = Call::Many {
                host: scene.service().to_owned(),
                port: Port::Http.number(),
                requests: REQUESTS,
                at_once: AT_ONCE,
            };
            let wants = Wants::Answer(scene.service(), Certificate::Any);
            vec![scene.step(call, wants)]
        },
        ..Case::on_paths("many")
    },
    Case {
        has_path: false,
        steps: |scene| vec![scene.lookup(false), scene.lookup(true)],
        ..Case::on_paths("dns")
    },
];

impl Case {
    const fn on_paths(name: &'static str) -> Self {
        Self {
            name,
            has_path: true,
            settles: true,
            steps: |_| Vec::new(),
        }
    }

    /// The calls.
    pub(super) fn steps(&self, scene: &Scene<'_>) -> Vec<Step> {
        (self.steps)(scene)
    }
}

impl Scene<'_> {
    /// The server, which is called as its Service.
    const fn service(&self) -> &'static str {
        server(self.side, self.path)
    }

    /// Its pod's address.
    fn address(&self) -> String {
        let address = self.place.pods.get(self.service());
        address.map(ToString::to_string).unwrap_or_default()
    }

    fn http(&self, host: &str, port: Port, certificate: Certificate) -> Step {
        let call = Call::Http {
            host: host.to_owned(),
            port: port.number(),
        };
        self.step(call, Wants::Answer(self.service(), certificate))
    }

    fn echo(&self, half_close: bool) -> Step {
        let call = Call::Echo {
            host: self.service().to_owned(),
            port: Port::Echo.number(),
            bytes: BYTES,
            half_close,
        };
        self.step(call, Wants::Success)
    }

    fn lookup(&self, tcp: bool) -> Step {
        let name = self.service().to_owned();
        let address = self.place.services.get(self.service());
        let wants = address.map_or(Wants::Success, |address| Wants::Address(*address));
        self.step(Call::Lookup { name, tcp }, wants)
    }

    fn step(&self, call: Call, wants: Wants) -> Step {
        let to = call.to().and_then(|(host, port)| {
            let service = self.place.services.get(host).copied();
            let ip = service.or_else(|| host.parse().ok())?;
            Some(SocketAddr::new(ip, port))
        });
        Step {
            from: client(self.side),
            call,
            wants,
            to,
        }
    }
}

impl Step {
    fn by_outsider(self) -> Self {
        Self {
            from: OUTSIDE,
            ..self
        }
    }
}

impl Call {
    /// Whom it calls.
    fn to(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http { host, port }
            | Self::Many { host, port, .. }
            | Self::Grpc { host, port }
            | Self::Echo { host, port, .. }
            | Self::Peer { host, port }
            | Self::Knock { host, port } => Some((host, *port)),
            Self::Lookup { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
