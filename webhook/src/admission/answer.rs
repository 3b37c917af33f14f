//! What goes back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::PatchOperation;
use serde_json::{Value, json};

use super::{API_VERSION, KIND};

/// A review to send back, and what is counted.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The decision in a word.
    pub word: &'static str,
    response: Value,
}

/// A request that is no review, or none that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The request's uid, where one was found.
    pub uid: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub const fn new(status: u16, uid: Option<String>, message: String) -> Self {
        Self {
            status,
            uid,
            message,
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let Refusal {
            status,
            uid,
            message,
        } = refusal;
        let uid = uid.unwrap_or_default();
        Self {
            status,
            word: "bad-request",
            ..Self::denied(&uid, status, &message)
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

    pub(super) fn denied(uid: &str, code: u16, message: &str) -> Self {
        let status = json!({"code": code, "message": message});
        Self {
            status: 200,
            word: "denied",
            response: json!({"uid": uid, "allowed": false, "status": status}),
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

    /// Why, for the API server's audit log.
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
