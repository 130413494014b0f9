//! One command from its start, or from where it was left, to its end.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use rustix::process::Signal;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    ExecAttach, ExecAttachRequest, ExecStart, ExecStartRequest, ExitStatus, ProcessInput,
    ProcessOutput, exec_attach_request, exec_attach_response, exec_client::ExecClient,
    exec_start_request, exec_start_response, exit_status::How, process_output::Output,
};

use super::{
    super::{
        client::{Client, Twice},
        failure::Failure,
        output::{print, printable},
        say,
    },
    OURS,
    escape::Choice,
    input,
    terminal::{self, Raw},
};

/// Exit statuses as timeout(1) and shells have them.
const TIMED_OUT: u8 = 124;
const CAN_NOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Added to a signal's number.
const BY_SIGNAL: i32 = 128;

/// What the call begins with.
#[derive(Debug)]
pub(super) enum Begin {
    Start(Box<ExecStart>),
    Attach(ExecAttach),
}

/// A command and how we are with it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) begin: Begin,
    /// It has a terminal, or is given one.
    pub(super) terminal: bool,
    /// It gets our standard input.
    pub(super) input: bool,
    /// With what it is left, if it has a terminal and ours is one.
    pub(super) escape: Choice,
    /// It goes on without us.
    pub(super) keep_running: bool,
    /// We only start it.
    pub(super) detach: bool,
}

/// What the guest says.
enum Answer {
    /// It runs, with this id.
    Running {
        id: String,
        terminal: bool,
    },
    Output(ProcessOutput),
    /// Something that this program does not know yet.
    Unknown,
}

/// A command that runs.
struct Running {
    to_guest: mpsc::Sender<ProcessInput>,
    answers: Answers,
    id: String,
    /// It has one, and not only we.
    has_terminal: bool,
}

type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

// === impl Session ===

impl Session {
    /// Stays with it to its end.
    pub(super) async fn run(mut self, client: &Client) -> Result<(), Failure> {
        // Before the command begins: a signal must not end us and leave it alone.
        let mut signals = input::Signals::new(self.terminal)?;
        let Running {
            to_guest,
            mut answers,
            id,
            has_terminal,
        } = self.begin(client, &mut signals).await?;
        if self.detach {
            return print(printable(&id));
        }
        let raw = match self.input && has_terminal {
            true => Raw::enter(),
            false => Ok(None),
        };
        let raw = raw.map_err(|error| Failure::new(format!("can't use the terminal: {error}")))?;
        // Only the keyboard sends there.
        let (leave, mut left) = mpsc::channel(1);
        match (raw.is_some(), self.escape.escape()) {
            (true, Some(escape)) => {
                tokio::spawn(input::keyboard(to_guest.clone(), escape, leave));
            }
            _ if self.input => {
                tokio::spawn(input::stdin(to_guest.clone()));
            }
            _ => {}
        }
        let end = loop {
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(Answer::Output(output))) => match show(output).await {
                        Ok(None) => {}
                        Ok(Some(status)) => break Ok(status),
                        Err(failure) => break Err(failure),
                    },
                    Some(Ok(_)) => {}
                    Some(Err(status)) => break Err(self.lost(client, &status, &id)),
                    None => break Err(Failure::new("the guest does not say how the command ended")),
                },
                Some(()) = left.recv() => break Err(self.left(client, &id)),
                heard = signals.next() => match heard {
                    input::Heard::Pass(message) => {
                        let to_guest = to_guest.clone();
                        // A queue full of input must not keep us from showing output.
                        tokio::spawn(async move { to_guest.send(message).await });
                    }
                    input::Heard::End(signal) => break Err(Failure::Status(ended_by(signal.as_raw()))),
                },
            }
        };
        // The terminal is the operator's again before anything is said.
        drop(raw);
        finish(&end?)
    }

    /// Has the command run. What has surely not reached the guest is tried again, and nothing else: it could run twice.
    async fn begin(
        &mut self,
        client: &Client,
        signals: &mut input::Signals,
    ) -> Result<Running, Failure> {
        if let (true, Begin::Start(start)) = (self.terminal, &mut self.begin) {
            start.terminal = Some(terminal::wanted());
        }
        let mut attempts = client.attempts();
        loop {
            let status = match self.once(client).await {
                Ok(running) => return Ok(running),
                Err(status) => status,
            };
            let Some(delay) = client.delay(&mut attempts, Twice::Harmful, &status) else {
                return Err(refused(client, &status));
            };
            tokio::select! {
                () = sleep(delay) => {}
                signal = signals.end() => return Err(Failure::Status(ended_by(signal.as_raw()))),
            }
        }
    }

    /// Makes the call once, and waits until the command runs.
    async fn once(&self, client: &Client) -> Result<Running, Status> {
        let (to_guest, inputs) = mpsc::channel(input::QUEUE);
        let mut answers = self.call(client, inputs).await?;
        match timeout(client.limit(), answers.next()).await {
            Ok(Some(Ok(Answer::Running { id, terminal }))) => Ok(Running {
                to_guest,
                answers,
                id,
                has_terminal: terminal || self.terminal,
            }),
            Ok(Some(Ok(_)) | None) => {
                let message = "the guest does not say that the command runs";
                Err(Status::internal(message))
            }
            Ok(Some(Err(status))) => Err(status),
            // The sentence for it says how long it was.
            Err(_) => Err(Status::deadline_exceeded("")),
        }
    }

    /// Makes the call, and gives what comes back.
    async fn call(
        &self,
        client: &Client,
        inputs: mpsc::Receiver<ProcessInput>,
    ) -> Result<Answers, Status> {
        let mut exec = ExecClient::new(client.channel());
        let inputs = ReceiverStream::new(inputs);
        match &self.begin {
            Begin::Start(start) => {
                use exec_start_request::Message;
                let message = |message| ExecStartRequest {
                    message: Some(message),
                };
                let first = stream::iter([message(Message::Start((**start).clone()))]);
                let others = inputs.map(move |input| message(Message::Input(input)));
                let call = exec.start(client.request(first.chain(others)));
                let answers = client.in_time(call).await?;
                Ok(Box::pin(answers.map(|answer| answer.map(Answer::of_start))))
            }
            Begin::Attach(attach) => {
                use exec_attach_request::Message;
                let message = |message| ExecAttachRequest {
                    message: Some(message),
                };
                let first = stream::iter([message(Message::Attach(attach.clone()))]);
                let others = inputs.map(move |input| message(Message::Input(input)));
                let call = exec.attach(client.request(first.chain(others)));
                let answers = client.in_time(call).await?;
                Ok(Box::pin(
                    answers.map(|answer| answer.map(Answer::of_attach)),
                ))
            }
        }
    }

    /// The call has failed while the command ran.
    fn lost(&self, client: &Client, status: &Status, id: &str) -> Failure {
        Failure::new(client.sentence(status) + &self.aftermath(client, id))
    }

    /// The operator does not want it any more.
    fn left(&self, client: &Client, id: &str) -> Failure {
        let sentence = format!("you have left guest \"{}\"", client.name());
        Failure::new(sentence + &self.aftermath(client, id))
    }

    /// What becomes of the command when nobody is with it.
    fn aftermath(&self, client: &Client, id: &str) -> String {
        if !self.keep_running {
            return String::new();
        }
        let (name, id) = (client.name(), printable(id));
        format!("; the command goes on: `vbridge exec {name} --attach {id}` finds it again")
    }
}

// === impl Answer ===

impl Answer {
    fn of_start(response: vbridge_api::guest::v1::ExecStartResponse) -> Self {
        match response.message {
            Some(exec_start_response::Message::Started(started)) => Self::Running {
                id: started.id,
                terminal: false,
            },
            Some(exec_start_response::Message::Output(output)) => Self::Output(output),
            None => Self::Unknown,
        }
    }

    fn of_attach(response: vbridge_api::guest::v1::ExecAttachResponse) -> Self {
        match response.message {
            Some(exec_attach_response::Message::Process(process)) => Self::Running {
                id: process.id,
                terminal: process.terminal,
            },
            Some(exec_attach_response::Message::Output(output)) => Self::Output(output),
            None => Self::Unknown,
        }
    }
}

/// The command does not begin.
fn refused(client: &Client, status: &Status) -> Failure {
    let details = status.get_error_details();
    let code = match details.error_info().map(|info| info.reason.as_str()) {
        Some("CMD_NOT_FOUND") => NOT_FOUND,
        Some("CMD_EXEC_FAILED") => CAN_NOT_RUN,
        _ => OURS,
    };
    Failure::new(client.sentence(status)).with_status(code)
}

/// Writes what has come. The status, if it was the end.
async fn show(output: ProcessOutput) -> Result<Option<ExitStatus>, Failure> {
    match output.output {
        Some(Output::Stdout(bytes)) => {
            dropped("output", bytes.dropped_bytes);
            write(&mut tokio::io::stdout(), &bytes.data).await?;
        }
        Some(Output::Stderr(bytes)) => {
            dropped("error output", bytes.dropped_bytes);
            write(&mut tokio::io::stderr(), &bytes.data).await?;
        }
        Some(Output::Exit(status)) => return Ok(Some(status)),
        None => {}
    }
    Ok(None)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Failure> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    written.await.map_err(|error| Failure::output(&error))
}

fn dropped(what: &str, bytes: u64) {
    if bytes > 0 {
        say(&format!(
            "{bytes} bytes of the command's {what} were thrown away in the guest"
        ));
    }
}

/// How the command ended is how we end.
fn finish(status: &ExitStatus) -> Result<(), Failure> {
    if status.timed_out {
        let sentence = "the command's time limit has passed: the guest has ended it";
        return Err(Failure::new(sentence).with_status(TIMED_OUT));
    }
    match status.how {
        Some(How::Code(0)) => Ok(()),
        Some(How::Code(code)) => Err(Failure::Status(u8::try_from(code).unwrap_or(OURS))),
        Some(How::Signal(signal)) => {
            let name = Signal::from_named_raw(signal).map(|signal| format!("{signal:?}"));
            let name = name.unwrap_or_else(|| format!("signal {signal}"));
            let core = if status.core_dumped {
                " (core dumped)"
            } else {
                ""
            };
            let sentence = format!("the command was ended by {name}{core}");
            Err(Failure::new(sentence).with_status(ended_by(signal)))
        }
        None => Err(Failure::new("the guest does not say how the command ended")),
    }
}

fn ended_by(signal: i32) -> u8 {
    u8::try_from(BY_SIGNAL + signal).unwrap_or(OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(how: How, timed_out: bool) -> u8 {
        let ended = finish(&ExitStatus {
            how: Some(how),
            timed_out,
            ..ExitStatus::default()
        });
        ended.map_or_else(|failure| failure.exit_status(), |()| 0)
    }

    #[test]
    fn the_exit_status_is_the_commands_or_says_what_ended_it() {
        assert_eq!(status(How::Code(0), false), 0);
        assert_eq!(status(How::Code(7), false), 7);
        assert_eq!(status(How::Signal(15), false), 143);
        assert_eq!(status(How::Signal(15), true), 124);
        assert_eq!(status(How::Code(0), true), 124);
        assert_eq!(status(How::Signal(i32::MAX - 128), false), 255);
    }
}
