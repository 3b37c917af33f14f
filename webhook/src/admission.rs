//! AdmissionReviews in and out. Every answer is a review, whatever went wrong.
//!
//! The types are our own. `kube::core::admission` refuses the whole review if a field of the pod has a wrong type, where we
//! let the pod through with a warning. Its answer always has a `status`, and the patch as a list of numbers, four times as
//! long as base64.

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace};
use crate::decide::{Decision, decide};
use crate::patch;
use crate::settings::Settings;

mod answer;

pub use answer::{Answer, Refusal};

/// The only version that is understood.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The request in a review.
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
        let bad = |message| Refusal::new(400, message);
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
        Self::deserialize(request).map_err(|error| {
            let message = format!("the review's request cannot be read: {error}");
            bad(crate::reason::shortened(&message))
        })
    }

    /// The namespace that the pod will be in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether this is about a pod's creation, the only moment at which its containers can change.
    pub fn creates_a_pod(&self) -> bool {
        let GroupVersionKind {
            group,
            version,
            name,
        } = &self.kind;
        (group.as_str(), version.as_str(), name.as_str()) == ("", "v1", "Pod")
            && self.sub_resource.is_empty()
            && self.operation == "CREATE"
    }

    /// Changes the pod, or says why not. A pod with errors keeps what Istio gave it. The only pods that are refused have a gate
    /// that was changed so that nothing would redirect them.
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
        // The object need not name its namespace: the path of the client's request does.
        let own = pod.metadata.namespace.get_or_insert_default();
        own.clone_from(&self.namespace);
        let verdict = decide(&pod, namespace, cluster, settings);
        if let Decision::Refuse(reason) = &verdict.decision {
            return Answer::denied(&self.uid, reason.word(), &reason.to_string());
        }
        let Patch(operations) = patch::patch(&self.object, &verdict);
        let answer = Answer::allowed(&self.uid, verdict.decision.word(), verdict.warnings);
        let why = match &verdict.decision {
            Decision::Accelerate(made) => made.policy.to_string(),
            Decision::Leave(reason) | Decision::Refuse(reason) => reason.annotation(),
            Decision::Nothing(_) => return answer.with_patch(&operations),
        };
        answer.with_patch(&operations).with_audit(&why)
    }
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
