//! A machine becomes a node, and its agent and its pods are as on the cluster's own.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sidestep_agent::status::Status;
use sidestep_cluster::{machine::PATIENCE, room::comes};
use sidestep_kit::{app::Seen, needs};

use crate::{
    lab::{Pair, lab, say},
    table,
};

#[needs(crate::lab::needs)]
fn the_agent_of_each_machine_is_ready_and_says_what_is_on_what_is_off_and_why() {
    let lab = lab();
    for machine in &lab.machines {
        let name = machine.name();
        let mut agent = Value::Null;
        let ready = comes(PATIENCE, || {
            agent = lab.cluster.agent_on(name).unwrap_or_default();
            since(&agent, "Ready").is_some()
        });
        let status = lab.cluster.agent_status_on(name);
        assert!(ready, "{name}: {status:#?}\n{agent:#}");
        let container = &agent["status"]["containerStatuses"][0];
        let began = time(&container["state"]["running"]["startedAt"]).expect("it runs");
        let took = since(&agent, "Ready").expect("it is") - began;
        say(format!("{name}: the agent is ready after {took:.0} s"));
        let status = status.unwrap_or_else(|error| panic!("{error}"));
        let node = lab.cluster.get(&format!("node {name}"));
        let info = |key: &str| {
            node["status"]["nodeInfo"][key]
                .as_str()
                .expect("kubelet tells it")
                .to_owned()
        };
        let cells = [
            info("osImage"),
            info("kernelVersion"),
            machine
                .took
                .map_or_else(|| "-".to_owned(), |took| format!("{} s", took.as_secs())),
            format!("{took:.0} s"),
            shortcut(&status),
        ];
        table::set(name, cells);
        assert!(status.ready, "{name}: {:?}", status.errors);
        assert_eq!(status.errors, Vec::<String>::new(), "{name}");
        // Of systemd's driver.
        assert_eq!(status.cgroup, Path::new("/sys/fs/cgroup/kubepods.slice"));
        // What of it depends on the kernel alone is `make kernels`' to say.
        assert_eq!(status.shortcut.on, status.shortcut.reason.is_none());
        assert_eq!(container["restartCount"], 0, "{name}");
    }
}

#[needs(crate::lab::needs)]
fn a_pod_on_each_machine_is_gated_and_armed_and_answers() {
    let lab = lab();
    for machine in &lab.machines {
        let pair = Pair::new(&lab, machine, "armed");
        assert!(pair.are_gated());
        let answer = pair.room.exec("near", "wget -qO- http://far/");
        let answer: Seen = serde_json::from_str(&answer).expect("the application answers JSON");
        assert_eq!(answer.pod, "far");
        let caller = answer.headers.get("x-forwarded-client-cert");
        let identity = format!(
            "URI=spiffe://cluster.local/ns/{}/sa/default",
            pair.room.name()
        );
        assert!(
            caller.is_some_and(|caller| caller.contains(&identity)),
            "{answer:?}"
        );
        // The kernel's own count: the call was captured at the client, and taken in at the server.
        let rows = |(pod, node)| pair.room.told_on(node, pod).expect("it is armed").rows;
        let [near, far] = pair.places().map(rows);
        assert!(near["out-12"] > 0 && far["in-all"] > 0, "{near:?} {far:?}");
        assert!(far["out-12"] > 0 && near["in-all"] > 0, "{near:?} {far:?}");
        say(format!(
            "{}: a pod is gated, armed and answers",
            machine.name()
        ));
    }
}

/// What is on, what is off, and why.
fn shortcut(status: &Status) -> String {
    let status = &status.shortcut;
    if !status.on {
        return format!(
            "off: {}",
            status.reason.as_deref().unwrap_or("not proven yet")
        );
    }
    let parts = [
        ("from applications", &status.not_from_applications),
        ("into applications", &status.not_into_applications),
    ];
    let parts = parts.map(|(part, why)| match why {
        None => format!("{part} on"),
        Some(why) => format!("{part} off: {why}"),
    });
    format!("on; {}", parts.join("; "))
}

/// Since when a pod's condition holds, in seconds since the epoch.
fn since(pod: &Value, condition: &str) -> Option<f64> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let condition = conditions
        .iter()
        .find(|it| it["type"] == condition && it["status"] == "True")?;
    time(&condition["lastTransitionTime"])
}

fn time(value: &Value) -> Option<f64> {
    let time: Timestamp = value.as_str()?.parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}
