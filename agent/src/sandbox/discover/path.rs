//! A pod's uid in the names of cgroups, as kubelet makes them. Pure.
//!
//! | driver | a container's cgroup |
//! |---|---|
//! | cgroupfs | `kubepods/burstable/pod<uid>/<id>` |
//! | systemd | `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope` |
//!
//! Pods of the guaranteed class stand one level higher, and `--cgroup-root` puts something in front: `kubelet/kubepods`, or
//! `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-…`. CRI-O's scopes begin with `crio-`.

use std::path::{Path, PathBuf};

use crate::pods::wanted::PodUid;

const CLASSES: [&str; 2] = ["burstable", "besteffort"];
const SLICE: &str = ".slice";

/// The pod of a process, from the text of its `/proc/<pid>/cgroup`: the line of the v2 hierarchy.
pub fn of_process(text: &str) -> Option<PodUid> {
    pod_of(unified(text)?)
}

/// The path in the v2 hierarchy, from the same text.
pub fn unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The pod of a cgroup. Read from inside another cgroup namespace a path may begin with `/../..`. The outermost name counts:
/// what is below it a container may have made itself.
pub fn pod_of(path: &str) -> Option<PodUid> {
    path.split('/').find_map(uid_of)
}

/// The path of a process, from the text of its `/proc/<pid>/cgroup`, where a runtime with the cgroupfs driver took what kubelet
/// wants of the systemd driver for a folder's name: `/system.slice/containerd.service/<the pod's slice>:cri-containerd:<id>`.
pub fn misplaced(text: &str) -> Option<&str> {
    let path = unified(text)?;
    let is_order = |name: &str| {
        name.split_once(':')
            .is_some_and(|(slice, rest)| rest.contains(':') && uid_of(slice).is_some())
    };
    path.split('/').any(is_order).then_some(path)
}

/// Where kubelet would put the pod of this uid in the pods' cgroup, by either driver and in each class.
pub fn folders(root: &Path, uid: &PodUid) -> Vec<PathBuf> {
    let name = root.file_name().and_then(|name| name.to_str());
    let Some(stem) = name.and_then(|name| name.strip_suffix(SLICE)) else {
        let pod = format!("pod{uid}");
        let classes = CLASSES.iter().map(|class| root.join(class).join(&pod));
        return classes.chain([root.join(&pod)]).collect();
    };
    let pod = format!("pod{}{SLICE}", uid.as_str().replace('-', "_"));
    let class = |class: &str| {
        root.join(format!("{stem}-{class}{SLICE}"))
            .join(format!("{stem}-{class}-{pod}"))
    };
    let classes = CLASSES.iter().map(|name| class(name));
    classes
        .chain([root.join(format!("{stem}-{pod}"))])
        .collect()
}

/// Whether a folder of this name holds a node's pods.
pub fn is_pods(name: &str) -> bool {
    let stem = name.strip_suffix(SLICE).unwrap_or(name);
    stem == "kubepods" || name.ends_with(SLICE) && stem.ends_with("-kubepods")
}

fn uid_of(name: &str) -> Option<PodUid> {
    if let Some(uid) = name.strip_prefix("pod") {
        return is_uid(uid, b'-').then(|| PodUid::new(uid)).flatten();
    }
    let (parent, uid) = name.strip_suffix(SLICE)?.rsplit_once("-pod")?;
    let parent = CLASSES
        .iter()
        .find_map(|class| parent.strip_suffix(class)?.strip_suffix('-'))
        .unwrap_or(parent);
    let pods = parent == "kubepods" || parent.ends_with("-kubepods");
    (pods && is_uid(uid, b'_')).then(|| PodUid::new(&uid.replace('_', "-")))?
}

/// A UUID, or the hash that a static pod has instead.
fn is_uid(text: &str, dash: u8) -> bool {
    let hex = |b: u8| b.is_ascii_hexdigit();
    match text.len() {
        32 => text.bytes().all(hex),
        36 => text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == dash,
            _ => hex(b),
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3a6a0e-1c2b-4d5e-8f90-abcdef012345";
    const UID_: &str = "0f3a6a0e_1c2b_4d5e_8f90_abcdef012345";
    const STATIC: &str = "3b0c5a1d9e8f7a6b5c4d3e2f1a0b9c8d";

    fn uid(path: &str) -> Option<String> {
        pod_of(path).map(|uid| uid.to_string())
    }

    #[test]
    fn every_driver_and_runtime_is_understood() {
        let id = "a".repeat(64);
        for path in [
            format!("/kubepods/burstable/pod{UID}/{id}"),
            format!("/kubepods/pod{UID}/{id}"),
            format!("/kubepods/besteffort/pod{UID}/crio-{id}"),
            format!("/kubelet/kubepods/burstable/pod{UID}/{id}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{id}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{UID_}.slice/crio-{id}.scope/container"),
            format!(
                "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{id}.scope"
            ),
            format!("/../../pod{UID}/{id}"),
            format!("/../../../kubepods-besteffort-pod{UID_}.slice/cri-containerd-{id}.scope"),
        ] {
            assert_eq!(uid(&path).as_deref(), Some(UID), "{path}");
        }
        let path = format!("/kubepods/burstable/pod{STATIC}/{id}");
        assert_eq!(uid(&path).as_deref(), Some(STATIC));
    }

    #[test]
    fn the_outermost_pod_counts() {
        let other = UID.replace('0', "1");
        let path = format!("/kubepods/pod{UID}/container/kubepods/pod{other}/x");
        assert_eq!(uid(&path).as_deref(), Some(UID));
    }

    #[test]
    fn what_is_not_a_pod_is_not_taken_for_one() {
        for path in [
            "/",
            "/system.slice/containerd.service",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-burstable.slice",
            "/user.slice/podman-1234.scope",
            "/podinfo/x",
            &format!("/machine.slice/libpod-{UID_}.scope"),
            &format!("/evil-pod{UID_}.slice"),
            &format!("/kubepods/pod{UID_}/x"),
            &format!("/kubepods/pod{UID}0/x"),
            "/kubepods/pod../x",
        ] {
            assert_eq!(uid(path), None, "{path}");
        }
    }

    #[test]
    fn of_a_hybrid_host_the_unified_line_counts() {
        let other = UID.replace('0', "1");
        let text = format!(
            "12:memory:/kubepods/burstable/pod{other}/x\n1:name=systemd:/kubepods/burstable/pod{other}/x\n0::/kubepods/burstable/pod{UID}/x\n"
        );
        assert_eq!(of_process(&text), PodUid::new(UID));
        assert_eq!(of_process("12:memory:/kubepods/burstable/pod/x\n"), None);
    }

    #[test]
    fn a_container_that_is_not_where_kubelet_wanted_it_is_noticed() {
        for class in ["", "burstable-", "besteffort-"] {
            let slice = format!("kubepods-{class}pod{UID_}.slice");
            let path = format!("/system.slice/containerd.service/{slice}:cri-containerd:abc");
            assert_eq!(misplaced(&format!("0::{path}\n")), Some(path.as_str()));
            let text = format!("0::/kubepods.slice/{slice}/cri-containerd-abc.scope\n");
            assert_eq!(misplaced(&text), None, "{text}");
        }
        for other in [
            "/",
            "/kubepods/burstable/podx/a:b:c",
            "/user.slice/a:b:c",
            &format!("/kubepods/pod{UID}/abc"),
        ] {
            assert_eq!(misplaced(&format!("0::{other}\n")), None, "{other}");
        }
    }

    #[test]
    fn a_pod_is_looked_for_where_its_name_is_read() {
        let wanted = PodUid::new(UID).expect("a uid");
        for root in [
            "/cg/kubepods",
            "/cg/kubelet/kubepods",
            "/cg/kubepods.slice",
            "/cg/kubelet.slice/kubelet-kubepods.slice",
        ] {
            let folders = folders(Path::new(root), &wanted);
            assert_eq!(folders.len(), 3);
            for folder in folders {
                assert!(folder.starts_with(root));
                let path = format!("{}/container", folder.display());
                assert_eq!(pod_of(&path), Some(wanted.clone()), "{path}");
            }
        }
    }

    #[test]
    fn the_pods_cgroup_is_known_by_its_name() {
        for name in ["kubepods", "kubepods.slice", "kubelet-kubepods.slice"] {
            assert!(is_pods(name), "{name}");
        }
        for name in [
            "kubepods-burstable.slice",
            "my-kubepods",
            "pods",
            "kubepodsx",
        ] {
            assert!(!is_pods(name), "{name}");
        }
    }
}
