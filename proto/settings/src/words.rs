//! A deserializer's error in one sentence.

use crate::names::unknown_key;

/// On which line, if that is known, and what.
type Complaint = (Option<usize>, String);

pub(crate) fn of_toml(error: &toml::de::Error, text: &str) -> Complaint {
    let line = error.span().map(|span| line_at(text, span.start));
    (line, reword(error.message()))
}

pub(crate) fn of_yaml(error: &serde_norway::Error) -> Complaint {
    let message = error.to_string();
    let Some(place) = error.location() else {
        return (None, reword(&message));
    };
    // The place has a field of its own.
    let suffix = format!(" at line {} column {}", place.line(), place.column());
    let message = message.replace(&suffix, "");
    // A wrong value's key stands in front, even if the value's own message begins with it.
    let message = match message.split_once(": ") {
        Some((key, rest)) if rest.starts_with(&format!("{key}: ")) => rest,
        _ => &message,
    };
    (Some(place.line()), reword(message))
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before.filter(|byte| *byte == b'\n').count() + 1
}

/// serde's words in ours. Where they are others than expected, they stay as they are.
fn reword(message: &str) -> String {
    if let Some(rest) = after(message, "unknown field `")
        && let Some((unknown, expected)) = rest.rsplit_once("`, expected ")
    {
        // "one of `listen`, `guest`": what is between backticks.
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return unknown_key(unknown, &known);
    }
    for (words, what) in [("missing", "missing here"), ("duplicate", "there twice")] {
        if let Some(rest) = after(message, &format!("{words} field `"))
            && let Some((key, _)) = rest.split_once('`')
        {
            return format!("the key `{key}` is {what}");
        }
    }
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    lines.join(", ")
}

/// What comes after `words`, which begin the message or follow the place that YAML's errors name.
fn after<'a>(message: &'a str, words: &str) -> Option<&'a str> {
    let (place, rest) = message.split_once(words)?;
    (place.is_empty() || place.ends_with(": ")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serdes_words_become_ours() {
        for (message, expected) in [
            (
                "unknown field `lisen`, expected `listen` or `log`",
                "unknown key `lisen`: did you mean `listen`?",
            ),
            (
                "guest[0]: unknown field `nam`, expected one of `name`, `channel`, `listen`",
                "unknown key `nam`: did you mean `name`?",
            ),
            (
                "unknown field `a`b\n`, expected one of `name`, `channel`, `listen`",
                "unknown key `a`b\\n`: the keys here are name, channel, listen",
            ),
            ("missing field `name`", "the key `name` is missing here"),
            (
                "guest[1]: duplicate field `name`",
                "the key `name` is there twice",
            ),
            ("one\n  two", "one, two"),
        ] {
            assert_eq!(reword(message), expected);
        }
    }

    #[test]
    fn a_value_with_serdes_words_stays_as_it_is() {
        let message = "\"missing field `name`\" is not a log level";
        assert_eq!(reword(message), message);
    }
}
