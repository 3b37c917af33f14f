//! The table of versions in the README is what the code has.

use std::fs;

use sidestep_contract::gate::LANGUAGE;
use sidestep_ebpf_common::{ABI_VERSION, shortcut::SHORTCUT_ABI_VERSION};
use sidestep_kit::{chart::documents, parts};

fn read(path: &str) -> String {
    let path = parts::workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The second cell of the table's row that begins with these words.
fn row(table: &str, begins: &str) -> String {
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let row = rows.find(|row| row.starts_with(begins));
    let row = row.unwrap_or_else(|| panic!("no row {begins}"));
    let cell = row.split(" | ").nth(1).expect("a second cell");
    cell.to_owned()
}

#[test]
fn the_readmes_versions_are_the_codes() {
    let readme = read("manifests/README.md");
    let (_, table) = readme.split_once("\n## Versions\n").expect("a section");
    for (begins, number) in [
        ("layout of the agent's maps", ABI_VERSION),
        ("layout of the shortcut's maps", SHORTCUT_ABI_VERSION),
        ("language of the gates", LANGUAGE),
    ] {
        assert_eq!(row(table, begins), number.to_string(), "{begins}");
    }
    let chart = documents(&read("manifests/chart/Chart.yaml"));
    let kubernetes = row(table, "Kubernetes");
    let (oldest, _) = kubernetes.split_once(' ').expect("a number");
    assert_eq!(chart[0]["kubeVersion"], format!(">={oldest}.0-0"));
    let rust = format!("Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    assert_eq!(row(table, "building"), rust);
}

#[test]
fn the_changelog_has_the_release_and_what_comes_after_it() {
    let changelog = read("CHANGELOG.md");
    let releases: Vec<_> = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(releases.first(), Some(&"Unreleased"));
    assert!(
        releases[1].split(' ').next() == Some(version),
        "{version} in {releases:?}"
    );
}
