//! A reader can look up every reason.

use std::collections::BTreeSet;

const SOURCES: [&str; 2] = [
    include_str!("../src/reason.rs"),
    include_str!("../contract/src/leave.rs"),
];

/// The words that a `match` gives: what stands between quotes behind an arrow.
fn words(source: &str) -> impl Iterator<Item = &str> {
    source
        .lines()
        .filter_map(|line| line.trim().split_once(" => \"")?.1.strip_suffix("\","))
}

#[test]
fn the_readme_says_of_every_reason_what_it_means() {
    let reasons: BTreeSet<&str> = SOURCES.iter().flat_map(|source| words(source)).collect();
    assert!(reasons.contains("tproxy") && reasons.contains("no-agent"));
    let readme = include_str!("../README.md");
    let table = readme.split_once("| reason | why |").expect("a table").1;
    let rows = table
        .lines()
        .skip(2)
        .map_while(|row| row.strip_prefix("| "));
    let cells = rows.map(|row| row.split(" | ").next().expect("a cell"));
    let told: BTreeSet<&str> = cells
        .flat_map(|cell| cell.split(", "))
        .map(|word| word.trim_matches('`'))
        .collect();
    assert_eq!(told, reasons);
}
