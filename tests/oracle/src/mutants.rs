//! Would a mistake be seen? In a copy of the sources the condition of one row after the other is turned round, or left out.
//! Sidestep is built from each copy and answers the recorded cases again: some answer must differ from Istio's rules.

mod list;
mod tree;

use std::{fmt, fs};

use anyhow::{Context, ensure};

use crate::{case::Case, istio::scratch};

pub use self::list::{MUTANTS, Mutant, Turn};
use self::tree::Tree;

/// What came of one mutant.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// The mutant.
    pub mutant: &'static Mutant,
    /// How many of the cases it answers otherwise than Istio's rules.
    pub differences: usize,
}

/// Of each row the change that is hardest to see: in the list it is the last one.
pub fn one_of_each_row() -> Vec<&'static Mutant> {
    let rows = MUTANTS.chunk_by(|one, next| one.row == next.row);
    rows.filter_map(<[Mutant]>::last).collect()
}

/// Tries mutants on these cases, which the sources as they are answer as Istio's rules do; `done` is told of each.
pub fn try_each(
    cases: &[Case],
    mutants: &[&'static Mutant],
    done: impl Fn(&Tried),
) -> anyhow::Result<Vec<Tried>> {
    let folder = scratch("mutants");
    let file = folder.join("cases.json");
    let json = serde_json::to_vec(cases).context("cases as JSON")?;
    fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    let tree = Tree::copy(&folder)?;
    let differences = tree.differences(&file)?;
    ensure!(
        differences == 0,
        "the sources as they are differ in {differences} cases"
    );
    let tried = mutants.iter().map(|mutant| {
        let original = tree.patch(mutant)?;
        let differences = tree.differences(&file).with_context(|| mutant.to_string());
        tree.restore(mutant, &original)?;
        let tried = Tried {
            mutant,
            differences: differences?,
        };
        done(&tried);
        Ok(tried)
    });
    tried.collect()
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutant {
            row, turn, from, ..
        } = self.mutant;
        let turn = turn.to_string();
        write!(f, "{row:<12}{turn:<17}{:>8}  {from}", self.differences)
    }
}
