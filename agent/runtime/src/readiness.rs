//! Readiness as a value: whoever can keep the program from being ready holds a condition, and says why; or lets itself be
//! asked.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All conditions. It is ready while every one of them is met.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, State>>>);

/// A condition's state.
enum State {
    /// It is met.
    Met,
    /// It is not met, for this reason.
    Unmet(String),
    /// It says itself why it is not met.
    Asked(Look),
}

type Look = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Met => f.write_str("Met"),
            Self::Unmet(why) => f.debug_tuple("Unmet").field(why).finish(),
            Self::Asked(_) => f.write_str("Asked"),
        }
    }
}

/// One condition, held by who knows.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    all: Readiness,
}

impl Readiness {
    /// A new condition, which is not met for the reason `why`. Names are unique.
    pub fn condition(&self, name: &'static str, why: impl Into<String>) -> Condition {
        let condition = Condition {
            name,
            all: self.clone(),
        };
        condition.unmet(why);
        condition
    }

    /// A new condition that is looked at whenever somebody asks: `look` says why it is not met. Names are unique.
    pub fn ask(
        &self,
        name: &'static str,
        look: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) {
        self.all().insert(name, State::Asked(Arc::new(look)));
    }

    /// Why it is not ready: every condition that is not met, as `name: why`.
    pub fn missing(&self) -> Vec<String> {
        let all = self.all();
        let reasons = all
            .iter()
            .filter_map(|(name, state)| Some(format!("{name}: {}", state.why()?)));
        reasons.collect()
    }

    /// Every condition by its name, and whether it is met.
    pub fn conditions(&self) -> Vec<(&'static str, bool)> {
        let all = self.all();
        let conditions = all
            .iter()
            .map(|(name, state)| (*name, state.why().is_none()));
        conditions.collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        // A panic elsewhere leaves every entry whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Why it is not met, if it is not.
    fn why(&self) -> Option<String> {
        match self {
            Self::Met => None,
            Self::Unmet(why) => Some(why.clone()),
            Self::Asked(look) => look(),
        }
    }
}

impl Condition {
    /// It is met from now on.
    pub fn met(&self) {
        self.all.all().insert(self.name, State::Met);
    }

    /// It is not met for this reason.
    pub fn unmet(&self, why: impl Into<String>) {
        self.all.all().insert(self.name, State::Unmet(why.into()));
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
        assert_eq!(
            readiness.conditions(),
            [("pods", true), ("programs", false)]
        );
    }

    #[test]
    fn a_condition_that_is_looked_at_is_met_while_it_says_nothing() {
        let readiness = Readiness::default();
        let (tell, told) = std::sync::mpsc::channel::<Option<String>>();
        let told = Mutex::new(told);
        readiness.ask("certificate", move || {
            told.lock()
                .expect("nobody panics")
                .recv()
                .expect("an answer")
        });
        tell.send(Some("none yet".to_owned())).expect("a receiver");
        assert_eq!(readiness.missing(), ["certificate: none yet"]);
        tell.send(None).expect("a receiver");
        assert!(readiness.missing().is_empty());
    }
}
