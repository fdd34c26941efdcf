//! Figures in columns: a name, a right-aligned figure, its unit, and what else there is to say; at
//! the end PASSED or FAILED, with the reasons.

use std::fmt::Write;

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    name: String,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Figure { figure: String, unit: String, note: String },
    Words(String),
}

impl Row {
    /// A figure with its unit, which may be empty.
    pub fn figure(name: impl Into<String>, (figure, unit): (String, &str)) -> Self {
        let content = Content::Figure { figure, unit: unit.to_owned(), note: String::new() };
        Self { name: name.into(), content }
    }

    /// Words instead of a figure.
    pub fn words(name: impl Into<String>, words: impl Into<String>) -> Self {
        Self { name: name.into(), content: Content::Words(words.into()) }
    }

    /// What stands behind the unit.
    #[must_use]
    pub fn note(mut self, words: impl Into<String>) -> Self {
        if let Content::Figure { note, .. } = &mut self.content {
            *note = words.into();
        }
        self
    }
}

/// The rows in columns, each as wide as it has to be.
pub fn columns(rows: &[Row]) -> String {
    let widest = |text: fn(&Row) -> &str| {
        rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0)
    };
    let name_width = widest(|row| &row.name).max(NAME_WIDTH);
    let figure_width = widest(|row| match &row.content {
        Content::Figure { figure, .. } => figure,
        Content::Words(_) => "",
    });
    let unit_width = widest(|row| match &row.content {
        Content::Figure { unit, .. } => unit,
        Content::Words(_) => "",
    });
    let mut out = String::new();
    for Row { name, content } in rows {
        let line = match content {
            Content::Figure { figure, unit, note } => {
                format!("{name:<name_width$} {figure:>figure_width$} {unit:<unit_width$}  {note}")
            }
            Content::Words(words) => format!("{name:<name_width$} {words}"),
        };
        // Writing to a string cannot fail.
        let _result = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Names take at least this, so that tables below each other look alike.
const NAME_WIDTH: usize = 18;

/// `PASSED`, or `FAILED` with each reason on a line of its own. With `colour` the word is green or
/// red, for a terminal.
pub fn verdict(reasons: &[String], colour: bool) -> String {
    let (word, code) = if reasons.is_empty() { ("PASSED", 32) } else { ("FAILED", 31) };
    let mut out = match colour {
        true => format!("\x1b[1;{code}m{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let first = NAME_WIDTH + 1 - word.len();
    for (index, reason) in reasons.iter().enumerate() {
        let indent = if index == 0 { first } else { NAME_WIDTH + 1 };
        let newline = if index == 0 { "" } else { "\n" };
        let _result = write!(out, "{newline}{:indent$}{reason}", "");
    }
    out.push('\n');
    out
}

/// Whether to print colours, by where the output goes and by the values of `NO_COLOR` (none if it is
/// anything but empty, see no-color.org) and `TERM`.
pub fn wants_colour(is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
    is_terminal && no_color.is_none_or(str::is_empty) && term != Some("dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: figures of different lengths and units, a note, and words.
    /// Guarantees: figures end in one column, units and notes begin in one, no line ends in blanks.
    #[test]
    fn figures_are_right_aligned() {
        let rows = [
            Row::figure("lines", ("1,000,000".to_owned(), "")),
            Row::figure("CPU", ("0.070".to_owned(), "cores")).note("at most"),
            Row::figure("rate", ("50".to_owned(), "lines/s")).note("in all"),
            Row::words("load", "anything"),
        ];
        let expected = "\
lines              1,000,000
CPU                    0.070 cores    at most
rate                      50 lines/s  in all
load               anything
";
        assert_eq!(columns(&rows), expected);
    }

    /// Scenario: no reason against passing, then two, with and without colour.
    /// Guarantees: one form for both; reasons stand below each other; colour is around the word only.
    #[test]
    fn both_verdicts_have_one_form() {
        assert_eq!(verdict(&[], false), "PASSED\n");
        let reasons = ["3 lines were lost".to_owned(), "memory grew".to_owned()];
        let expected = "\
FAILED             3 lines were lost
                   memory grew
";
        assert_eq!(verdict(&reasons, false), expected);
        let coloured = verdict(&reasons, true);
        assert_eq!(coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", ""), expected);
        assert!(verdict(&[], true).starts_with("\x1b[1;32mPASSED\x1b[0m"));
    }

    /// Scenario: a terminal, a pipe, NO_COLOR set and empty, a terminal that knows no colours.
    /// Guarantees: colour only on a terminal whose user hasn't said no.
    #[test]
    fn colour_is_for_terminals_whose_user_wants_it() {
        assert!(wants_colour(true, None, Some("xterm")));
        assert!(wants_colour(true, Some(""), None));
        assert!(!wants_colour(true, Some("1"), None));
        assert!(!wants_colour(true, None, Some("dumb")));
        assert!(!wants_colour(false, None, None));
    }
}
