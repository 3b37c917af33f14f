//! `sidestep explain`.

mod rows;
mod told;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::Api;
use serde_json::{Value, json};
use sidestep_contract::{Policy, documents, istio_init, keys, refuse_at_admission};
use sidestep_ebpf_common::Proto;
use sidestep_rules::{Allowed, Facts, Outgoing, PASSTHROUGH6, Rules, compile};

use self::told::{Asked, Connection, Told};
use crate::{cluster::client, mutate::read};

/// The exit code where nothing can be told.
const CANNOT_TELL: u8 = 2;

/// Tells where a connection of a pod goes, and which setting of Istio's says so: with the code that decides in the kernel.
///
/// The pod is read from a file that Istio has injected (a Pod, or anything with a pod template; the gate that Sidestep makes is read
/// as well), or from the cluster as pod/NAME. What a connection meets besides is given here: who makes it, from which address, and
/// which addresses the pod has. A pod of the cluster tells its addresses itself.
///
/// Exit codes: 0 told; 2 nothing can be told: no sidecar in it, or a value that is none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep explain -f injected.yaml --to 10.0.0.7:5432
  sidestep explain -f injected.yaml --to 10.96.0.10:53 --proto udp --uid 1000
  sidestep explain pod/web-0 -n shop --from 10.0.0.9:40000 --port 8080
  sidestep explain -f injected.yaml --all
  sidestep explain pod/web-0 -n shop --to '[2001:db8::7]:443' -o json")]
pub(crate) struct Args {
    /// A pod of the cluster, as pod/NAME
    #[arg(
        value_name = "POD",
        conflicts_with = "filename",
        required_unless_present = "filename"
    )]
    pod: Option<String>,

    /// YAML or JSON with injected pods or workloads; - is standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    filename: Option<PathBuf>,

    /// Namespace of POD
    #[arg(long, short = 'n', value_name = "NAME", default_value = "default")]
    namespace: String,

    /// A connection of the pod to ADDRESS:PORT
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present_any = ["from", "all"])]
    to: Option<SocketAddr>,

    /// A connection from outside to the pod, from ADDRESS:PORT
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        requires = "port",
        conflicts_with = "to"
    )]
    from: Option<SocketAddr>,

    /// The pod's port that it goes to
    #[arg(long, value_name = "PORT", requires = "from")]
    port: Option<NonZeroU16>,

    /// Protocol
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    proto: Protocol,

    /// User that made the socket; otherwise that of the first container which is not the sidecar, or 0
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,

    /// Its group; otherwise the first container's, or 0
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,

    /// Address that the program bound the socket to
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,

    /// An address of the pod, where the pod does not tell it. May be repeated, the first one first
    #[arg(long, value_name = "ADDRESS")]
    pod_ip: Vec<IpAddr>,

    /// A name server in the pod's resolv.conf, where its dnsConfig does not tell it. May be repeated
    #[arg(long, value_name = "ADDRESS")]
    name_server: Vec<IpAddr>,

    /// Print every row of the policy, in order
    #[arg(long, conflicts_with_all = ["to", "from"])]
    all: bool,

    /// Form of the output
    #[arg(long, short = 'o', value_name = "FORM", default_value = "text")]
    output: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.tell().await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                eprintln!("sidestep: {error:#}");
                Ok(ExitCode::from(CANNOT_TELL))
            }
        }
    }

    async fn tell(&self) -> anyhow::Result<()> {
        for (what, address) in [("--to", self.to), ("--from", self.from)] {
            if address.is_some_and(|address| address.port() == 0) {
                bail!("{what}: port 0 is no port");
            }
        }
        let pods = match (&self.pod, &self.filename) {
            (Some(name), _) => vec![self.live(name).await?],
            (None, Some(file)) => in_file(file)?,
            (None, None) => bail!("which pod? POD or --filename"),
        };
        let told = pods.iter().map(|(what, pod)| {
            let told = self.about(pod).with_context(|| what.clone())?;
            Ok((what, told))
        });
        let told = told.collect::<anyhow::Result<Vec<_>>>()?;
        for (what, told) in told {
            match self.output {
                Form::Json => {
                    let mut object = told.json();
                    object["pod"] = json!(what);
                    println!("{object}");
                }
                Form::Text => println!("{what}\n{}", told.text()),
            }
        }
        Ok(())
    }

    /// A pod of the cluster.
    async fn live(&self, name: &str) -> anyhow::Result<(String, Pod)> {
        let name = name
            .strip_prefix("pod/")
            .or_else(|| name.strip_prefix("pods/"));
        let name = name.context("want POD as pod/NAME")?;
        let client = client().await?;
        let pod = Api::namespaced(client, &self.namespace).get(name).await;
        let what = format!("Pod {}/{name}", self.namespace);
        let pod = pod.with_context(|| what.clone())?;
        Ok((what, pod))
    }

    fn about(&self, pod: &Pod) -> anyhow::Result<Told> {
        let init = istio_init(pod).map_err(|why| {
            anyhow!(
                "{why}: is it injected? `istioctl kube-inject -f FILE` does that without a cluster"
            )
        })?;
        let policy = init
            .policy
            .map_err(|why| anyhow!("Sidestep leaves it to Istio: {}: {why}", why.reason()))?;
        let facts = self.facts(pod, &policy)?;
        let rules = compile(&policy, &facts, 0, true)?;
        let mut notes = Vec::new();
        if let Err(why) = refuse_at_admission(pod) {
            notes.push(format!("left to Istio: {}: {why}", why.reason()));
        }
        let allowed = Allowed::of(pod);
        let into = if allowed.into_application {
            "application"
        } else {
            "proxy"
        };
        notes.push(format!(
            "shortcut: reach {}, into {into}",
            allowed.reach.word()
        ));
        if !facts.addresses.iter().any(Facts::is_global) {
            notes.push("the pod's addresses are not known: say --pod-ip".to_owned());
        }
        let asked = match (self.to, self.from, self.port) {
            (Some(to), ..) => Asked::Connection(self.outbound(pod, &policy, &rules, to)),
            (None, Some(from), Some(port)) => {
                let own = own_address(&facts, from.ip());
                let to = SocketAddr::new(own, port.get());
                Asked::Connection(self.inbound(&policy, &rules, from, to))
            }
            _ => Asked::All(policy),
        };
        Ok(Told { asked, notes })
    }

    /// The pod's addresses in the kernel's order, and its name servers.
    fn facts(&self, pod: &Pod, policy: &Policy) -> anyhow::Result<Facts> {
        let status = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ips.as_ref());
        let told = status.into_iter().flatten().map(|ip| ip.ip.as_str());
        let told = told.map(|ip| ip.parse().with_context(|| format!("status.podIPs: {ip:?}")));
        let mut own = self.pod_ip.clone();
        own.extend(told.collect::<anyhow::Result<Vec<IpAddr>>>()?);
        let spec = pod.spec.as_ref();
        let servers = spec.and_then(|spec| spec.dns_config.as_ref()?.nameservers.as_ref());
        let servers = servers
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok());
        let of = |v6: bool| own.iter().copied().filter(move |ip| ip.is_ipv6() == v6);
        let mut facts = Facts {
            addresses: [IpAddr::V4(Ipv4Addr::LOCALHOST)]
                .into_iter()
                .chain(of(false))
                .chain([IpAddr::V6(Ipv6Addr::LOCALHOST)])
                .chain(of(true))
                .collect(),
            name_servers: self.name_server.iter().copied().chain(servers).collect(),
            ..Facts::default()
        };
        if facts.captures_ipv6(policy.dual_stack) {
            facts.addresses.push(PASSTHROUGH6.into());
        }
        Ok(facts)
    }

    fn outbound(&self, pod: &Pod, policy: &Policy, rules: &Rules, to: SocketAddr) -> Connection {
        let [uid, gid] = ids(pod.spec.as_ref());
        let (uid, gid) = (self.uid.unwrap_or(uid), self.gid.unwrap_or(gid));
        let row = rules.outbound(&Outgoing {
            proto: match self.proto {
                Protocol::Tcp => Proto::Tcp,
                Protocol::Udp => Proto::Udp,
            },
            to,
            bound: self.source,
            uid,
            gid,
        });
        Connection::new(
            row,
            policy,
            to,
            format!("to {to}, as user {uid} and group {gid}"),
        )
    }

    fn inbound(
        &self,
        policy: &Policy,
        rules: &Rules,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Connection {
        let what = format!("from {from} to port {}", to.port());
        match self.proto {
            Protocol::Tcp => Connection::new(rules.inbound(to), policy, to, what),
            Protocol::Udp => Connection::passes(to, what),
        }
    }
}

/// The pod's address of the same family as another.
fn own_address(facts: &Facts, other: IpAddr) -> IpAddr {
    let mut own = facts.addresses.iter().copied();
    own.find(|own| Facts::is_global(own) && own.is_ipv4() == other.is_ipv4())
        .unwrap_or(match other {
            IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        })
}

/// User and group of the first container that is not the mesh's, else the pod's, else 0.
fn ids(spec: Option<&PodSpec>) -> [u32; 2] {
    let first = spec.and_then(|spec| {
        let own = |name: &str| !keys::OF_THE_MESH.contains(&name);
        let mut containers = spec.containers.iter();
        let first = containers.find(|container| own(&container.name))?;
        first.security_context.as_ref()
    });
    let pod = spec.and_then(|spec| spec.security_context.as_ref());
    let first = first.map_or([None; 2], |of| [of.run_as_user, of.run_as_group]);
    let pod = pod.map_or([None; 2], |of| [of.run_as_user, of.run_as_group]);
    [0, 1].map(|n| u32::try_from(first[n].or(pod[n]).unwrap_or(0)).unwrap_or(0))
}

/// The pods of a file, with what each is called.
fn in_file(file: &Path) -> anyhow::Result<Vec<(String, Pod)>> {
    let name = || file.display().to_string();
    let text = read(file).with_context(name)?;
    let mut pods = Vec::new();
    for document in documents::documents(&text).with_context(name)? {
        for object in documents::objects(&document.value) {
            let Some((_, pod)) = object.pod() else {
                continue;
            };
            let named = object
                .value
                .pointer("/metadata/name")
                .and_then(Value::as_str);
            let what = format!("{} {}", object.kind, named.unwrap_or("without a name"));
            let pod = serde_json::from_value(pod.clone())
                .with_context(|| format!("{}: {what}", name()))?;
            pods.push((what, pod));
        }
    }
    if pods.is_empty() {
        bail!("{}: no pod in it", name());
    }
    Ok(pods)
}
