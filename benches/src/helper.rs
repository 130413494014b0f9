//! This program once more, as a process of its own that does one thing for a benchmark.
//!
//! ```text
//!   a part ── a line for each task ──▶ stdin   helper   stdout ── a line for each answer ──▶ the part
//!                                       end: so does it
//! ```
//!
//! | helper | told | answers |
//! |---|---|---|
//! | [`Role::Agents`] in a folder | `start NAME`, `stop NAME` | |
//! | | `sync` | an empty line when all before is done |
//! | [`Role::Caller`] of the bridge at an address | `guest NAME` | an empty line when it is connected |
//! | | `measure SECONDS` | what the calls in that time have taken, in seconds: an array in JSON |
//!
//! What is measured shares neither threads nor memory with what is measured beside it, and the kernel alone says who runs.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use agent_guest::Agent;
use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::Channel;
use vbridge_api::guest::v1::{PingRequest, system_client::SystemClient};
use vbridge_tests::{place::Place, process::PATIENCE};

/// Between two calls.
const PACE: Duration = Duration::from_millis(5);

/// What a helper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Runs guests' agents, each at a socket of its own.
    Agents,
    /// Calls guests, one after another.
    Caller,
}

/// Who gets a core first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// As everybody.
    Usual,
    /// Only what nobody else wants (`SCHED_IDLE`).
    Idle,
}

/// A helper that runs. It is killed when this is dropped.
pub(crate) struct Helper {
    role: Role,
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    pub(crate) fn start(role: Role, place: &str, priority: Priority) -> Result<Self> {
        let program = std::env::current_exe().context("this program is not found again")?;
        let mut command = match priority {
            Priority::Usual => Command::new(program),
            Priority::Idle => {
                let mut command = Command::new("chrt");
                command.args(["--idle", "0"]).arg(program);
                command
            }
        };
        let name = role.to_possible_value().context("the role has no name")?;
        let mut child = command
            .args(["--role", name.get_name(), "--place", place])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("a helper can't be started")?;
        let stdin = child.stdin.take().context("the helper has no input")?;
        let stdout = child.stdout.take().context("the helper has no output")?;
        Ok(Self {
            role,
            child,
            stdin,
            answers: BufReader::new(stdout).lines(),
        })
    }

    pub(crate) async fn tell(&mut self, task: &str) -> Result<()> {
        let told = self.stdin.write_all(format!("{task}\n").as_bytes()).await;
        told.with_context(|| format!("the helper {:?} is gone", self.role))
    }

    /// The answer to a task, which takes so long by itself.
    pub(crate) async fn ask(&mut self, task: &str, takes: Duration) -> Result<String> {
        self.tell(task).await?;
        let answer = timeout(takes + PATIENCE, self.answers.next_line()).await;
        let answer = answer.with_context(|| format!("{:?} does not answer {task}", self.role))?;
        answer?.with_context(|| format!("the helper {:?} has ended at {task}", self.role))
    }

    /// Seconds of each call that the caller makes in that time.
    pub(crate) async fn measure(&mut self, time: Duration) -> Result<Vec<f64>> {
        let task = format!("measure {}", time.as_secs_f64());
        Ok(serde_json::from_str(&self.ask(&task, time).await?)?)
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop(self.stdin);
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status =
            ended.with_context(|| format!("the helper {:?} does not end", self.role))??;
        ensure!(status.success(), "the helper {:?}: {status}", self.role);
        Ok(())
    }
}

// === the other end ===

/// Works until there are no more tasks.
pub(crate) async fn work(role: Role, place: &str) -> Result<()> {
    let mut tasks = BufReader::new(tokio::io::stdin()).lines();
    let mut stdout = tokio::io::stdout();
    let mut worker = match role {
        Role::Agents => Worker::Agents(Agents {
            folder: place.into(),
            running: HashMap::new(),
        }),
        Role::Caller => Worker::Caller(Caller {
            bridge: place.parse().context("the bridge's address")?,
            guests: Vec::new(),
            next: 0,
        }),
    };
    while let Some(task) = tasks.next_line().await? {
        let answer = match &mut worker {
            Worker::Agents(agents) => agents.task(&task).await,
            Worker::Caller(caller) => caller.task(&task).await,
        };
        if let Some(answer) = answer.with_context(|| task.clone())? {
            stdout.write_all(format!("{answer}\n").as_bytes()).await?;
            stdout.flush().await?;
        }
    }
    if let Worker::Agents(agents) = worker {
        for agent in agents.running.into_values() {
            agent.stop().await?;
        }
    }
    Ok(())
}

enum Worker {
    Agents(Agents),
    Caller(Caller),
}

/// Guests by their names.
struct Agents {
    folder: PathBuf,
    running: HashMap<String, Running>,
}

impl Agents {
    async fn task(&mut self, task: &str) -> Result<Option<String>> {
        match task.split_once(' ') {
            Some(("start", name)) => {
                let agent = Running::start(&self.folder, name)?;
                self.running.insert(name.to_owned(), agent);
                Ok(None)
            }
            Some(("stop", name)) => {
                let agent = self.running.remove(name).context("it does not run")?;
                agent.stop().await?;
                Ok(None)
            }
            _ if task == "sync" => Ok(Some(String::new())),
            _ => bail!("this is no task"),
        }
    }
}

/// A guest that runs until it is stopped.
struct Running {
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(folder: &Path, name: &str) -> Result<Self> {
        let socket = folder.join(format!("{name}.sock"));
        let agent = Agent::builder().listen(&socket).build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let run = agent.run(async {
            let _ = stopped.await;
        });
        let name = name.to_owned();
        let task = tokio::spawn(async move {
            if let Err(error) = run.await {
                eprintln!("bench: the agent {name}: {error}");
            }
        });
        Ok(Self { socket, stop, task })
    }

    async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.task.await?;
        // The agent removes it, or it is removed here.
        let _ = std::fs::remove_file(&self.socket);
        Ok(())
    }
}

/// Calls one guest after another.
struct Caller {
    bridge: std::net::SocketAddr,
    guests: Vec<SystemClient<Channel>>,
    next: usize,
}

impl Caller {
    async fn task(&mut self, task: &str) -> Result<Option<String>> {
        match task.split_once(' ') {
            Some(("guest", name)) => {
                let place = Place::tcp(name, self.bridge);
                let place = place.with_authority(format!("{name}.localhost"));
                self.guests.push(SystemClient::new(place.channel().await?));
                Ok(Some(String::new()))
            }
            Some(("measure", seconds)) => {
                let time = Duration::try_from_secs_f64(seconds.parse()?)?;
                let times = self.measure(time).await?;
                Ok(Some(serde_json::to_string(&times)?))
            }
            _ => bail!("this is no task"),
        }
    }

    async fn measure(&mut self, time: Duration) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < time {
            tokio::time::sleep(PACE).await;
            let count = self.guests.len();
            let guest = self.guests.get_mut(self.next).context("no guest")?;
            self.next = (self.next + 1) % count;
            let begin = Instant::now();
            let answer = guest.ping(PingRequest::default()).await;
            answer.context("a quiet guest did not answer")?;
            times.push(begin.elapsed().as_secs_f64());
        }
        Ok(times)
    }
}
