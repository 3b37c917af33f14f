//! The test kit. Nearly everything needs root. A test makes all it needs and owns it; nothing on the machine outside of its
//! own namespaces and cgroups changes.
//!
//! | to get | module |
//! |---|---|
//! | network namespaces, a network of them | [`net`] |
//! | cgroups | [`cgroup`] |
//! | programs inside a pod, and a condition awaited | [`process`] |
//! | a process that does one system call on a socket after the other, as the test says | [`actor`] |
//! | a machine with pods, redirected by Istio's rules or by an agent | [`redirect`] |
//! | two pods with an application and Envoy sidecars, with mutual TLS | [`mesh`], of [`envoy`], [`certs`], [`app`], [`exchange`] |
//! | load on a server | [`traffic`], of [`load`], [`pour`] |
//! | a Kubernetes API server without nodes; the chart; its alerts and dashboard | [`apiserver`], [`chart`], [`monitoring`] |
//! | a node of it: the test is kubelet and runtime | [`kubelet`] |
//! | a Prometheus that scrapes them | [`prometheus`] |
//! | what is in the kernel's maps | [`bpftool`], [`shortcut_maps`] |
//! | BPF programs of somebody else | [`foreign`] |
//! | what a test cannot run without | [`needs`](mod@needs), as an [attribute](macro@needs) |
//! | files of the checkout, and programs that set-up built | [`parts`] |

pub mod actor;
pub mod apiserver;
pub mod app;
pub mod bpftool;
pub mod certs;
pub mod cgroup;
pub mod chart;
pub mod desk;
pub mod envoy;
pub mod exchange;
pub mod foreign;
pub mod kubelet;
pub mod load;
pub mod mesh;
pub mod monitoring;
pub mod needs;
pub mod net;
pub mod parts;
pub mod pour;
pub mod process;
pub mod prometheus;
pub mod redirect;
pub mod shortcut_maps;
pub mod traffic;

use std::path::PathBuf;

pub use sidestep_needs::needs;

// Where the attribute is used here, it means this crate by its name.
#[cfg(test)]
extern crate self as sidestep_kit;

/// The path of a program of this workspace, which was built into the same folder as the running one.
pub fn binary(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("a process knows its program");
    let folder = running
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("a program is in a folder");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run the tests by their `make` target, which builds it",
        path.display()
    );
    path
}

/// Makes of one test body two tests, `…::iptables` and `…::sidestep`: what Istio's rules do is what we must do.
#[macro_export]
macro_rules! both_ways {
    ($($(#[$meta:meta])* fn $name:ident($node:ident) $body:block)*) => {
        $($(#[$meta])*
        mod $name {
            use super::*;

            fn case($node: &$crate::redirect::Node) $body

            #[$crate::needs(root, "iptables-nft-restore", "ip6tables-nft-restore")]
            fn iptables() {
                case(&$crate::redirect::Node::new($crate::redirect::Redirect::Iptables));
            }

            #[$crate::needs(root)]
            fn sidestep() {
                case(&$crate::redirect::Node::new($crate::redirect::Redirect::Sidestep));
            }
        })*
    };
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::parts::workspace;

    #[test]
    fn make_runs_every_test_target() {
        let files = ["Makefile", "tests/qemu/smoke.sh"];
        let text = files.map(|file| fs::read_to_string(workspace().join(file)).expect(file));
        let text = text.concat();
        let words: Vec<&str> = text.split_whitespace().collect();
        for folder in ["tests/tests", "tests/cluster/tests"] {
            for target in fs::read_dir(workspace().join(folder)).expect(folder) {
                let name = target.expect("a folder").file_name();
                let name = name.to_str().expect("a name");
                assert!(
                    words.windows(2).any(|pair| pair == ["--test", name]),
                    "no target of the Makefile, nor its smoke test, runs --test {name}"
                );
            }
        }
    }

    /// The text of every Rust file below a folder.
    fn sources(folder: &std::path::Path, into: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                sources(&path, into);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                into.push_str(&fs::read_to_string(&path).expect("a text"));
            }
        }
    }

    #[test]
    fn every_test_that_is_said_to_hold_a_claim_exists() {
        let mut all = String::new();
        for folder in ["agent", "certs", "tests", "webhook"] {
            sources(&workspace().join(folder), &mut all);
        }
        let text = fs::read_to_string(workspace().join("SECURITY.md")).expect("a text");
        let is_test = |name: &&str| {
            let of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            name.len() > 24 && name.chars().all(of_a_name)
        };
        let named: Vec<&str> = text.split('`').filter(is_test).collect();
        assert!(named.len() > 50, "{named:?}");
        for name in named {
            assert!(all.contains(&format!("fn {name}(")), "no test {name}");
        }
    }
}
