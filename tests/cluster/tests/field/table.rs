//! What the machines were found to be.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The columns.
pub const COLUMNS: [&str; 6] = [
    "node",
    "system",
    "kernel",
    "Ready after",
    "agent after",
    "shortcut",
];

static ROWS: Mutex<BTreeMap<String, [String; 5]>> = Mutex::new(BTreeMap::new());

/// Fills the row of a node.
pub fn set(node: &str, cells: [String; 5]) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    rows.insert(node.to_owned(), cells);
}

/// The table, as text.
pub fn print() -> String {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = rows
        .iter()
        .map(|(node, cells)| [std::slice::from_ref(node), cells].concat());
    let head = COLUMNS.map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<_> = (0..COLUMNS.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].len())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
