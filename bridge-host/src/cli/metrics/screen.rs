//! A terminal that is drawn on again and again, and what is heard meanwhile.

use std::io::{self, Write as _};

use rustix::{stdio::stdout, termios::tcgetwinsize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::failure::Failure;

/// Exit statuses as shells have them for a signal.
const BY_SIGHUP: u8 = 128 + 1;
const BY_SIGTERM: u8 = 128 + 15;

/// Lines and columns of a terminal that does not tell them.
const USUAL: (u16, u16) = (24, 80);

/// Another screen, without a cursor; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
const HOME: &str = "\u{1b}[H";
const REST_OF_LINE: &str = "\u{1b}[K";
const REST_OF_SCREEN: &str = "\u{1b}[J";

/// The signals that matter to a picture.
pub(super) struct Signals {
    resized: Signal,
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

pub(super) enum Heard {
    Resized,
    /// Ctrl-C, which is how the operator ends it.
    Interrupted,
    /// Somebody else ends it: with this status, but not before the screen is as it was.
    Ended(u8),
}

// === impl Signals ===

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("can't listen to signals: {error}")))
        };
        Ok(Self {
            resized: listen(SignalKind::window_change())?,
            interrupted: listen(SignalKind::interrupt())?,
            terminated: listen(SignalKind::terminate())?,
            hung_up: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.resized.recv() => Heard::Resized,
            _ = self.interrupted.recv() => Heard::Interrupted,
            _ = self.terminated.recv() => Heard::Ended(BY_SIGTERM),
            _ = self.hung_up.recv() => Heard::Ended(BY_SIGHUP),
        }
    }
}

/// The terminal's other screen, until this is dropped.
pub(super) struct Screen;

// === impl Screen ===

impl Screen {
    pub(super) fn enter() -> Result<Self, Failure> {
        write(ENTER)?;
        Ok(Self)
    }

    /// As much of it as the terminal has room for.
    pub(super) fn draw(&self, text: &str) -> Result<(), Failure> {
        let size = tcgetwinsize(stdout()).map_or(USUAL, |size| (size.ws_row, size.ws_col));
        let (rows, columns) = (usize::from(size.0.max(1)), usize::from(size.1.max(1)));
        let mut drawn = String::from(HOME);
        // Each line is wiped before it is written: behind one that is full the cursor stands on its last character.
        for (i, line) in text.lines().take(rows).enumerate() {
            if i > 0 {
                drawn.push_str("\r\n");
            }
            drawn.push_str(REST_OF_LINE);
            drawn.extend(line.chars().take(columns));
        }
        if text.lines().count() < rows {
            drawn.push_str("\r\n");
            drawn.push_str(REST_OF_SCREEN);
        }
        write(&drawn)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to set back.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::output(&error))
}
