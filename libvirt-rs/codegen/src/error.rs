//! What can go wrong, and where in an interface file.

use std::{fmt, io, path::PathBuf};

use crate::limits::MAX_QUOTE;

/// Why no code was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something in an interface file is wrong.
    #[error(transparent)]
    Source(#[from] Diagnostic),
    /// Something in a model has no counterpart in Rust.
    #[error("can't generate Rust for `{item}`: {why}")]
    Generate {
        /// The name in the interface file.
        item: String,
        /// What is the matter with it, and what to do.
        why: String,
    },
    /// A file can't be read.
    #[error("can't read the interface file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file can't be written.
    #[error("can't write the generated file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nowhere to write to.
    #[error("OUT_DIR is not set: call this from a build script")]
    NoOutDir,
}

impl Error {
    pub(crate) fn generate(item: &str, why: impl Into<String>) -> Self {
        Self::Generate {
            item: item.to_owned(),
            why: why.into(),
        }
    }
}

/// A mistake in an interface file: where, what, and the line.
///
/// ```text
/// remote.x:12:11: expected `;`, found `}`
///    12 |     int x }
///       |           ^
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    file: Option<String>,
    line: usize,
    column: usize,
    message: String,
    quote: String,
    caret: usize,
}

impl Diagnostic {
    /// The file, if the text has come from one.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The line, counted from one.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, counted from one.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        writeln!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        writeln!(f, "{:>5} | {}", self.line, self.quote)?;
        write!(f, "{:>5} | {:>2$}", "", '^', self.caret + 1)
    }
}

impl std::error::Error for Diagnostic {}

/// A range of bytes in an interface file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte behind the last one.
    pub end: usize,
}

/// The text of an interface file, to quote from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) file: Option<String>,
    pub(crate) text: String,
}

impl Source {
    /// The line of a place, counted from one.
    pub(crate) fn line(&self, offset: usize) -> usize {
        let before = self.text.bytes().take(offset);
        before.filter(|byte| *byte == b'\n').count() + 1
    }

    pub(crate) fn diagnose(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        let mut offset = span.start.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let (before, behind) = self.text.split_at(offset);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start..].chars().count();
        let rest = behind.find(['\n', '\r']).unwrap_or(behind.len());
        let line = &self.text[start..offset + rest];
        // The place lies in the quote's middle, or as near to it as the line's ends allow.
        let skipped = column.saturating_sub(MAX_QUOTE / 2);
        let quote = line.chars().skip(skipped).take(MAX_QUOTE);
        Diagnostic {
            file: self.file.clone(),
            line: self.line(offset),
            column: column + 1,
            message: message.into(),
            // A tab is as wide as one caret.
            quote: quote
                .map(|character| {
                    if character.is_control() {
                        ' '
                    } else {
                        character
                    }
                })
                .collect(),
            caret: column - skipped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            file: Some("a.x".to_owned()),
            text: text.to_owned(),
        }
    }

    fn at(start: usize) -> Span {
        Span { start, end: start }
    }

    #[test]
    fn a_place_is_shown_with_its_line_and_a_caret_below_it() {
        let error = source("const A = 1;\n\tint b }\nx").diagnose(at(20), "no");
        assert_eq!((error.line(), error.column()), (2, 8));
        assert_eq!(error.file(), Some("a.x"));
        assert_eq!(
            error.to_string(),
            "a.x:2:8: no\n    2 |  int b }\n      |        ^"
        );
    }

    #[test]
    fn the_end_of_the_text_and_places_within_a_character_can_be_shown() {
        for (text, start, line, column) in [
            ("", 0, 1, 1),
            ("ab", 2, 1, 3),
            ("ab\n", 3, 2, 1),
            ("aé\r\n", 2, 1, 2),
            ("é", 99, 1, 2),
        ] {
            let error = source(text).diagnose(at(start), "no");
            assert_eq!((error.line(), error.column()), (line, column), "{text:?}");
        }
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_quoted() {
        let text = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let shown = source(&text).diagnose(at(1000), "no").to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].len(), "    1 | ".len() + MAX_QUOTE);
        assert_eq!(lines[1].find('!'), lines[2].find('^'));
    }
}
