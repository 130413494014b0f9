//! What a word of a command must be: each pattern is about one whole word.
//!
//! | pattern | stands for |
//! |---|---|
//! | text | itself; `*` in it is any number of any characters. A pattern that begins with `*` is no word that begins with a dash, so that a place for a name never takes an option |
//! | `{path}` | an absolute path without `..` in a root that the policy lets be read, where a file or a directory is |
//! | `{name}` | letters, digits, `_`, `.`, `@`, `:` and `-`, and neither a dot nor a dash in front |
//! | `{number}` | digits |
//! | `{flags:abc}` | a dash and some of these letters |
//! | `a\|b` | one of them |

use super::{PolicyError, pattern::matches};
use crate::limits::MAX_NAME;

/// Digits of a number.
const MAX_DIGITS: usize = 18;

/// What one word must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word(Vec<Alternative>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Alternative {
    Text(String),
    Path,
    Name,
    Number,
    Flags(String),
}

/// Whether a path may be read; asked only if a word is to be one.
pub(super) type MayRead<'a> = &'a dyn Fn(&str) -> bool;

impl Word {
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let alternatives = text.split('|').map(alternative);
        Ok(Self(alternatives.collect::<Result<_, _>>()?))
    }

    pub(super) fn matches(&self, word: &str, may_read: MayRead<'_>) -> bool {
        self.0.iter().any(|it| it.matches(word, may_read))
    }
}

fn alternative(text: &str) -> Result<Alternative, PolicyError> {
    let Some(inner) = text.strip_prefix('{') else {
        return Ok(Alternative::Text(text.to_owned()));
    };
    match inner.strip_suffix('}') {
        Some("path") => Ok(Alternative::Path),
        Some("name") => Ok(Alternative::Name),
        Some("number") => Ok(Alternative::Number),
        Some(inner) => {
            let flags = inner.strip_prefix("flags:").filter(|flags| {
                !flags.is_empty() && flags.bytes().all(|it| it.is_ascii_alphanumeric())
            });
            let flags = flags.map(|flags| Alternative::Flags(flags.to_owned()));
            flags.ok_or_else(|| unknown(text))
        }
        None => Err(unknown(text)),
    }
}

fn unknown(text: &str) -> PolicyError {
    PolicyError::new(format!(
        "{text:?} is no pattern: {{path}}, {{name}}, {{number}} and {{flags:LETTERS}} are"
    ))
}

impl Alternative {
    fn matches(&self, word: &str, may_read: MayRead<'_>) -> bool {
        match self {
            Self::Text(pattern) => {
                let takes_option = word.starts_with('-') && pattern.starts_with('*');
                !takes_option && matches(pattern, word)
            }
            Self::Path => may_read(word),
            Self::Name => is_name(word),
            Self::Number => {
                (1..=MAX_DIGITS).contains(&word.len()) && word.bytes().all(|it| it.is_ascii_digit())
            }
            Self::Flags(letters) => word.strip_prefix('-').is_some_and(|flags| {
                !flags.is_empty() && flags.chars().all(|flag| letters.contains(flag))
            }),
        }
    }
}

/// A name that is neither an option nor a path, nor leads to one.
pub(super) fn is_name(word: &str) -> bool {
    let is_good =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'@' | b':' | b'-');
    (1..=MAX_NAME).contains(&word.len())
        && !word.starts_with(['.', '-'])
        && word.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str, word: &str) -> bool {
        let may_read = |path: &str| path == "/tmp/x";
        Word::parse(pattern).unwrap().matches(word, &may_read)
    }

    #[test]
    fn a_pattern_is_about_the_whole_word() {
        for (pattern, word, expected) in [
            ("status", "status", true),
            ("status", "status; reboot", false),
            ("status", "xstatus", false),
            ("--unit=*", "--unit=x y", true),
            ("start|stop", "stop", true),
            ("start|stop", "start|stop", false),
            ("*", "anything, also with\nlines", true),
            ("*", "", true),
            ("{name}", "ssh@1.service", true),
            ("{name}", "a/b", false),
            ("{name}", "..", false),
            ("{name}", "a b", false),
            ("{name}", "", false),
            ("{number}", "10", true),
            ("{number}", "-1", false),
            ("{number}", "1e9", false),
            ("{number}", "", false),
            ("{flags:la}", "-al", true),
            ("{flags:la}", "-alR", false),
            ("{flags:la}", "-", false),
            ("{flags:la}", "--la", false),
            ("{path}", "/tmp/x", true),
            ("{path}", "/etc/shadow", false),
        ] {
            assert_eq!(matched(pattern, word), expected, "{pattern} {word}");
        }
    }

    #[test]
    fn a_place_for_a_name_takes_no_option() {
        for pattern in ["*", "*.service", "{name}", "{number}"] {
            for word in ["-r", "--output=/etc/x", "-x.service"] {
                assert!(!matched(pattern, word), "{pattern} {word}");
            }
        }
        assert!(matched("-*", "--whatever"), "unless the rule says so");
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for wrong in ["{", "{file}", "{flags:}", "{flags:a-}", "x|{path"] {
            let error = Word::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("no pattern"), "{error}");
        }
    }
}
