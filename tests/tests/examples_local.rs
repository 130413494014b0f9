//! The agent's examples, run as programs and called through a bridge: a server in Python that the agent passes calls on to,
//! and a program that embeds the agent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};
use vbridge_tests::{
    fixture::{Bridge, Seat, story},
    outside::{Outcome, generate_python, grpcurl, run, tool},
    place::Place,
    process::{PATIENCE, Process},
    programs,
};
use xtask::{tools, workspace};

const NOTES: &str = "org.example.notes.v1.Notes";
const JOBS: &str = "org.example.jobs.v1.Jobs";

/// What grpcurl ends with: 64 and the status' number.
const NOT_FOUND: i32 = 64 + 5;
const UNAVAILABLE: i32 = 64 + 14;

/// An agent program on a Unix socket, behind a bridge as "local".
struct World {
    bridge: Bridge,
    agent: Process,
    here: TempDir,
}

impl World {
    async fn start(
        program: &Path,
        here: TempDir,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<Self> {
        let channel = here.path().join("agent");
        let agent = Process::start(program, arguments(&channel))?;
        let bridge = Bridge::start([Seat::new("local", channel)]).await?;
        bridge.ready("local").await?;
        Ok(Self {
            bridge,
            agent,
            here,
        })
    }

    fn place(&self) -> Place {
        self.bridge.place("local")
    }

    async fn call(&self, method: &str, request: &Value) -> Result<Outcome> {
        let request = request.to_string();
        grpcurl(&self.place(), &["-d", &request], &[method], "").await
    }

    /// Answers of a call that has to succeed.
    async fn answers(&self, method: &str, request: Value) -> Result<Vec<Value>> {
        self.call(method, &request).await?.json()
    }

    async fn services(&self) -> Result<String> {
        grpcurl(&self.place(), &[], &["list"], "").await?.success()
    }
}

/// A call of grpcurl's that goes on: the lines of its answers that have one field.
struct Watched {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    field: String,
}

impl Watched {
    fn start(place: &Place, method: &str, request: &Value, field: &str) -> Result<Self> {
        let mut child = Command::new(tool(tools::grpcurl())?)
            .args(["-plaintext", "-authority", place.authority()])
            .args(["-emit-defaults", "-d", &request.to_string()])
            .arg(place.address().to_string())
            .arg(method)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("it has an output")?;
        Ok(Self {
            _child: child,
            lines: BufReader::new(stdout).lines(),
            field: format!("\"{field}\": "),
        })
    }

    async fn next(&mut self) -> Result<String> {
        let next = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(value) = line.trim().strip_prefix(&self.field) {
                    return Ok(value.trim_matches(['"', ',']).to_owned());
                }
            }
            anyhow::bail!("the call has ended")
        };
        timeout(PATIENCE, next).await.context("nothing comes")?
    }
}

fn example() -> PathBuf {
    workspace::root().join("agent-guest/examples/upstream-python")
}

/// The example's `agent.toml`, with a socket in this folder.
fn configuration(here: &Path) -> Result<String> {
    let text = fs::read_to_string(example().join("agent.toml"))?;
    let socket = format!("unix:{}", here.join("notes.sock").display());
    let ours = text.replace("unix:/run/notes.sock", &socket);
    ensure!(ours != text, "it names another socket: {text}");
    let path = here.join("agent.toml");
    fs::write(&path, ours)?;
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

/// Python with one of the example's programs, and what was generated for it in this folder.
fn python(here: &Path, program: &str) -> Result<Command> {
    let mut python = Command::new(tool(tools::python())?);
    python
        .arg(example().join(program))
        .env("PYTHONPATH", here)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}

async fn server(here: &Path) -> Result<Process> {
    let mut command = python(here, "server.py")?;
    command.arg(here.join("notes.sock"));
    let mut server = Process::spawn(command)?;
    let is_ready = |line: &str| line.starts_with("listening on ").then_some(());
    server.line("where it listens", is_ready).await?;
    Ok(server)
}

/// An agent with the example's upstream, whose server does not run yet.
async fn notes() -> Result<World> {
    let here = tempfile::Builder::new().prefix("vb").tempdir()?;
    generate_python(&[example()], &["notes.proto"], here.path()).await?;
    let configuration = configuration(here.path())?;
    World::start(programs::agent().await?, here, |channel| {
        let listen = format!("unix:{}", channel.display());
        ["--listen", &listen, "--config", &configuration]
            .map(str::to_owned)
            .into()
    })
    .await
}

#[test]
fn a_server_in_python_is_called_through_the_agent_like_its_own_services() {
    story(async {
        let world = notes().await?;
        let _server = server(world.here.path()).await?;
        let listed = world.services().await?;
        for name in [NOTES, "vbridge.guest.v1.System"] {
            ensure!(listed.lines().any(|line| line == name), "{listed}");
        }
        let described = grpcurl(&world.place(), &[], &["describe", NOTES], "").await?;
        ensure!(described.success()?.contains("rpc Watch"));

        let add = format!("{NOTES}/Add");
        let added = world.answers(&add, json!({ "text": "milk" })).await?;
        ensure!(added == [json!({ "id": "1", "text": "milk" })], "{added:?}");
        world.answers(&add, json!({ "text": "bread" })).await?;
        let all = world.answers(&format!("{NOTES}/List"), json!({})).await?;
        let texts: Vec<_> = all.iter().map(|note| &note["text"]).collect();
        ensure!(texts == ["milk", "bread"], "{all:?}");
        let absent = world
            .call(&format!("{NOTES}/Get"), &json!({ "id": 9 }))
            .await?;
        ensure!(absent.status == Some(NOT_FOUND), "{absent:?}");
        ensure!(absent.stderr.contains("there is no note 9"), "{absent:?}");

        let mut client = python(world.here.path(), "client.py")?;
        client.args(["local", "ünï", &world.bridge.address().to_string()]);
        let said = run(client, "").await?.success()?;
        ensure!(said == "new: ünï\n1 milk\n2 bread\n3 ünï\n", "{said}");
        Ok(())
    });
}

#[test]
fn a_server_that_dies_is_missed_and_its_return_noticed_without_touching_the_agent() {
    story(async {
        let mut world = notes().await?;
        let here = world.here.path().to_owned();
        let health = json!({ "service": NOTES });
        let watch = "grpc.health.v1.Health/Watch";
        let mut watched = Watched::start(&world.place(), watch, &health, "status")?;
        ensure!(watched.next().await? == "NOT_SERVING");

        let mut server = self::server(&here).await?;
        ensure!(watched.next().await? == "SERVING");
        let how = world
            .answers("grpc.health.v1.Health/Check", health.clone())
            .await?;
        ensure!(how == [json!({ "status": "SERVING" })], "{how:?}");
        let add = format!("{NOTES}/Add");
        world.answers(&add, json!({ "text": "milk" })).await?;

        server.kill9().await?;
        ensure!(watched.next().await? == "NOT_SERVING");
        let how = world.answers("grpc.health.v1.Health/Check", health).await?;
        ensure!(how == [json!({ "status": "NOT_SERVING" })], "{how:?}");
        // Its reflection has gone with it: grpcurl reads the file.
        let example = example();
        let folder = example.to_str().context("a path in UTF-8")?;
        let flags = ["-import-path", folder, "-proto", "notes.proto"];
        let call = [&flags[..], &["-d", r#"{"text": "bread"}"#]].concat();
        let refused = grpcurl(&world.place(), &call, &[&add], "").await?;
        ensure!(refused.status == Some(UNAVAILABLE), "{refused:?}");
        let socket = here.join("notes.sock");
        let sentence = format!(
            "the guest's server \"notes\" at unix:{} can't be reached: ",
            socket.display()
        );
        ensure!(refused.stderr.contains(&sentence), "{refused:?}");
        ensure!(!world.services().await?.contains(NOTES));

        let mut server = self::server(&here).await?;
        ensure!(watched.next().await? == "SERVING");
        let added = world.answers(&add, json!({ "text": "eggs" })).await?;
        ensure!(added == [json!({ "id": "1", "text": "eggs" })], "{added:?}");
        ensure!(world.agent.is_running());

        // In order it says so before it is gone.
        ensure!(server.terminate().await?.success(), "{}", server.log());
        ensure!(watched.next().await? == "NOT_SERVING");
        Ok(())
    });
}

#[test]
fn a_program_that_embeds_the_agent_serves_its_own_service_beside_the_agents() {
    story(async {
        let here = tempfile::Builder::new().prefix("vb").tempdir()?;
        let mut world = World::start(programs::embedded().await?, here, |channel| {
            vec![format!("unix:{}", channel.display())]
        })
        .await?;
        let listed = world.services().await?;
        for name in [JOBS, "vbridge.guest.v1.System"] {
            ensure!(listed.lines().any(|line| line == name), "{listed}");
        }
        let watch = format!("{JOBS}/Watch");
        let mut watched = Watched::start(&world.place(), &watch, &json!({}), "waiting")?;
        ensure!(watched.next().await? == "0");
        let push = format!("{JOBS}/Push");
        let pushed = world.answers(&push, json!({ "job": "sweep" })).await?;
        ensure!(pushed == [json!({ "waiting": 1 })], "{pushed:?}");
        ensure!(watched.next().await? == "1");
        let pop = format!("{JOBS}/Pop");
        let popped = world.answers(&pop, json!({})).await?;
        ensure!(popped == [json!({ "job": "sweep" })], "{popped:?}");
        ensure!(watched.next().await? == "0");
        let empty = world.call(&pop, &json!({})).await?;
        ensure!(empty.status == Some(NOT_FOUND), "{empty:?}");

        let info = world
            .answers("vbridge.guest.v1.System/GetInfo", json!({}))
            .await?;
        let methods = info[0]["methods"].as_array().context("no methods")?;
        let own = methods
            .iter()
            .find(|method| method["name"] == format!("{JOBS}/Push"));
        ensure!(own.context("it is not listed")?["enabled"] == true);
        let health = json!({ "service": JOBS });
        let how = world.answers("grpc.health.v1.Health/Check", health).await?;
        ensure!(how == [json!({ "status": "SERVING" })], "{how:?}");
        ensure!(
            world.agent.terminate().await?.success(),
            "{}",
            world.agent.log()
        );
        Ok(())
    });
}
