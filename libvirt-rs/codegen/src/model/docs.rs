//! Annotations in comments: lines such as `@priority: high` within `/** … */`.

use crate::{ast::Comment, error::Span};

use super::{Docs, resolve::Fault};

/// What the comments before a definition say.
pub(super) struct Notes {
    text: Vec<String>,
    annotations: Vec<Annotation>,
}

/// `@key: value`, or `@key` alone.
pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) span: Span,
}

impl Notes {
    /// Reads the comments that begin with `/**`. Others are for readers of the file only.
    pub(super) fn read(comments: &[Comment]) -> Self {
        let mut notes = Self {
            text: Vec::new(),
            annotations: Vec::new(),
        };
        for comment in comments.iter().filter(|comment| comment.documents) {
            // Behind the `/*`.
            let mut start = comment.span.start + 2;
            for line in comment.text.split('\n') {
                let bare = bare(line);
                let offset = start + line.find(bare).unwrap_or_default();
                notes.push(bare, offset);
                start += line.len() + 1;
            }
        }
        notes
    }

    fn push(&mut self, line: &str, start: usize) {
        let span = Span {
            start,
            end: start + line.len(),
        };
        if let Some((key, value)) = annotation(line) {
            self.annotations.push(Annotation {
                key: key.to_owned(),
                value: value.to_owned(),
                span,
            });
        } else if !line.is_empty() || self.text.last().is_some_and(|last| !last.is_empty()) {
            self.text.push(line.to_owned());
        }
    }

    /// All annotations of one kind.
    pub(super) fn all(&mut self, key: &str) -> Vec<Annotation> {
        let (found, others) = std::mem::take(&mut self.annotations)
            .into_iter()
            .partition(|annotation| annotation.key == key);
        self.annotations = others;
        found
    }

    /// An annotation that may be there once.
    pub(super) fn one(&mut self, key: &str) -> Result<Option<Annotation>, Fault> {
        let mut found = self.all(key);
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => {
                let message = format!("`@{key}` is there more than once");
                Err(Fault::new(found[1].span, message))
            }
        }
    }

    /// Whether an annotation without a value is there.
    pub(super) fn flag(&mut self, key: &str) -> Result<bool, Fault> {
        let Some(annotation) = self.one(key)? else {
            return Ok(false);
        };
        if annotation.value.is_empty() {
            return Ok(true);
        }
        let message = format!("`@{key}` takes no value");
        Err(Fault::new(annotation.span, message))
    }

    /// An annotation that has one of some values.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        values: &[(&str, T)],
    ) -> Result<Option<T>, Fault> {
        let Some(annotation) = self.one(key)? else {
            return Ok(None);
        };
        let chosen = values.iter().find(|(word, _)| *word == annotation.value);
        let chosen = chosen.map(|(_, value)| *value);
        chosen.map(Some).ok_or_else(|| {
            let words: Vec<String> = values.iter().map(|(word, _)| format!("`{word}`")).collect();
            let message = format!(
                "`@{key}` is one of {}, not `{}`",
                words.join(", "),
                annotation.value
            );
            Fault::new(annotation.span, message)
        })
    }

    /// What is left once all annotations of a definition have been asked for.
    pub(super) fn finish(mut self) -> Result<Docs, Fault> {
        let since = self.one("since")?.map(|annotation| annotation.value);
        if let Some(unknown) = self.annotations.first() {
            let message = format!("the annotation `@{}` is unknown here", unknown.key);
            return Err(Fault::new(unknown.span, message));
        }
        while self.text.last().is_some_and(String::is_empty) {
            self.text.pop();
        }
        let text = self.text;
        Ok(Docs { text, since })
    }
}

/// The lines of a comment that a file begins with.
pub(super) fn head(comments: &[Comment]) -> Vec<String> {
    let Some(first) = comments.first() else {
        return Vec::new();
    };
    if first.span.start > 0 || first.documents || first.text.contains("*/") {
        return Vec::new();
    }
    let lines = first.text.trim().lines();
    lines.map(|line| bare(line).to_owned()).collect()
}

/// A comment's line without the star in front.
fn bare(line: &str) -> &str {
    line.trim().trim_start_matches('*').trim()
}

/// A line's key and value. What only looks like an annotation is text.
fn annotation(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix('@')?;
    let end = rest
        .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .unwrap_or(rest.len());
    let (key, rest) = rest.split_at(end);
    if key.is_empty() {
        return None;
    }
    if rest.is_empty() {
        return Some((key, ""));
    }
    Some((key, rest.strip_prefix(':')?.trim()))
}
