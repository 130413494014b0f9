//! `vbridge.guest.v1.Exec`: commands in the guest.
//!
//! The processes are in [`crate::exec`]; here they meet gRPC. A call that stays with a process has two halves that do not
//! wait for each other: a task that gives the process what the caller sends, and the stream of its output. Both end with
//! the stream, which hyper drops when the caller, the link or the deadline ends it.

use std::{os::fd::OwnedFd, sync::Arc};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};
use vbridge_api::guest::v1::{
    ExecAttachRequest, ExecAttachResponse, ExecListRequest, ExecListResponse, ExecRunRequest,
    ExecRunResponse, ExecSignalRequest, ExecSignalResponse, ExecStartRequest, ExecStartResponse,
    ProcessBytes, ProcessInput, ProcessOutput, ProcessStarted, exec_attach_request,
    exec_attach_response, exec_server, exec_start_request, exec_start_response,
    process_input::Input, process_output,
};

use super::{aside, first};
use crate::{
    error::{self, Reason},
    exec::{
        Attached, Event, Process, Registry,
        command::{self, Command, Granted},
        ring::{Output, Piece},
        send,
        words::words,
    },
    files::path::{GuestPath, Root, may_read},
    limits::{MAX_EXEC_REQUEST, STDIN_TOLD},
    policy::{Access, Asked, Held, Places, Policy},
    router,
};

/// The service.
#[derive(Debug)]
pub(crate) struct Exec {
    processes: Registry,
    policy: Policy,
}

/// A message of a caller who is with a process: input, unless it is a second first message.
trait Message: Send + 'static {
    fn input(self) -> Option<ProcessInput>;
}

/// A call that is with a process.
struct Call {
    attached: Attached,
    input: InputTask,
    /// Bytes of input that the caller knows the process was given.
    told_stdin: u64,
    is_over: bool,
}

/// What the caller sends is given to the process here, until this is dropped.
struct InputTask {
    task: JoinHandle<Result<(), Status>>,
    is_done: bool,
}

impl Exec {
    pub(crate) fn new(processes: Registry, policy: Policy) -> Self {
        Self { processes, policy }
    }

    /// Starts a command, if the policy allows it.
    async fn begin(
        &self,
        mut command: Command,
        places: Option<Places>,
    ) -> Result<Attached, Status> {
        let rules = self.policy.rules();
        let directory = match rules.frees_commands() {
            true => None,
            false => {
                let turn = self.processes.turn().await?;
                let granting = move || {
                    // Until it is done, even if the caller has gone.
                    let _turn = turn;
                    grant(&rules, command)
                };
                let granted;
                (command, granted) = aside(granting).await??;
                granted
            }
        };
        let granted = Granted { directory, places };
        self.processes.start(command, granted).await
    }
}

/// Has a command run just what the policy allows, where it allows it. Looks at the guest's files.
fn grant(rules: &Held, mut command: Command) -> Result<(Command, Option<OwnedFd>), Status> {
    // What is to be run of a text is its last argument.
    if command.is_shell
        && rules.divides_texts()
        && let Some(words) = command.argv.last().and_then(|text| words(text))
    {
        command.argv = words;
        command.is_shell = false;
    }
    let asked = Asked {
        argv: &command.argv,
        is_shell: command.is_shell,
        terminal: command
            .streams
            .terminal
            .as_ref()
            .map(|terminal| terminal.term.as_str()),
        directory: command.directory.as_deref(),
        user: command.user.as_deref(),
        group: command.group.as_deref(),
        environment: &command.environment,
        clear_environment: command.clear_environment,
    };
    let program = rules.program(&asked, &|path| may_read(rules, path))?;
    let directory = match &command.directory {
        None => None,
        Some(path) => {
            let path = GuestPath::parse("command.working_directory", path)?;
            let fence = rules.fence(path.as_str(), Access::Read)?;
            Some(Root::within(fence)?.directory(&path, true)?.0)
        }
    };
    if let Some(name) = command.argv.first_mut() {
        // One that is no text is not found, and none that the caller has named in another way is run in its place.
        *name = program.to_string_lossy().into_owned();
    }
    Ok((command, directory))
}

#[tonic::async_trait]
impl exec_server::Exec for Exec {
    type StartStream = BoxStream<'static, Result<ExecStartResponse, Status>>;
    type AttachStream = BoxStream<'static, Result<ExecAttachResponse, Status>>;

    async fn run(
        &self,
        request: Request<ExecRunRequest>,
    ) -> Result<Response<ExecRunResponse>, Status> {
        let places = request.extensions().get().cloned();
        let (command, stdin) = command::run(request.into_inner())?;
        let attached = self.begin(command, places).await?;
        let process = Arc::clone(&attached.process);
        // A task of its own: a process that goes on without the call still gets its input.
        tokio::spawn(async move {
            process.give(&stdin).await;
            process.end_input().await;
        });
        let status = attached.process.ended().await;
        let (stdout, stdout_dropped_bytes) = attached.process.contents(Output::Stdout);
        let (stderr, stderr_dropped_bytes) = attached.process.contents(Output::Stderr);
        Ok(Response::new(ExecRunResponse {
            status: Some(status),
            stdout,
            stderr,
            stdout_dropped_bytes,
            stderr_dropped_bytes,
        }))
    }

    async fn start(
        &self,
        request: Request<Streaming<ExecStartRequest>>,
    ) -> Result<Response<Self::StartStream>, Status> {
        let places = request.extensions().get().cloned();
        let mut messages = request.into_inner();
        let first = first(&mut messages, "start").await?;
        let first = first.and_then(|it| it.message);
        let Some(exec_start_request::Message::Start(start)) = first else {
            return Err(error::invalid_field("start", "must be the first message"));
        };
        let command = command::start(start)?;
        let attached = self.begin(command, places).await?;
        let started = exec_start_response::Message::Started(ProcessStarted {
            id: attached.process.id().to_owned(),
            pid: attached.process.pid(),
        });
        let outputs = follow(attached, messages, true);
        let outputs = outputs.map(|it| it.map(exec_start_response::Message::Output));
        let all = stream::iter([Ok(started)]).chain(outputs).map(|message| {
            message.map(|message| ExecStartResponse {
                message: Some(message),
            })
        });
        Ok(Response::new(all.boxed()))
    }

    async fn list(
        &self,
        _: Request<ExecListRequest>,
    ) -> Result<Response<ExecListResponse>, Status> {
        Ok(Response::new(ExecListResponse {
            processes: self.processes.list(),
        }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<ExecAttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut messages = request.into_inner();
        let first = first(&mut messages, "attach").await?;
        let first = first.and_then(|it| it.message);
        let Some(exec_attach_request::Message::Attach(attach)) = first else {
            return Err(error::invalid_field("attach", "must be the first message"));
        };
        let from = [attach.stdout_offset, attach.stderr_offset];
        let attached = self
            .processes
            .attach(&attach.id, from, attach.keep_running)?;
        let process = exec_attach_response::Message::Process(attached.process.describe());
        let outputs = follow(attached, messages, false);
        let outputs = outputs.map(|it| it.map(exec_attach_response::Message::Output));
        let all = stream::iter([Ok(process)]).chain(outputs).map(|message| {
            message.map(|message| ExecAttachResponse {
                message: Some(message),
            })
        });
        Ok(Response::new(all.boxed()))
    }

    async fn signal(
        &self,
        request: Request<ExecSignalRequest>,
    ) -> Result<Response<ExecSignalResponse>, Status> {
        let request = request.into_inner();
        self.processes
            .signal(&request.id, request.signal, request.process_only)?;
        Ok(Response::new(ExecSignalResponse {}))
    }
}

/// Stays with a process: gives it what comes in, and tells what it puts out, to its end.
fn follow<M: Message>(
    attached: Attached,
    messages: Streaming<M>,
    half_close_ends_stdin: bool,
) -> impl stream::Stream<Item = Result<ProcessOutput, Status>> + Send + 'static {
    let process = Arc::clone(&attached.process);
    let call = Call {
        told_stdin: process.stdin.given(),
        attached,
        input: InputTask {
            task: tokio::spawn(
                async move { feed(&process, messages, half_close_ends_stdin).await },
            ),
            is_done: false,
        },
        is_over: false,
    };
    stream::unfold(call, |mut call| async move {
        let output = call.next().await?;
        Some((output, call))
    })
}

/// Gives a process what a caller sends, in its order.
async fn feed<M: Message>(
    process: &Process,
    mut messages: Streaming<M>,
    half_close_ends_stdin: bool,
) -> Result<(), Status> {
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) if half_close_ends_stdin => {
                process.end_input().await;
                return Ok(());
            }
            Ok(None) => return Ok(()),
            Err(status) if router::is_too_large(&status) => {
                return Err(error::request_too_large(MAX_EXEC_REQUEST));
            }
            Err(status) => return Err(status),
        };
        let input = message
            .input()
            .ok_or_else(|| error::invalid_field("message", "must be input, after the first"))?;
        match input.input {
            Some(Input::Stdin(bytes)) => process.give(&bytes).await,
            Some(Input::StdinClosed(true)) => process.end_input().await,
            Some(Input::StdinClosed(false)) | None => {}
            Some(Input::Resize(size)) => {
                let size = command::size("input.resize", &size)?;
                resized(process.resize(size))?;
            }
            Some(Input::Signal(number)) => {
                let signal = command::signal("input.signal", number)?;
                match send(process, signal, false) {
                    // It has ended while the signal was on its way.
                    Err(_) if process.is_waited_for() => {}
                    result => result?,
                }
            }
        }
    }
}

fn resized(result: Option<Result<(), rustix::io::Errno>>) -> Result<(), Status> {
    match result {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(error::failure(
            Reason::KernelRefused,
            format!("can't resize the terminal: {error}"),
        )),
        None => Err(error::failure(
            Reason::KernelRefused,
            "the process has no terminal to resize: start it with one",
        )),
    }
}

// === impl Call ===

impl Call {
    async fn next(&mut self) -> Option<Result<ProcessOutput, Status>> {
        if self.is_over {
            return None;
        }
        let Self {
            attached, input, ..
        } = self;
        let process = Arc::clone(&attached.process);
        let output = tokio::select! {
            // A process that never stops writing must not hide why the call ends.
            biased;
            status = input.failed() => Err(status),
            () = process.abandoned() => Err(error::agent_stopping()),
            event = attached.next() => Ok(Some(event)),
            () = process.stdin.until_given(self.told_stdin + STDIN_TOLD) => Ok(None),
        };
        self.is_over = matches!(output, Err(_) | Ok(Some(Event::Exit(_))));
        self.told_stdin = process.stdin.given();
        Some(output.map(|event| ProcessOutput {
            output: event.map(message),
            stdin_bytes: self.told_stdin,
        }))
    }
}

fn message(event: Event) -> process_output::Output {
    match event {
        Event::Exit(status) => process_output::Output::Exit(status),
        Event::Output(Piece {
            output,
            offset,
            data,
            dropped,
        }) => {
            let bytes = ProcessBytes {
                offset,
                data,
                dropped_bytes: dropped,
            };
            match output {
                Output::Stdout => process_output::Output::Stdout(bytes),
                Output::Stderr => process_output::Output::Stderr(bytes),
            }
        }
    }
}

// === impl InputTask ===

impl InputTask {
    /// Waits until what a caller has sent can't be used.
    async fn failed(&mut self) -> Status {
        if !self.is_done {
            let done = (&mut self.task).await;
            self.is_done = true;
            match done {
                Ok(Ok(())) => {}
                Ok(Err(status)) => return status,
                Err(error) => {
                    return error::failure(Reason::Internal, format!("the agent failed: {error}"));
                }
            }
        }
        std::future::pending().await
    }
}

impl Drop for InputTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Message ===

impl Message for ExecStartRequest {
    fn input(self) -> Option<ProcessInput> {
        match self.message {
            Some(exec_start_request::Message::Input(input)) => Some(input),
            Some(exec_start_request::Message::Start(_)) | None => None,
        }
    }
}

impl Message for ExecAttachRequest {
    fn input(self) -> Option<ProcessInput> {
        match self.message {
            Some(exec_attach_request::Message::Input(input)) => Some(input),
            Some(exec_attach_request::Message::Attach(_)) | None => None,
        }
    }
}
