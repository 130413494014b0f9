//! The operator's terminal: passed through byte by byte while the guest's program has it.

use std::io;

use rustix::{
    stdio::stdin,
    termios::{self, OptionalActions, Termios},
};
use vbridge_api::guest::v1::{Terminal, TerminalSize};

/// The variable that says what the terminal understands.
const TYPE_VARIABLE: &str = "TERM";

/// Whether standard input is a terminal.
pub(super) fn is_here() -> bool {
    termios::isatty(stdin())
}

/// What the guest's terminal has to be like.
pub(super) fn wanted() -> Terminal {
    Terminal {
        size: size(),
        r#type: std::env::var(TYPE_VARIABLE).unwrap_or_default(),
    }
}

/// Its size, if it has one.
pub(super) fn size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(stdin()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| TerminalSize {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

/// The terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub(super) struct Raw(Termios);

impl Raw {
    /// None if standard input is no terminal.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        if !is_here() {
            return Ok(None);
        }
        let before = termios::tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to set back.
        let _ = termios::tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}
