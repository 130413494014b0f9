//! A text for the shell that needs no shell: words, and nothing that a shell would do anything with.
//!
//! ```text
//!              blank: a word ends           '…'  all but the other ' is itself
//!   outside ──────────────────────▶ outside
//!      │  └── what is in SPECIAL: none     "…"  all but the other " and what is in EXPANDED is itself
//!      └───── anything else: itself
//! ```
//!
//! What it gives is what `/bin/sh` would make of the text, or nothing.

/// What a shell does something with outside of quotes, or may: pipes, lists, redirections, expansions, patterns, comments.
const SPECIAL: &str = "|&;`$<>()[]{}*?~!#\\^";

/// What it does something with in double quotes.
const EXPANDED: &str = "`$\\!";

/// The words of a text. None if there are none, or a shell would do more with it than to divide it.
pub(crate) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    // None between words: an empty pair of quotes is a word as well.
    let mut word: Option<String> = None;
    let mut quote = None;
    // Whether the first word may be an assignment.
    let mut has_equals = false;
    for letter in text.chars() {
        match (quote, letter) {
            // A line's end ends a command; what else there is belongs into no text.
            (_, letter) if letter.is_control() && letter != '\t' => return None,
            (Some(end), letter) if letter == end => quote = None,
            (Some('"'), letter) if EXPANDED.contains(letter) => return None,
            (Some(_), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, letter) if SPECIAL.contains(letter) => return None,
            (None, letter) => {
                has_equals |= letter == '=' && words.is_empty();
                word.get_or_insert_default().push(letter);
            }
        }
    }
    words.extend(word);
    (quote.is_none() && !has_equals && !words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn words_are_what_the_shell_makes_of_the_text() {
        for text in [
            "df -h",
            "  ls\t-la   /tmp ",
            "grep 'a|b $c' \"d e\"/f",
            "printf '' \"\" x''y",
            "head -n 5 /var/log/syslog",
            "date +%F,%T --date=@0",
            "echo größe a=b 'it'\"'\"'s'",
        ] {
            let words = words(text).unwrap();
            let script = format!("printf '%s\\n' {text}");
            let shell = Command::new("/bin/sh").args(["-c", &script]).output();
            let stdout = String::from_utf8(shell.unwrap().stdout).unwrap();
            let expected: Vec<_> = stdout.strip_suffix('\n').unwrap().split('\n').collect();
            assert_eq!(words, expected, "{text}");
        }
    }

    #[test]
    fn what_a_shell_would_do_more_with_is_none() {
        for text in [
            "",
            " \t",
            "a; b",
            "a\nb",
            "a & b",
            "a|b",
            "a `b`",
            "a $b",
            "a \"$b\"",
            "a \"`b`\"",
            "a \"\\$b\"",
            "a > b",
            "a < b",
            "a *",
            "a [b]",
            "a {b,c}",
            "(a)",
            "! a",
            "a # b",
            "~/a",
            "a\\ b",
            "A=b c",
            "'a",
            "a \"b",
            "a \0b",
        ] {
            assert_eq!(words(text), None, "{text:?}");
        }
    }
}
