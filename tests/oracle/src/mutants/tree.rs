//! A copy of the workspace's sources, to be changed and built.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use sidestep_kit::parts;

use super::{MUTANTS, Mutant};

pub(super) struct Tree {
    sources: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// Copies the sources into a folder. What was built of an earlier copy there serves for what has not changed.
    pub(super) fn copy(folder: &Path) -> anyhow::Result<Self> {
        let tree = Self {
            sources: folder.join("sources"),
            target: folder.join("target"),
        };
        if tree.sources.exists() {
            fs::remove_dir_all(&tree.sources).context("an earlier copy stays")?;
        }
        fs::create_dir_all(&tree.sources).context("no folder for a copy")?;
        // With their times, by which cargo tells what has changed.
        let mut pack = Command::new("tar")
            .arg("--create")
            .args(["target", ".git", ".parts"].map(|it| format!("--exclude=./{it}")))
            .arg(".")
            .current_dir(parts::workspace())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start tar")?;
        let packed = pack.stdout.take().context("tar has no output")?;
        let unpacked = Command::new("tar")
            .arg("--extract")
            .current_dir(&tree.sources)
            .stdin(packed)
            .status()
            .context("cannot start tar")?;
        ensure!(pack.wait()?.success() && unpacked.success(), "tar failed");
        // What was built last may be of a mutant, which is younger than the copy of the file that it was made of.
        let changed: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.file).collect();
        for file in changed {
            let path = tree.sources.join(file);
            fs::write(&path, fs::read(&path).context(file)?).context(file)?;
        }
        Ok(tree)
    }

    /// Changes the sources as a mutant says; returns the file as it was.
    pub(super) fn patch(&self, mutant: &Mutant) -> anyhow::Result<String> {
        let path = self.sources.join(mutant.file);
        let text = fs::read_to_string(&path).context(mutant.file)?;
        let count = text.matches(mutant.from).count();
        ensure!(
            count == 1,
            "{mutant}: the piece is there {count} times: write the mutant anew"
        );
        fs::write(&path, text.replacen(mutant.from, mutant.to, 1)).context(mutant.file)?;
        Ok(text)
    }

    /// Gives a mutant's file its text back.
    pub(super) fn restore(&self, mutant: &Mutant, text: &str) -> anyhow::Result<()> {
        fs::write(self.sources.join(mutant.file), text).context(mutant.file)
    }

    /// Builds Sidestep's decision from the sources as they are now, and counts the cases that it answers otherwise than
    /// Istio's rules.
    pub(super) fn differences(&self, cases: &Path) -> anyhow::Result<usize> {
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--locked", "-p", "sidestep-oracle"])
            .current_dir(&self.sources)
            .env("CARGO_TARGET_DIR", &self.target)
            // A mutant's conditions may be constant.
            .env("RUSTFLAGS", "--cap-lints allow")
            .status()
            .context("cannot start cargo")?;
        ensure!(built.success(), "the changed sources do not build");
        let program = self.target.join("debug/sidestep-oracle");
        let output = Command::new(program).arg("check").arg(cases).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let count = String::from_utf8(output.stdout).context("not a number")?;
        count.trim().parse().context("not a number")
    }
}
