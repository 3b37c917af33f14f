//! `sidestep mutate` as people run it: what goes where, and what it says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sidestep_kit::needs;

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
    let as_it_is = "--avoid-unsupported-nodes=false";
    let (patch, _) = done(&["-f", "-", "--dry-run=patch", as_it_is], &pod);
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

#[test]
fn several_files_and_folders_are_one_stream() {
    let work = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| {
        let file = work.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    };
    put("b.yaml", &fixture("client/pod.yaml"));
    put(
        "a.yml",
        "kind: Namespace\nmetadata: {name: demo, labels: {sidestep.dev/enabled: 'false'}}\n",
    );
    put("note.txt", "not: [read");
    put("inner/c.json", "{\"kind\": \"Secret\"}");
    let path = |name: &str| work.path().join(name).display().to_string();
    let folder = path("");

    let (flat, told) = done(&["-f", &folder], "");
    assert!(
        told.contains("left alone: opted-out"),
        "the namespace is in another file: {told}"
    );
    assert!(
        flat.starts_with("kind: Namespace") && !flat.contains("\"Secret\""),
        "{flat}"
    );
    let (deep, _) = done(&["-f", &folder, "-R"], "");
    assert!(deep.ends_with("---\n{\"kind\": \"Secret\"}\n"), "{deep}");
    let (both, _) = done(&["-f", &path("a.yml"), "-f", &path("b.yaml")], "");
    assert_eq!(both, flat);

    put("inner/c.json", "{");
    let output = mutate(&["-f", &folder, "-R"], "");
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(
        told.contains("inner/c.json: document 1: not valid JSON"),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(1));
    std::fs::create_dir(work.path().join("empty")).expect("a folder");
    let output = mutate(&["-f", &path("empty")], "");
    let told = String::from_utf8(output.stderr).expect("text");
    assert!(
        told.contains("no *.yaml, *.yml or *.json in this folder"),
        "{told}"
    );
}

#[test]
fn the_exit_code_tells_whether_a_pod_was_left() {
    for (fixture_, code) in [("client", 0), ("tproxy", 3), ("not-injected", 0)] {
        let output = mutate(
            &["-f", "-", "--exit-code"],
            &fixture(&format!("{fixture_}/pod.yaml")),
        );
        assert_eq!(output.status.code(), Some(code), "{fixture_}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sidestep"))
        .args(["mutate", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(program.stdout.take());
    let mut stdin = program.stdin.take().expect("its input");
    stdin
        .write_all(fixture("client/pod.yaml").as_bytes())
        .expect("it reads");
    drop(stdin);
    assert!(program.wait().expect("it ends").success());
}

/// What the command prints for a file is what `patch` makes of the file with the diff.
fn assert_diff_applies(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("a path of text");
    let (printed, _) = done(&["-f", file], "");
    let (diff, _) = done(&["-f", file, "--dry-run=diff"], "");
    let patch = folder.join("diff");
    std::fs::write(&patch, &diff).expect("a file");
    let mut command = Command::new("patch");
    command
        .args(["-p1", "--fuzz=0", "-d", "/", "-i"])
        .arg(patch);
    let output = command.output().expect("patch starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() || diff.is_empty(),
        "{name}: {said}\n{diff}"
    );
    let patched = std::fs::read_to_string(file).expect("the file");
    assert_eq!(patched, printed, "{name}");
}

/// A pod whose labels something else names, so that they cannot change where they stand.
fn aliased() -> String {
    let pod = fixture("client/pod.yaml");
    let pod = pod.trim_end_matches("---\n");
    pod.replace("  labels:\n", "  labels: &l # l\n") + "x: *l\n"
}

#[needs("patch")]
fn a_diff_applies_to_the_file_itself() {
    let work = tempfile::tempdir().expect("a folder");
    let apply = |name: &str, text: &str| assert_diff_applies(work.path(), name, text);
    let fixtures = std::fs::read_dir(folder()).expect("the fixtures");
    for entry in fixtures {
        let path = entry.expect("a fixture").path();
        for name in ["pod.yaml", "injected.yaml"] {
            if let Ok(text) = std::fs::read_to_string(path.join(name)) {
                apply(name, &text);
            }
        }
    }
    let pod = fixture("client/pod.yaml");
    apply("crlf.yaml", &pod.replace('\n', "\r\n"));
    apply("no end.yaml", pod.trim_end());
    apply("mark.yaml", &format!("\u{feff}{pod}"));
    let documents = format!("# head\n---\n{pod}...\n--- # second\n{pod}---\n# nothing\n");
    apply("documents.yaml", &documents);
    apply("alias.yaml", &format!("kind: A # a\n---\n{}", aliased()));
    apply("pod.json", "{\"kind\": \"Pod\",\n \"metadata\": {}}");
}

#[test]
fn comments_stay_and_what_loses_them_is_named() {
    let pod = fixture("client/pod.yaml");
    let commented = pod.replace("- NET_RAW\n", "- NET_RAW # gone\n").replace(
        "  name: client\n",
        "  # before the name\n  name:   client   # behind it\n",
    );
    let (printed, told) = done(&["-f", "-"], &commented);
    assert!(
        printed.contains("  # before the name\n  name:   client   # behind it\n"),
        "{printed}"
    );
    assert!(
        !printed.contains("# gone") && !told.contains("comments"),
        "{told}"
    );
    for form in [&["-f", "-"][..], &["-f", "-", "--dry-run=diff"]] {
        let (_, told) = done(form, &aliased());
        let warning = "-: document 1: comments are not kept: ";
        assert!(told.contains(warning), "{told}");
    }
}
