//! What tests do with a cluster: apply, wait, look, and run programs in pods. It panics with what was said when something fails.

use std::{
    process::Output,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub use super::objects;
use super::{Cluster, istio};
use sidestep_kit::net::unique_name;

/// How long anything may take that a cluster does by itself.
pub const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// What a kubectl command prints. Its words are parted by spaces.
    pub fn kubectl(&self, words: &str) -> String {
        let words: Vec<_> = words.split_whitespace().collect();
        self.admin()
            .output(&words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// An object, or a list of them.
    pub fn get(&self, words: &str) -> Value {
        let text = self.kubectl(&format!("get {words} -o json"));
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Applies objects; what kubectl said, warnings included.
    pub fn apply(&self, objects: &[Value]) -> String {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.admin()
            .apply(&list.to_string())
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs istioctl to its end, whatever that is.
    pub fn istioctl(&self, words: &str, input: &str) -> Output {
        let words: Vec<_> = words.split_whitespace().collect();
        istio::istioctl(self.place(), &words, input).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A namespace for one test, with these labels.
    pub fn room(&self, role: &str, labels: &[(&str, &str)]) -> Room<'_> {
        let name = unique_name(role);
        let labels: serde_json::Map<_, _> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        self.apply(&[json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        })]);
        let room = Room {
            cluster: self,
            name,
        };
        // Pods are refused before it is there.
        until("a service account for pods", || {
            room.try_kubectl("get serviceaccount default")
                .status
                .success()
        });
        room
    }

    /// A namespace in whose pods Istio injects its sidecar.
    pub fn mesh_room(&self, role: &str) -> Room<'_> {
        self.room(role, &[("istio-injection", "enabled")])
    }
}

/// Between looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Waits for a condition; panics with what was awaited if it does not come.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        comes(PATIENCE, condition),
        "{what}: not within {} s",
        PATIENCE.as_secs()
    );
}

/// Whether a condition comes to hold. To look costs a program's start and more, so it is looked a few times a second only.
pub fn comes(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// The namespace of one test; it goes when the value is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Room<'_> {
    /// The cluster that it is on.
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a kubectl command in this namespace prints.
    pub fn kubectl(&self, words: &str) -> String {
        self.cluster.kubectl(&format!("-n {} {words}", self.name))
    }

    /// A kubectl command in this namespace that may fail.
    pub fn try_kubectl(&self, words: &str) -> Output {
        self.try_kubectl_with(words, "")
    }

    /// The same, with an input.
    pub fn try_kubectl_with(&self, words: &str, input: &str) -> Output {
        let words = ["-n", &self.name]
            .into_iter()
            .chain(words.split_whitespace());
        let words: Vec<_> = words.collect();
        let output = self.cluster.admin().run(&words, input);
        output.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// An object in this namespace, or a list of them.
    pub fn get(&self, words: &str) -> Value {
        self.cluster.get(&format!("-n {} {words}", self.name))
    }

    /// Applies objects in this namespace; what kubectl said, warnings included.
    pub fn apply(&self, objects: &[Value]) -> String {
        let mut objects = objects.to_vec();
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.name);
        }
        self.cluster.apply(&objects)
    }

    /// What the API server would make of a pod, which is not made.
    pub fn admit(&self, pod: &Value) -> Admitted {
        let output =
            self.try_kubectl_with("create --dry-run=server -o json -f -", &pod.to_string());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        Admitted {
            pod: serde_json::from_slice(&output.stdout).expect("kubectl prints JSON"),
            said,
        }
    }

    /// Waits until controllers have made these pods.
    pub fn made(&self, pods: &[&str]) {
        let names = pods.join(" ");
        until(&format!("{names} are there"), || {
            self.try_kubectl(&format!("get pods {names}"))
                .status
                .success()
        });
    }

    /// Waits until the pods are Ready; panics with what is known of them if they do not become so.
    pub fn ready(&self, pods: &[&str]) {
        let names = format!(" pod/{}", pods.join(" pod/"));
        let patience = PATIENCE.as_secs();
        let output = self.try_kubectl(&format!(
            "wait --for=condition=Ready --timeout={patience}s{names}"
        ));
        if !output.status.success() {
            let pods = self.kubectl(&format!("describe{names}"));
            panic!(
                "not ready:\n{}{pods}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// What a program prints that runs in a pod's container `app`.
    pub fn exec(&self, pod: &str, words: &str) -> String {
        let output = self.try_exec(pod, words);
        assert!(
            output.status.success(),
            "{words} in {pod}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// The same for a program that may fail.
    pub fn try_exec(&self, pod: &str, words: &str) -> Output {
        self.try_kubectl(&format!("exec {pod} -c app -- {words}"))
    }

    /// What a container said.
    pub fn logs(&self, pod: &str, container: &str) -> String {
        self.kubectl(&format!("logs {pod} -c {container}"))
    }

    /// A pod's address.
    pub fn address(&self, pod: &str) -> std::net::IpAddr {
        let pod = self.get(&format!("pod {pod}"));
        let address = pod["status"]["podIP"]
            .as_str()
            .expect("a running pod has an address");
        address.parse().expect("it is one")
    }

    /// The running state of an init container: `waiting`, `running` or `terminated`.
    pub fn init_state(&self, pod: &str, container: &str) -> String {
        let pod = self.get(&format!("pod {pod}"));
        let statuses = pod["status"]["initContainerStatuses"].as_array();
        let status = statuses
            .into_iter()
            .flatten()
            .find(|status| status["name"] == container);
        let state = status.and_then(|status| status["state"].as_object());
        state
            .and_then(|state| state.keys().next())
            .cloned()
            .unwrap_or_default()
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // Nobody waits for it; a failure is no test's.
        let _ = self.cluster.admin().run(
            &[
                "delete",
                "namespace",
                &self.name,
                "--wait=false",
                "--ignore-not-found",
            ],
            "",
        );
    }
}

/// A pod as the API server would make it.
#[derive(Debug)]
pub struct Admitted {
    /// The pod.
    pub pod: Value,
    /// What kubectl showed: warnings.
    pub said: String,
}
