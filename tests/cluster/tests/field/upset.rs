//! What happens to a node: it is rebooted; its kubelet and its runtime are restarted.

use serde_json::Value;
use sidestep_cluster::{
    machine::{Machine, PATIENCE},
    room::comes,
};
use sidestep_kit::needs;

use crate::{
    lab::{Lab, Pair, lab, say},
    load::{begin, end},
};

#[needs(crate::lab::needs)]
fn a_machine_that_is_rebooted_comes_back_and_its_pods_are_armed_anew() {
    let lab = lab();
    for machine in &lab.machines {
        let name = machine.name();
        let pair = Pair::new(&lab, machine, "rebooted");
        let before = agent(&lab, machine);
        let boot = boot_id(&lab, machine);
        // What `systemctl reboot` asks logind for, which these machines do not have. The shell may end before it answers.
        let _ = machine.run(&lab.cluster, "systemctl --no-block start reboot.target");
        let back = comes(PATIENCE, || boot_id(&lab, machine) != boot);
        assert!(back, "{name} does not come back");
        say(format!("{name} is up again"));
        // Its pods as they were before are Ready still, until kubelet looks. Whoever is asked then begins with nothing.
        let anew = comes(PATIENCE, || agent(&lab, machine) != before);
        assert!(anew, "{name}: the agent is still {before}");
        pair.is_up();
        assert!(pair.are_gated());
        say(format!("{name}: its pods are armed anew"));
    }
}

#[needs(crate::lab::needs)]
fn a_kubelet_and_a_containerd_that_are_restarted_under_load_lose_no_request() {
    let lab = lab();
    for machine in &lab.machines {
        let name = machine.name();
        let pair = Pair::new(&lab, machine, "restarted");
        let loads = [("near", "far"), ("far", "near")];
        for (from, to) in loads {
            begin(&pair, from, to);
        }
        for unit in ["kubelet", "containerd"] {
            let pid = format!("systemctl show --property MainPID --value {unit}");
            let restart = format!("{pid}; systemctl restart {unit}; {pid}");
            let said = machine.run(&lab.cluster, &restart);
            let said = said.unwrap_or_else(|error| panic!("{error:#}"));
            let pids: Vec<_> = said.lines().collect();
            assert!(
                pids.len() == 2 && pids[0] != pids[1],
                "{unit} was not restarted: {said}"
            );
            say(format!("{name}: {unit} was restarted"));
            // What is asked of the machine from here on goes through both of them.
            let works = comes(PATIENCE, || {
                pair.room.try_exec("far", "true").status.success()
            });
            assert!(
                works,
                "{name} runs no program in a pod after {unit} was restarted"
            );
        }
        for (from, _) in loads {
            end(&pair, from);
        }
        for pod in pair.room.get("pods")["items"].as_array().expect("a list") {
            for status in pod["status"]["containerStatuses"].as_array().expect("some") {
                assert_eq!(status["restartCount"], 0, "{status:#}");
            }
        }
    }
}

/// The agent's container, as the API server knows it.
fn agent(lab: &Lab, machine: &Machine) -> Value {
    let agent = lab.cluster.agent_on(machine.name()).unwrap_or_default();
    agent["status"]["containerStatuses"][0]["containerID"].clone()
}

/// Changes with each start of a machine; its kubelet tells it.
fn boot_id(lab: &Lab, machine: &Machine) -> Value {
    let node = lab.cluster.get(&format!("node {}", machine.name()));
    node["status"]["nodeInfo"]["bootID"].clone()
}
