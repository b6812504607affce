//! Tables for people.

/// Rows with their columns aligned, two spaces apart, and `indent` before each.
pub fn columns(indent: &str, rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let start = text.len();
        text.push_str(indent);
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        let end = text.trim_end_matches(' ').len().max(start);
        text.truncate(end);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_their_text() {
        let table = rows(&[&["A", "B", "C"], &["läng", "", "x"], &["", "yy"], &[]]);
        assert_eq!(columns("", &table), "A     B   C\nläng      x\n      yy\n\n");
        assert_eq!(columns("  ", &table[1..2]), "  läng    x\n");
        assert_eq!(columns("", &[]), "");
    }
}
