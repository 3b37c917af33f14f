//! Nodes.

use std::collections::BTreeSet;

use crate::check::facts::{Facts, listed};
use crate::check::finding::Verdict;
use crate::cluster::SeenNode;

/// Nodes can run Sidestep.
pub(in crate::check) fn supported(facts: &Facts) -> Verdict {
    let nodes = match &facts.nodes {
        Err(why) => return Verdict::unknown(why),
        Ok(nodes) => nodes,
    };
    let unfit: Vec<_> = nodes.iter().filter_map(said_unfit).collect();
    let fit = nodes.iter().filter(|node| node.unfit.is_none());
    let kernels: BTreeSet<_> = fit.map(|node| node.kernel.as_str()).collect();
    let hint = "Sidestep runs on Linux 6.1 and later on amd64 and arm64; pods on other nodes stay with Istio";
    let (some, all) = (unfit.len(), nodes.len());
    let which = listed(&unfit);
    match some {
        _ if nodes.is_empty() => Verdict::failure("the cluster has no nodes", "add one"),
        0 => Verdict::good(format!(
            "{all} can run Sidestep (Linux {})",
            listed(kernels)
        )),
        _ if some == all => Verdict::failure(format!("none can run Sidestep: {which}"), hint),
        _ => Verdict::warning(
            format!("{some} of {all} cannot run Sidestep: {which}"),
            hint,
        ),
    }
}

fn said_unfit(node: &SeenNode) -> Option<String> {
    let why = node.unfit.as_ref()?;
    Some(format!("{} ({why}, Linux {})", node.name, node.kernel))
}

/// Gated pods may come to the nodes that can run Sidestep.
pub(in crate::check) fn labels(facts: &Facts) -> Option<Verdict> {
    let nodes = facts.nodes.as_ref().ok()?.iter();
    let able: Vec<_> = nodes.filter(|node| node.unfit.is_none()).collect();
    let off = able.iter().filter_map(|node| {
        let why = node.without_agent.as_ref()?;
        Some(format!("{} ({why})", node.name))
    });
    let off: Vec<_> = off.collect();
    let hint = "accelerated pods keep off nodes with the label sidestep.dev/without-agent until their agent is ready: look at it with \
                `sidestep status node/NAME`";
    let which = listed(&off);
    Some(match off.len() {
        _ if able.is_empty() => return None,
        0 => Verdict::good("none is labelled as without an agent"),
        all if all == able.len() => {
            Verdict::failure(format!("every node is labelled: {which}"), hint)
        }
        some => Verdict::warning(format!("{some} labelled: {which}"), hint),
    })
}
