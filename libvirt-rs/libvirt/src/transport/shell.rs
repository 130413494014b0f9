//! What the far host's shell is told, once ssh has got there.

use super::{Error, limits::MAX_REMOTE_WORD};
use crate::uri::Proxy;

/// What to reach on the far host, and how.
pub(super) struct Remote<'a> {
    pub(super) proxy: Proxy,
    /// The program `nc`, or another that understands `-U`.
    pub(super) netcat: &'a str,
    /// The socket for it.
    pub(super) socket: &'a str,
    /// What `virt-ssh-helper` chooses the socket by.
    pub(super) uri: &'a str,
    pub(super) read_only: bool,
}

impl Remote<'_> {
    /// One command line.
    ///
    /// The user's own shell reads it first, and it may be any: so it is a call of `sh` with one quoted word, which is
    /// the script.
    pub(super) fn command(&self) -> Result<String, Error> {
        let script = match self.proxy {
            Proxy::Native => format!("exec {}", self.helper()?),
            Proxy::Netcat => self.netcat()?,
            Proxy::Auto => format!(
                "if command -v virt-ssh-helper >/dev/null 2>&1; then exec {}; fi; {}",
                self.helper()?,
                self.netcat()?
            ),
        };
        Ok(format!("sh -c {}", quoted(&script)))
    }

    fn helper(&self) -> Result<String, Error> {
        let read_only = if self.read_only { "-r " } else { "" };
        if self.uri.starts_with('-') {
            return Err(unsafe_word(
                self.uri,
                "would be an option to virt-ssh-helper",
            ));
        }
        Ok(format!("virt-ssh-helper {read_only}{}", word(self.uri)?))
    }

    /// Debian's `nc` goes on after its input has ended unless `-q 0` says otherwise; others do not know that option.
    fn netcat(&self) -> Result<String, Error> {
        let (netcat, socket) = (word(self.netcat)?, word(self.socket)?);
        Ok(format!(
            "if {netcat} -h 2>&1 </dev/null | grep -q -e '-q sec'; then exec {netcat} -q 0 -U {socket}; fi; \
             exec {netcat} -U {socket}"
        ))
    }
}

/// A word from the URI, quoted.
fn word(text: &str) -> Result<String, Error> {
    if text.len() > MAX_REMOTE_WORD {
        return Err(unsafe_word("a word of the remote command", "is too long"));
    }
    // csh ends a word at the end of a line even within quotation marks.
    if text.contains(char::is_control) {
        return Err(unsafe_word(
            &text.escape_debug().to_string(),
            "holds a control character, which not every shell can be told",
        ));
    }
    Ok(quoted(text))
}

fn unsafe_word(text: &str, why: &'static str) -> Error {
    Error::Unsupported {
        what: format!("`{text}`"),
        why,
        remedy: "correct socket=, netcat= or name= in the URI".to_owned(),
    }
}

/// A word that any shell reads as it is written here.
///
/// Between single quotation marks nothing has a meaning, but for the mark itself, and for the backslash in fish. Both
/// stand outside of them, with a backslash before.
fn quoted(text: &str) -> String {
    let mut word = String::with_capacity(text.len() + 2);
    word.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            word.extend(['\'', '\\', c, '\'']);
        } else {
            word.push(c);
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn remote<'a>(proxy: Proxy, netcat: &'a str, socket: &'a str, uri: &'a str) -> Remote<'a> {
        Remote {
            proxy,
            netcat,
            socket,
            uri,
            read_only: false,
        }
    }

    /// What a shell makes of a command line that is followed by quoted words.
    fn echoed(word: &str) -> String {
        let line = format!("printf %s {}", quoted(word));
        let output = Command::new("sh").arg("-c").arg(&line).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for word in [
            "",
            "a b",
            "'",
            "''",
            "\\",
            "\\'",
            "'\\''",
            "$(reboot)",
            "`reboot`",
            "${IFS}; reboot #",
            "\"$HOME\"",
            "-n",
            "!!",
            "*",
            "é",
        ] {
            assert_eq!(echoed(word), word);
            // Twice, as it goes to ssh.
            let line = format!("sh -c {}", quoted(&format!("printf %s {}", quoted(word))));
            let output = Command::new("sh").arg("-c").arg(&line).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn what_no_shell_can_be_told_is_refused() {
        for (netcat, socket, uri, words) in [
            (
                "n\nc",
                "/s",
                "qemu:///system",
                "`n\\nc` holds a control character",
            ),
            ("nc", "/s\0", "qemu:///system", "control character"),
            ("nc", "/s", "-V", "would be an option"),
            (
                "nc",
                &"a".repeat(MAX_REMOTE_WORD + 1),
                "qemu:///system",
                "too long",
            ),
        ] {
            let error = remote(Proxy::Auto, netcat, socket, uri)
                .command()
                .unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn no_word_ends_its_quotation(word in "[ -~é]{0,24}") {
            prop_assert_eq!(echoed(&word), word);
        }
    }
}
