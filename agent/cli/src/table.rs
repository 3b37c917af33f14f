//! Tables as kubectl prints them.

use std::io::Write as _;

use tabwriter::TabWriter;

/// Rows below their headings, in columns. A cell that is empty is shown as a dash.
pub(crate) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(3);
    let mut line = |cells: &[&str]| {
        let _infallible = writeln!(writer, "{}", cells.join("\t"));
    };
    line(&headings);
    for row in rows {
        let cells = row.each_ref().map(|cell| match cell.as_str() {
            "" => "-",
            cell => cell,
        });
        line(&cells);
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "", "é"], ["longer", "2", "x"]];
        let rows = rows.map(|row| row.map(ToOwned::to_owned));
        let wanted = "\
ONE      TWO   THREE
a        -     é
longer   2     x
";
        assert_eq!(table(["ONE", "TWO", "THREE"], rows), wanted);
    }
}
