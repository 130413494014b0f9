//! What the agent logs at its most talkative: no secret that passes through it, and nothing that a terminal would obey.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command as Program, Stdio},
};

use common::{Host, within};
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpListener};
use tokio_stream::{Stream, StreamExt as _, iter};
use tonic::transport::Channel;
use vbridge_api::guest::v1::{
    AccountsAddAuthorizedKeysRequest, AccountsSetPasswordRequest, Command, EnvironmentVariable,
    ExecRunRequest, ExecStart, ExecStartRequest, FilesReadRequest, FilesStatRequest,
    FilesWriteRequest, FilesWriteStart, PingRequest, ProcessInput, SocketAddress, TunnelAddress,
    TunnelConnectRequest, accounts_client::AccountsClient, exec_client::ExecClient,
    exec_start_request, files_client::FilesClient, files_write_request, process_input::Input,
    system_client::SystemClient, tunnel_address, tunnel_client::TunnelClient,
    tunnel_connect_request,
};

/// One secret, wherever a caller may put one.
const SECRET: &str = "Xq7vHorseBattery93";

/// What makes a terminal red, sets its title, and rings.
const ESCAPES: &str = "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}1m";

/// The agent as a process, with all that it logs in a file.
struct Talkative {
    child: Child,
    dir: tempfile::TempDir,
}

impl Talkative {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Program::new(env!("CARGO_BIN_EXE_vbridge-agent"))
            .args(["--log", "trace", "--listen"])
            .arg(format!("unix:{}", dir.path().join("agent.sock").display()))
            .stderr(File::create(dir.path().join("log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    async fn host(&self) -> Host {
        Host::connect(&self.at("agent.sock")).await
    }

    /// Everything that was logged, once it has ended in order.
    fn log(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        let log = fs::read(self.at("log")).unwrap();
        String::from_utf8(log).expect("the log is text")
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ways in which the secret's bytes may show, in whole or in good part.
fn shapes() -> Vec<String> {
    let bytes = SECRET.as_bytes();
    let join = |separator: &str, show: fn(&u8) -> String| {
        bytes.iter().map(show).collect::<Vec<_>>().join(separator)
    };
    vec![
        SECRET.to_owned(),
        SECRET[4..].to_owned(),
        SECRET.chars().rev().collect(),
        join(", ", u8::to_string),
        join("", |byte| format!("{byte:02x}")),
        join("", |byte| format!("\\x{byte:02x}")),
        // Base64 of all but the ends, in its three alignments.
        "cTd2SG9yc2VCYXR0ZXJ5".to_owned(),
        "N3ZIb3JzZUJhdHRlcnk".to_owned(),
        "dkhvcnNlQmF0dGVyeT".to_owned(),
    ]
}

async fn accounts(channel: Channel) {
    let mut accounts = AccountsClient::new(channel);
    // A user that is not there: this machine's own are left alone.
    let user = "vbridge-nobody".to_owned();
    for (password, crypted) in [(SECRET.to_owned(), false), (format!("{SECRET}\n"), true)] {
        let request = AccountsSetPasswordRequest {
            user: user.clone(),
            password: password.into_bytes(),
            crypted,
        };
        let status = within(accounts.set_password(request)).await.unwrap_err();
        assert!(!status.message().contains(SECRET), "{status}");
    }
    let request = AccountsAddAuthorizedKeysRequest {
        user,
        keys: vec![format!("ssh-rsa {SECRET}")],
        reset: false,
    };
    let status = within(accounts.add_authorized_keys(request))
        .await
        .unwrap_err();
    assert!(!status.message().contains(SECRET), "{status}");
}

fn command(line: &str) -> Command {
    Command {
        argv: ["sh", "-c", line].map(str::to_owned).to_vec(),
        environment: vec![EnvironmentVariable {
            name: "TOKEN".to_owned(),
            value: Some(SECRET.to_owned()),
        }],
        ..Command::default()
    }
}

async fn commands(channel: Channel) {
    let mut exec = ExecClient::new(channel);
    let request = ExecRunRequest {
        command: Some(command("cat; echo $TOKEN >&2; exit 3")),
        stdin: SECRET.into(),
        ..ExecRunRequest::default()
    };
    let answer = within(exec.run(request)).await.unwrap().into_inner();
    assert_eq!(answer.stdout, SECRET.as_bytes(), "it has passed through");
    // One that can't be started has the same environment.
    let mut missing = command("");
    missing.argv = vec!["/no/such".to_owned()];
    let request = ExecRunRequest {
        command: Some(missing),
        ..ExecRunRequest::default()
    };
    let status = within(exec.run(request)).await.unwrap_err();
    assert!(!status.message().contains(SECRET), "{status}");
    let start = exec_start_request::Message::Start(ExecStart {
        command: Some(command("cat; kill -9 $$")),
        ..ExecStart::default()
    });
    let input = exec_start_request::Message::Input(ProcessInput {
        input: Some(Input::Stdin(SECRET.into())),
    });
    let messages = [start, input].map(|message| ExecStartRequest {
        message: Some(message),
    });
    let stream = within(exec.start(iter(messages))).await.unwrap();
    drain(stream.into_inner()).await;
}

async fn drain<T>(mut stream: impl Stream<Item = T> + Unpin) {
    while within(stream.next()).await.is_some() {}
}

async fn files(agent: &Talkative, channel: Channel) {
    use files_write_request::Message;
    let mut files = FilesClient::new(channel);
    for (name, good) in [("secret", true), ("", false)] {
        let start = FilesWriteStart {
            path: agent.path(name),
            ..FilesWriteStart::default()
        };
        let messages = [Message::Start(start), Message::Data(SECRET.into())];
        let messages = messages.map(|message| FilesWriteRequest {
            message: Some(message),
        });
        let written = within(files.write(iter(messages))).await;
        assert_eq!(written.is_ok(), good, "{written:?}");
    }
    let request = FilesReadRequest {
        path: agent.path("secret"),
        ..FilesReadRequest::default()
    };
    drain(within(files.read(request)).await.unwrap().into_inner()).await;
}

async fn tunnels(channel: Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().into();
    let host = "127.0.0.1".to_owned();
    let address = Some(tunnel_address::Address::Tcp(SocketAddress { host, port }));
    let connect = tunnel_connect_request::Message::Connect(TunnelAddress { address });
    let data = tunnel_connect_request::Message::Data(SECRET.into());
    let messages = [connect, data].map(|message| TunnelConnectRequest {
        message: Some(message),
    });
    let mut tunnel = TunnelClient::new(channel);
    let echo = async {
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        let mut bytes = Vec::new();
        within(stream.read_to_end(&mut bytes)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    };
    let call = async {
        let stream = within(tunnel.connect(iter(messages))).await.unwrap();
        drain(stream.into_inner()).await;
    };
    tokio::join!(echo, call);
}

#[tokio::test]
async fn no_secret_is_logged_however_much_is() {
    let agent = Talkative::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    accounts(channel.clone()).await;
    commands(channel.clone()).await;
    files(&agent, channel.clone()).await;
    tunnels(channel.clone()).await;
    let mut system = SystemClient::new(channel);
    let payload = SECRET.into();
    within(system.ping(PingRequest { payload })).await.unwrap();
    drop((system, host));
    let log = agent.log();
    assert!(
        log.contains("TRACE") && log.contains("a process has ended"),
        "it is talkative"
    );
    for shape in shapes() {
        let at = log
            .find(&shape)
            .map(|at| log[at.saturating_sub(200)..].lines().next());
        assert_eq!(at, None, "{shape}");
    }
}

#[tokio::test]
async fn nothing_that_a_terminal_obeys_is_logged() {
    let agent = Talkative::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut exec = ExecClient::new(channel.clone());
    for line in ["exit 1", "kill -9 $$"] {
        let mut named = command(line);
        named.label = ESCAPES.to_owned();
        named.argv.push(ESCAPES.to_owned());
        let request = ExecRunRequest {
            command: Some(named),
            ..ExecRunRequest::default()
        };
        within(exec.run(request)).await.unwrap();
    }
    let mut missing = command("");
    missing.argv = vec![ESCAPES.to_owned()];
    let request = ExecRunRequest {
        command: Some(missing),
        ..ExecRunRequest::default()
    };
    within(exec.run(request)).await.unwrap_err();
    let mut files = FilesClient::new(channel.clone());
    let request = FilesStatRequest {
        path: agent.path(ESCAPES),
        ..FilesStatRequest::default()
    };
    within(files.stat(request)).await.unwrap_err();
    let mut accounts = AccountsClient::new(channel);
    let request = AccountsSetPasswordRequest {
        user: ESCAPES.to_owned(),
        password: b"x".to_vec(),
        crypted: false,
    };
    within(accounts.set_password(request)).await.unwrap_err();
    drop((exec, files, accounts, host));
    let log = agent.log();
    assert!(log.contains("a process has ended"), "it is talkative");
    let odd = log
        .lines()
        .find(|line| line.chars().any(|c| c.is_control() && c != '\t'));
    assert_eq!(odd, None);
}
