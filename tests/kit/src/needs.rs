//! What tests cannot run without, for the attribute [`needs`](crate::needs). Each function answers why it is not there.
//!
//! A test that cannot run here says why and passes. Under CI (`CI=true`) it fails: what was not run proves nothing.

use std::{path::PathBuf, thread};

use crate::{apiserver, parts};

/// Root, and iproute2, without which there are no namespaces.
pub fn root() -> Result<(), String> {
    // SAFETY: geteuid has no arguments and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return Err("it needs root".to_owned());
    }
    program("ip")
}

/// A program in `PATH` or among the system's.
pub fn program(name: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|folder| folder.join(name).exists());
    found
        .then_some(())
        .ok_or_else(|| format!("it needs the program {name}"))
}

/// A program that `tests/setup.sh cluster` builds.
pub fn part(name: &str) -> Result<(), String> {
    parts::program(name)
        .exists()
        .then_some(())
        .ok_or_else(|| format!("it needs {name}: run `tests/setup.sh cluster`"))
}

/// What an API server is started from, and root.
pub fn apiserver() -> Result<(), String> {
    root()?;
    apiserver::PROGRAMS.into_iter().try_for_each(part)
}

/// Whether the running test can run, by what it needs; says why not.
pub fn are_met(needs: impl FnOnce() -> Result<(), String>) -> bool {
    let Err(reason) = needs() else {
        return true;
    };
    let test = thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("{test} was skipped: {reason}");
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "skipped under CI: {reason}");
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use crate::needs;

    #[needs("a-program-that-nobody-has")]
    #[ignore = "the tests below start it"]
    fn without() {
        panic!("the body was run");
    }

    #[needs("sh", self::shell)]
    #[ignore = "the tests below start it"]
    fn with() {
        panic!("the body was run");
    }

    fn shell() -> Result<(), String> {
        super::program("sh")
    }

    fn start(test: &str, ci: &str) -> (Output, String) {
        let own = std::env::current_exe().expect("a process knows its program");
        let name = format!("needs::tests::{test}");
        let mut command = Command::new(own);
        command.args([&name, "--exact", "--ignored", "--nocapture"]);
        let output = command.env("CI", ci).output().expect("it runs");
        let said = [&output.stdout[..], &output.stderr].concat();
        (output, String::from_utf8_lossy(&said).into_owned())
    }

    #[test]
    fn a_test_that_lacks_something_is_skipped_with_the_reason() {
        let (output, said) = start("without", "false");
        assert!(output.status.success(), "{said}");
        let reason = "without was skipped: it needs the program a-program-that-nobody-has";
        assert!(said.contains(reason), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    fn under_ci_it_fails() {
        let (output, said) = start("without", "true");
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("skipped under CI"), "{said}");
        assert!(!said.contains("the body was run"), "{said}");
    }

    #[test]
    fn a_test_that_has_everything_is_run() {
        let (output, said) = start("with", "true");
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("the body was run"), "{said}");
    }
}
