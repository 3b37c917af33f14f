//! Two pods on a real Kubernetes node, with the sidecars that a real Istio injects and configures.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{Setting, Stage};
use sidestep_cluster::{
    Cluster,
    room::{Room, objects},
};
use sidestep_kit::{
    app::Seen,
    load::Measured,
    mesh::{CpuTime, Requests},
    process::eventually,
    traffic::{Load, Traffic},
};

/// How long sidecars may take to learn of each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// See [`Stage`].
pub struct OnCluster<'a> {
    setting: Setting,
    room: Room<'a>,
    /// The server's Service.
    address: String,
    cgroups: [PathBuf; 2],
}

impl<'a> OnCluster<'a> {
    /// Makes two pods in a namespace of their own, redirected this way.
    pub fn new(cluster: &'a Cluster, setting: Setting) -> anyhow::Result<Self> {
        ensure!(
            !matches!(
                setting,
                Setting::Direct | Setting::Explicit | Setting::Nftables
            ),
            "{setting}: not on a cluster, whose Istio redirects by iptables"
        );
        if let Some(why) = cluster.agent_status().shortcut.reason {
            anyhow::bail!("the shortcut is off: {why}");
        }
        let enabled = if setting == Setting::Iptables {
            "false"
        } else {
            "true"
        };
        let labels = [
            ("istio-injection", "enabled"),
            ("sidestep.dev/enabled", enabled),
        ];
        let room = cluster.room("bench", &labels);
        let annotate = |mut pod: Value| {
            pod["metadata"]["annotations"]["sidestep.dev/shortcut"] = json!(setting.reach());
            if setting == Setting::NodeAndApplication {
                pod["metadata"]["annotations"]["sidestep.dev/shortcut-into"] = json!("application");
            }
            pod
        };
        room.apply(&[
            annotate(objects::server("server")),
            annotate(objects::client("client")),
            objects::service("server"),
        ]);
        room.ready(&["server", "client"]);
        let service = room.get("service server");
        let address = service["spec"]["clusterIP"]
            .as_str()
            .context("an address")?;
        let on = Self {
            setting,
            address: format!("{address}:80"),
            cgroups: ["server", "client"].map(|pod| cgroup(&room, pod)),
            room,
        };
        let learned = eventually(PATIENCE, || on.answers(1).is_ok_and(|seen| proves(&seen)));
        ensure!(
            learned,
            "{}: no mutual TLS: {:?}",
            setting.name(),
            on.answers(1)
        );
        Ok(on)
    }
}

fn proves(seen: &[Seen]) -> bool {
    let proven = |seen: &Seen| seen.headers.contains_key("x-forwarded-client-cert");
    !seen.is_empty() && seen.iter().all(proven)
}

fn cgroup(room: &Room<'_>, pod: &str) -> PathBuf {
    let pod = room.get(&format!("pod {pod}"));
    let name = format!("pod{}", pod["metadata"]["uid"].as_str().expect("a uid"));
    let all = room.cluster().pods_cgroup();
    let classes = ["", "burstable", "besteffort"].map(|class| all.join(class).join(&name));
    let found = classes.into_iter().find(|folder: &PathBuf| folder.exists());
    found.unwrap_or_else(|| panic!("{name} has no cgroup in {}", all.display()))
}

impl Stage for OnCluster<'_> {
    fn setting(&self) -> Setting {
        self.setting
    }

    fn renew(&mut self) {}

    fn answers(&self, count: usize) -> anyhow::Result<Vec<Seen>> {
        let words = format!("sidestep-app get --from {} --count {count}", self.address);
        let output = self.room.try_exec("client", &words);
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout)?;
        let seen = text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        seen.collect()
    }

    fn load(&self, what: &Load) -> anyhow::Result<Measured> {
        ensure!(
            matches!(what.traffic, Traffic::Http | Traffic::HttpOnce),
            "{:?}: not on a cluster, whose pods have wrk alone",
            what.traffic
        );
        let generator = what.generator(self.address.parse()?)?;
        let name = generator.program.file_name().context("a name")?;
        // A word each, and a header is none of two.
        let arguments = generator
            .arguments
            .iter()
            .map(|word| word.replace(": ", ":"));
        let words: Vec<_> = [name.to_string_lossy().into_owned()]
            .into_iter()
            .chain(arguments)
            .collect();
        what.measured(&self.room.exec("client", &words.join(" ")))
    }

    fn cpu(&self) -> CpuTime {
        let [server, client] = &self.cgroups;
        let of = |folder: &Path| CpuTime::of_cgroup(folder);
        of(server) + of(client)
    }

    fn requests(&self) -> Option<Requests> {
        None
    }

    fn wait_for_requests(&self, before: Requests, _count: u64) -> Requests {
        before
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.room.cluster().agent_status().shortcut.counts
    }
}
