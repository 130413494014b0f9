//! One bridge and many guests, of which some come and go all the time.
//!
//! The guests are agents in this program, each at a socket of its own in a folder that the bridge follows. Quiet ones are
//! called one after another, first in peace and then while others start and stop, 20 times a second by default. What is
//! compared is what those calls take at worst. A guest that has started must answer, and one that has stopped must be gone
//! from the bridge's list: otherwise there are no figures.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_guest::Agent;
use anyhow::{Context as _, Result, bail, ensure};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, transport::Channel};
use vbridge_api::{
    guest::v1::{PingRequest, system_client::SystemClient},
    host::v1::ListGuestsRequest,
};
use vbridge_tests::fixture::{Bridge, eventually};

use crate::{
    Options,
    report::{Figure, Report, percentile},
};

/// Between two calls to quiet guests.
const PACE: Duration = Duration::from_millis(5);

/// Guests that have come and have not gone again.
const BUSY: usize = 20;

/// For a guest to answer that has started, and for the list to be right at the end.
const SOON: Duration = Duration::from_secs(10);

/// A guest that runs until this is dropped.
struct Running {
    name: String,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(folder: &Path, name: String) -> Result<Self> {
        let socket = folder.join(format!("{name}.sock"));
        let agent = Agent::builder().listen(&socket).build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // Its end is asked for, or the benchmark's.
            let _ = agent
                .run(async {
                    let _ = stopped.await;
                })
                .await;
        });
        Ok(Self {
            name,
            socket,
            stop: Some(stop),
            task,
        })
    }

    async fn stop(mut self) -> Result<String> {
        drop(self.stop.take());
        (&mut self.task).await?;
        // The agent removes it, or it is removed here.
        let _ = std::fs::remove_file(&self.socket);
        Ok(self.name)
    }
}

/// Measures once.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let mut quiet = Vec::new();
    for index in 0..options.guests {
        quiet.push(Running::start(folder.path(), format!("quiet{index}"))?);
    }
    let pattern = format!("{}/*.sock", folder.path().display());
    let arguments = vec!["--sockets".to_owned(), pattern];
    let mut bridge = Bridge::start_with(Vec::new(), arguments).await?;
    let all = async || Ok(names(&bridge).await?.len() == quiet.len());
    eventually("all quiet guests in the list", SOON, all).await?;
    for guest in &quiet {
        bridge.ready(&guest.name).await?;
    }
    let mut callers = Vec::new();
    for guest in &quiet {
        callers.push(SystemClient::new(
            bridge.place(&guest.name).channel().await?,
        ));
    }
    let seconds = Duration::from_secs(options.seconds);
    eprintln!("bench: {} quiet guests in peace", quiet.len());
    let peace = calls(&callers, async {
        tokio::time::sleep(seconds / 4).await;
        Ok(())
    });
    let (peace, ()) = peace.await?;
    let before = bridge.process().resident_bytes()?;
    eprintln!("bench: others come and go for {seconds:?}");
    let (unrest, (turns, slowest)) =
        calls(&callers, churn(&bridge, folder.path(), options)).await?;
    let expected: BTreeSet<String> = quiet.iter().map(|guest| guest.name.clone()).collect();
    let right = async || Ok(names(&bridge).await? == expected);
    eventually("the list without those that have gone", SOON, right).await?;
    let after = bridge.process().resident_bytes()?;
    let mut report = Report::new(format!(
        "one bridge, {} quiet guests, {turns} others that came and went in {seconds:?}",
        quiet.len()
    ));
    let peace = report.time(
        "call to a quiet guest in peace (p99)",
        vec![percentile(&peace, 99)],
    );
    let unrest = report.time(
        "... while others come and go (p99)",
        vec![percentile(&unrest, 99)],
    );
    report.time(
        "slowest guest from its start to its first answer",
        vec![slowest],
    );
    report.add(Figure::bytes("bridge resident before", before));
    report.add(Figure::bytes("bridge resident after", after));
    report.ratio("p99 with unrest / in peace", unrest / peace, 2.0, false);
    for guest in quiet {
        guest.stop().await?;
    }
    Ok(report)
}

async fn names(bridge: &Bridge) -> Result<BTreeSet<String>> {
    let mut control = bridge.control().await?;
    let guests = control.list_guests(ListGuestsRequest::default()).await?;
    let guests = guests.into_inner().guests;
    Ok(guests.into_iter().map(|guest| guest.name).collect())
}

/// Calls one guest after another as long as something else goes on. Seconds of each call.
async fn calls<T>(
    callers: &[SystemClient<Channel>],
    until: impl Future<Output = Result<T>>,
) -> Result<(Vec<f64>, T)> {
    let mut times = Vec::new();
    tokio::pin!(until);
    for caller in callers.iter().cycle() {
        let call = async {
            tokio::time::sleep(PACE).await;
            let begin = Instant::now();
            caller.clone().ping(PingRequest::default()).await?;
            anyhow::Ok(begin.elapsed().as_secs_f64())
        };
        tokio::select! {
            done = &mut until => return Ok((times, done?)),
            time = call => times.push(time.context("a quiet guest did not answer")?),
        }
    }
    bail!("there is no guest to call")
}

/// Guests start and stop. How many did, and the seconds that the slowest took to answer.
async fn churn(bridge: &Bridge, folder: &Path, options: &Options) -> Result<(usize, f64)> {
    // Each turn is one start and one stop.
    let turn = Duration::from_secs(2) / options.churn.max(1);
    let mut ticks = tokio::time::interval(turn);
    let begin = Instant::now();
    let mut running = VecDeque::new();
    let mut first_answers = tokio::task::JoinSet::new();
    let (mut turns, mut slowest) = (0, 0.0_f64);
    while begin.elapsed() < Duration::from_secs(options.seconds) {
        ticks.tick().await;
        let guest = Running::start(folder, format!("busy{turns}"))?;
        let place = bridge.place(&guest.name);
        first_answers.spawn(async move {
            let begin = Instant::now();
            let mut client = SystemClient::new(place.channel().await?);
            loop {
                match client.ping(PingRequest::default()).await {
                    Ok(_) => return Ok(begin.elapsed().as_secs_f64()),
                    Err(status)
                        if status.code() == Code::NotFound
                            || status.code() == Code::Unavailable =>
                    {
                        ensure!(begin.elapsed() < SOON, "a guest was missed: {status}");
                        tokio::time::sleep(PACE).await;
                    }
                    Err(status) => return Err(status.into()),
                }
            }
        });
        running.push_back(guest);
        turns += 1;
        if running.len() > BUSY
            && let Some(guest) = running.pop_front()
        {
            guest.stop().await?;
        }
        while let Some(answered) = first_answers.try_join_next() {
            slowest = slowest.max(answered??);
        }
    }
    while let Some(answered) = first_answers.join_next().await {
        slowest = slowest.max(answered??);
    }
    for guest in running {
        guest.stop().await?;
    }
    Ok((turns, slowest))
}
