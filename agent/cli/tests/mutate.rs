//! `sidestep mutate` as people run it: what goes where, and what it says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn mutate(arguments: &[&str], input: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sidestep"))
        .arg("mutate")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = program.stdin.take().expect("its input");
    // One that fails early reads nothing.
    let _unread = stdin.write_all(input.as_bytes());
    drop(stdin);
    program.wait_with_output().expect("it ends")
}

/// What it printed and what it told; it must succeed.
fn done(arguments: &[&str], input: &str) -> (String, String) {
    let output = mutate(arguments, input);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (printed, told) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{told}");
    (printed, told)
}

fn fixture(path: &str) -> String {
    std::fs::read_to_string(folder().join(path)).expect("a fixture")
}

#[test]
fn a_file_and_standard_input_give_the_same_on_standard_output() {
    let file = folder().join("documents/injected.yaml");
    let file = file.to_str().expect("a path of text");
    let (printed, told) = done(&["-f", file], "");
    let documents = fixture("documents/injected.yaml");
    assert_eq!(
        done(&["-f", "-"], &documents),
        (printed.clone(), told.clone())
    );
    assert_eq!(printed.matches("--run-validation").count(), 2, "{printed}");
    assert_eq!(
        told.matches(": accelerated: out 15001").count(),
        2,
        "{told}"
    );
    let why = "left alone: opted-out: opted out by the namespace's sidestep.dev/enabled=false";
    assert_eq!(told.matches(why).count(), 1, "{told}");
}

#[test]
fn what_came_out_goes_in_again_and_stays_as_it_is() {
    let (once, _) = done(&["-f", "-"], &fixture("list/injected.yaml"));
    assert!(once.contains("--run-validation"), "{once}");
    let (twice, told) = done(&["-f", "-"], &once);
    assert_eq!(twice, once);
    assert!(!told.contains("warning"), "{told}");
}

#[test]
fn a_dry_run_shows_the_patch_or_a_diff_and_nothing_else() {
    let pod = fixture("client/pod.yaml");
    let (patch, _) = done(&["-f", "-", "--dry-run=patch"], &pod);
    let (head, operations) = patch.split_once('\n').expect("a line about the pod");
    assert_eq!(head, "# Pod demo/client");
    let expected = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../webhook/tests/expected/client.patch.yaml");
    let expected = std::fs::read_to_string(expected).expect("a kept patch");
    let (_, expected) = expected.split_once('\n').expect("a line about the fixture");
    assert_eq!(operations, expected);

    let (diff, _) = done(&["-f", "-", "--dry-run=diff"], &pod);
    let count = |sign: &str| diff.lines().filter(|line| line.starts_with(sign)).count();
    assert!(diff.starts_with("--- "), "{diff}");
    assert!(
        diff.contains("\n+    sidestep.dev/accelerated: 'true'\n"),
        "{diff}"
    );
    assert!(diff.contains("\n-        - NET_ADMIN\n"), "{diff}");
    assert!(
        count("+") > 3 && count("-") > 3 && count(" ") < 60,
        "{diff}"
    );
    let opted_out = fixture("not-injected/pod.yaml");
    let (nothing, told) = done(&["-f", "-", "--dry-run=diff"], &opted_out);
    assert_eq!(nothing, "");
    assert!(told.contains("nothing to do: no-istio-init"), "{told}");
}

#[test]
fn it_writes_a_file_and_hears_its_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.yaml");
    let name = output.to_str().expect("a path of text");
    let arguments = [
        "-f",
        "-",
        "-o",
        name,
        "--probe-timeout=77",
        "--shortcut=off",
    ];
    let (printed, _) = done(&arguments, &fixture("client/pod.yaml"));
    assert_eq!(printed, "");
    let written = std::fs::read_to_string(output).expect("a file");
    assert!(written.contains("77s"), "{written}");
    assert!(
        written.contains("sidestep.dev/shortcut: 'off'"),
        "{written}"
    );
    let (_, told) = done(
        &["-f", "-", "--enrolment=opt-in"],
        &fixture("client/pod.yaml"),
    );
    assert!(told.contains("left alone: not-opted-in"), "{told}");
}

#[test]
fn what_it_cannot_read_it_names_and_prints_nothing() {
    let broken = "apiVersion: v1\nkind: Pod\nspec:\n  initContainers: 5\n";
    for (arguments, input, message) in [
        (["-f", "-"], "a: [", "-: "),
        (["-f", "-"], broken, "spec.initContainers"),
        (["-f", "/nowhere.yaml"], "", "/nowhere.yaml: No such file"),
    ] {
        let output = mutate(&arguments, input);
        let told = String::from_utf8(output.stderr).expect("text");
        assert!(told.contains(message), "{told}");
        assert!(!output.status.success() && output.stdout.is_empty());
    }
}
