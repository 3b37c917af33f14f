//! A release whose maps have another layout rolls through the nodes, and back.

use sidestep_agent::status::PodState;
use sidestep_cluster::{
    images,
    machine::{Machine, PATIENCE},
    place::NODE,
    room::comes,
    sidestep::{self, NAMESPACE},
};
use sidestep_kit::needs;

use crate::{
    lab::{Lab, Pair, lab, say},
    load::{begin, end},
};

#[needs(crate::lab::needs)]
fn a_release_with_another_layout_rolls_through_the_nodes_and_back_without_a_lost_request() {
    let lab = lab();
    let next = sidestep::build_next_image().unwrap_or_else(|error| panic!("{error:#}"));
    images::import(lab.cluster.place(), lab.cluster.host(), &next).expect("an archive");
    for machine in &lab.machines {
        let imported = machine.import(&lab.cluster, &next);
        imported.unwrap_or_else(|error| panic!("{error:#}"));
    }
    let own = image(&lab);
    let (repository, _) = own.rsplit_once(':').expect("a tag");
    let pairs = |role: &str| -> Vec<_> {
        let machines = lab.machines.iter();
        machines
            .map(|machine| Pair::new(&lab, machine, role))
            .collect()
    };
    let loads = [("near", "far"), ("far", "near")];
    let old = pairs("old");
    for pair in &old {
        for (from, to) in loads {
            begin(pair, from, to);
        }
    }

    roll(&lab, &format!("{repository}:next"));
    say("the release with another layout is everywhere");
    for pair in &old {
        pair.become_both(PodState::Kept);
    }
    // What comes now is the new one's, beside the old.
    let new = pairs("new");
    for node in nodes(&lab) {
        let status = lab.cluster.agent_status_on(node).expect("it answers");
        assert_eq!(status.layouts.len(), 2, "{node}: {:?}", status.layouts);
    }

    roll(&lab, &own);
    say("the release of before is everywhere again");
    for pair in &old {
        pair.become_both(PodState::Active);
    }
    for pair in &new {
        pair.become_both(PodState::Kept);
    }
    for pair in &old {
        for (from, _) in loads {
            end(pair, from);
        }
    }
    drop(new);
    for node in nodes(&lab) {
        let gone = comes(PATIENCE, || {
            let status = lab.cluster.agent_status_on(node);
            status.is_ok_and(|status| status.layouts.len() == 1)
        });
        assert!(gone, "{node}: what the other release left stays");
    }
}

fn nodes(lab: &Lab) -> impl Iterator<Item = &'static str> {
    let machines = lab.machines.iter().map(Machine::name);
    [NODE].into_iter().chain(machines)
}

/// The image of the agents.
fn image(lab: &Lab) -> String {
    let agents = lab
        .cluster
        .get(&format!("daemonset sidestep-agent -n {NAMESPACE}"));
    let image = &agents["spec"]["template"]["spec"]["containers"][0]["image"];
    image.as_str().expect("an image").to_owned()
}

/// Gives the agents another image, node by node.
fn roll(lab: &Lab, image: &str) {
    let place = format!("daemonset/sidestep-agent -n {NAMESPACE}");
    lab.cluster
        .kubectl(&format!("set image {place} agent={image}"));
    let seconds = PATIENCE.as_secs() * (1 + lab.machines.len() as u64);
    lab.cluster
        .kubectl(&format!("rollout status {place} --timeout={seconds}s"));
}
