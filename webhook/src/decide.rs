//! The decision about a pod. Pure: values in, a value out.

use k8s_openapi::api::core::v1::{Container, Pod};
use sidestep_contract::{IstioInit, Leave, Policy, Redirector, Runtime, keys, refuse_at_admission};

use crate::cluster::{Cluster, Namespace};
use crate::inits::{self, Inits};
use crate::settings::{Delivery, Enrolment, IstioCni, Reach, Settings};
use crate::{Reason, probe};

mod architecture;
mod constraints;
mod gated;
pub(crate) mod node;
mod wishes;

/// The decision about a pod, and warnings for its author.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Shown by `kubectl`, one line each.
    pub warnings: Vec<String>,
    pub(crate) inits: Inits,
    /// What becomes of the gate of a pod that is left: the `istio-init` of which the gate was made.
    pub(crate) restored: Option<Container>,
    /// Whether the pod brings our label and must not have it.
    pub(crate) takes_label: bool,
}

/// What happens to a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Its `istio-init` becomes a gate, which the node's agent opens.
    Accelerate(Box<Accelerate>),
    /// It stays as Istio made it, and says why.
    Leave(Reason),
    /// It must not be created: its gate was changed so that nothing would redirect its connections.
    Refuse(Reason),
    /// Nothing of it changes, and it gets no annotation: Istio's injector gave it no `istio-init`, or it is the API server's
    /// copy of a pod from a file.
    Nothing(Leave),
}

/// An accelerated pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Accelerate {
    /// What happens to its connections.
    pub policy: Policy,
    /// What its `istio-init` becomes.
    pub gate: Container,
    /// How far the shortcut reaches.
    pub reach: Reach,
    /// Into whose sockets.
    pub delivery: Delivery,
    /// Whether it is kept off nodes that cannot run Sidestep.
    pub avoid_unsupported: bool,
}

impl Decision {
    /// The decision in a word: `accelerated`, or why not.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Accelerate(_) => "accelerated",
            Self::Leave(reason) | Self::Refuse(reason) => reason.word(),
            Self::Nothing(leave) => leave.reason(),
        }
    }
}

/// Decides about a pod as it arrives. `namespace` is the one that the pod will be in; `None` if it could not be read.
pub fn decide(
    pod: &Pod,
    namespace: Option<&Namespace>,
    cluster: &Cluster,
    settings: &Settings,
) -> Verdict {
    let mut warnings = Vec::new();
    let (inits, init) = inits::of(pod);
    let subject = Subject {
        pod,
        namespace,
        cluster,
        settings,
    };
    let mut restored = None;
    let decision = match init {
        _ if is_mirror(pod) => Decision::Nothing(Leave::MirrorPod),
        Err(why) if inits == Inits::None => Decision::Nothing(why),
        Ok(init) if matches!(inits, Inits::Gate(_)) || was_gate(pod, &init) => {
            let (decision, whole) = subject.gated(init, &mut warnings);
            restored = whole;
            decision
        }
        init => decided(subject.make_gate(init, &mut warnings)),
    };
    let left = matches!(decision, Decision::Leave(_) | Decision::Nothing(_));
    let takes_label = left && !is_mirror(pod) && is_labelled(pod);
    if let (Decision::Leave(reason), true) = (&decision, restored.is_some()) {
        let text = format!("Sidestep's gate becomes istio-init again: {reason}");
        warnings.push(crate::reason::shortened(&text));
    } else if takes_label {
        warnings.push(format!(
            "label {} removed: only Sidestep sets it, on pods whose istio-init is its gate",
            keys::ACCELERATED
        ));
    }
    Verdict {
        decision,
        warnings,
        inits,
        restored,
        takes_label,
    }
}

fn decided(made: Result<Accelerate, Reason>) -> Decision {
    made.map_or_else(Decision::Leave, |made| Decision::Accelerate(Box::new(made)))
}

struct Subject<'a> {
    pod: &'a Pod,
    namespace: Option<&'a Namespace>,
    cluster: &'a Cluster,
    settings: &'a Settings,
}

impl Subject<'_> {
    /// A pod with a fresh `istio-init`, or with none that counts.
    fn make_gate(
        &self,
        init: Result<IstioInit<'_>, Leave>,
        warnings: &mut Vec<String>,
    ) -> Result<Accelerate, Reason> {
        self.permit()?;
        wishes::check_raw_sockets(self.pod, self.namespace, warnings);
        self.refuse()?;
        let init = init?;
        self.permit_redirector(&init)?;
        let policy = init.policy.as_ref().map_err(Clone::clone)?;
        probe::fits(policy).map_err(Reason::TooManyRules)?;
        self.permit_runtime()?;
        node::permit(self.pod, self.cluster, self.settings.ready_percent)?;
        let (gate, policy) = self.opening_gate(init)?;
        Ok(self.accelerate(policy, gate, warnings))
    }

    /// Whether pod, namespace and cluster want the pod accelerated.
    fn permit(&self) -> Result<(), Reason> {
        let without_a_word = match self.settings.enrolment {
            Enrolment::OptOut => Ok(()),
            Enrolment::OptIn => Err(Reason::NotOptedIn),
            Enrolment::None => return Err(Reason::EnrolmentNone),
        };
        if let Some(said) = wishes::enabled(self.pod, self.namespace)? {
            return if said.wanted {
                Ok(())
            } else {
                Err(Leave::OptedOut {
                    key: said.place,
                    value: false.to_string(),
                }
                .into())
            };
        }
        if self.namespace.is_none() {
            let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
            return Err(Reason::NamespaceUnknown { namespace });
        }
        without_a_word
    }

    /// Refuses what the pod or its namespace is, whatever they want.
    fn refuse(&self) -> Result<(), Reason> {
        refuse_at_admission(self.pod)?;
        let labels = self.namespace.map(|namespace| &namespace.labels);
        match labels.and_then(|labels| labels.get(keys::OVN_PRIMARY_NETWORK)) {
            Some(value) => Err(Leave::SeveralNetworks {
                place: format!("the namespace's label {}", keys::OVN_PRIMARY_NETWORK),
                value: value.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }

    /// Whether the cluster wants pods of its redirector accelerated.
    fn permit_redirector(&self, init: &IstioInit<'_>) -> Result<(), Reason> {
        if init.redirector != Redirector::IstioCni {
            return Ok(());
        }
        match self.settings.istio_cni {
            IstioCni::None => Err(Reason::IstioCni),
            IstioCni::GateFirst if init.index > 0 => {
                let spec = self.pod.spec.as_ref();
                let first = spec.and_then(|spec| spec.init_containers.as_ref()?.first());
                let name = first.map(|first| first.name.clone()).unwrap_or_default();
                Err(Reason::BeforeTheGate { name })
            }
            IstioCni::All | IstioCni::GateFirst => Ok(()),
        }
    }

    /// Whether the pod's programs use the node's kernel. If the runtime class does not show it, the pod's author must say so.
    fn permit_runtime(&self) -> Result<(), Reason> {
        let Runtime::Unknown(class) = Runtime::of(self.pod) else {
            return Ok(());
        };
        match wishes::enabled(self.pod, None)? {
            Some(said) if said.wanted => Ok(()),
            _ => Err(Reason::UnknownRuntime {
                class: class.to_owned(),
            }),
        }
    }

    /// The gate of `init` and its policy, which names another probe port where the first would not be captured.
    fn opening_gate(&self, init: IstioInit<'_>) -> Result<(Container, Policy), Reason> {
        let gate = init.gate(self.settings.probe_timeout)?;
        let policy = init.policy?;
        if opens(&policy, &gate) {
            return Ok((gate, policy));
        }
        let shut = Reason::GateStaysShut {
            port: policy.probe_port.get(),
        };
        let Some(port) = id(&gate).and_then(|id| probe::other_port(&policy, id)) else {
            return Err(shut);
        };
        let container = with_probe_port(init.container, port);
        let with_port = IstioInit::read(init.index, &container);
        let gate = with_port.gate_of(init.container, self.settings.probe_timeout)?;
        let policy = with_port.policy?;
        // A later --iptables-probe-port among the arguments would have won.
        if policy.probe_port.get() == port {
            Ok((gate, policy))
        } else {
            Err(shut)
        }
    }

    fn accelerate(
        &self,
        policy: Policy,
        gate: Container,
        warnings: &mut Vec<String>,
    ) -> Accelerate {
        Accelerate {
            policy,
            gate,
            reach: wishes::reach(self.pod, self.namespace, self.settings.reach, warnings),
            delivery: wishes::delivery(self.pod, self.namespace, warnings),
            avoid_unsupported: self.settings.avoid_unsupported && node::bound(self.pod).is_none(),
        }
    }
}

/// The id that a gate runs as.
fn id(gate: &Container) -> Option<u32> {
    let context = gate.security_context.as_ref()?;
    u32::try_from(context.run_as_user?).ok()
}

fn opens(policy: &Policy, gate: &Container) -> bool {
    id(gate).is_some_and(|id| probe::opens(policy, id, policy.probe_port.get()))
}

/// The flag goes first, where no flag before it could take it for its value.
fn with_probe_port(init: &Container, port: u16) -> Container {
    let mut init = init.clone();
    let args = init.args.get_or_insert_default();
    args.insert(args.len().min(1), format!("--iptables-probe-port={port}"));
    init
}

fn is_mirror(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(keys::MIRROR))
}

/// Whether the pod has our label, and an `istio-init` that applies no rules without being a gate.
fn was_gate(pod: &Pod, init: &IstioInit<'_>) -> bool {
    is_labelled(pod) && init.redirector == Redirector::IstioInit && init.has_gate_words()
}

fn is_labelled(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.is_some_and(|all| all.contains_key(keys::ACCELERATED))
}
