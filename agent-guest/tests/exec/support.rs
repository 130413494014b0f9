//! Calls of `Exec` in few words.

use std::{path::Path, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    Command, ExecAttach, ExecAttachRequest, ExecAttachResponse, ExecListRequest, ExecProcess,
    ExecRunRequest, ExecRunResponse, ExecStart, ExecStartRequest, ExecStartResponse, ExitStatus,
    ProcessBytes, ProcessInput, ProcessOutput, exec_attach_request, exec_attach_response,
    exec_client::ExecClient, exec_start_request, exec_start_response, exit_status::How,
    process_input::Input, process_output::Output,
};

use crate::common::{Host, Running, until, within};

/// An agent and a client of its `Exec`.
pub(crate) struct Scene {
    pub(crate) exec: ExecClient<Channel>,
    pub(crate) host: Host,
    pub(crate) agent: Running,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let agent = Running::start();
        let mut host = agent.host().await;
        let exec = ExecClient::new(host.channel().await);
        Self { exec, host, agent }
    }

    pub(crate) async fn run(&self, request: ExecRunRequest) -> Result<ExecRunResponse, Status> {
        let answer = within(self.exec.clone().run(request)).await?;
        Ok(answer.into_inner())
    }

    /// Runs a line in a shell.
    pub(crate) async fn shell(&self, line: &str) -> ExecRunResponse {
        let request = ExecRunRequest {
            command: Some(shell(line)),
            ..ExecRunRequest::default()
        };
        self.run(request).await.unwrap()
    }

    pub(crate) async fn start(&self, start: ExecStart) -> Result<Started, Status> {
        let (inputs, messages) = mpsc::unbounded_channel();
        let first = exec_start_request::Message::Start(start);
        let first = ExecStartRequest {
            message: Some(first),
        };
        inputs.send(first).unwrap();
        let messages = UnboundedReceiverStream::new(messages);
        let mut outputs = within(self.exec.clone().start(messages))
            .await?
            .into_inner();
        let first = within(outputs.message()).await?.unwrap();
        let Some(exec_start_response::Message::Started(started)) = first.message else {
            panic!("the first message is {first:?}");
        };
        Ok(Started {
            id: started.id,
            pid: started.pid,
            inputs: Some(inputs),
            outputs,
        })
    }

    pub(crate) async fn attach(&self, attach: ExecAttach) -> Result<Attached, Status> {
        let (inputs, messages) = mpsc::unbounded_channel();
        let first = exec_attach_request::Message::Attach(attach);
        let first = ExecAttachRequest {
            message: Some(first),
        };
        inputs.send(first).unwrap();
        let messages = UnboundedReceiverStream::new(messages);
        let mut outputs = within(self.exec.clone().attach(messages))
            .await?
            .into_inner();
        let first = within(outputs.message()).await?.unwrap();
        let Some(exec_attach_response::Message::Process(process)) = first.message else {
            panic!("the first message is {first:?}");
        };
        Ok(Attached {
            process,
            inputs: Some(inputs),
            outputs,
        })
    }

    pub(crate) async fn list(&self) -> Vec<ExecProcess> {
        let answer = within(self.exec.clone().list(ExecListRequest {})).await;
        answer.unwrap().into_inner().processes
    }

    /// Waits until a process is as it should be.
    pub(crate) async fn until(
        &self,
        id: &str,
        is_so: impl Fn(&ExecProcess) -> bool,
    ) -> ExecProcess {
        within(async {
            loop {
                let listed = self.list().await;
                let process = listed.into_iter().find(|process| process.id == id);
                match process.filter(|process| is_so(process)) {
                    Some(process) => return process,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
    }
}

/// A process that a call of Start is with.
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) pid: u32,
    inputs: Option<mpsc::UnboundedSender<ExecStartRequest>>,
    outputs: Streaming<ExecStartResponse>,
}

impl Started {
    pub(crate) fn send(&self, input: Input) {
        let message = exec_start_request::Message::Input(ProcessInput { input: Some(input) });
        let message = ExecStartRequest {
            message: Some(message),
        };
        // A call that has ended takes no more.
        let _ = self.inputs.as_ref().unwrap().send(message);
    }

    pub(crate) fn half_close(&mut self) {
        self.inputs = None;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<ProcessOutput>, Status> {
        let message = within(self.outputs.message()).await?;
        Ok(message.map(|message| match message.message {
            Some(exec_start_response::Message::Output(output)) => output,
            other => panic!("an output is {other:?}"),
        }))
    }

    /// Reads to the end.
    pub(crate) async fn finish(&mut self) -> Result<Told, Status> {
        let mut told = Told::default();
        while let Some(output) = self.next().await? {
            told.add(output);
        }
        Ok(told)
    }

    /// Reads until stdout has this.
    pub(crate) async fn until(&mut self, text: &str) -> Told {
        let mut told = Told::default();
        while !String::from_utf8_lossy(&told.stdout).contains(text) {
            match self.next().await.unwrap() {
                Some(output) => told.add(output),
                None => panic!("no {text:?} in {told:?}"),
            }
        }
        told
    }
}

/// A process that a call of Attach is with.
pub(crate) struct Attached {
    pub(crate) process: ExecProcess,
    inputs: Option<mpsc::UnboundedSender<ExecAttachRequest>>,
    outputs: Streaming<ExecAttachResponse>,
}

impl Attached {
    pub(crate) fn send(&self, input: Input) {
        let message = exec_attach_request::Message::Input(ProcessInput { input: Some(input) });
        let message = ExecAttachRequest {
            message: Some(message),
        };
        let _ = self.inputs.as_ref().unwrap().send(message);
    }

    pub(crate) fn half_close(&mut self) {
        self.inputs = None;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<ProcessOutput>, Status> {
        let message = within(self.outputs.message()).await?;
        Ok(message.map(|message| match message.message {
            Some(exec_attach_response::Message::Output(output)) => output,
            other => panic!("an output is {other:?}"),
        }))
    }

    pub(crate) async fn finish(&mut self) -> Result<Told, Status> {
        let mut told = Told::default();
        while let Some(output) = self.next().await? {
            told.add(output);
        }
        Ok(told)
    }
}

/// What a process has told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) dropped: u64,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) stdin_bytes: u64,
    first: Option<u64>,
}

impl Told {
    pub(crate) fn add(&mut self, output: ProcessOutput) {
        assert!(self.exit.is_none(), "nothing follows the end");
        self.stdin_bytes = output.stdin_bytes;
        match output.output {
            Some(Output::Stdout(bytes)) => {
                // The places tell of every byte that is missing, and of every one that comes twice.
                let first = *self.first.get_or_insert(bytes.offset - bytes.dropped_bytes);
                self.dropped += bytes.dropped_bytes;
                let expected = first + u64::try_from(self.stdout.len()).unwrap() + self.dropped;
                assert_eq!(bytes.offset, expected);
                self.stdout.extend(bytes.data);
            }
            Some(Output::Stderr(ProcessBytes { data, .. })) => self.stderr.extend(data),
            Some(Output::Exit(status)) => self.exit = Some(status),
            None => {}
        }
    }

    pub(crate) fn how(&self) -> Option<How> {
        self.exit.as_ref().and_then(|exit| exit.how)
    }
}

pub(crate) fn argv<const N: usize>(argv: [&str; N]) -> Command {
    Command {
        argv: argv.map(str::to_owned).to_vec(),
        ..Command::default()
    }
}

pub(crate) fn shell(line: &str) -> Command {
    Command {
        shell: line.to_owned(),
        ..Command::default()
    }
}

pub(crate) fn start(command: Command) -> ExecStart {
    ExecStart {
        command: Some(command),
        ..ExecStart::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(crate) fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: 0,
        nanos: millis * 1_000_000,
    })
}

/// Whether a process lives. A zombie does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").unwrap().1;
        !state.starts_with(['Z', 'X'])
    })
}

/// Waits until a process lives no more.
pub(crate) async fn until_dead(pid: u32) {
    until(|| !is_alive(pid)).await;
}

/// The numbers in a text.
pub(crate) fn numbers(text: &[u8]) -> Vec<u32> {
    let text = String::from_utf8_lossy(text).into_owned();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[track_caller]
pub(crate) fn is_refused<T>(result: Result<T, Status>, code: Code, reason: &str) -> Status {
    let Err(status) = result else {
        panic!("it is not refused");
    };
    let details = status.get_error_details();
    let told = details.error_info().map_or("", |info| &info.reason);
    assert_eq!((status.code(), told), (code, reason), "{status}");
    status
}
