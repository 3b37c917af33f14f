//! Readiness as a value: whoever can keep the program from being ready holds a condition, and says why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All conditions. It is ready while every one of them is met.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

/// One condition, held by who knows.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    all: Readiness,
}

impl Readiness {
    /// A new condition, which is not met for the reason `why`. Names are unique.
    pub fn condition(&self, name: &'static str, why: impl Into<String>) -> Condition {
        self.unmet().insert(name, why.into());
        Condition {
            name,
            all: self.clone(),
        }
    }

    /// Why it is not ready: every condition that is not met, as `name: why`.
    pub fn missing(&self) -> Vec<String> {
        let unmet = self.unmet();
        let reasons = unmet.iter().map(|(name, why)| format!("{name}: {why}"));
        reasons.collect()
    }

    fn unmet(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // A panic elsewhere leaves every entry whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// It is met from now on.
    pub fn met(&self) {
        self.all.unmet().remove(self.name);
    }

    /// It is not met for this reason.
    pub fn unmet(&self, why: impl Into<String>) {
        self.all.unmet().insert(self.name, why.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_condition_is_met() {
        let readiness = Readiness::default();
        let programs = readiness.condition("programs", "not attached yet");
        let pods = readiness.condition("pods", "not known yet");
        assert_eq!(
            readiness.missing(),
            ["pods: not known yet", "programs: not attached yet"]
        );
        programs.met();
        pods.met();
        assert!(readiness.missing().is_empty());
        programs.unmet("a link was lost");
        assert_eq!(readiness.missing(), ["programs: a link was lost"]);
    }
}
