//! The policy through the whole agent: what callers may do, and what they try.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod commands;
mod limits;
mod paths;
mod program;

use std::{collections::HashMap, path::PathBuf};

use agent_guest::{Policy, Rules};
use common::{Host, Running, within};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    Command, ExecRunRequest, ExecRunResponse, FilesReadRequest, exec_client::ExecClient,
    files_client::FilesClient, files_read_response::Piece,
};

/// An agent with a policy, and a directory for its work.
struct Scene {
    agent: Running,
    host: Host,
    channel: Channel,
    policy: Policy,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new(rules: Rules) -> Self {
        Self::at(tempfile::tempdir().unwrap(), rules).await
    }

    /// With a directory that is there already, for rules that name it.
    async fn at(dir: tempfile::TempDir, rules: Rules) -> Self {
        let policy = Policy::new(rules);
        let agent = Running::start_with(|builder| builder.policy(policy.clone()));
        let mut host = agent.host().await;
        let channel = host.channel().await;
        Self {
            agent,
            host,
            channel,
            policy,
            dir,
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.place(name).to_str().unwrap().to_owned()
    }

    fn files(&self) -> FilesClient<Channel> {
        FilesClient::new(self.channel.clone())
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, Status> {
        read(&self.channel, path).await
    }

    async fn run(&self, command: Command) -> Result<ExecRunResponse, Status> {
        run(&self.channel, command).await
    }
}

async fn read(channel: &Channel, path: &str) -> Result<Vec<u8>, Status> {
    let request = FilesReadRequest {
        path: path.to_owned(),
        ..FilesReadRequest::default()
    };
    let mut files = FilesClient::new(channel.clone());
    let mut stream = within(files.read(request)).await?.into_inner();
    let mut content = Vec::new();
    while let Some(message) = within(stream.message()).await? {
        if let Some(Piece::Data(data)) = message.piece {
            content.extend(data);
        }
    }
    Ok(content)
}

async fn run(channel: &Channel, command: Command) -> Result<ExecRunResponse, Status> {
    let request = ExecRunRequest {
        command: Some(command),
        ..ExecRunRequest::default()
    };
    let mut exec = ExecClient::new(channel.clone());
    Ok(within(exec.run(request)).await?.into_inner())
}

fn argv(line: &[&str]) -> Command {
    Command {
        argv: line.iter().map(|&word| word.to_owned()).collect(),
        ..Command::default()
    }
}

/// The reason and the details of a failure.
fn info(status: &Status) -> (String, HashMap<String, String>) {
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    (info.reason.clone(), info.metadata.clone())
}

/// Whether it is a refusal of the policy's, by this rule.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, rule: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let (reason, metadata) = info(&status);
    assert_eq!(reason, "POLICY_DENIED", "{status}");
    assert_eq!(metadata["rule"], rule, "{status}");
}
