//! Programs of a real cluster, as `tests/setup.sh cluster` builds them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the kit is in tests/kit of the workspace")
}

/// The folder of what Istio's own programs wrote.
pub fn fixtures() -> PathBuf {
    workspace().join("tests/fixtures")
}

/// Where a program of the cluster is.
pub fn program(name: &str) -> PathBuf {
    workspace().join(".parts/cluster/bin").join(name)
}

/// Runs a command to its end: its output, or else its complaint.
pub fn finish(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}
