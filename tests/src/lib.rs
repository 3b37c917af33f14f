//! The test kit: networks of namespaces, cgroups, actors that use sockets as pods do, and both ways to redirect them.
//!
//! Everything needs root. A test makes all it needs and owns it; nothing on the machine outside of its own namespaces
//! and cgroups changes.

pub mod actor;
pub mod apiserver;
pub mod app;
pub mod bench;
pub mod bpftool;
pub mod certs;
pub mod cgroup;
pub mod chart;
pub mod cluster;
pub mod envoy;
pub mod foreign;
pub mod kernels;
pub mod kubelet;
pub mod load;
pub mod mesh;
pub mod net;
pub mod parts;
pub mod process;
pub mod redirect;
pub mod shortcut_maps;
pub mod torture;

use std::{path::PathBuf, thread};

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
        "{} is missing: run `make build` first",
        path.display()
    );
    path
}

/// Whether a test that needs root, iproute2 and these programs can run here. Where it cannot, says why; under CI
/// (`CI=true`) that is a failure.
pub fn can_run(programs: &[&str]) -> bool {
    // SAFETY: geteuid has no arguments and always succeeds.
    let root = unsafe { libc::geteuid() } == 0;
    let mut needed = ["ip"].iter().chain(programs);
    let reason = if root {
        let missing = needed.find(|program| !tool_exists(program));
        missing.map(|program| format!("it needs the program {program}"))
    } else {
        Some("it needs root".to_owned())
    };
    if let Some(reason) = &reason {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        eprintln!("{test} was skipped: {reason}");
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "skipped under CI: {reason}");
    }
    reason.is_none()
}

fn tool_exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|folder| folder.join(name).exists())
}

/// Makes of one test body two tests, `…::iptables` and `…::sidestep`: what Istio's rules do is what we must do.
#[macro_export]
macro_rules! both_ways {
    ($($(#[$meta:meta])* fn $name:ident($node:ident) $body:block)*) => {
        $($(#[$meta])*
        mod $name {
            use super::*;

            fn case($node: &$crate::redirect::Node) $body

            #[test]
            fn iptables() {
                if $crate::can_run(&["iptables-nft-restore", "ip6tables-nft-restore"]) {
                    case(&$crate::redirect::Node::new($crate::redirect::Redirect::Iptables));
                }
            }

            #[test]
            fn sidestep() {
                if $crate::can_run(&[]) {
                    case(&$crate::redirect::Node::new($crate::redirect::Redirect::Sidestep));
                }
            }
        })*
    };
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn make_runs_every_test_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files =
            ["../Makefile", "qemu/smoke.sh"].map(|file| fs::read_to_string(folder.join(file)));
        let text = files.map(|text| text.expect("a file")).concat();
        let words: Vec<&str> = text.split_whitespace().collect();
        for target in fs::read_dir(folder.join("tests")).expect("tests") {
            let name = target.expect("a folder").file_name();
            let name = name.to_str().expect("a name");
            assert!(
                words.windows(2).any(|pair| pair == ["--test", name]),
                "no target of the Makefile, nor its smoke test, runs --test {name}"
            );
        }
    }
}
