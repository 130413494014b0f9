//! Commands for the guest, over its second serial port. `/init` has the other end.
//!
//! A request is one line; an answer begins with the request's random number and tells its length, so that
//! neither output that looks like an answer nor an answer that came too late can be mistaken for it.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time;

use super::console::Console;
use super::socket::connect;
use crate::limits::{EXEC_COMMAND_MAX, EXEC_GRACE, EXEC_OUTPUT_MAX};

/// What a command in the guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output and standard error, at most
    /// [`EXEC_OUTPUT_MAX`](crate::limits::EXEC_OUTPUT_MAX) bytes.
    pub stdout: Vec<u8>,
    /// Whether it wrote more than that.
    pub truncated: bool,
}

/// A shell's exit status: 128 and the signal's number if a signal ended the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

#[derive(Debug)]
pub(super) struct Shell {
    stream: Mutex<UnixStream>,
}

// === impl Output ===

impl Output {
    /// Whether the status is 0.
    pub fn success(&self) -> bool {
        self.status == ExitStatus(0)
    }

    /// The output as text.
    pub fn stdout_lossy(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

// === impl ExitStatus ===

impl Display for ExitStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.checked_sub(128) {
            Some(signal) if signal > 0 => write!(f, "signal {signal}"),
            _ => write!(f, "status {}", self.0),
        }
    }
}

// === impl Shell ===

impl Shell {
    pub(super) async fn connect(path: &Path) -> Result<Self> {
        Ok(Self {
            stream: Mutex::new(connect(path).await?),
        })
    }

    pub(super) async fn exec(
        &self,
        line: &str,
        timeout: Duration,
        console: &Console,
    ) -> Result<Output> {
        let mut stream = self.stream.lock().await;
        let request = Request::new(line, timeout)?;
        let answer = async {
            stream.write_all(&request.bytes).await?;
            request.answer(&mut stream).await
        };
        let answer = tokio::select! {
            answer = time::timeout(timeout + EXEC_GRACE, answer) => answer.map_err(|_| {
                anyhow!("no answer within {:?}: it is paused, hangs, or has no shell", timeout + EXEC_GRACE)
            })?,
            () = console.interrupted() => Err(anyhow!("the guest restarted or QEMU ended meanwhile")),
        };
        match answer.with_context(|| format!("cannot run `{line}` in the guest"))? {
            Answer::Ended(output) => Ok(output),
            Answer::Late(output) => bail!(
                "`{line}` in the guest did not end within {timeout:?} and was killed; it said: {}",
                String::from_utf8_lossy(&output).trim()
            ),
        }
    }

    /// Sends a command whose answer nobody will get.
    pub(super) async fn send_only(&self, line: &str) -> Result<()> {
        let request = Request::new(line, EXEC_GRACE)?;
        let mut stream = self.stream.lock().await;
        time::timeout(EXEC_GRACE, stream.write_all(&request.bytes))
            .await
            .map_err(|_| anyhow!("the guest's serial port is full: is it paused?"))
            .and_then(|written| Ok(written?))
            .with_context(|| format!("cannot run `{line}` in the guest"))
    }
}

struct Request {
    bytes: Vec<u8>,
    /// How the answer begins.
    head: Vec<u8>,
}

enum Answer {
    Ended(Output),
    Late(Vec<u8>),
}

impl Request {
    fn new(line: &str, timeout: Duration) -> Result<Self> {
        let nonce = getrandom::u64().map_err(|error| anyhow!("no random numbers: {error}"))?;
        let seconds = timeout.as_secs_f64();
        let escaped = escape(line)?;
        // The line break before it ends whatever noise the port may hold.
        let bytes =
            format!("\nvbx {nonce:016x} {seconds:.3} {EXEC_OUTPUT_MAX} {escaped}\n").into_bytes();
        Ok(Self {
            bytes,
            head: format!("\n\x01vbx {nonce:016x} ").into_bytes(),
        })
    }

    async fn answer(&self, stream: &mut UnixStream) -> Result<Answer> {
        let mut received = Vec::new();
        let start = loop {
            if let Some(at) = find(&received, &self.head) {
                break at + self.head.len();
            }
            // Only the beginning of the head may be of use later.
            received.drain(..received.len().saturating_sub(self.head.len()));
            more(stream, &mut received).await?;
        };
        received.drain(..start);
        let end = loop {
            if let Some(at) = find(&received, b"\n") {
                break at;
            }
            more(stream, &mut received).await?;
        };
        let fields = String::from_utf8_lossy(&received[..end]).into_owned();
        let mut output = received.split_off(end + 1);
        let [status, size, sent] = fields.split(' ').collect::<Vec<_>>()[..] else {
            bail!("the guest's answer is malformed: {fields:?}");
        };
        let (size, sent): (usize, usize) = (size.parse()?, sent.parse()?);
        if sent > EXEC_OUTPUT_MAX {
            bail!("the guest's answer has {sent} bytes, more than {EXEC_OUTPUT_MAX}");
        }
        while output.len() < sent {
            more(stream, &mut output).await?;
        }
        output.truncate(sent);
        Ok(match status {
            "late" => Answer::Late(output),
            _ => {
                let status = ExitStatus(status.parse()?);
                Answer::Ended(Output {
                    status,
                    stdout: output,
                    truncated: size > sent,
                })
            }
        })
    }
}

async fn more(stream: &mut UnixStream, received: &mut Vec<u8>) -> Result<()> {
    if stream.read_buf(received).await? == 0 {
        bail!("QEMU ended: it closed the serial port");
    }
    Ok(())
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

/// For the shell's `printf %b`: what is not plainly harmless becomes `\0ooo`. Blanks too, since the
/// guest's `read` splits at them.
fn escape(line: &str) -> Result<String> {
    if line.contains('\0') {
        bail!("a command can't hold a NUL byte: {line:?}");
    }
    let mut escaped = String::new();
    for byte in line.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'=' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("\\0{byte:03o}")),
        }
    }
    if escaped.len() > EXEC_COMMAND_MAX {
        bail!(
            "the command has {} bytes escaped, at most {EXEC_COMMAND_MAX} are possible",
            escaped.len()
        );
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_word_of_harmless_bytes() {
        assert_eq!(escape("ls -l /tmp").unwrap(), "ls\\0040-l\\0040/tmp");
        assert_eq!(escape("ä\n").unwrap(), "\\0303\\0244\\0012");
        assert!(escape("a\0b").is_err());
        assert!(escape(&"x".repeat(EXEC_COMMAND_MAX + 1)).is_err());
    }

    #[tokio::test]
    async fn an_answer_is_found_behind_noise_and_an_old_answer() {
        let (mut guest, mut host) = UnixStream::pair().unwrap();
        let request = Request::new("true", Duration::from_secs(1)).unwrap();
        let mut bytes = b"noise\n\x01vbx 0000000000000000 0 3 3\nold".to_vec();
        bytes.extend(&request.head);
        bytes.extend(b"7 12 10\n\n\x01vbx\xff\x00123");
        guest.write_all(&bytes[..50]).await.unwrap();
        let (_, answer) = tokio::join!(guest.write_all(&bytes[50..]), request.answer(&mut host));
        let Answer::Ended(output) = answer.unwrap() else {
            panic!("not late")
        };
        assert_eq!(output.stdout, b"\n\x01vbx\xff\x00123");
        assert_eq!(output.status, ExitStatus(7));
        assert!(output.truncated);
    }

    #[test]
    fn a_status_over_128_is_a_signal() {
        assert_eq!(ExitStatus(137).to_string(), "signal 9");
        assert_eq!(ExitStatus(3).to_string(), "status 3");
    }
}
