//! Tables and numbers for people.

/// Text that somebody else chose, fit for a line of a terminal: control characters become `\u{fffd}`.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Rows with their columns aligned, two spaces apart, and `indent` before each.
pub fn columns(indent: &str, rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
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

/// `1 lease`, `2 leases`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn a_cell_cannot_end_its_line_or_speak_to_the_terminal() {
        let table = rows(&[&["a\nb", "c"], &["\u{1b}[2J", "d"]]);
        assert_eq!(columns("", &table), "a\u{fffd}b   c\n\u{fffd}[2J  d\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_their_text() {
        let table = rows(&[&["A", "B", "C"], &["läng", "", "x"], &["", "yy"], &[]]);
        assert_eq!(columns("", &table), "A     B   C\nläng      x\n      yy\n\n");
        assert_eq!(columns("  ", &table[1..2]), "  läng    x\n");
        assert_eq!(columns("", &[]), "");
    }
}
