//! Pods of a node: the object in the API, and what a runtime makes of it.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::KubeNode;
use crate::{
    actor::{Actor, Identity, Kind, Socket},
    cgroup::Cgroup,
    net::Namespace,
    redirect::PodState,
};

/// A pod in the API.
#[derive(Debug)]
pub struct KubePod<'a> {
    pub(super) node: &'a KubeNode,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl KubePod<'_> {
    /// Makes its cgroup and its sandbox: a namespace with this address, and a process that holds it.
    pub fn sandbox(&self, address: &str) -> Sandbox {
        let namespace = self.node.base.network().host("pod", &[address]);
        Sandbox::start(self.cgroup(), namespace)
    }

    /// The same, with a proxy that listens; returns when the agent captures connections.
    #[track_caller]
    pub fn active(&self, address: &str) -> (Sandbox, Proxy) {
        let sandbox = self.sandbox(address);
        let proxy = sandbox.proxy();
        self.node.wait_for(&self.name, PodState::Active);
        (sandbox, proxy)
    }

    /// Makes its cgroup.
    pub fn cgroup(&self) -> Cgroup {
        self.node.pod_cgroup(&self.uid)
    }

    /// Removes the object at once.
    pub fn delete(&self) {
        self.node.server.must(&format!(
            "delete pod {} -n {} --force --grace-period=0 --wait=false",
            self.name, self.node.name
        ));
    }
}

/// What a runtime made for a pod.
#[derive(Debug)]
pub struct Sandbox {
    // Processes end before their namespace goes.
    pause: Actor,
    cgroup: Cgroup,
    namespace: Namespace,
}

impl Sandbox {
    /// Starts a process in this namespace and in a cgroup below this one, which is a pod's.
    pub fn start(cgroup: Cgroup, namespace: Namespace) -> Self {
        let pause = process(&cgroup, &namespace, &Identity::new(65535, 65535));
        Self {
            pause,
            cgroup,
            namespace,
        }
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The pod's cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// A process of a container of this pod.
    pub fn container(&self, identity: &Identity) -> Actor {
        process(&self.cgroup, &self.namespace, identity)
    }

    /// A process of the application.
    pub fn app(&self) -> Actor {
        self.container(&Identity::app())
    }

    /// The proxy, listening.
    pub fn proxy(&self) -> Proxy {
        self.proxy_of(&Identity::proxy())
    }

    /// The same, as another user.
    pub fn proxy_of(&self, identity: &Identity) -> Proxy {
        let actor = self.container(identity);
        Proxy {
            _outbound: actor.serve("outbound", Kind::Tcp, "0.0.0.0:15001"),
            _inbound: actor.serve("inbound", Kind::Tcp, "0.0.0.0:15006"),
            actor,
        }
    }

    /// Ends its processes, then removes it.
    pub fn end(self) {
        self.pause.kill();
    }
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    /// The process.
    pub actor: Actor,
    _outbound: Socket,
    _inbound: Socket,
}

/// A process in a cgroup of its own below a pod's.
pub fn process(pod: &Cgroup, namespace: &Namespace, identity: &Identity) -> Actor {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let cgroup = pod.child(&format!("container-{number}"));
    let actor = Actor::spawn(namespace, &cgroup, identity);
    // The kit removes a cgroup with the processes in it; this one goes with the pod's.
    std::mem::forget(cgroup);
    actor
}

/// A gated pod of this node, whose gate has these further arguments.
pub fn pod(name: &str, node: &str, args: &str) -> Value {
    let mut all =
        "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020"
            .split(' ')
            .collect::<Vec<_>>();
    all.extend(args.split_whitespace());
    all.extend([
        "--run-validation",
        "--skip-rule-apply",
        "--probe-timeout=300s",
    ]);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"sidestep.dev/accelerated": "true"}},
        "spec": {
            "nodeName": node,
            "initContainers": [{
                "name": "istio-init",
                "image": "istio/proxyv2",
                "args": all,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "privileged": false,
                    "readOnlyRootFilesystem": true,
                    "runAsGroup": 1337,
                    "runAsNonRoot": true,
                    "runAsUser": 1337,
                },
            }],
            "containers": [{"name": "app", "image": "app"}],
        },
    })
}
