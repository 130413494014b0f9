//! Pseudo-terminals (pty(7)).

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
};

use pty_process::{Size, blocking};
use rustix::fs::{Gid, Uid, fchown};

use super::command::Terminal;

/// Starts a command as the leader of a session that has a new terminal; the terminal's other end is returned. It belongs
/// to the user `owner`, if one is named, so that the process can open it again.
pub(super) fn spawn(
    command: Command,
    terminal: &Terminal,
    stdin: bool,
    owner: Option<u32>,
) -> io::Result<(Child, OwnedFd)> {
    let (own, theirs) = blocking::open().map_err(into_io)?;
    own.resize(Size::new(terminal.size.rows, terminal.size.columns))
        .map_err(into_io)?;
    if let Some(uid) = owner {
        fchown(theirs.as_fd(), Some(Uid::from_raw(uid)), None::<Gid>)?;
    }
    let mut command = blocking::Command::from(command);
    if !stdin {
        command = command.stdin(Stdio::null());
    }
    let child = command.spawn(theirs).map_err(into_io)?;
    Ok((child, own.into()))
}

fn into_io(error: pty_process::Error) -> io::Error {
    match error {
        pty_process::Error::Io(error) => error,
        pty_process::Error::Rustix(error) => error.into(),
    }
}
