//! The agent's container for `runc`: what containerd makes of the chart's DaemonSet.
//!
//! Two things differ. The root is the machine's own `/usr` with the agent beside it, and the API server is named by a
//! kubeconfig, since [`super::api`] speaks no TLS.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};
use sidestep_kit::{binary, chart, net::Namespace, parts, process::copy_program};
use tempfile::TempDir;

use super::{api, seccomp};

/// The node's name.
pub(super) const NODE: &str = "node";
/// Where the program is in the container.
pub(super) const PROGRAM: &str = "/sidestep-agent";

/// Makes the folder that `runc` calls a bundle.
pub(super) fn bundle(config: &Value) -> TempDir {
    let bundle = tempfile::tempdir().expect("a folder");
    let root = bundle.path().join("rootfs");
    for name in ["proc", "sys", "dev", "usr", "run/sidestep"] {
        fs::create_dir_all(root.join(name)).expect("a new folder");
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("a new folder");
    }
    copy_program(&binary("sidestep-agent"), &root.join(&PROGRAM[1..]));
    fs::write(root.join("kubeconfig"), api::kubeconfig()).expect("a new folder");
    fs::write(bundle.path().join("config.json"), config.to_string()).expect("a new folder");
    bundle
}

/// What the chart says, as the runtime is told it; the pod's network namespace is there already.
pub(super) fn config(network: &Namespace) -> Value {
    let text = fs::read_to_string(parts::workspace().join("manifests/install.yaml"));
    let objects = chart::documents(&text.expect("the rendered chart"));
    let pod = &chart::object(&objects, "DaemonSet", "sidestep-agent")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let allowed = &container["securityContext"];
    assert_eq!(pod["hostPID"], true);
    assert_eq!(pod["hostNetwork"], Value::Null);
    assert_eq!(allowed["privileged"], false);
    assert_eq!(allowed["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        pod["securityContext"]["appArmorProfile"]["type"],
        "Unconfined"
    );
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let capabilities: Vec<String> = strings(&allowed["capabilities"]["add"])
        .map(|name| format!("CAP_{name}"))
        .collect();
    let arguments = strings(&container["args"]).map(|word| word.replace("$(NODE_NAME)", NODE));
    let words: Vec<String> = [PROGRAM.to_owned()].into_iter().chain(arguments).collect();
    json!({
        "ociVersion": "1.0.2",
        "hostname": "agent",
        "root": {"path": "rootfs", "readonly": allowed["readOnlyRootFilesystem"]},
        "process": {
            "args": words,
            "cwd": "/",
            "env": environment(container),
            "user": {"uid": allowed["runAsUser"], "gid": allowed["runAsGroup"]},
            "noNewPrivileges": allowed["allowPrivilegeEscalation"] == false,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
        },
        "mounts": mounts(pod),
        "linux": {
            "cgroupsPath": "/kubepods.slice/kubepods-burstable.slice/\
                kubepods-burstable-pod0f3a6a0e_1c2b_4d5e_8f90_abcdef012345.slice/cri-containerd-agent.scope",
            // With hostPID there is none for pids.
            "namespaces": [
                {"type": "mount"},
                {"type": "cgroup"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "network", "path": network.path()},
            ],
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": mebibytes(&container["resources"]["limits"]["memory"])},
            },
            "seccomp": seccomp::profile(&capabilities),
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn environment(container: &Value) -> Vec<String> {
    let all = container["env"].as_array().expect("a list").iter();
    let mut words: Vec<_> = all
        .map(|one| {
            let name = one["name"].as_str().expect("a name");
            let value = match one["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                None => one["value"].as_str().expect("a value"),
                Some("spec.nodeName") => NODE,
                Some("metadata.name") => "sidestep-agent-x",
                Some("metadata.namespace") => chart::NAMESPACE,
                Some(other) => panic!("the test knows no {other}"),
            };
            format!("{name}={value}")
        })
        .collect();
    words.push("KUBECONFIG=/kubeconfig".to_owned());
    words
}

/// A runtime's own mounts, of which sysfs is read-only and fresh, so without securityfs; then the pod's volumes.
fn mounts(pod: &Value) -> Vec<Value> {
    let own = [
        ("/proc", "proc", ""),
        ("/dev", "tmpfs", "strictatime,mode=755,size=65536k"),
        ("/dev/shm", "tmpfs", "noexec,nodev,mode=1777,size=65536k"),
        ("/sys", "sysfs", "noexec,nodev,ro"),
        // The image.
        ("/usr", "bind", "rbind,ro"),
    ];
    let own = own.map(|(at, kind, options)| {
        let options: Vec<_> = ["nosuid"].into_iter().chain(options.split(',')).collect();
        let options: Vec<_> = options.into_iter().filter(|it| !it.is_empty()).collect();
        let source = if kind == "bind" { at } else { kind };
        json!({"destination": at, "type": kind, "source": source, "options": options})
    });
    let volumes = pod["containers"][0]["volumeMounts"].as_array();
    let volumes = volumes.expect("a list").iter().map(|mount| {
        let all = pod["volumes"].as_array().expect("a list").iter();
        let mut named = all.filter(|volume| volume["name"] == mount["name"]);
        let source = &named.next().expect("a volume of this name")["hostPath"];
        if source["type"] == "DirectoryOrCreate" {
            let path = source["path"].as_str().expect("a path");
            fs::create_dir_all(path).expect("a folder");
        }
        let propagation = match mount["mountPropagation"].as_str() {
            None => "rprivate",
            Some("HostToContainer") => "rslave",
            Some(other) => panic!("the test knows no {other}"),
        };
        json!({
            "destination": mount["mountPath"],
            "type": "bind",
            "source": source["path"],
            "options": ["rbind", propagation, "rw"],
        })
    });
    own.into_iter().chain(volumes).collect()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().expect("a list").iter();
    list.map(|word| word.as_str().expect("a string"))
}

fn mebibytes(text: &Value) -> u64 {
    let text = text.as_str().and_then(|text| text.strip_suffix("Mi"));
    let number: u64 = text
        .and_then(|text| text.parse().ok())
        .expect("a number of MiB");
    number << 20
}
