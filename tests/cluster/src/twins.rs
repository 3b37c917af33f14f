//! The same pods twice, with Sidestep and with Istio's own iptables: whatever they do, the answers and what Envoy logs must be the same.

use std::{collections::BTreeMap, fs, net::IpAddr};

use serde_json::{Value, json};

use super::{
    Cluster,
    agent::said,
    objects,
    room::{PATIENCE, Room, comes},
    words::Words,
};

/// What is compared of a line of Envoy's access log. Times, sizes and random ids are not.
const FIELDS: [&str; 14] = [
    "method",
    "path",
    "protocol",
    "authority",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "upstream_cluster",
    "upstream_host",
    "downstream_local_address",
    "requested_server_name",
    "route_name",
];

/// A path that is asked for until all is known everywhere; it is not compared.
const WARM: &str = "/warm";

/// The two.
#[derive(Debug)]
pub struct Twins<'a> {
    /// With Sidestep.
    pub ours: Room<'a>,
    /// With iptables.
    pub istios: Room<'a>,
    pods: Vec<String>,
}

impl<'a> Twins<'a> {
    /// Makes these objects in two namespaces, one of which opts out, and waits until their pods are Ready.
    pub fn new(cluster: &'a Cluster, role: &str, all: &[Value]) -> Self {
        Self::with_more_pods(cluster, role, all, &[])
    }

    /// The same; controllers among the objects make these pods.
    pub fn with_more_pods(cluster: &'a Cluster, role: &str, all: &[Value], more: &[&str]) -> Self {
        let pods = all.iter().filter(|object| object["kind"] == "Pod");
        let pods = pods.map(|pod| pod["metadata"]["name"].as_str().expect("a name"));
        let pods: Vec<_> = pods.chain(more.iter().copied()).collect();
        let injected = [("istio-injection", "enabled")];
        Self::made(cluster, role, &injected, &pods, |room| {
            room.apply(all);
        })
    }

    /// Two namespaces with these labels, one of which opts out, and these pods in each of them, however they are made.
    pub fn made(
        cluster: &'a Cluster,
        role: &str,
        labels: &[(&str, &str)],
        pods: &[&str],
        make: impl Fn(&Room<'a>),
    ) -> Self {
        let opted_out = [labels, &[("sidestep.dev/enabled", "false")]].concat();
        let twins = Self {
            ours: cluster.room(role, labels),
            istios: cluster.room(&format!("{role}-istio"), &opted_out),
            pods: pods.iter().copied().map(str::to_owned).collect(),
        };
        for room in twins.both() {
            room.apply(&[objects::access_log()]);
            make(room);
        }
        for room in twins.both() {
            room.made(pods);
            room.ready(pods);
        }
        for pod in pods {
            let [ours, istios] = twins.both().map(|room| room.get(&format!("pod {pod}")));
            let label = |pod: &Value| pod["metadata"]["labels"]["sidestep.dev/accelerated"].clone();
            assert_eq!(label(&istios), json!(null), "{pod}");
            assert_eq!(
                label(&ours),
                json!("true"),
                "{pod} is left to Istio: {:#}\n{}",
                ours["metadata"]["annotations"],
                unanswered(cluster)
            );
        }
        twins
    }

    /// Both, ours first.
    pub fn both(&self) -> [&Room<'a>; 2] {
        [&self.ours, &self.istios]
    }

    /// Waits until this pod is answered at this address: a sidecar learns of others as they come.
    pub fn warm(&self, pod: &str, url: &str) {
        let url = format!("{url}{WARM}");
        for room in self.both() {
            let mut said = String::new();
            let reached = comes(PATIENCE, || {
                let output = room.try_exec(pod, &format!("wget -qO- {url}"));
                said = String::from_utf8_lossy(&output.stderr).into_owned();
                // Its application does not know the path, and says so.
                said.contains("404")
            });
            assert!(
                reached,
                "{pod} does not reach {url}: {said}{}",
                why_not(room, pod, &url)
            );
        }
    }

    /// Does the same in both, and demands the same outcome but for names and addresses; the outcome.
    pub fn agree(&self, what: &str, mut act: impl FnMut(&Room<'_>) -> String) -> String {
        let [ours, istios] = self.both().map(|room| words(room).plain(&act(room)));
        assert_eq!(ours, istios, "{what}: with Sidestep, and with iptables");
        ours
    }

    /// Runs a program in a pod in both; what it printed, how it ended. `{pod}` stands for that pod's address.
    pub fn run(&self, pod: &str, words: &str) -> String {
        self.agree(&format!("{words} in {pod}"), |room| {
            let mut words = words.to_owned();
            for name in &self.pods {
                let placeholder = format!("{{{name}}}");
                if words.contains(&placeholder) {
                    words = words.replace(&placeholder, &room.address(name).to_string());
                }
            }
            let output = room.try_exec(pod, &words);
            let [out, err] =
                [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
            format!("{:?} {out}{err}", output.status.code())
        })
    }

    /// Demands that the sidecars logged the same of all that was done, at least so many lines in each of these pods.
    pub fn logged_the_same(&self, pods: &[(&str, usize)]) {
        self.compare_logs(pods, |lines| lines);
    }

    /// The same, where something was tried until it succeeded: how often is not compared.
    pub fn logged_alike(&self, pods: &[(&str, usize)]) {
        self.compare_logs(pods, |mut lines| {
            lines.dedup();
            lines
        });
    }

    fn compare_logs(&self, pods: &[(&str, usize)], what: impl Fn(Vec<String>) -> Vec<String>) {
        for (pod, count) in pods {
            let mut logs = [Vec::new(), Vec::new()];
            let same = comes(PATIENCE, || {
                logs = self.both().map(|room| what(log(room, pod)));
                logs[0].len() >= *count && logs[0] == logs[1]
            });
            let [ours, istios] = &logs;
            let only = |these: &[String], those: &[String]| {
                let only = these.iter().filter(|line| !those.contains(line));
                only.cloned().collect::<Vec<_>>().join("\n")
            };
            assert!(
                same,
                "{pod}: {} lines with Sidestep, {} with iptables, at least {count} wanted\nonly with Sidestep:\n{}\nonly with \
                 iptables:\n{}",
                ours.len(),
                istios.len(),
                only(ours, istios),
                only(istios, ours)
            );
        }
    }
}

/// What is known of a pod that does not reach a URL: which answer its host's name gets, what its sidecar said last, and the agent.
fn why_not(room: &Room<'_>, pod: &str, url: &str) -> String {
    let host = url.trim_start_matches("http://").split(['/', ':']).next();
    let name = said(&room.try_exec(pod, &format!("nslookup {}", host.expect("a host"))));
    let sidecar = room.logs(pod, "istio-proxy");
    let sidecar: Vec<_> = sidecar.lines().rev().take(20).collect();
    format!(
        "{name}\nits sidecar, last first:\n{}\nthe agent of {}/{pod}: {:?}",
        sidecar.join("\n"),
        room.name(),
        room.told_of(pod)
    )
}

/// Where the API server went on without a webhook's answer, in its own words.
fn unanswered(cluster: &Cluster) -> String {
    let log = fs::read_to_string(cluster.place().log("kube-apiserver")).unwrap_or_default();
    let lines = log.lines().filter(|line| line.contains("failing open"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a pod's sidecar logged, sorted: requests at the same time have no order.
fn log(room: &Room<'_>, pod: &str) -> Vec<String> {
    let words = words(room);
    let text = room.logs(pod, "istio-proxy");
    let records = text.lines().filter(|line| line.starts_with('{'));
    let records = records.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines: Vec<_> = records
        .filter(|record| record["path"] != WARM)
        .map(|record| {
            let field = |name: &&str| format!("{name}={}", record[*name]);
            let fields: Vec<_> = FIELDS.iter().map(field).collect();
            words.plain(&fields.join(" "))
        })
        .collect();
    lines.sort();
    lines
}

fn words(room: &Room<'_>) -> Words {
    let mut addresses = BTreeMap::new();
    for kind in ["pods", "services"] {
        for object in room.get(kind)["items"].as_array().expect("a list") {
            let name = object["metadata"]["name"].as_str().expect("a name");
            let address = ["/status/podIP", "/spec/clusterIP"]
                .iter()
                .find_map(|path| object.pointer(path)?.as_str()?.parse::<IpAddr>().ok());
            if let Some(address) = address {
                addresses.insert(address, format!("<{kind}/{name}>"));
            }
        }
    }
    Words::new(room.name(), addresses)
}
