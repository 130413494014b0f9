//! The program with the policies that are shipped, and what it logs.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Stdio},
};

use vbridge_api::guest::v1::{
    AccountsSetPasswordRequest, EnvironmentVariable, FilesWriteRequest, FilesWriteStart,
    GetInfoRequest, accounts_client::AccountsClient, files_write_request::Message,
    system_client::SystemClient,
};

use super::*;

/// The program, with a policy of a file or a profile.
struct Program {
    child: Child,
    channel: Channel,
    _host: Host,
    dir: tempfile::TempDir,
}

impl Program {
    async fn start(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_vbridge-agent"))
            .env_clear()
            .arg(format!("--listen=unix:{}", socket.display()))
            .args(["--policy", policy, "--log", "trace"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut host = Host::connect(&socket).await;
        let channel = host.channel().await;
        Self {
            child,
            channel,
            _host: host,
            dir,
        }
    }

    fn log(&self) -> String {
        let mut log = String::new();
        let mut file = fs::File::open(self.dir.path().join("log")).unwrap();
        file.read_to_string(&mut log).unwrap();
        log
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether each method is enabled.
    async fn methods(&self) -> HashMap<String, bool> {
        let mut system = SystemClient::new(self.channel.clone());
        let info = within(system.get_info(GetInfoRequest {})).await.unwrap();
        let methods = info.into_inner().methods.into_iter();
        methods
            .map(|method| {
                let name = method.name.strip_prefix("vbridge.guest.v1.");
                (name.unwrap_or(&method.name).to_owned(), method.enabled)
            })
            .collect()
    }

    async fn write(&self, path: &str, content: &str) -> Result<(), Status> {
        let start = FilesWriteStart {
            path: path.to_owned(),
            ..FilesWriteStart::default()
        };
        let data = Message::Data(content.as_bytes().to_vec());
        let messages = [Message::Start(start), data].map(|message| FilesWriteRequest {
            message: Some(message),
        });
        let mut files = FilesClient::new(self.channel.clone());
        within(files.write(tokio_stream::iter(messages)))
            .await
            .map(drop)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dist")
        .join(name);
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_shipped_full_policy_allows_all_but_what_it_says() {
    let program = Program::start(&shipped("policy-full.toml")).await;
    let methods = program.methods().await;
    for (method, expected) in [
        ("Exec/Run", true),
        ("Exec/Start", false),
        ("Power/Shutdown", false),
        ("Files/Write", true),
        ("Tunnel/Connect", true),
    ] {
        assert_eq!(methods[method], expected, "{method}");
    }
    refused(read(&program.channel, "/etc/shadow").await, "no-secrets");
    assert!(read(&program.channel, "/etc/hostname").await.is_ok());
    assert!(run(&program.channel, argv(&["true"])).await.is_ok());
}

#[tokio::test]
async fn the_shipped_observing_policy_shows_and_gives_no_content() {
    let program = Program::start(&shipped("policy-observe.toml")).await;
    let methods = program.methods().await;
    for (method, expected) in [
        ("System/GetStatus", true),
        ("Files/Stat", true),
        ("Files/Read", false),
        ("Exec/Run", false),
        ("Services/Logs", false),
        ("Tunnel/Connect", false),
    ] {
        assert_eq!(methods[method], expected, "{method}");
    }
    refused(
        read(&program.channel, "/etc/hostname").await,
        "profile observe",
    );
}

#[tokio::test]
async fn the_shipped_restricted_policy_has_the_lists_of_its_profile_and_its_own() {
    let program = Program::start(&shipped("policy-restricted.toml")).await;
    let methods = program.methods().await;
    for (method, expected) in [
        ("Exec/Run", true),
        ("Files/Write", true),
        ("Power/Shutdown", false),
        ("Accounts/SetPassword", false),
    ] {
        assert_eq!(methods[method], expected, "{method}");
    }
    assert!(run(&program.channel, argv(&["df", "-h"])).await.is_ok());
    assert!(
        run(&program.channel, argv(&["uptime"])).await.is_ok(),
        "by its own rule"
    );
    refused(run(&program.channel, argv(&["reboot"])).await, "no-power");
    refused(
        read(&program.channel, "/etc/passwd").await,
        "profile restricted",
    );
    refused(program.write("/etc/x", "x").await, "profile restricted");
    refused(
        read(&program.channel, "/root/x").await,
        "profile restricted",
    );
}

#[tokio::test]
async fn a_hangup_reads_all_kinds_of_rules_anew_and_a_mistake_leaves_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    fs::write(&file, "profile = \"full\"\n").unwrap();
    let program = Program::start(file.to_str().unwrap()).await;
    assert!(run(&program.channel, argv(&["true"])).await.is_ok());
    let none = "[[command]]\nname = \"none\"\ndeny = [[\"*\", \"...\"]]\n\
        [[path]]\nname = \"nowhere\"\nroot = \"/\"\naccess = \"none\"\n";
    for (text, said) in [
        (none, "anew"),
        ("[[path]]\nname = \"x\"\n", "goes on to hold"),
    ] {
        fs::write(&file, text).unwrap();
        program.signal(rustix::process::Signal::HUP);
        within(async {
            while !program.log().contains(said) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        refused(run(&program.channel, argv(&["true"])).await, "none");
        refused(read(&program.channel, "/etc/hostname").await, "nowhere");
    }
}

#[tokio::test]
async fn no_log_has_a_password_a_content_an_argument_or_a_variable() {
    const SECRET: &str = "hunter2-correct-horse";
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let file = dir.path().join("policy.toml");
    let text = format!(
        "[[command]]\nname = \"no-echo\"\ndeny = [[\"echo\", \"...\"]]\n\
        [[command]]\nname = \"cat\"\nallow = [[\"cat\"]]\n\
        [[command]]\nname = \"none\"\ndeny = [[\"*\", \"...\"]]\n\
        [[path]]\nname = \"closed\"\nroot = {:?}\naccess = \"none\"\n\
        [[path]]\nname = \"rest\"\nroot = \"/\"\naccess = \"write\"\n",
        path("closed")
    );
    fs::create_dir(path("closed")).unwrap();
    fs::write(&file, text).unwrap();
    let program = Program::start(file.to_str().unwrap()).await;
    refused(
        run(&program.channel, argv(&["echo", SECRET])).await,
        "no-echo",
    );
    refused(run(&program.channel, argv(&["ls", SECRET])).await, "none");
    let mut cat = argv(&["cat"]);
    cat.environment = vec![EnvironmentVariable {
        name: "TOKEN".to_owned(),
        value: Some(SECRET.to_owned()),
    }];
    let status = run(&program.channel, cat).await.unwrap_err();
    assert!(status.message().contains("TOKEN") && !status.message().contains(SECRET));
    program.write(&path("file"), SECRET).await.unwrap();
    assert_eq!(
        read(&program.channel, &path("file")).await.unwrap(),
        SECRET.as_bytes()
    );
    refused(program.write(&path("closed/x"), SECRET).await, "closed");
    let password = AccountsSetPasswordRequest {
        user: "nobody-of-that-name".to_owned(),
        password: SECRET.as_bytes().to_vec(),
        ..AccountsSetPasswordRequest::default()
    };
    let mut accounts = AccountsClient::new(program.channel.clone());
    assert!(within(accounts.set_password(password)).await.is_err());
    let log = program.log();
    for rule in ["no-echo", "none", "cat", "closed"] {
        assert!(log.contains(rule), "{rule} is logged: {log}");
    }
    assert!(!log.contains(SECRET), "{log}");
}
