//! Completions, manual pages and help.

use std::process::{Command, Output};

fn sidestep(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.args(words).output().expect("the program starts")
}

#[track_caller]
fn printed(words: &[&str]) -> String {
    let output = sidestep(words);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// The commands that people see.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").expect("a list");
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| {
        let is_name = line.starts_with("  ") && !line.starts_with("   ");
        is_name.then(|| line.split_whitespace().next())?
    });
    let names = names.filter(|name| *name != "help");
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn every_command_has_examples_that_it_understands() {
    let commands = commands();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let help = printed(&[&command, "--help"]);
        let (_, examples) = help
            .split_once("\nExamples:\n")
            .unwrap_or_else(|| panic!("no examples: {help}"));
        assert!(
            examples.contains(&format!("sidestep {command}")),
            "{examples}"
        );
    }
}

#[test]
fn the_completions_of_every_shell_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell} misses {command}");
        }
        assert!(script.contains("probe-namespace"), "{shell} misses a flag");
    }
}

#[test]
fn bash_completes_with_its_script() {
    let script = printed(&["completions", "bash"]);
    let asked = "COMP_WORDS=(sidestep status --wa); COMP_CWORD=2; _sidestep sidestep --wa status; echo \"${COMPREPLY[*]}\"";
    let output = Command::new("bash")
        .args(["--norc", "-c", &format!("{script}\n{asked}")])
        .output()
        .expect("bash starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--watch\n");
}

#[test]
fn there_is_a_page_for_the_program_and_for_each_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    printed(&["man", path]);
    let page = |name: &str| {
        let file = folder.path().join(format!("{name}.1"));
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert!(page("sidestep").contains("sidestep\\-check(1)"));
    for command in commands() {
        let text = page(&format!("sidestep-{command}"));
        assert!(
            text.contains("Exit codes") || text.contains("Examples"),
            "{command}: {text}"
        );
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let output = sidestep(&["man", "/nowhere/man1"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/nowhere/man1: "), "{error}");
}
