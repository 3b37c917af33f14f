//! The environment variables that `istio-iptables` reads. Their values must stand in the pod itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

use super::flags::{ENV_ONLY, TABLE};
use crate::Leave;

/// The variables that are set, by their names.
#[derive(Debug)]
pub(super) struct Environment(BTreeMap<&'static str, String>);

impl Environment {
    /// Reads a container's `env`. Variables that Istio does not read are skipped.
    pub(super) fn new(container: &Container) -> Result<Self, Leave> {
        if container
            .env_from
            .as_ref()
            .is_some_and(|all| !all.is_empty())
        {
            return Err(Leave::EnvFrom);
        }
        let mut variables = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            let Some(name) = known(&variable.name) else {
                continue;
            };
            if variable.value_from.is_some() {
                return Err(Leave::ValueFrom {
                    name: name.to_owned(),
                });
            }
            let value = variable.value.clone().unwrap_or_default();
            refuse_reference(&format!("environment variable {name}"), &value)?;
            if let Some(first) = variables.insert(name, value.clone())
                && first != value
            {
                return Err(Leave::EnvTwice {
                    name: name.to_owned(),
                    first,
                    second: value,
                });
            }
        }
        Ok(Self(variables))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Kubelet expands `$(NAME)` and `$$` in arguments and values, with variables that the pod may not hold.
pub(super) fn refuse_reference(place: &str, text: &str) -> Result<(), Leave> {
    if text.contains("$(") || text.contains("$$") {
        return Err(Leave::VariableReference {
            place: place.to_owned(),
            value: text.to_owned(),
        });
    }
    Ok(())
}

/// The name, if it is one that Istio reads.
fn known(name: &str) -> Option<&'static str> {
    let of_flags = TABLE.iter().flat_map(|spec| spec.env.iter().copied());
    of_flags.chain(ENV_ONLY).find(|known| *known == name)
}
