//! Which nodes can run Sidestep, by what they report about themselves.

use k8s_openapi::api::core::v1::Node;

/// The architectures that Sidestep's images are for, as Kubernetes names them.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// The oldest kernel with the features that the BPF programs need.
pub const KERNEL: (u32, u32) = (6, 1);

/// Labels by which nodes without a kernel of their own are known: virtual-kubelet's, and Fargate's.
const VIRTUAL: [(&str, &str); 2] = [
    ("type", "virtual-kubelet"),
    ("eks.amazonaws.com/compute-type", "fargate"),
];

words! {
    /// Why a node cannot run Sidestep: the value of its label [`UNSUPPORTED`](crate::keys::UNSUPPORTED). Stable.
    Unfit, "virtual, not-linux, other-architecture or kernel-too-old" {
        /// The node is no machine: its pods run elsewhere.
        Virtual = "virtual",
        /// Its operating system is not Linux.
        NotLinux = "not-linux",
        /// Its processor is of an architecture that there are no images for.
        OtherArchitecture = "other-architecture",
        /// Its kernel lacks features that the BPF programs need.
        KernelTooOld = "kernel-too-old",
    }
}

/// Why this node cannot run Sidestep; `None` if it can, or if that is unknown.
pub fn unfit(node: &Node) -> Option<Unfit> {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): &(&str, &str)| {
        labels.is_some_and(|labels| labels.get(*key).is_some_and(|found| found == value))
    };
    if VIRTUAL.iter().any(has) {
        return Some(Unfit::Virtual);
    }
    let info = node.status.as_ref()?.node_info.as_ref()?;
    let differs = |said: &str, wanted: &[&str]| !said.is_empty() && !wanted.contains(&said);
    if differs(&info.operating_system, &["linux"]) {
        Some(Unfit::NotLinux)
    } else if differs(&info.architecture, &ARCHITECTURES) {
        Some(Unfit::OtherArchitecture)
    } else if version(&info.kernel_version).is_some_and(|version| version < KERNEL) {
        Some(Unfit::KernelTooOld)
    } else {
        None
    }
}

/// `6.1.0-13-amd64` → (6, 1).
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(os: &str, arch: &str, kernel: &str, labels: &Value) -> Node {
        let node = json!({
            "metadata": {"name": "n", "labels": labels},
            "status": {"nodeInfo": {
                "operatingSystem": os, "architecture": arch, "kernelVersion": kernel,
                "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": "",
            }},
        });
        serde_json::from_value(node).expect("a node")
    }

    fn linux(kernel: &str) -> Option<Unfit> {
        unfit(&node("linux", "amd64", kernel, &json!({})))
    }

    #[test]
    fn a_node_says_itself_that_it_cannot() {
        for good in [
            "6.1.0-13-cloud-amd64",
            "6.1",
            "6.12.48",
            "10.0.1",
            "6.6.87.2-microsoft-standard-WSL2",
        ] {
            assert_eq!(linux(good), None, "{good}");
        }
        for old in [
            "5.15.0-1051-aws",
            "4.19",
            "6.0.19",
            "5.10.199-190.747.amzn2.x86_64",
        ] {
            assert_eq!(linux(old), Some(Unfit::KernelTooOld), "{old}");
        }
        let windows = node("windows", "amd64", "10.0.20348.2113", &json!({}));
        assert_eq!(unfit(&windows), Some(Unfit::NotLinux));
        for (architecture, reason) in [
            ("amd64", None),
            ("arm64", None),
            ("arm", Some(Unfit::OtherArchitecture)),
            ("s390x", Some(Unfit::OtherArchitecture)),
        ] {
            let node = node("linux", architecture, "6.12.1", &json!({}));
            assert_eq!(unfit(&node), reason, "{architecture}");
        }
        for (key, value) in VIRTUAL {
            let labelled = node("linux", "amd64", "6.12.1", &json!({key: value}));
            assert_eq!(unfit(&labelled), Some(Unfit::Virtual));
        }
    }

    #[test]
    fn what_is_not_known_is_not_held_against_it() {
        assert_eq!(unfit(&Node::default()), None, "it registers just now");
        for kernel in ["", "unknown", "six.one", "v5.4", "6", "99999999999.1"] {
            assert_eq!(linux(kernel), None, "{kernel:?}");
        }
        assert_eq!(unfit(&node("", "", "", &json!({}))), None);
    }
}
