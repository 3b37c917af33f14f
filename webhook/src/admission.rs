//! AdmissionReviews in and out. Every answer is a review with the request's uid, whatever went wrong.

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace};
use crate::decide::{Decision, decide};
use crate::patch;
use crate::settings::Settings;

mod answer;
mod guard;

pub use answer::{Answer, Refusal};

/// The one version that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What the API server asks about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    sub_resource: String,
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Debug, Deserialize)]
struct GroupVersionKind {
    #[serde(default)]
    group: String,
    version: String,
    #[serde(rename = "kind")]
    name: String,
}

impl Request {
    /// Reads a review.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: String| Refusal::new(400, uid_of(body), message);
        let review: Value = serde_json::from_slice(body)
            .map_err(|error| bad(format!("the body is not JSON: {error}")))?;
        let said = |field| {
            review
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (said("apiVersion"), said("kind"));
        if (version, kind) != (API_VERSION, KIND) {
            let found = format!("{version:?} {kind:?}");
            let found = crate::reason::shortened(&found);
            return Err(bad(format!("expected {API_VERSION} {KIND}, found {found}")));
        }
        let Value::Object(mut review) = review else {
            return Err(bad("the review is no object".to_owned()));
        };
        let request = review.remove("request").unwrap_or_default();
        let uid = request
            .get("uid")
            .and_then(Value::as_str)
            .map(str::to_owned);
        Self::deserialize(request).map_err(|error| {
            let message = format!("the review's request cannot be read: {error}");
            Refusal::new(400, uid, crate::reason::shortened(&message))
        })
    }

    /// The namespace that the pod will be in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether this is about a pod's creation, the only moment at which its containers can change.
    pub fn creates_a_pod(&self) -> bool {
        self.is_about_a_pod() && self.sub_resource.is_empty() && self.operation == "CREATE"
    }

    fn is_about_a_pod(&self) -> bool {
        let GroupVersionKind {
            group,
            version,
            name,
        } = &self.kind;
        (group.as_str(), version.as_str(), name.as_str()) == ("", "v1", "Pod")
    }

    /// Changes the pod, or says why not. Nothing that is wrong with a pod stops it here: it keeps what Istio gave it.
    pub fn mutate(
        &self,
        namespace: Option<&Namespace>,
        cluster: &Cluster,
        settings: &Settings,
    ) -> Answer {
        if !self.creates_a_pod() {
            return Answer::allowed(&self.uid, "not-a-pod-creation", vec![]);
        }
        let mut pod = match Pod::deserialize(&self.object) {
            Ok(pod) => pod,
            Err(error) => {
                let warning =
                    format!("sidestep: the pod cannot be read and stays as it is: {error}");
                let warning = crate::reason::shortened(&warning);
                return Answer::allowed(&self.uid, "unreadable", vec![warning]);
            }
        };
        // Not yet set in the object where the request's path says it.
        let own = pod.metadata.namespace.get_or_insert_default();
        own.clone_from(&self.namespace);
        let verdict = decide(&pod, namespace, cluster, settings);
        let Patch(operations) = patch::patch(&self.object, &verdict);
        let answer = Answer::allowed(&self.uid, verdict.decision.word(), verdict.warnings);
        let why = match &verdict.decision {
            Decision::Accelerate(made) => made.policy.to_string(),
            Decision::Leave(reason) => reason.annotation(),
            Decision::Nothing(_) => return answer.with_patch(&operations),
        };
        answer.with_patch(&operations).with_audit(&why)
    }

    /// Refuses what would make our label say what is not so.
    pub fn validate(&self) -> Answer {
        if !self.is_about_a_pod() {
            return Answer::allowed(&self.uid, "not-a-pod", vec![]);
        }
        match guard::objection(&self.operation, &self.object, &self.old_object) {
            None => Answer::allowed(&self.uid, "allowed", vec![]),
            Some(message) => Answer::denied(&self.uid, 422, &message),
        }
    }
}

/// The uid in a body that is no good, or not whole.
pub fn uid_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Review {
        request: Request,
    }
    #[derive(Deserialize)]
    struct Request {
        uid: String,
    }
    match serde_json::from_slice(body) {
        Ok(Review { request }) => Some(request.uid),
        Err(_) => uid_near_start(body),
    }
}

/// The API server writes it among the first fields of a request.
fn uid_near_start(body: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&body[..body.len().min(1024)]);
    let request = &head[head.find("\"request\"")?..];
    let behind = request[request.find("\"uid\"")? + 5..].trim_start();
    let value = behind.strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let uid = &value[..value.find('"')?];
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (uid.len() <= 64 && uid.chars().all(plain)).then(|| uid.to_owned())
}

/// A review of a pod's creation, as tests and load generators send it.
pub fn review_of(uid: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": pod["metadata"]["namespace"].as_str().unwrap_or("default"),
            "object": pod,
            "oldObject": null,
            "dryRun": false,
        },
    })
}
