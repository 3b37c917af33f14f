//! What came of the cases, and how good or bad that is: pure.

use super::plan::Path;
use crate::level::Level;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) namespace: String,
    pub(super) near: String,
    /// Or why there is no second node.
    pub(super) far: Result<String, String>,
    /// Whether the pods stay, so that people can look at them.
    pub(super) is_kept: bool,
    pub(super) rows: Vec<Row>,
}

/// A case on one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) case: &'static str,
    /// `None` where no server takes part.
    pub(super) path: Option<Path>,
    pub(super) sidestep: Outcome,
    /// `None` where there is nothing to compare with.
    pub(super) istio: Option<Outcome>,
}

/// What came of a case: how long it took, in microseconds, where there was a call.
pub(super) type Outcome = Result<Option<u64>, Failure>;

/// Why a case failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was seen.
    pub(super) said: String,
    /// What to do.
    pub(super) hint: String,
}

impl Row {
    /// A failure is Sidestep's where Istio's own redirection passes, or where that was not tried.
    pub(super) fn level(&self) -> Level {
        match (&self.sidestep, &self.istio) {
            (Ok(_), None | Some(Ok(_))) => Level::Good,
            (_, Some(Err(_))) => Level::Warning,
            (Err(_), None | Some(Ok(_))) => Level::Failure,
        }
    }
}

impl Report {
    /// The worst level of all.
    pub(super) fn level(&self) -> Level {
        let levels = self.rows.iter().map(Row::level);
        levels.max().unwrap_or(Level::Good)
    }

    /// How many rows are of this level.
    pub(super) fn count(&self, level: Level) -> usize {
        self.rows.iter().filter(|row| row.level() == level).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidestep_is_the_cause_only_where_istios_own_redirection_passes() {
        let failed = || {
            Err(Failure {
                said: "no".to_owned(),
                hint: "look".to_owned(),
            })
        };
        let passed = || Ok(Some(7));
        for (sidestep, istio, level) in [
            (passed(), Some(passed()), Level::Good),
            (passed(), None, Level::Good),
            (passed(), Some(failed()), Level::Warning),
            (failed(), Some(failed()), Level::Warning),
            (failed(), Some(passed()), Level::Failure),
            (failed(), None, Level::Failure),
        ] {
            let row = Row {
                case: "http",
                path: None,
                sidestep,
                istio,
            };
            assert_eq!(row.level(), level, "{row:?}");
        }
    }
}
