//! Programs of the guest that do what the kernel has no call for: each is run to its end, without a shell, and says in one
//! line why it failed.

use std::{
    io::{self, Read as _, Write as _},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::limits::{MAX_PROGRAM_ERROR, PROGRAM_KILL, PROGRAM_PAUSE, PROGRAM_TIMEOUT};

/// Where programs are looked for, whatever the agent's own environment says.
pub(crate) const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Runs a program with this input, which a pipe must have room for, and no environment but [`PATH`]. Blocks, for
/// [`PROGRAM_TIMEOUT`] at most: then the program is killed.
///
/// # Errors
/// Outside: it can't be run. Inside: how it ended, with the last line that it wrote to its standard error.
pub(crate) fn run<S: AsRef<str>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> io::Result<Result<(), String>> {
    run_within(PROGRAM_TIMEOUT, program, arguments, input)
}

fn run_within<S: AsRef<str>>(
    limit: Duration,
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> io::Result<Result<(), String>> {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    let mut child = command
        .env_clear()
        .env("PATH", PATH.join(":"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says why with its status.
        let _ = stdin.write_all(input);
    }
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    let ended = wait(&mut child, &mut stderr, &mut said, limit);
    let how = match ended {
        Ok(Some(status)) if status.success() => return Ok(Ok(())),
        Ok(Some(status)) => status.to_string(),
        Ok(None) | Err(_) => {
            // It may have ended just now. What does not even die is not waited for.
            let _ = child.kill();
            wait(&mut child, &mut stderr, &mut said, PROGRAM_KILL)?;
            ended?;
            format!("being killed, since it took longer than {limit:?}")
        }
    };
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().lines().next_back().unwrap_or_default();
    Ok(Err(format!("{how} ({said})")))
}

/// Waits until a program has ended, and keeps the last that it says; none if it takes longer.
fn wait(
    child: &mut Child,
    stderr: &mut Option<ChildStderr>,
    said: &mut Vec<u8>,
    limit: Duration,
) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        // First: what it has said is all there when it has ended.
        let status = child.try_wait()?;
        let heard = match stderr {
            Some(pipe) => hear(pipe, said)?,
            None => Heard::Nothing,
        };
        match heard {
            // Others who have its pipe could go on for ever.
            Heard::Something if start.elapsed() < limit => continue,
            Heard::End => *stderr = None,
            Heard::Something | Heard::Nothing => {}
        }
        if status.is_some() {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        if stderr.is_none() {
            thread::sleep(PROGRAM_PAUSE);
        }
    }
}

/// What was heard of a program.
enum Heard {
    Nothing,
    Something,
    End,
}

/// Hears what a program says, for [`PROGRAM_PAUSE`], and keeps the last [`MAX_PROGRAM_ERROR`] bytes of it.
fn hear(pipe: &mut ChildStderr, said: &mut Vec<u8>) -> io::Result<Heard> {
    let pause = Timespec::try_from(PROGRAM_PAUSE).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&pause)) {
        Ok(0) | Err(Errno::INTR) => return Ok(Heard::Nothing),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut bytes = [0; 4096];
    let count = pipe.read(&mut bytes)?;
    said.extend_from_slice(bytes.get(..count).unwrap_or_default());
    said.drain(..said.len().saturating_sub(MAX_PROGRAM_ERROR));
    Ok(match count {
        0 => Heard::End,
        _ => Heard::Something,
    })
}

/// The same without input, and with one sentence for whatever fails.
pub(crate) fn run_alone<S: AsRef<str>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<(), String> {
    match run(program, arguments, b"") {
        Ok(Ok(())) => Ok(()),
        Ok(Err(how)) => Err(format!("{program} ended with {how}")),
        Err(error) => Err(format!("can't run {program}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_told_with_its_last_words() {
        let words = [
            "-c",
            "echo first >&2; read line; echo \"$line\" >&2; exit 3",
        ];
        let how = run("sh", words, b"second\n").unwrap().unwrap_err();
        assert_eq!(how, "exit status: 3 (second)");
        assert!(run("sh", ["-c", "exit 0"], b"unread").unwrap().is_ok());
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let words = ["-c", "echo first >&2; exec sleep 600"];
        let limit = Duration::from_millis(500);
        let how = run_within(limit, "sh", words, b"").unwrap().unwrap_err();
        assert_eq!(how, "being killed, since it took longer than 500ms (first)");
    }

    #[test]
    fn of_what_a_program_says_the_end_is_kept() {
        let words = ["-c", "yes | head -c 1000000 >&2; echo last >&2; exit 1"];
        let how = run("sh", words, b"").unwrap().unwrap_err();
        assert_eq!(how, "exit status: 1 (last)");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let said = run_alone::<&str>("no-such-program", []).unwrap_err();
        assert!(said.starts_with("can't run no-such-program: "), "{said}");
    }
}
