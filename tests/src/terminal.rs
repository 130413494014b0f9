//! A terminal of a program's own: what is typed on it, what appears on it, its size and its modes.

use std::{
    ffi::OsStr,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use pty_process::{Size, blocking};
use rustix::{
    process::{Pid, Signal, kill_process},
    termios::{self, LocalModes, Winsize},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::process::PATIENCE;

/// A program that runs on a terminal. It is killed when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    program: Program,
    keyboard: pipe::Sender,
    /// The same end of the terminal: its size and its modes are asked and set there.
    pty: OwnedFd,
    collector: JoinHandle<()>,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Changes when more appears; an error, when nothing more can.
    more: watch::Receiver<()>,
    /// Up to where it was looked at.
    seen: usize,
}

/// None when its end was waited for.
#[derive(Debug)]
struct Program(Option<Child>);

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
        let pty = OwnedFd::from(pty);
        // No pipe, but read and written like one.
        let screen = pipe::Receiver::from_owned_fd_unchecked(pty.try_clone()?)?;
        let keyboard = pipe::Sender::from_owned_fd_unchecked(pty.try_clone()?)?;
        let shown = Arc::default();
        let (appears, more) = watch::channel(());
        let collector = tokio::spawn(collect(screen, Arc::clone(&shown), appears));
        Ok(Self {
            program: Program(Some(child)),
            keyboard,
            pty,
            collector,
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
        let typed = timeout(PATIENCE, self.keyboard.write_all(text.as_bytes())).await;
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

    /// What appears up to these words and with them, from where it was looked at last.
    ///
    /// # Errors
    /// They do not within [`PATIENCE`].
    pub async fn until(&mut self, words: &str) -> Result<String> {
        let start = self.seen;
        self.shows(words).await?;
        let shown = lock(&self.shown);
        Ok(String::from_utf8_lossy(&shown[start..self.seen]).into_owned())
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
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(termios::tcsetwinsize(&self.pty, size)?)
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

    /// Sends the program a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.program.0.as_ref().context("it has ended")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
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
        self.program.wait().await
    }

    /// Takes the terminal away, and waits for the program's end.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    pub async fn hang_up(mut self) -> Result<ExitStatus> {
        self.collector.abort();
        // Its end of the terminal goes with it.
        let _ = self.collector.await;
        drop((self.keyboard, self.pty));
        let ended = timeout(PATIENCE, self.program.wait()).await;
        ended.context("it goes on without a terminal")?
    }
}

// === impl Program ===

impl Program {
    async fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.0.take().context("it has ended before")?;
        Ok(tokio::task::spawn_blocking(move || child.wait()).await??)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lock(shown: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes what appears, until the last program has closed the terminal, which reads as an error.
async fn collect(
    mut screen: pipe::Receiver,
    shown: Arc<Mutex<Vec<u8>>>,
    appears: watch::Sender<()>,
) {
    let mut piece = vec![0; 4096];
    while let Ok(count @ 1..) = screen.read(&mut piece).await {
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
