//! What cannot be read.

use super::*;

/// Takes a fact away, for this reason.
type Forget = fn(&mut Facts, String);

#[test]
fn what_cannot_be_read_is_a_warning_that_says_why() {
    let why = || "pods is forbidden".to_owned();
    let changes: [(Check, Forget); 14] = [
        (Check::Rights, |facts, why| {
            facts.rights[0].allowed = Err(why);
        }),
        (Check::Nodes, |facts, why| facts.nodes = Err(why)),
        (Check::Istiod, |facts, why| facts.istiods = Err(why)),
        (Check::Injectors, |facts, why| {
            facts.registrations = Err(why);
        }),
        (Check::Redirector, |facts, why| facts.istio_cni = Err(why)),
        (Check::Namespace, |facts, why| facts.namespace = Err(why)),
        (Check::Webhook, |facts, why| facts.webhook = Err(why)),
        (Check::Agents, |facts, why| facts.daemonset = Err(why)),
        (Check::ServingCertificate, |facts, why| {
            facts.certificates = Err(why);
        }),
        (Check::AdmissionPolicies, |facts, why| {
            facts.policies = Err(why);
        }),
        (Check::Leader, |facts, why| facts.lease = Err(why)),
        (Check::AgentAnswers, |facts, why| facts.agents = Err(why)),
        (Check::WaitingPods, |facts, why| facts.pods = Err(why)),
        (Check::Events, |facts, why| facts.events = Err(why)),
    ];
    for (check, change) in changes {
        assert_found(check, Warning, "not known: pods is forbidden", |facts| {
            change(facts, why());
        });
    }
}
