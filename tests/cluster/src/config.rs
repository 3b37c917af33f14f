//! What the parts of the node are configured with.

use std::{fs, io, os::unix::fs::symlink};

use super::place::{DNS_SERVICE, NODE_ADDRESS, NODE_PODS, Place};

/// The sandbox of every pod.
const PAUSE: &str = "sidestep.test/pause:1";

/// Where containerd listens, inside the node's own `/run`.
pub const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// The folder of the node's CNI plugins.
pub const PLUGINS: &str = "plugins";

/// The folder of their configuration, which is in the file [`NETWORK`].
pub const NETWORKS: &str = "cni";

/// Which plugins make a pod's network.
pub const NETWORK: &str = "10-node.conflist";

/// Writes the files.
pub fn write(place: &Place) -> anyhow::Result<()> {
    for folder in ["logs", NETWORKS, "containerd", "kubelet"] {
        fs::create_dir_all(place.file(folder))?;
    }
    fs::write(place.file("containerd.toml"), containerd(place))?;
    // A folder of the node's own: istio-cni puts its plugin there.
    fs::create_dir_all(place.file(PLUGINS))?;
    for plugin in fs::read_dir(place.parts().join("cluster/cni"))? {
        let plugin = plugin?;
        let link = place.file(PLUGINS).join(plugin.file_name());
        symlink(plugin.path(), link).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
    }
    fs::write(place.file(NETWORKS).join(NETWORK), network(NODE_PODS))?;
    fs::write(
        place.file("resolv.conf"),
        format!("nameserver {DNS_SERVICE}\n"),
    )?;
    fs::write(place.file("kubelet.yaml"), kubelet(place))?;
    fs::write(place.file("Corefile"), dns(place))?;
    Ok(())
}

fn containerd(place: &Place) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Where the capability to lower the score is missing, runc would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
"#,
        root = place.file("containerd").display(),
        plugins = place.file(PLUGINS).display(),
        networks = place.file(NETWORKS).display(),
    )
}

/// Each pod on a veth of its own, with an address out of `range`, routed: services work between pods without bridge filtering, which
/// belongs to the whole machine.
pub fn network(range: &str) -> String {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "node",
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": range}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }, {"type": "portmap", "capabilities": {"portMappings": true}}],
    })
    .to_string()
}

fn kubelet(place: &Place) -> String {
    let mut config = kubelet_of_any_node();
    let own = serde_json::json!({
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", place.name()),
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "resolvConf": place.file("resolv.conf"),
        // A static pod is put here.
        "staticPodPath": place.file("static-pods"),
        "fileCheckFrequency": "1s",
        "volumePluginDir": place.file("kubelet/volume-plugins"),
        "oomScoreAdj": 0,
    });
    for (key, value) in own.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config.to_string()
}

/// What the kubelets of this node and of other machines have in common.
pub fn kubelet_of_any_node() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "maxPods": 250,
    })
}

fn dns(place: &Place) -> String {
    format!(
        ".:53 {{\n  bind {NODE_ADDRESS}\n  kubernetes cluster.local {{\n    kubeconfig {} {}\n  }}\n  cache 5\n}}\n",
        place.kubeconfig().display(),
        place.name()
    )
}
