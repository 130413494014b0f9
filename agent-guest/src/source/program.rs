//! Programs of the guest that do what the kernel has no call for: each is run to its end, without a shell, and says in one
//! line why it failed.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Where programs are looked for, whatever the agent's own environment says.
pub(crate) const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Runs a program with this input, and no environment but [`PATH`]. Blocks.
///
/// # Errors
/// Outside: it can't be run. Inside: how it ended, with the last line that it wrote to its standard error.
pub(crate) fn run<S: AsRef<str>>(
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
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next_back().unwrap_or_default();
    Ok(Err(format!("{} ({said})", output.status)))
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
    fn a_program_that_is_not_there_is_named() {
        let said = run_alone::<&str>("no-such-program", []).unwrap_err();
        assert!(said.starts_with("can't run no-such-program: "), "{said}");
    }
}
