//! A person's desk: the command line against an [`ApiServer`].

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::apiserver::ApiServer;
use crate::binary;

/// What `sidestep` said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub error: String,
}

impl Said {
    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What `sidestep check -o json` found by the check of this name: its level and its message.
    #[track_caller]
    pub fn found(&self, check: &str) -> (String, String) {
        let all = self.json();
        let mut all = all["checks"].as_array().expect("checks").iter();
        let one = all.find(|one| one["check"] == check);
        let one = one.unwrap_or_else(|| panic!("no check {check}: {self:?}"));
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        (text("level"), text("message"))
    }
}

/// Runs `sidestep` as the administrator.
pub fn sidestep(server: &ApiServer, words: &str) -> Said {
    sidestep_with(server, &server.kubeconfig(), words)
}

/// Runs `sidestep` with this kubeconfig.
pub fn sidestep_with(server: &ApiServer, kubeconfig: &Path, words: &str) -> Said {
    let mut command = server.namespace().command(binary("sidestep"));
    command.env("KUBECONFIG", kubeconfig);
    let output = command.args(words.split_whitespace()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said {
        code: status.code(),
        out: text(stdout),
        error: text(stderr),
    }
}
