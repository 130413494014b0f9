//! Lines of a program's output, none of which may be longer than it is good for.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// It was longer than the limit, and is lost.
    TooLong,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    limit: usize,
    /// The line that is being read.
    line: Vec<u8>,
    is_too_long: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            limit,
            line: Vec::new(),
            is_too_long: false,
        }
    }

    /// The next line; none at the end, where half a line is none. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let read = self.reader.fill_buf().await?;
            if read.is_empty() {
                return Ok(None);
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            if self.line.len() + part.len() > self.limit {
                self.is_too_long = true;
                self.line = Vec::new();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                return Ok(Some(match std::mem::take(&mut self.is_too_long) {
                    true => Line::TooLong,
                    false => Line::Whole(line),
                }));
            }
        }
    }

    /// Whether the next line is there already.
    pub(super) fn has_next(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_is_too_long_is_lost_and_the_next_is_whole() {
        let long = "x".repeat(200_000);
        let text = format!("one\n\n{long}\n12345\n123456\ntwo\nhalf");
        let mut lines = Lines::new(text.as_bytes(), 5);
        let whole = |text: &str| Some(Line::Whole(text.as_bytes().to_vec()));
        let expected = [
            whole("one"),
            whole(""),
            Some(Line::TooLong),
            whole("12345"),
            Some(Line::TooLong),
            whole("two"),
            None,
        ];
        for expected in expected {
            assert_eq!(lines.next().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_has_come_already_is_known() {
        let mut lines = Lines::new(&b"one\ntwo\n"[..], 5);
        assert!(!lines.has_next());
        lines.next().await.unwrap();
        assert!(lines.has_next());
        lines.next().await.unwrap();
        assert!(!lines.has_next());
    }
}
