//! Reads the arguments and environment of an `istio-init` container as Istio's own `istio-iptables` does.
//!
//! Four steps: [`flags`] is the table of all flags, `pflag` splits the arguments as Go's pflag does, `settings`
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

use crate::{Leave, Policy, keys};

pub(crate) use values::duration_text;

/// The policy of an `istio-init` with these arguments, which have been split, and with the environment of `container`.
/// A gate and an `istio-validation` must validate, and nothing else may.
pub(crate) fn policy(
    arguments: &pflag::Arguments,
    container: &Container,
    validates: bool,
) -> Result<Policy, Leave> {
    let settings = settings::Settings::new(arguments, &env::Environment::new(container)?)?;
    if validates {
        settings.require_validation()?;
    } else {
        settings.refuse_validation(arguments)?;
    }
    policy::from_settings(&settings)
}

/// Refuses arguments that kubelet changes before the container starts.
pub(crate) fn refuse_references(arguments: &[String]) -> Result<(), Leave> {
    let place = "an argument of istio-init";
    let mut arguments = arguments.iter();
    arguments.try_for_each(|argument| env::refuse_reference(place, argument))
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
