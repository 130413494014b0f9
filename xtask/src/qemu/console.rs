//! The guest's console, QEMU's standard output: watched for "up", and for its end.
//!
//! A thread of its own reads it: were the guest's console to depend on a test's runtime, a test that
//! blocks would stop the guest.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::watch;
use tokio::time;

use crate::limits::LOG_TAIL_LINES;

/// The console's log; QEMU writes it.
pub(super) const CONSOLE_LOG: &str = "console.log";

/// What QEMU itself has to say.
pub(super) const QEMU_LOG: &str = "qemu.log";

/// What `/init` prints when it takes commands.
const UP: &[u8] = b"vbridge-guest: up";

#[derive(Debug)]
pub(super) struct Console {
    directory: PathBuf,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    boots: u64,
    ended: bool,
}

impl Console {
    pub(super) fn watch(console: ChildStdout, directory: &Path) -> Result<Self> {
        let (sender, progress) = watch::channel(Progress::default());
        // It ends with QEMU, which the process's drop ensures.
        thread::Builder::new()
            .name("guest console".to_owned())
            .spawn(move || follow(console, &sender))
            .context("cannot start the thread that reads the guest's console")?;
        Ok(Self {
            directory: directory.to_owned(),
            progress,
        })
    }

    pub(super) fn boots(&self) -> u64 {
        self.progress.borrow().boots
    }

    pub(super) fn has_ended(&self) -> bool {
        self.progress.borrow().ended
    }

    /// Waits until the guest has come up so many times.
    pub(super) async fn wait_boots(&self, boots: u64, timeout: Duration) -> Result<()> {
        let wanted = |progress: &Progress| progress.boots >= boots || progress.ended;
        match self.wait(wanted, timeout).await {
            Some(progress) if progress.boots >= boots => Ok(()),
            Some(_) => bail!(self.explain("QEMU ended before the guest was up")),
            None => bail!(self.explain(&format!("the guest was not up within {timeout:?}"))),
        }
    }

    /// Waits until QEMU has ended.
    pub(super) async fn wait_end(&self, timeout: Duration) -> Result<()> {
        match self.wait(|progress| progress.ended, timeout).await {
            Some(_) => Ok(()),
            None => Err(anyhow!("QEMU still runs after {timeout:?}")),
        }
    }

    /// Waits until QEMU has ended, for ever.
    pub(super) async fn ended(&self) {
        let mut progress = self.progress.clone();
        let _ = progress.wait_for(|progress| progress.ended).await;
    }

    /// Returns when the guest comes up once more, or QEMU ends: whatever ran in the guest is gone.
    pub(super) async fn interrupted(&self) {
        let now = self.boots();
        let mut progress = self.progress.clone();
        let _ = progress
            .wait_for(|progress| progress.boots > now || progress.ended)
            .await;
    }

    pub(super) fn tail(&self) -> String {
        tail(&self.directory.join(CONSOLE_LOG))
    }

    /// A message with what QEMU and the guest said last.
    pub(super) fn explain(&self, what: &str) -> String {
        let qemu = tail(&self.directory.join(QEMU_LOG));
        format!(
            "{what}\n--- QEMU:\n{qemu}\n--- the guest's console:\n{}\n---",
            self.tail()
        )
    }

    async fn wait(
        &self,
        wanted: impl FnMut(&Progress) -> bool,
        timeout: Duration,
    ) -> Option<Progress> {
        let mut progress = self.progress.clone();
        match time::timeout(timeout, progress.wait_for(wanted)).await {
            Ok(Ok(progress)) => Some(*progress),
            // The thread sends `ended` before it drops the sender.
            Ok(Err(_)) => Some(Progress {
                ended: true,
                ..*self.progress.borrow()
            }),
            Err(_) => None,
        }
    }
}

fn follow(mut console: ChildStdout, progress: &watch::Sender<Progress>) {
    let mut buffer = [0; 4096];
    let mut matcher = Matcher::default();
    loop {
        match console.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let boots = matcher.count(&buffer[..count]);
                if boots > 0 {
                    progress.send_modify(|progress| progress.boots += boots);
                }
            }
        }
    }
    progress.send_modify(|progress| progress.ended = true);
}

/// Counts [`UP`] in a stream that comes in pieces.
#[derive(Default)]
struct Matcher {
    /// Bytes of `UP` seen so far.
    matched: usize,
}

impl Matcher {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        let mut found = 0;
        for byte in bytes {
            // Its first byte does not occur in `UP` again, so a mismatch restarts here or nowhere.
            self.matched = match *byte {
                byte if byte == UP[self.matched] => self.matched + 1,
                byte if byte == UP[0] => 1,
                _ => 0,
            };
            if self.matched == UP.len() {
                found += 1;
                self.matched = 0;
            }
        }
        found
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_is_counted_across_pieces() {
        let mut matcher = Matcher::default();
        assert_eq!(matcher.count(b"[ 1.2] vbridge-gu"), 0);
        assert_eq!(matcher.count(b"est: up\r\nvvbridge-guest: up"), 2);
        assert_eq!(matcher.count(b"vbridge-guest: no vbridge-"), 0);
    }

    #[test]
    fn the_first_byte_of_up_occurs_once() {
        assert_eq!(UP.iter().filter(|byte| **byte == UP[0]).count(), 1);
    }
}
