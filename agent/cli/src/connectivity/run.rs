//! The test itself: makes the pods, lets them call each other, and asks the agents what they saw of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use kube::api::Api;
use tokio::time::{sleep, timeout};

use super::accelerated::{self, Witness};
use super::call::Made;
use super::cases::{CASES, Case, Place, Scene, Step};
use super::install::Install;
use super::objects::{self, CONTAINER};
use super::plan::{Member, Nodes, Path, Side, server};
use super::ready;
use super::report::{Failure, Outcome, Report, Row};
use super::room::Room;
use super::say;
use crate::cluster::{self, Seen};

/// How long sidecars may take to learn of new Services and policies. What fails until then is tried again.
const SETTLE: Duration = Duration::from_secs(30);

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a program may take in a pod: more than any call.
const LONGEST: Duration = Duration::from_secs(90);

/// How often a program is started in a pod that cannot be.
const TRIES: usize = 3;

/// The container that Istio injects.
const SIDECAR: &str = "istio-proxy";

/// A test that is to be made.
pub(super) struct Test<'a> {
    pub(super) room: &'a Room,
    pub(super) nodes: &'a Nodes,
    pub(super) install: &'a Install,
    /// The namespace that Sidestep is installed in.
    pub(super) home: &'a str,
    /// How long the pods may take to be ready.
    pub(super) patience: Duration,
    /// Whether the pods stay.
    pub(super) keep: bool,
}

impl Test<'_> {
    /// Makes everything, and plays every case.
    pub(super) async fn run(&self) -> anyhow::Result<Report> {
        let members = self.nodes.members();
        let services = self.make(&members).await?;
        let pods = ready::awaited(self.room, &members, self.patience).await?;
        let addresses = pods.iter().filter_map(|(name, pod)| {
            let address = pod.status.as_ref()?.pod_ip.as_deref()?;
            Some((name.clone(), address.parse().ok()?))
        });
        let place = Place {
            namespace: self.room.name().to_owned(),
            pods: addresses.collect(),
            services,
        };
        let players = Players {
            pods: self.room.api(),
            place: &place,
            settled: Instant::now() + SETTLE,
        };
        let paths = self.nodes.paths();
        let mut rows = cluster::awaited("calling", Box::pin(players.rows(&paths))).await?;
        let sidestep = self.accelerated(&members).await?;
        rows.push(Row {
            case: accelerated::NAME,
            path: None,
            sidestep,
            istio: None,
        });
        Ok(Report {
            namespace: place.namespace,
            near: self.nodes.near.clone(),
            far: self.nodes.far.clone(),
            is_kept: self.keep,
            rows,
        })
    }

    /// Makes all objects. The Services' addresses are returned by name.
    async fn make(&self, members: &[Member]) -> anyhow::Result<BTreeMap<String, IpAddr>> {
        let room = self.room;
        for secret in &self.install.pull_secrets {
            room.copy_secret(self.home, secret).await;
        }
        room.create::<ServiceAccount>(objects::account()).await?;
        room.create_strict().await?;
        let mut services = BTreeMap::new();
        for side in [Side::Sidestep, Side::Istio] {
            for path in self.nodes.paths() {
                let name = server(side, path);
                let service: Service = room.create(objects::service(name)).await?;
                let address = service.spec.and_then(|spec| spec.cluster_ip);
                let address = address.and_then(|address| address.parse().ok());
                let address = address.with_context(|| format!("Service {name} has no address"))?;
                services.insert(name.to_owned(), address);
            }
        }
        for member in members {
            let pod = objects::pod(member, self.install);
            became(member, &room.create(pod).await?)?;
        }
        Ok(services)
    }

    /// Whether Sidestep redirected what it should have.
    async fn accelerated(&self, members: &[Member]) -> anyhow::Result<Outcome> {
        let (client, namespace) = (self.room.client(), self.room.name());
        let pods = cluster::seen(client, Some(namespace)).await;
        let pods = pods.context("listing the test's pods")?;
        let mut agents = cluster::agent_pods(client, self.home).await?;
        let far = self.nodes.far.as_ref().ok();
        agents.retain(|agent| agent.node == self.nodes.near || Some(&agent.node) == far);
        let agents = cluster::answers(client, self.home, agents).await;
        let told = |member: &Member| {
            let mut of_node = agents.iter().filter(|(pod, _)| pod.node == member.node);
            let Some((_, answer)) = of_node.next() else {
                return Err("it is gone".to_owned());
            };
            let status = answer.as_ref().map_err(Clone::clone)?;
            let mut all = status.pods.iter();
            let own = all.find(|pod| pod.namespace == namespace && pod.name == member.name);
            Ok(own.cloned())
        };
        let seen = |member: &Member| {
            let pod = pods.iter().find(|pod| pod.name == member.name);
            pod.map(|pod| pod.seen.clone())
        };
        let witnesses = members.iter().map(|member| Witness {
            member,
            seen: seen(member),
            told: told(member),
        });
        let witnesses: Vec<_> = witnesses.collect();
        let judged = accelerated::judged(&witnesses);
        Ok(judged.map(|()| None).map_err(|said| Failure {
            said: format!("{said}; so the other lines say nothing of Sidestep"),
            hint: format!(
                "`sidestep status -n {namespace}`; webhook/README.md says of each reason what to do"
            ),
        }))
    }
}

/// What became of a pod when it was made: without a sidecar there is nothing to test.
fn became(member: &Member, pod: &Pod) -> anyhow::Result<()> {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|spec| spec.init_containers.as_ref());
    let containers = spec.map(|spec| &spec.containers);
    let mut all = inits
        .into_iter()
        .flatten()
        .chain(containers.into_iter().flatten());
    if member.side.is_some() && !all.any(|one| one.name == SIDECAR) {
        bail!(
            "Istio did not inject its sidecar into pod {}: name its revision with --revision (`kubectl get mutatingwebhookconfigurations -L istio.io/rev`)",
            member.name
        );
    }
    if let (Some(Side::Sidestep), Some(Seen::Left { word, sentence })) =
        (member.side, Seen::of(pod))
    {
        let name = member.name;
        say(&format!("{name} is left to Istio: {word}: {sentence}"));
    }
    Ok(())
}

/// The pods, which are ready.
struct Players<'a> {
    pods: Api<Pod>,
    place: &'a Place,
    /// When the sidecars must have learnt of each other.
    settled: Instant,
}

impl Players<'_> {
    /// Plays the cases: those with a server on each path, then the others.
    async fn rows(&self, paths: &[Path]) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for path in paths {
            for case in CASES.iter().filter(|case| case.has_path) {
                rows.push(self.row(case, Some(*path)).await?);
            }
        }
        for case in CASES.iter().filter(|case| !case.has_path) {
            rows.push(self.row(case, None).await?);
        }
        Ok(rows)
    }

    async fn row(&self, case: &Case, path: Option<Path>) -> anyhow::Result<Row> {
        let scene = |side| Scene {
            side,
            path: path.unwrap_or(Path::SameNode),
            place: self.place,
        };
        Ok(Row {
            case: case.name,
            path,
            sidestep: self.settled(case, &scene(Side::Sidestep)).await?,
            istio: Some(self.settled(case, &scene(Side::Istio)).await?),
        })
    }

    /// Plays a case until it passes, or until it must.
    async fn settled(&self, case: &Case, scene: &Scene<'_>) -> anyhow::Result<Outcome> {
        loop {
            let outcome = self.played(&case.steps(scene)).await?;
            let is_final = !case.settles || Instant::now() >= self.settled;
            if outcome.is_ok() || is_final {
                return Ok(outcome);
            }
            sleep(PAUSE).await;
        }
    }

    async fn played(&self, steps: &[Step]) -> anyhow::Result<Outcome> {
        let mut us = 0;
        for step in steps {
            let made = self.made(step).await?;
            match step.judged(&made) {
                Ok(more) => us += more,
                Err(said) => {
                    let hint = step.hint(self.place);
                    return Ok(Err(Failure { said, hint }));
                }
            }
        }
        Ok(Ok(Some(us)))
    }

    /// Makes a call in its pod. That this cannot be says nothing of the call.
    async fn made(&self, step: &Step) -> anyhow::Result<Made> {
        let call = serde_json::to_string(&step.call)?;
        let command = ["sidestep", "connectivity-test", "call", &call];
        let mut why = String::new();
        for _ in 0..TRIES {
            let ran = cluster::exec(&self.pods, step.from, CONTAINER, &command);
            why = match timeout(LONGEST, ran).await {
                Ok(Ok(ran)) => match serde_json::from_str(ran.told.trim()) {
                    Ok(made) => return Ok(made),
                    Err(error) => [ran.said, ran.status.unwrap_or_default(), error.to_string()]
                        .into_iter()
                        .find(|text| !text.trim().is_empty())
                        .unwrap_or_default(),
                },
                Ok(Err(why)) => why,
                Err(_) => format!("it did not end within {} s", LONGEST.as_secs()),
            };
        }
        bail!("{call} by exec in pod {}: {}", step.from, why.trim())
    }
}
