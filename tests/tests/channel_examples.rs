//! Channels of other agents: the bridge's examples, run as programs against agents that the test plays, and channels that are
//! found through a real libvirtd.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use bridge_host::channel::{Protocol as _, ProtocolError, VirtioChannel, VirtioSerialBuilder};
use libvirt::{Connect, Domain, raw::api::DomainDefineFlags};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    process::Command,
    sync::OnceCell,
    time::timeout,
};
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd, process::PATIENCE};
use xtask::build;

/// What QEMU's socket is, and the agent behind it.
struct Agent {
    here: TempDir,
    listener: UnixListener,
}

impl Agent {
    fn new() -> Result<Self> {
        let here = tempfile::Builder::new().prefix("vb").tempdir()?;
        let listener = UnixListener::bind(here.path().join("agent"))?;
        Ok(Self { here, listener })
    }

    fn path(&self) -> PathBuf {
        self.here.path().join("agent")
    }

    async fn accept(&self) -> Result<BufReader<UnixStream>> {
        Ok(BufReader::new(self.listener.accept().await?.0))
    }

    /// Answers lines with lines until the client goes.
    async fn answer(&self, mut answer: impl FnMut(&str) -> String) -> Result<()> {
        let mut stream = self.accept().await?;
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).await? > 0 {
            let answer = answer(String::from_utf8_lossy(&line).trim_end());
            stream.write_all(answer.as_bytes()).await?;
            line.clear();
        }
        Ok(())
    }
}

/// An example's program.
async fn program(example: &str) -> Result<PathBuf> {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let folder = FOLDER
        .get_or_try_init(|| async {
            tokio::task::spawn_blocking(|| build::examples("bridge-host")).await?
        })
        .await?;
    Ok(folder.join(example))
}

async fn run(example: &str, socket: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(program(example).await?);
    command.arg(socket).args(arguments).kill_on_drop(true);
    let ended = timeout(PATIENCE, command.output()).await;
    Ok(ended.with_context(|| format!("{example} has not ended within {PATIENCE:?}"))??)
}

/// What an example writes, which must succeed.
async fn says(example: &str, socket: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(example, socket, arguments).await?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{example}: {}\n{complaint}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// What it complains of, which must fail.
async fn fails(example: &str, socket: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(example, socket, arguments).await?;
    ensure!(!output.status.success(), "{example}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn the_example_of_lines_prints_an_answer_to_each() {
    story(async {
        let agent = Agent::new()?;
        let served = agent.answer(|line| format!("<{line}>\r\n"));
        let path = agent.path();
        let (served, said) = tokio::join!(served, says("channel_lines", &path, &["ping", "a b"]));
        served?;
        ensure!(said? == "<ping>\n<a b>\n");
        Ok(())
    });
}

#[test]
fn the_example_of_json_asks_in_the_usual_fields_and_in_others() {
    story(async {
        let agent = Agent::new()?;
        let path = agent.path();
        let served = agent.answer(|line| {
            assert_eq!(line, r#"{"data":"ping"}"#);
            "{\"result\": \"pong\"}\n".to_owned()
        });
        let (served, said) = tokio::join!(served, says("channel_json", &path, &["ping"]));
        served?;
        ensure!(said? == "pong\n");
        let served = agent.answer(|line| {
            assert_eq!(line, r#"{"command":"ping"}"#);
            "{\"error\": \"no such command\"}\n".to_owned()
        });
        let arguments = ["ping", "--fields", "command,response"];
        let (served, said) = tokio::join!(served, fails("channel_json", &path, &arguments));
        served?;
        let said = said?;
        ensure!(
            said.contains("answers with an error: no such command"),
            "{said}"
        );
        Ok(())
    });
}

#[test]
fn the_example_of_a_protocol_of_ones_own_checks_each_message() {
    story(async {
        let agent = Agent::new()?;
        let path = agent.path();
        // What it sends is what it expects.
        let echo = async |broken: u8| {
            let mut stream = agent.accept().await?;
            let mut buffer = [0; 4096];
            loop {
                let count = stream.read(&mut buffer).await?;
                let Some(last) = buffer[..count].last_mut() else {
                    return anyhow::Ok(());
                };
                *last ^= broken;
                stream.write_all(&buffer[..count]).await?;
            }
        };
        let (served, said) = tokio::join!(echo(0), says("channel_custom", &path, &["one", "two"]));
        served?;
        ensure!(said? == "one\ntwo\n");
        let (served, said) = tokio::join!(echo(1), fails("channel_custom", &path, &["one"]));
        served?;
        let said = said?;
        ensure!(said.contains("its sum is wrong"), "{said}");
        Ok(())
    });
}

/// Plays the QEMU guest agent.
fn guest_agent(line: &str) -> String {
    let request: Value = match serde_json::from_str(line.trim_start_matches('\u{fffd}')) {
        Ok(request) => request,
        Err(error) => return format!("{}\n", json!({"error": {"desc": error.to_string()}})),
    };
    let answer = match request["execute"].as_str() {
        Some("guest-sync-delimited") => request["arguments"]["id"].clone(),
        Some("guest-info") => json!({
            "version": "7.2.0",
            "supported_commands": [{"name": "guest-ping", "enabled": true}],
        }),
        Some("guest-exec") => request["arguments"].clone(),
        _ => {
            let error = json!({"class": "CommandNotFound", "desc": "not found"});
            return format!("{}\n", json!({ "error": error }));
        }
    };
    format!("{}\n", json!({ "return": answer }))
}

#[test]
fn the_example_of_the_qemu_guest_agent_lists_and_calls_commands() {
    story(async {
        let agent = Agent::new()?;
        let path = agent.path();
        let serve = async || {
            let mut stream = agent.accept().await?;
            // A stale answer, and the byte that comes before the one to the sync.
            stream.write_all(b"{\"return\": 1}\n\xff").await?;
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).await? > 0 {
                let answer = guest_agent(String::from_utf8_lossy(&line).trim_end());
                stream.write_all(answer.as_bytes()).await?;
                line.clear();
            }
            anyhow::Ok(())
        };
        let (served, said) = tokio::join!(serve(), says("channel_qga", &path, &[]));
        served?;
        ensure!(said? == "QEMU guest agent 7.2.0\nguest-ping\n");
        let arguments = ["guest-exec", r#"{"path": "/bin/true"}"#];
        let (served, said) = tokio::join!(serve(), says("channel_qga", &path, &arguments));
        served?;
        let said: Value = serde_json::from_str(&said?)?;
        ensure!(said == json!({"path": "/bin/true"}), "{said}");
        let (served, said) = tokio::join!(serve(), fails("channel_qga", &path, &["guest-no"]));
        served?;
        let said = said?;
        ensure!(said.contains("(CommandNotFound): not found"), "{said}");
        Ok(())
    });
}

#[test]
fn an_example_without_a_socket_says_so_in_one_sentence() {
    story(async {
        let said = fails("channel_lines", Path::new("/nowhere/agent"), &["ping"]).await?;
        ensure!(
            said.starts_with("Error: channel \"com.example.lines.0\" at /nowhere/agent can't be connected: there is no such socket;"),
            "{said}"
        );
        Ok(())
    });
}

// === channels of domains ===

/// A domain of libvirt's test driver, with these elements below `<devices>`.
async fn define(connect: &Connect, name: &str, devices: &str) -> Result<Domain> {
    let xml = format!(
        "<domain type='test'><name>{name}</name><memory unit='MiB'>8</memory>\
         <os><type>hvm</type></os><devices>{devices}</devices></domain>"
    );
    Ok(connect
        .define_domain(&xml, DomainDefineFlags::empty())
        .await?)
}

#[test]
fn a_domains_channel_is_found_by_its_name_and_talked_to() {
    story(Libvirtd::builder().run(async |daemon| {
        let agent = Agent::new()?;
        let connect = Connect::open(&daemon.uri("test")).await?;
        let channels = format!(
            "<channel type='unix'><source mode='bind' path='/other'/><target type='virtio' name='org.other'/></channel>\
             <channel type='unix'><source mode='bind' path='{}'/><target type='virtio' name='com.vmagent.sock'/></channel>",
            agent.path().display()
        );
        let domain = define(&connect, "talks", &channels).await?;
        let channel = VirtioChannel::discover_from_domain(&domain, "com.vmagent.sock").await?;
        ensure!(channel.path() == agent.path());

        let mut json = VirtioSerialBuilder::new("com.vmagent.sock").with_json_handler().build();
        let served = agent.answer(|_| "{\"data\": \"pong\"}\n".to_owned());
        let asked = async {
            json.connect(&domain).await?;
            let answer = json.request(b"ping").await?;
            json.disconnect().await?;
            anyhow::Ok(answer)
        };
        let (served, answer) = tokio::join!(served, asked);
        served?;
        ensure!(answer? == b"pong");
        connect.close().await;
        Ok(())
    }));
}

#[test]
fn a_domain_without_a_channel_that_can_be_connected_says_why() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let target = |name: &str| format!("<target type='virtio' name='{name}'/></channel>");
        let channels = format!(
            "<channel type='unix'>{}<channel type='pty'>{}",
            target("no.path"),
            target("no.socket")
        );
        let domain = define(&connect, "mute", &channels).await?;
        let find = async |name: &str| {
            VirtioChannel::discover_from_domain(&domain, name)
                .await
                .err()
        };
        let error = find("nothing").await;
        ensure!(
            matches!(error, Some(ProtocolError::NoChannel { .. })),
            "{error:?}"
        );
        let error = find("no.path").await;
        ensure!(
            matches!(error, Some(ProtocolError::NoSocket { .. })),
            "{error:?}"
        );
        let error = find("no.socket").await;
        ensure!(
            matches!(&error, Some(ProtocolError::OtherKind { kind, .. }) if kind == "pty"),
            "{error:?}"
        );
        connect.close().await;
        let error = find("no.path").await;
        ensure!(
            matches!(error, Some(ProtocolError::Libvirt(_))),
            "{error:?}"
        );
        Ok(())
    }));
}
