//! A policy as people write it: the arguments and variables of an `istio-init`.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde::{Deserialize, Serialize};

/// Whether Istio's program writes nftables rules itself.
pub(crate) const NATIVE: &str = "--native-nftables";

/// One argument with its value, or one variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `-i`, `--redirect-dns` or `ISTIO_OUTBOUND_OWNER_GROUPS`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What an `istio-init` is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Written {
    /// In this order; a name appears once.
    pub settings: Vec<Setting>,
}

impl Setting {
    fn is_variable(&self) -> bool {
        !self.name.starts_with('-')
    }
}

impl Written {
    /// What Istio's injector writes for a pod without annotations.
    pub fn plain() -> Self {
        let mut plain = Self {
            settings: Vec::new(),
        };
        for (name, value) in [
            ("-p", "15001"),
            ("-z", "15006"),
            ("-u", "1337"),
            ("-m", "REDIRECT"),
            ("-i", "*"),
            ("-x", ""),
            ("-b", "*"),
            ("-d", "15090,15021,15020"),
        ] {
            plain.set(name, value);
        }
        plain
    }

    /// Gives a setting this value.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.settings.iter_mut().find(|it| it.name == name) {
            Some(setting) => value.clone_into(&mut setting.value),
            None => self.settings.push(Setting {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
        }
    }

    /// The value of a setting; empty where it is not set.
    pub fn of(&self, name: &str) -> &str {
        let setting = self.settings.iter().find(|it| it.name == name);
        setting.map_or("", |setting| &setting.value)
    }

    /// Whether Istio writes nftables rules itself.
    pub fn is_native(&self) -> bool {
        self.of(NATIVE) == "true"
    }

    /// The command line, without the program. A boolean never takes the next word.
    pub fn arguments(&self) -> Vec<String> {
        let arguments = self.settings.iter().filter(|it| !it.is_variable());
        let words = arguments.flat_map(|Setting { name, value }| {
            if name.starts_with("--") {
                vec![format!("{name}={value}")]
            } else {
                vec![name.clone(), value.clone()]
            }
        });
        words.collect()
    }

    /// The environment.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.settings.iter().filter(|it| it.is_variable());
        variables.map(|it| (it.name.as_str(), it.value.as_str()))
    }

    /// The container that the injector would write.
    pub fn container(&self) -> Container {
        let variable = |(name, value): (&str, &str)| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            ..EnvVar::default()
        };
        let program = std::iter::once("istio-iptables".to_owned());
        Container {
            name: "istio-init".to_owned(),
            args: Some(program.chain(self.arguments()).collect()),
            env: Some(self.variables().map(variable).collect()),
            ..Container::default()
        }
    }
}

/// As a shell would take it.
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.variables() {
            write!(f, "{name}='{value}' ")?;
        }
        f.write_str("istio-iptables")?;
        for word in self.arguments() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-=.,:/".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, " {word}")?;
            } else {
                write!(f, " '{word}'")?;
            }
        }
        Ok(())
    }
}
