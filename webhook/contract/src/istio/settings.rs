//! Command line over environment over default.

use super::env::Environment;
use super::flags::{self, Flag, Kind, Spec, TABLE};
use super::pflag::Arguments;
use super::values;
use crate::{Leave, Origin};

/// What makes a container wait until it is redirected, instead of writing rules.
const VALIDATION: [Flag; 2] = [Flag::RunValidation, Flag::SkipRuleApply];

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// The value of every flag and of every variable without a flag.
#[derive(Debug)]
pub(super) struct Settings {
    /// In the order of the table.
    flags: Vec<Setting>,
    /// In the order of [`flags::ENV_ONLY`].
    env_only: [Setting; 3],
}

impl Settings {
    pub(super) fn new(arguments: &Arguments, environment: &Environment) -> Result<Self, Leave> {
        let flags = TABLE.iter().map(|spec| match arguments.last(spec.flag) {
            Some(value) => Ok(Setting {
                value: value.to_owned(),
                origin: spec.flag.given(),
            }),
            None => from_environment(spec, environment),
        });
        let variable = |name: &'static str, default: &str| Setting {
            value: environment.get(name).unwrap_or(default).to_owned(),
            origin: Origin::Env(name),
        };
        Ok(Self {
            flags: flags.collect::<Result<_, _>>()?,
            env_only: [
                variable(flags::OWNER_GROUPS, "*"),
                variable(flags::OWNER_GROUPS_EXCLUDE, ""),
                variable(flags::LOOPBACK_CIDR, "127.0.0.1/32"),
            ],
        })
    }

    pub(super) fn of(&self, flag: Flag) -> &Setting {
        &self.flags[flag as usize]
    }

    /// Whether a boolean is true.
    pub(super) fn is_set(&self, flag: Flag) -> bool {
        values::boolean(&self.of(flag).value) == Some(true)
    }

    pub(super) fn owner_groups(&self) -> &Setting {
        &self.env_only[0]
    }

    pub(super) fn owner_groups_exclude(&self) -> &Setting {
        &self.env_only[1]
    }

    pub(super) fn loopback_cidr(&self) -> &Setting {
        &self.env_only[2]
    }

    /// Refuses a container that validates already: on the command line even `=false`, for a gate made of it would
    /// hold the flag twice.
    pub(super) fn refuse_validation(&self, arguments: &Arguments) -> Result<(), Leave> {
        for flag in VALIDATION {
            if self.is_set(flag) || arguments.last(flag).is_some() {
                let origin = self.of(flag).origin;
                return Err(Leave::ForeignValidation { origin });
            }
        }
        Ok(())
    }

    /// Refuses a container that would write rules.
    pub(super) fn require_validation(&self) -> Result<(), Leave> {
        let unset = VALIDATION.into_iter().find(|flag| !self.is_set(*flag));
        match unset.map(|flag| self.of(flag).clone()) {
            Some(Setting { value, origin }) => Err(Leave::NotAnInjectors { origin, value }),
            None => Ok(()),
        }
    }
}

/// The value from the environment, or else the default. A variable that does not parse still sets its flag, to Go's zero
/// value: pflag assigns before it reports the error, and Istio drops the error.
fn from_environment(spec: &Spec, environment: &Environment) -> Result<Setting, Leave> {
    let mut setting = Setting {
        value: spec.default.to_owned(),
        origin: spec.flag.absent(),
    };
    for name in spec.env.iter().copied() {
        let Some(text) = environment.get(name) else {
            continue;
        };
        let origin = Origin::Env(name);
        let value = match (values::normal(spec.kind, text), spec.kind) {
            (Ok(value), _) => value,
            (Err(_), Kind::Bool) => "false".to_owned(),
            (Err(_), Kind::Duration) => "0s".to_owned(),
            // 0 or 65535, depending on what is wrong with it: never what was meant.
            (Err(expected), Kind::Number | Kind::Text) => {
                return Err(Leave::BadValue {
                    origin,
                    value: text.to_owned(),
                    expected,
                });
            }
        };
        setting = Setting { value, origin };
    }
    Ok(setting)
}
