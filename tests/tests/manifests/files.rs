//! Files that must agree with the chart.

use std::{
    fs,
    process::{Command, Output},
};

use sidestep_kit::{
    chart::{arguments, documents, objects},
    needs, parts,
};

use crate::{EVERYTHING, PROVIDED};

fn file(path: &str) -> String {
    let path = parts::workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[needs(part("helm"))]
fn install_yaml_is_what_the_chart_makes_with_its_defaults() {
    let mut render = Command::new(parts::workspace().join("manifests/render.sh"));
    let now = parts::finish(&mut render).expect("the chart can be rendered");
    let folder = tempfile::tempdir().expect("a folder");
    let fresh = folder.path().join("install.yaml");
    fs::write(&fresh, now).expect("a file can be written");
    let kept = parts::workspace().join("manifests/install.yaml");
    let diff = Command::new("diff")
        .arg("-u")
        .args([kept, fresh])
        .output()
        .expect("diff is on every machine");
    let text = said(&diff);
    assert!(diff.status.success(), "run `make manifests`:\n{text}");
}

#[test]
fn the_charts_versions_are_the_workspaces() {
    let chart = documents(&file("manifests/chart/Chart.yaml"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(chart[0]["version"], version);
    assert_eq!(chart[0]["appVersion"], version);
}

#[needs(part("helm"))]
fn helm_has_nothing_to_say_against_the_chart() {
    for settings in [&[], EVERYTHING, PROVIDED] {
        let mut lint = Command::new(parts::program("helm"));
        lint.args(["lint", "--strict", "--quiet"])
            .arg(parts::workspace().join("manifests/chart"))
            .args(arguments(settings));
        let output = lint.output().expect("helm runs");
        assert!(output.status.success(), "{settings:?}: {}", said(&output));
    }
}

#[needs(part("helm"), part("istioctl"))]
fn istioctl_analyze_finds_no_fault() {
    for settings in [&[], EVERYTHING] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("install.yaml");
        let mut text = file("manifests/namespace.yaml");
        for object in objects(settings) {
            text = format!("{text}\n---\n{object}\n");
        }
        fs::write(&path, text).expect("a file can be written");
        let output = Command::new(parts::program("istioctl"))
            .args(["analyze", "--use-kube=false", "--failure-threshold=Info"])
            .arg(&path)
            .output()
            .expect("istioctl runs");
        let said = said(&output);
        assert!(said.contains("No validation issues found"), "{said}");
    }
}

/// What the images' script builds, and the workspace's other programs that users get.
#[test]
fn no_program_that_is_shipped_has_the_switches_of_tests() {
    let tree = |packages: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .current_dir(parts::workspace())
            .args(["tree", "--locked", "--edges=normal,build,features"])
            .args(["--target=x86_64-unknown-linux-gnu"])
            .args(packages);
        parts::finish(&mut cargo).expect("cargo knows what it builds")
    };
    let switches = "sidestep-agent feature \"test-switches\"";
    let shipped = ["-psidestep-agent", "-psidestep", "-psidestep-webhook"];
    assert!(!tree(&shipped).contains(switches));
    let of_tests = tree(&["-psidestep-torture"]);
    assert!(of_tests.contains(switches), "{of_tests}");
}

#[test]
fn krews_manifest_names_the_archives_of_a_releases_programs_by_their_checksums() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for architecture in ["amd64", "arm64"] {
        let program = path(&format!("sidestep-linux-{architecture}"));
        fs::write(program, architecture).expect("a file can be written");
    }
    fs::copy(parts::workspace().join("LICENSE"), path("LICENSE")).expect("the licence");
    let krew = |releases: &str| {
        let mut command = Command::new(parts::workspace().join("manifests/krew.sh"));
        command.arg(folder.path()).args(["1.2.3", releases]);
        command.output().expect("it runs")
    };
    let refused = krew("http://example.org");
    assert!(!refused.status.success());
    assert!(
        said(&refused).contains("RELEASES is http://example.org"),
        "{refused:?}"
    );

    let made = krew("https://example.org/releases");
    assert!(made.status.success(), "{}", said(&made));
    let manifest = fs::read_to_string(path("krew.yaml")).expect("a manifest");
    let plugin = &documents(&manifest)[0];
    assert_eq!(plugin["metadata"]["name"], "sidestep");
    assert_eq!(plugin["spec"]["version"], "v1.2.3");
    let platforms = plugin["spec"]["platforms"].as_array().expect("a list");
    assert_eq!(platforms.len(), 2);
    for platform in platforms {
        let labels = &platform["selector"]["matchLabels"];
        let architecture = labels["arch"].as_str().expect("an architecture");
        let archive = format!("kubectl-sidestep-linux-{architecture}.tar.gz");
        let uri = format!("https://example.org/releases/v1.2.3/{archive}");
        assert_eq!(platform["uri"], uri);
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.current_dir(&folder).args(arguments);
            parts::finish(&mut command).expect("it is on every machine")
        };
        let sum = run("sha256sum", &[&archive]);
        assert_eq!(sum.split(' ').next(), platform["sha256"].as_str());
        let bin = platform["bin"].as_str().expect("a program");
        assert_eq!(run("tar", &["-xOzf", &archive, bin]), architecture);
    }
}
