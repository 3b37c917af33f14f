//! Fixtures: the Pod that Istio's injector made, and the rules that its `istio-init` wrote for it.

use std::{fmt::Write, fs, path::PathBuf};

use crate::parts;

/// A folder of `fixtures/`.
#[derive(Debug, Clone)]
pub struct Fixture {
    name: String,
    folder: PathBuf,
}

/// What `iptables-save` and `ip6tables-save` printed after `istio-init` had run.
#[derive(Debug, Clone)]
pub struct Rules {
    /// IPv4
    pub v4: String,
    /// IPv6
    pub v6: String,
}

impl Fixture {
    /// The fixture of this name.
    pub fn load(name: &str) -> Self {
        let folder = parts::fixtures().join(name);
        assert!(folder.exists(), "no fixture {name}");
        Self {
            name: name.to_owned(),
            folder,
        }
    }

    /// The recorded rules.
    pub fn rules(&self) -> Rules {
        Rules {
            v4: self.read("iptables.rules"),
            v6: self.read("ip6tables.rules"),
        }
    }

    /// The rules of a pod that Istio redirects by native nftables and that says nothing of its own, as `nft list ruleset` prints them.
    pub fn nftables() -> String {
        Self::load("native-nftables").read("nftables.rules")
    }

    /// The injected Pod, renamed and tied to a network namespace, with these name servers.
    pub fn manifest(&self, name: &str, namespace: &str, name_servers: &[&str]) -> String {
        let mut dns = String::from("spec:\n  dnsPolicy: None\n  dnsConfig:\n    nameservers:\n");
        for server in name_servers {
            writeln!(dns, "    - {server}").expect("a string takes everything");
        }
        let manifest = self.read("pod.yaml");
        let edits = [
            (
                "  annotations:\n".to_owned(),
                format!("  annotations:\n    sidestep.dev/netns: {namespace}\n"),
            ),
            (
                format!("\n  name: {}\n", self.name),
                format!("\n  name: {name}\n"),
            ),
            ("\nspec:\n".to_owned(), format!("\n{dns}")),
        ];
        edits.into_iter().fold(manifest, |text, (from, to)| {
            assert!(text.contains(&from), "{}: no {from:?}", self.name);
            text.replacen(&from, &to, 1)
        })
    }

    fn read(&self, file: &str) -> String {
        let path = self.folder.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
