//! What is typed for this program and not for the command: a way out when the guest does not answer any more, as with
//! ssh(1).
//!
//! ```text
//!              the escape                    .
//!   Beginning ────────────▶ Held ──────────────────────▶ the operator leaves
//!     ▲    │                  │ the escape again: one of it goes on
//!     │    │ anything else    │ anything else: it goes on, too
//!     │    ▼                  ▼
//!     └── Within ◀────────────┘
//!  Enter
//! ```

use std::str::FromStr;

/// The escape unless another one is chosen.
pub(super) const USUAL: &str = "~";

/// Typed behind the escape, it leaves.
const LEAVE: u8 = b'.';

/// The escape as the command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice(Option<u8>);

/// Looks at what is typed.
#[derive(Debug)]
pub(super) struct Escape {
    escape: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was typed on this line.
    Beginning,
    Within,
    /// The escape was typed, and is held back.
    Held,
}

// === impl Choice ===

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"none" => Ok(Self(None)),
            [escape] if escape.is_ascii_graphic() && *escape != LEAVE => Ok(Self(Some(*escape))),
            _ => Err("it is one character of ASCII, not a dot, or none".to_owned()),
        }
    }
}

impl Choice {
    /// What looks for it, if there is one.
    pub(super) fn escape(self) -> Option<Escape> {
        self.0.map(|escape| Escape {
            escape,
            state: State::Beginning,
        })
    }
}

// === impl Escape ===

impl Escape {
    /// Adds what goes on to `to`. Whether the operator leaves; what is typed behind that is nobody's.
    pub(super) fn pass(&mut self, typed: &[u8], to: &mut Vec<u8>) -> bool {
        for &byte in typed {
            match self.state {
                State::Beginning if byte == self.escape => {
                    self.state = State::Held;
                    continue;
                }
                State::Held if byte == LEAVE => return true,
                // Once, for both of them.
                State::Held if byte == self.escape => {}
                State::Held => to.push(self.escape),
                State::Beginning | State::Within => {}
            }
            to.push(byte);
            // In raw mode Enter is a carriage return.
            self.state = match byte {
                b'\r' | b'\n' => State::Beginning,
                _ => State::Within,
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(pieces: &[&str]) -> (String, bool) {
        let mut escape = USUAL.parse::<Choice>().unwrap().escape().unwrap();
        let mut to = Vec::new();
        let left = pieces
            .iter()
            .any(|piece| escape.pass(piece.as_bytes(), &mut to));
        (String::from_utf8(to).unwrap(), left)
    }

    #[test]
    fn the_escape_and_a_dot_at_the_beginning_of_a_line_leave() {
        for (typed, goes_on) in [
            (&["~."][..], ""),
            (&["~", "."], ""),
            (&["ls\r~."], "ls\r"),
            (&["a\n", "~", ".b"], "a\n"),
        ] {
            assert_eq!(pass(typed), (goes_on.to_owned(), true), "{typed:?}");
        }
    }

    #[test]
    fn anywhere_else_it_is_what_was_typed() {
        for (typed, goes_on) in [
            ("ls ~.", "ls ~."),
            ("cd ~/.x\r", "cd ~/.x\r"),
            ("~/bin/x\r", "~/bin/x\r"),
            ("~\r", "~\r"),
            ("~~.", "~."),
            ("~~~.", "~~."),
            ("~\x1b[A", "~\x1b[A"),
        ] {
            assert_eq!(pass(&[typed]), (goes_on.to_owned(), false), "{typed:?}");
        }
    }

    #[test]
    fn the_escape_is_chosen_or_there_is_none() {
        let choice = |text: &str| text.parse::<Choice>();
        assert!(choice("none").unwrap().escape().is_none());
        assert_eq!(choice("%"), Ok(Choice(Some(b'%'))));
        for text in ["", ".", "ab", "ü", " ", "\r"] {
            assert!(choice(text).is_err(), "{text:?}");
        }
    }
}
