//! Tables for people, JSON for programs.
//!
//! Every text that comes from a guest goes through [`printable`] or JSON's own escapes before it reaches a terminal.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

use super::failure::Failure;

/// Characters of one text from a guest that are shown: a host name fits, and a hostile one does not fill the screen.
const MAX_TEXT: usize = 512;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    // For people.
    Table,
    // For programs. (A doc comment here would double the length of every help text.)
    Json,
}

/// Writes one line, or several.
pub(super) fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}

/// One answer.
pub(super) fn print_pretty(value: &Value) -> Result<(), Failure> {
    print(format_args!("{value:#}"))
}

/// One answer of a stream.
pub(super) fn print_compact(value: &Value) -> Result<(), Failure> {
    print(value)
}

/// Makes a text from a guest harmless: control characters, escapes and what turns the direction of text become
/// visible; other Unicode text stays as it is.
pub(super) fn printable(text: &str) -> String {
    printable_to(text, MAX_TEXT)
}

/// The same for a sentence, whose sender may have made visible already what it names: backslashes stay as they are.
pub(super) fn printable_sentence(text: &str) -> String {
    visible(text, MAX_TEXT, |c| c == '\\')
}

/// The same for a text that may be as long as this, in characters.
pub(super) fn printable_to(text: &str, limit: usize) -> String {
    visible(text, limit, |_| false)
}

fn visible(text: &str, limit: usize, stays: impl Fn(char) -> bool) -> String {
    let mut safe = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == limit {
            safe.push('…');
            break;
        }
        match c {
            // `escape_debug` would escape them, but they do no harm; the last ones are accents.
            '"' | '\'' | '\u{300}'..='\u{36f}' => safe.push(c),
            c if stays(c) => safe.push(c),
            _ => safe.extend(c.escape_debug()),
        }
    }
    safe
}

/// Names on the left, values on the right; rows with empty values are left out.
pub(super) fn facts<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = bare();
    for (name, value) in rows {
        if !value.is_empty() {
            table.add_row([name, &value]);
        }
    }
    finish(&table)
}

/// A table with a header; columns whose header begins with `>` are aligned to the right.
pub(super) fn listing(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = bare();
    let alignment = |name: &&str| match name.strip_prefix('>') {
        Some(_) => CellAlignment::Right,
        None => CellAlignment::Left,
    };
    let alignments: Vec<CellAlignment> = header.iter().map(alignment).collect();
    let aligned = |cells: Vec<String>| {
        let cells = cells.into_iter().zip(&alignments);
        cells
            .map(|(text, alignment)| Cell::new(text).set_alignment(*alignment))
            .collect::<Vec<_>>()
    };
    let names = header
        .iter()
        .map(|name| name.trim_start_matches('>').to_owned());
    table.set_header(aligned(names.collect()));
    for row in rows {
        table.add_row(aligned(row));
    }
    finish(&table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Without the space that the table puts at the end of lines and the one before the first column.
fn finish(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| {
            let line = line.trim_end();
            line.strip_prefix(' ').unwrap_or(line).to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_guest_can_not_control_the_terminal() {
        assert_eq!(
            printable("\u{1b}[31mred\r\n\u{9b}2J\0"),
            "\\u{1b}[31mred\\r\\n\\u{9b}2J\\0"
        );
        assert_eq!(printable("abc\u{202e}cba"), "abc\\u{202e}cba");
    }

    #[test]
    fn what_a_sentence_has_made_visible_is_not_escaped_twice() {
        let name = "a\\b\u{1b}";
        assert_eq!(printable(name), "a\\\\b\\u{1b}");
        let sentence = format!("can't open {name:?}: \r");
        assert_eq!(
            printable_sentence(&sentence),
            "can't open \"a\\\\b\\u{1b}\": \\r"
        );
    }

    #[test]
    fn other_text_from_a_guest_stays_readable() {
        for text in [
            "Bücher e\u{301}",
            "主机 🦀",
            "it's \"quoted\"",
            "Debian GNU/Linux 12 (bookworm)",
        ] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn a_long_text_from_a_guest_is_cut() {
        assert_eq!(printable(&"ü".repeat(10_000)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn facts_are_two_columns_and_leave_out_what_is_not_known() {
        let text = facts([
            ("Name", "web".into()),
            ("Kernel", String::new()),
            ("CPUs", "2".into()),
        ]);
        assert_eq!(text, "Name  web\nCPUs  2");
    }

    #[test]
    fn a_listing_aligns_numbers_to_the_right() {
        let rows = [
            vec!["vda".into(), "1 B".into()],
            vec!["b".into(), "10 B".into()],
        ];
        assert_eq!(
            listing(&["DISK", ">READ"], rows),
            "DISK  READ\nvda    1 B\nb     10 B"
        );
    }
}
