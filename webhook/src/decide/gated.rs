//! Pods that arrive with a gate: from a file, or because the webhook is asked a second time. Another webhook may have changed
//! gate or pod in between. Its iptables rules are gone, so such a pod is never left as it is: an agent must arm it, or its
//! `istio-init` comes back, or it is not created.

use k8s_openapi::api::core::v1::Container;
use sidestep_contract::{IstioInit, Leave, Policy, refuse_for_life};

use super::{Accelerate, Decision, Subject, decided, node, opens};
use crate::{Reason, probe};

impl Subject<'_> {
    /// The decision, and the `istio-init` that takes the gate's place where the pod is left.
    pub(super) fn gated(
        &self,
        init: IstioInit<'_>,
        warnings: &mut Vec<String>,
    ) -> (Decision, Option<Container>) {
        let Some(original) = init.original() else {
            let kept = self.keep_gate(init, warnings);
            let refuse = |change| Decision::Refuse(Reason::GateChanged { change });
            return (kept.map_or_else(refuse, |made| decided(Ok(made))), None);
        };
        let made = self.renew_gate(&init, &original, warnings);
        let whole = made.is_err().then_some(original);
        (decided(made), whole)
    }

    /// A pod that arrives with a gate, and with what the gate was made of: the pod was accelerated before it got here, from
    /// a file or in an earlier invocation. It is decided anew. A gate stays to the letter; what is none any more, or cannot
    /// be read any more, is made again.
    fn renew_gate(
        &self,
        init: &IstioInit<'_>,
        original: &Container,
        warnings: &mut Vec<String>,
    ) -> Result<Accelerate, Reason> {
        let made = self.make_gate(Ok(IstioInit::read(init.index, original)), warnings)?;
        if let (true, Ok(policy)) = (init.is_gate, &init.policy)
            && opens(policy, init.container)
        {
            return Ok(Accelerate {
                policy: policy.clone(),
                gate: init.container.clone(),
                ..made
            });
        }
        warnings.push(
            "another webhook changed Sidestep's gate (init container istio-init); the gate is made whole again"
                .to_owned(),
        );
        Ok(made)
    }

    /// A pod that arrives with a gate and nothing to go back to: an earlier release made the gate. It stays if an agent
    /// would arm the pod. The error says why none would.
    fn keep_gate(
        &self,
        init: IstioInit<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Accelerate, String> {
        if !init.is_gate {
            return Err(match init.policy {
                Ok(_) | Err(Leave::ForeignValidation { .. }) => {
                    "its arguments or its security context are not a gate's".to_owned()
                }
                Err(why) => why.to_string(),
            });
        }
        refuse_for_life(self.pod).map_err(|why| why.to_string())?;
        let policy = init.policy.map_err(|why| why.to_string())?;
        probe::fits(&policy).map_err(|why| why.to_string())?;
        if let Err(reason) = self.permit_gate(&policy, init.container) {
            let text = format!(
                "the pod's istio-init is already Sidestep's gate and stays it, although {reason}"
            );
            warnings.push(crate::reason::shortened(&text));
        }
        Ok(self.accelerate(policy, init.container.clone(), warnings))
    }

    /// Whether a gate with this policy would be made now.
    fn permit_gate(&self, policy: &Policy, gate: &Container) -> Result<(), Reason> {
        self.permit()?;
        self.refuse()?;
        self.permit_runtime()?;
        node::permit(self.pod, self.cluster, self.settings.ready_percent)?;
        if opens(policy, gate) {
            return Ok(());
        }
        Err(Reason::GateStaysShut {
            port: policy.probe_port.get(),
        })
    }
}
