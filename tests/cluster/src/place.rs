//! Where a cluster keeps what, and the addresses inside its network namespace.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sidestep_kit::parts;

/// The node's name.
pub const NODE: &str = "node";
/// The node's address, on a bridge of its own. Pods reach the API server and DNS there.
pub const NODE_ADDRESS: &str = "10.95.0.1";
/// The pods' network.
pub const PODS: &str = "10.94.0.0/16";
/// What of it this node gives to its own pods; machines beside it have ranges of their own in the rest.
pub const NODE_PODS: &str = "10.94.0.0/17";
/// The services' network.
pub const SERVICES: &str = "10.96.0.0/16";
/// The API server's service.
pub const API_SERVICE: &str = "10.96.0.1";
/// The service of the cluster's DNS.
pub const DNS_SERVICE: &str = "10.96.0.10";

/// The folders of one cluster. Its name is also that of its network namespace and of its cgroup.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    parts: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// The place of the cluster `name`: `ss-` and up to 28 letters, digits and dashes.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let rest = name.strip_prefix("ss-").unwrap_or_default();
        ensure!(
            (1..=28).contains(&rest.len())
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "a cluster's name is `ss-` and up to 28 letters, digits and dashes, not {name:?}"
        );
        let parts = parts::workspace().join(".parts");
        let parts = parts
            .canonicalize()
            .context("there is no .parts: run `tests/setup.sh cluster`")?;
        let folder = parts.join("clusters").join(name);
        Ok(Self {
            name: name.to_owned(),
            parts,
            folder,
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that holds what set-up made.
    pub fn parts(&self) -> &Path {
        &self.parts
    }

    /// The cluster's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in the cluster's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A program that set-up built.
    pub fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.part(&format!("bin/{name}"))
    }

    /// A file that set-up made for clusters.
    pub fn part(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.parts.join("cluster").join(name);
        ensure!(
            path.exists(),
            "{name} is missing: run `tests/setup.sh cluster`"
        );
        Ok(path)
    }

    /// Where a part of the node logs.
    pub fn log(&self, part: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{part}.log"))
    }

    /// The administrator's way to the API server; it serves inside the network namespace only.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// What the cluster changed at the root of the machine's cgroups.
    pub fn shared_out(&self) -> PathBuf {
        self.file("shared-out")
    }

    /// The network namespace's file.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn names_that_could_mean_another_place_are_refused() {
        for name in [
            "cluster",
            "ss-",
            "ss-../x",
            "ss-a/b",
            "ss-a b",
            &format!("ss-{}", "a".repeat(29)),
        ] {
            assert!(Place::new(name).is_err(), "{name}");
        }
    }
}
