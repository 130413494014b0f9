//! Whether two answers are the same.
//!
//! The C library is asked before and after us. What does not move is then equal three times; what does is in the table of
//! [`moving`](super::moving), by its place in the answer.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::moving::{self, take_out};
use vbridge_tests::libvirt::reference::Answer;

/// The most of a value that a difference quotes, in characters; beyond, it is cut off.
const QUOTE: usize = 200;

/// How many of the characters before a difference between texts are quoted.
const CONTEXT: usize = 40;

/// A place where two answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Keys and indices with slashes between. Empty for the whole answer.
    pub(super) place: String,
    /// What the C library has.
    pub(super) reference: String,
    /// What we have.
    pub(super) ours: String,
}

/// What the C library has answered before and after us.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// Before.
    pub(super) before: Answer,
    /// After.
    pub(super) after: Answer,
}

/// The comparison of the answers to one call.
struct Comparison<'a> {
    call: &'a str,
    found: Vec<Difference>,
}

// === impl Around ===

impl Around {
    /// Where our answer to a call is not the C library's. Errors are the same if their codes and domains are.
    pub(super) fn differences(&self, call: &str, ours: &Answer) -> Vec<Difference> {
        let mut comparison = Comparison {
            call,
            found: Vec::new(),
        };
        match (&self.before, ours, &self.after) {
            (Answer::Value(before), Answer::Value(ours), Answer::Value(after)) => {
                comparison.values("", before, ours, after);
            }
            (before, ours, after) => {
                let expected = [before, after].map(kind);
                if expected != [kind(ours), kind(ours)] {
                    let [before, ours, after] = [before, ours, after].map(shown);
                    comparison.moved("", &before, &ours, &after);
                }
            }
        }
        comparison.found
    }
}

/// An error's code and domain.
fn kind(answer: &Answer) -> Option<(i32, i32)> {
    match answer {
        Answer::Value(_) => None,
        Answer::Error(error) => Some((error.code, error.domain)),
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Value(value) => value.to_string(),
        Answer::Error(error) => error.to_string(),
    }
}

// === impl Comparison ===

impl Comparison<'_> {
    fn values(&mut self, place: &str, before: &Value, ours: &Value, after: &Value) {
        if let Some(moving) = moving::find(self.call, place) {
            if !moving.how.allows(before, ours, after) {
                self.moved(place, before, ours, after);
            }
            return;
        }
        match (before, ours, after) {
            (Value::Object(before), Value::Object(ours), Value::Object(after)) => {
                let names = before.keys().chain(ours.keys()).chain(after.keys());
                let names: BTreeSet<&String> = names.collect();
                for name in names {
                    let [before, ours, after] =
                        [before, ours, after].map(|it| it.get(name).unwrap_or(&Value::Null));
                    self.values(&below(place, name), before, ours, after);
                }
            }
            (Value::Array(before), Value::Array(ours), Value::Array(after))
                if before.len() == ours.len() && after.len() == ours.len() =>
            {
                for (index, ours) in ours.iter().enumerate() {
                    let place = below(place, &index.to_string());
                    self.values(&place, &before[index], ours, &after[index]);
                }
            }
            (Value::String(before), Value::String(ours), Value::String(after)) => {
                self.texts(place, before, ours, after);
            }
            _ if before != ours || after != ours => self.moved(place, before, ours, after),
            _ => {}
        }
    }

    /// Texts, of which some have parts that move.
    fn texts(&mut self, place: &str, before: &str, ours: &str, after: &str) {
        let [before, ours, after] = [before, ours, after].map(|text| take_out(self.call, text));
        if before.rest != ours.rest || after.rest != ours.rest {
            let [before, ours, after] = from_difference([&before.rest, &ours.rest, &after.rest]);
            self.moved(place, &before, &ours, &after);
            return;
        }
        // What is left is equal, and so there are as many of each.
        let parts = before.parts.iter().zip(&ours.parts).zip(&after.parts);
        for (((_, before), (place, ours)), (_, after)) in parts {
            self.values(place, before, ours, after);
        }
    }

    fn moved(
        &mut self,
        place: &str,
        before: &dyn fmt::Display,
        ours: &dyn fmt::Display,
        after: &dyn fmt::Display,
    ) {
        let [before, ours, after] = [before, ours, after].map(quoted);
        self.found.push(Difference {
            place: place.to_owned(),
            reference: if before == after {
                before
            } else {
                format!("first {before}, then {after}")
            },
            ours,
        });
    }
}

fn below(place: &str, name: &str) -> String {
    if place.is_empty() {
        name.to_owned()
    } else {
        format!("{place}/{name}")
    }
}

/// Texts from a little before the first character that is not in all.
fn from_difference(texts: [&str; 3]) -> [String; 3] {
    let [before, ours, after] = texts.map(str::chars);
    let same = before
        .zip(ours)
        .zip(after)
        .take_while(|((before, ours), after)| before == ours && ours == after);
    let start = same.count().saturating_sub(CONTEXT);
    texts.map(|text| text.chars().skip(start).collect())
}

fn quoted(value: &dyn fmt::Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.place.is_empty() {
            "the answer"
        } else {
            &self.place
        };
        write!(
            f,
            "{place}: the C library has {}, we have {}",
            self.reference, self.ours
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vbridge_tests::libvirt::reference::Refusal;

    use super::*;

    fn differences(before: Value, ours: Value, after: Value) -> Vec<String> {
        let [before, after] = [before, after].map(Answer::Value);
        let around = Around { before, after };
        let found = around.differences("domain_get_info", &Answer::Value(ours));
        found.into_iter().map(|found| found.place).collect()
    }

    fn refused(code: i32, domain: i32) -> Answer {
        Answer::Error(Refusal {
            code,
            domain,
            message: "no such thing".to_owned(),
        })
    }

    #[test]
    fn every_place_that_differs_is_told() {
        let reference = json!({"a": [1, 2], "b": {"c": "x"}, "d": null});
        let ours = json!({"a": [1, 3], "b": {"c": "y"}, "e": 1});
        assert_eq!(
            differences(reference.clone(), ours, reference),
            ["a/1", "b/c", "e"]
        );
    }

    #[test]
    fn lists_of_different_lengths_differ_as_a_whole() {
        assert_eq!(differences(json!([1]), json!([1, 1]), json!([1])), [""]);
    }

    #[test]
    fn what_moves_without_being_in_the_table_is_a_difference() {
        assert_eq!(
            differences(
                json!({"state": 1}),
                json!({"state": 1}),
                json!({"state": 2})
            ),
            ["state"]
        );
    }

    #[test]
    fn what_is_in_the_table_may_move() {
        let time = |time: u64| json!({"cpuTime": time});
        assert!(differences(time(1), time(2), time(3)).is_empty());
        assert_eq!(differences(time(1), time(4), time(3)), ["cpuTime"]);
    }

    #[test]
    fn errors_are_the_same_by_code_and_domain() {
        let [before, after] = [refused(3, 10), refused(3, 10)];
        let around = Around { before, after };
        assert!(around.differences("any", &refused(3, 10)).is_empty());
        for ours in [refused(3, 12), refused(1, 10), Answer::Value(json!(1))] {
            assert_eq!(around.differences("any", &ours).len(), 1, "{ours:?}");
        }
    }

    #[test]
    fn a_difference_in_a_long_text_is_quoted_from_a_little_before() {
        let text = |end: &str| format!("{}{end}", "x".repeat(1_000));
        let [before, ours, after] = from_difference([&text("a"), &text("b"), &text("a")]);
        assert_eq!([before.len(), ours.len(), after.len()], [CONTEXT + 1; 3]);
        assert!(before.ends_with('a') && ours.ends_with('b'));
    }
}
