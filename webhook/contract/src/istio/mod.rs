//! Reads the arguments and environment of an `istio-init` container as Istio's own `istio-iptables` does.
//!
//! Four steps: [`flags`] is the table of what there is, `pflag` splits the arguments as Go's pflag does, `settings`
//! adds the environment in Istio's order of precedence, `policy` turns texts into a [`Policy`]. Anything that Istio
//! would refuse, and anything that cannot be followed exactly, is a [`Leave`].

mod env;
pub mod flags;
mod lists;
pub(crate) mod pflag;
mod policy;
mod settings;
mod values;

use k8s_openapi::api::core::v1::Container;

use crate::{Leave, Policy, gate, keys};

pub(crate) use values::duration_text;

/// The policy that `container`, an `istio-init` as the injector wrote it or the gate made from it, stands for.
pub fn policy(container: &Container) -> Result<Policy, Leave> {
    let arguments = arguments(container)?;
    for argument in arguments {
        env::refuse_reference("an argument of istio-init", argument)?;
    }
    let parsed = pflag::parse(arguments)?;
    let settings = settings::Settings::new(&parsed, &env::Environment::new(container)?)?;
    if !gate::is_gate(container) {
        settings.refuse_validation(&parsed)?;
    }
    policy::from_settings(&settings)
}

/// The arguments behind `istio-iptables`.
pub(crate) fn arguments(container: &Container) -> Result<&[String], Leave> {
    let found = |found: &str| Leave::NotIstioIptables {
        found: format!("{found:?}"),
    };
    if let Some(command) = container.command.as_deref().and_then(<[String]>::first) {
        return Err(found(command));
    }
    match container.args.as_deref().and_then(<[String]>::split_first) {
        Some((first, rest)) if first == keys::ISTIO_IPTABLES => Ok(rest),
        Some((first, _)) => Err(found(first)),
        None => Err(Leave::NotIstioIptables {
            found: "nothing".to_owned(),
        }),
    }
}
