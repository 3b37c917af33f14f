//! The answer to a review.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::{API_VERSION, KIND};

/// A review to send back, and the word that the metric counts.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The decision in a word.
    pub word: &'static str,
    response: Value,
}

/// Why a request is not answered. The API server reads no review behind such a status, so the refusal has no uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status, an error's.
    pub status: u16,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub const fn new(status: u16, message: String) -> Self {
        Self { status, message }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, message } = refusal;
        let reason = json!({"code": status, "message": message});
        Self {
            status,
            word: "bad-request",
            response: json!({"uid": "", "allowed": false, "status": reason}),
        }
    }
}

impl Answer {
    pub(super) fn allowed(uid: &str, word: &'static str, warnings: Vec<String>) -> Self {
        let mut response = json!({"uid": uid, "allowed": true});
        if !warnings.is_empty() {
            response["warnings"] = warnings.into();
        }
        Self {
            status: 200,
            word,
            response,
        }
    }

    /// The pod must not be created; the message is for the one who creates it.
    pub(super) fn denied(uid: &str, word: &'static str, message: &str) -> Self {
        let status = json!({"code": 403, "reason": "Forbidden", "message": message});
        Self {
            status: 200,
            word,
            response: json!({
                "uid": uid,
                "allowed": false,
                "status": status,
                "auditAnnotations": {"decision": word, "why": message},
            }),
        }
    }

    pub(super) fn with_patch(mut self, operations: &[PatchOperation]) -> Self {
        if !operations.is_empty() {
            let patch = json!(operations).to_string();
            self.response["patchType"] = "JSONPatch".into();
            self.response["patch"] = STANDARD.encode(patch).into();
        }
        self
    }

    /// The decision and its reason, for the API server's audit log.
    pub(super) fn with_audit(mut self, why: &str) -> Self {
        self.response["auditAnnotations"] = json!({"decision": self.word, "why": why});
        self
    }

    /// The review as JSON.
    pub fn body(&self) -> Vec<u8> {
        let review = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "response": self.response,
        });
        review.to_string().into_bytes()
    }
}
