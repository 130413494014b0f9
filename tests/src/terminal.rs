//! A terminal of a program's own: what is typed on it, what appears on it, its size and its modes.

use std::{
    ffi::OsStr,
    os::fd::AsFd as _,
    path::Path,
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use pty_process::{
    Size,
    blocking::{self, Pty},
};
use rustix::termios::{self, LocalModes};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};

use crate::process::PATIENCE;

/// A program that runs on a terminal. It is killed when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    /// None when its end was waited for.
    child: Option<Child>,
    input: File,
    pty: Pty,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Changes when more appears; an error, when nothing more can.
    more: watch::Receiver<()>,
    /// Up to where it was looked at.
    seen: usize,
}

/// How a terminal treats what is typed and what appears; two that are equal do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    input: termios::InputModes,
    output: termios::OutputModes,
    local: LocalModes,
}

// === impl Modes ===

impl Modes {
    /// Whether it passes on what is typed as it is.
    pub fn is_raw(self) -> bool {
        !self
            .local
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

// === impl Terminal ===

impl Terminal {
    /// Starts a program on a new terminal of this size.
    ///
    /// # Errors
    /// There is no terminal, or no such program.
    pub fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        (rows, columns): (u16, u16),
    ) -> Result<Self> {
        let (pty, pts) = blocking::open()?;
        pty.resize(Size::new(rows, columns))?;
        let command = blocking::Command::new(program).args(arguments);
        let child = command.env_remove("VBRIDGE_ADDRESS").spawn(pts)?;
        let end = || anyhow::Ok(File::from_std(pty.as_fd().try_clone_to_owned()?.into()));
        let (read, input) = (end()?, end()?);
        let shown = Arc::default();
        let (appears, more) = watch::channel(());
        tokio::spawn(collect(read, Arc::clone(&shown), appears));
        Ok(Self {
            child: Some(child),
            input,
            pty,
            shown,
            more,
            seen: 0,
        })
    }

    /// Types on it.
    ///
    /// # Errors
    /// The program does not take it.
    pub async fn types(&mut self, text: &str) -> Result<()> {
        let typed = async {
            self.input.write_all(text.as_bytes()).await?;
            self.input.flush().await
        };
        let typed = timeout(PATIENCE, typed).await;
        Ok(typed.context("nobody takes what is typed")??)
    }

    /// Waits until these words appear, behind those that were waited for before.
    ///
    /// # Errors
    /// They do not within [`PATIENCE`].
    pub async fn shows(&mut self, words: &str) -> Result<()> {
        let appeared = async {
            loop {
                // Before the look: what comes after it wakes at once, and behind the end there is one look more.
                let is_over = self.more.has_changed().is_err();
                self.more.mark_unchanged();
                if let Some(end) = self.find(words) {
                    self.seen = end;
                    return true;
                }
                if is_over {
                    return false;
                }
                let _ = self.more.changed().await;
            }
        };
        match timeout(PATIENCE, appeared).await {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the program ended before {words:?}:\n{}", self.screen()),
            Err(_) => bail!("no {words:?} within {PATIENCE:?}:\n{}", self.screen()),
        }
    }

    /// Where they end, behind what was looked at.
    fn find(&self, words: &str) -> Option<usize> {
        let shown = lock(&self.shown);
        let mut windows = shown[self.seen..].windows(words.len());
        let at = windows.position(|window| window == words.as_bytes())?;
        Some(self.seen + at + words.len())
    }

    /// Everything that has appeared so far, escapes made visible.
    pub fn screen(&self) -> String {
        let shown = lock(&self.shown);
        String::from_utf8_lossy(&shown).escape_debug().to_string()
    }

    /// Gives it another size, of which the kernel tells the program.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        Ok(self.pty.resize(Size::new(rows, columns))?)
    }

    /// Its modes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn modes(&self) -> Result<Modes> {
        let modes = termios::tcgetattr(&self.pty)?;
        Ok(Modes {
            input: modes.input_modes,
            output: modes.output_modes,
            local: modes.local_modes,
        })
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let closed = async { while self.more.changed().await.is_ok() {} };
        if timeout(PATIENCE, closed).await.is_err() {
            bail!("no end within {PATIENCE:?}:\n{}", self.screen());
        }
        // It has left the terminal, which it does at its end.
        let mut child = self.child.take().context("it has ended before")?;
        Ok(tokio::task::spawn_blocking(move || child.wait()).await??)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lock(shown: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what appears, until the last program has closed the terminal, which reads as an error.
async fn collect(mut read: File, shown: Arc<Mutex<Vec<u8>>>, appears: watch::Sender<()>) {
    let mut piece = vec![0; 4096];
    while let Ok(count @ 1..) = read.read(&mut piece).await {
        lock(&shown).extend_from_slice(&piece[..count]);
        appears.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_typed_to_seen_and_sized() {
        let line = "stty size; stty raw -echo; read line; stty size; exit 3";
        let shell = Path::new("/bin/sh");
        let mut terminal = Terminal::start(shell, ["-c", line], (30, 90)).unwrap();
        let before = terminal.modes().unwrap();
        terminal.shows("30 90").await.unwrap();
        terminal.resize(31, 91).unwrap();
        terminal.types("x\n").await.unwrap();
        terminal.shows("31 91").await.unwrap();
        assert_eq!(terminal.ended().await.unwrap().code(), Some(3));
        let after = terminal.modes().unwrap();
        assert!(after.is_raw() && !before.is_raw(), "{before:?} {after:?}");
        assert!(terminal.shows("never").await.is_err());
    }
}
