//! One bridge and many guests, of which some come and go all the time.
//!
//! ```text
//!   caller ──────── calls ───────┐               ┌── sockets of quiet guests ──── agents
//!                                ├──▶ bridge ◀───┤
//!   this program ── a watch, and ┘               └── sockets of busy guests ───── agents, on idle time
//!                   a call to each guest that comes
//! ```
//!
//! Each box is a process. Quiet guests are called one after another, and others start and stop beside them, 20 times a second
//! by default: for half a minute they do, and for half a minute they stay as they are, in turns. What is compared is what the
//! calls take at worst. A guest that has started must answer before it is stopped, and one that has stopped must be gone from
//! the bridge's list.
//!
//! The guests that come have only the time of the machine's cores that nobody else wants, for elsewhere it is their own virtual
//! machines' time that starting an agent takes. With `--equal` they are as everybody. Where other programs want the cores, too, it is
//! measured apart from them as `chrt --fifo 1` runs it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tonic::{Request, Streaming, transport::Channel};
use vbridge_api::{
    guest::v1::{PingRequest, system_client::SystemClient},
    host::v1::{Guest, GuestState, ListGuestsRequest, WatchGuestsRequest, WatchGuestsResponse},
};
use vbridge_tests::fixture::{Bridge, eventually};

use crate::{
    Options,
    helper::{Helper, Priority, Role},
    report::{Figure, Report, median},
};

/// How long guests come and go before they rest.
const SLICE: u64 = 30;

/// Calls before those that count.
const WARM: Duration = Duration::from_secs(2);

/// Guests that have come and have not gone again.
const BUSY: usize = 20;

/// For a guest to answer that has started, and for the list to be right at the end.
const SOON: Duration = Duration::from_secs(10);

/// What is told of guests and has not been heard yet. More waits.
const BACKLOG: usize = 64;

/// Measures once.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().display().to_string();
    let mut agents = Helper::start(Role::Agents, &place, Priority::Usual)?;
    let quiet: Vec<String> = (0..options.guests).map(|n| format!("quiet{n}")).collect();
    for name in &quiet {
        agents.tell(&format!("start {name}")).await?;
    }
    agents.ask("sync", Duration::ZERO).await?;
    let arguments = vec!["--sockets".to_owned(), format!("{place}/*.sock")];
    let mut bridge = Bridge::start_with(Vec::new(), arguments).await?;
    let ready = async || Ok(names(&bridge).await?.len() == quiet.len());
    eventually("all quiet guests in the list", SOON, ready).await?;
    let address = bridge.address().to_string();
    let mut caller = Helper::start(Role::Caller, &address, Priority::Usual)?;
    for name in &quiet {
        bridge.ready(name).await?;
        let task = format!("guest {name}");
        caller.ask(&task, Duration::ZERO).await?;
    }
    let priority = match options.equal {
        true => Priority::Usual,
        false => Priority::Idle,
    };
    let mut busy = Busy {
        agents: Helper::start(Role::Agents, &place, priority)?,
        watch: Watch::start(&bridge).await?,
        turn: Duration::from_secs(2) / options.churn.max(1),
        running: VecDeque::new(),
        turns: 0,
    };
    // As many guests in peace as otherwise.
    for _ in 0..BUSY {
        busy.come().await?;
    }
    busy.settle().await?;
    caller.measure(WARM).await?;
    let mut samples = Samples::default();
    samples.resident.push(bridge.resident_bytes()?);
    let slices = (options.seconds / SLICE).max(1);
    let time = Duration::from_secs(options.seconds) / u32::try_from(slices)?;
    for slice in 1..=slices {
        eprintln!("bench: churn, {slice} of {slices} times {time:?} in peace and otherwise");
        let before = bridge.process().cpu_time()?;
        samples.peace.push(caller.measure(time).await?);
        let between = bridge.process().cpu_time()?;
        let turns = busy.turns;
        let (unrest, churned) = tokio::join!(caller.measure(time), busy.churn(time));
        churned?;
        samples.unrest.push(unrest?);
        let peace = between.saturating_sub(before);
        let unrest = bridge.process().cpu_time()?.saturating_sub(between);
        let more = unrest.saturating_sub(peace).as_secs_f64();
        samples.cpu.push(more / (busy.turns - turns) as f64);
        samples.resident.push(bridge.resident_bytes()?);
    }
    samples.turns = busy.turns;
    busy.settle().await?;
    for _ in 0..BUSY {
        busy.go().await?;
    }
    let tally = busy.end().await?;
    let expected: BTreeSet<String> = quiet.into_iter().collect();
    let right = async || Ok(names(&bridge).await? == expected);
    let settled = eventually("the list without those that have gone", SOON, right).await;
    let listed = names(&bridge).await?;
    samples.left_behind = listed.difference(&expected).count();
    samples.lost = expected.difference(&listed).count();
    if let Err(error) = settled {
        eprintln!("bench: {error}");
    }
    caller.end().await?;
    agents.end().await?;
    Ok(samples.report(options, tally))
}

async fn names(bridge: &Bridge) -> Result<BTreeSet<String>> {
    let mut control = bridge.control().await?;
    let guests = control.list_guests(ListGuestsRequest::default()).await?;
    let guests = guests.into_inner().guests;
    Ok(guests.into_iter().map(|guest| guest.name).collect())
}

/// Guests that come and go.
struct Busy {
    agents: Helper,
    watch: Watch,
    /// From one that comes to the next, and from one that goes.
    turn: Duration,
    running: VecDeque<String>,
    turns: usize,
}

impl Busy {
    async fn churn(&mut self, time: Duration) -> Result<()> {
        let mut ticks = tokio::time::interval(self.turn);
        let begin = Instant::now();
        while begin.elapsed() < time {
            ticks.tick().await;
            self.come().await?;
            self.go().await?;
        }
        Ok(())
    }

    async fn come(&mut self) -> Result<()> {
        let name = format!("busy{}", self.turns);
        self.turns += 1;
        self.watch.tell(Change::Comes(name.clone())).await?;
        self.agents.tell(&format!("start {name}")).await?;
        self.running.push_back(name);
        Ok(())
    }

    /// The one that has been there for the longest.
    async fn go(&mut self) -> Result<()> {
        if let Some(name) = self.running.pop_front() {
            self.watch.tell(Change::Goes(name.clone())).await?;
            self.agents.tell(&format!("stop {name}")).await?;
        }
        Ok(())
    }

    /// Waits until all that run have answered, but not for ever: those that have not by then are missed when they go.
    async fn settle(&self) -> Result<()> {
        let (all, answered) = oneshot::channel();
        self.watch.tell(Change::All(all)).await?;
        // That the watch has ended is told with its end.
        let _ = timeout(SOON, answered).await;
        Ok(())
    }

    async fn end(mut self) -> Result<Tally> {
        self.agents.ask("sync", Duration::ZERO).await?;
        self.agents.end().await?;
        drop(self.watch.changes);
        self.watch.task.await?
    }
}

/// What a guest is about to do, or who wants to know when all have answered that came.
enum Change {
    Comes(String),
    Goes(String),
    All(oneshot::Sender<()>),
}

/// Sees what the bridge tells of the guests that come, and calls each of them as soon as it is ready.
struct Watch {
    changes: mpsc::Sender<Change>,
    task: JoinHandle<Result<Tally>>,
}

/// What has become of the guests that came.
#[derive(Default)]
struct Tally {
    /// Seconds from its start to its first answer, of each.
    answers: Vec<f64>,
    /// Those that went without one.
    missed: usize,
}

impl Watch {
    async fn start(bridge: &Bridge) -> Result<Self> {
        let request = WatchGuestsRequest::default();
        let told = bridge.control().await?.watch_guests(request).await?;
        let channel = bridge.place("bridge").channel().await?;
        let (changes, heard) = mpsc::channel(BACKLOG);
        let task = tokio::spawn(follow(told.into_inner(), channel, heard));
        Ok(Self { changes, task })
    }

    async fn tell(&self, change: Change) -> Result<()> {
        let told = self.changes.send(change).await;
        told.ok().context("the bridge's watch has ended")
    }
}

/// Until there are no more changes.
async fn follow(
    mut told: Streaming<WatchGuestsResponse>,
    channel: Channel,
    mut changes: mpsc::Receiver<Change>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    // When those came that have not answered.
    let mut waiting = HashMap::new();
    let mut calls = JoinSet::new();
    let mut all = None;
    loop {
        if waiting.is_empty()
            && let Some(all) = all.take()
        {
            // Nobody may wait any more.
            let _ = oneshot::Sender::send(all, ());
        }
        let guest = tokio::select! {
            biased;
            change = changes.recv() => {
                match change {
                    Some(Change::Comes(name)) => drop(waiting.insert(name, Instant::now())),
                    Some(Change::Goes(name)) => {
                        tally.missed += usize::from(waiting.remove(&name).is_some());
                    }
                    Some(Change::All(asks)) => all = Some(asks),
                    None => break,
                }
                continue;
            }
            Some(answered) = calls.join_next() => {
                tally.count(&mut waiting, answered?);
                continue;
            }
            told = told.message() => told?.and_then(|told| told.guest),
        };
        let Some(guest) = guest else {
            bail!("the bridge has ended its watch");
        };
        if guest.state() == GuestState::Ready && waiting.contains_key(&guest.name) {
            calls.spawn(call(channel.clone(), guest));
        }
    }
    while let Some(answered) = calls.join_next().await {
        tally.count(&mut waiting, answered?);
    }
    Ok(tally)
}

impl Tally {
    fn count(&mut self, waiting: &mut HashMap<String, Instant>, name: Option<String>) {
        // It may have answered before, or be gone.
        if let Some(began) = name.and_then(|name| waiting.remove(&name)) {
            self.answers.push(began.elapsed().as_secs_f64());
        }
    }
}

/// The guest's name if it answers.
async fn call(channel: Channel, guest: Guest) -> Option<String> {
    let mut request = Request::new(PingRequest::default());
    let name = guest.name.parse().ok()?;
    request.metadata_mut().insert("x-vbridge-guest", name);
    match SystemClient::new(channel).ping(request).await {
        Ok(_) => Some(guest.name),
        Err(status) => {
            eprintln!("bench: {}: {}", guest.name, status.message());
            None
        }
    }
}

/// What was measured. Calls are in seconds, by slices.
#[derive(Default)]
struct Samples {
    peace: Vec<Vec<f64>>,
    unrest: Vec<Vec<f64>>,
    /// Seconds of the bridge's CPU for one guest that comes and one that goes.
    cpu: Vec<f64>,
    resident: Vec<u64>,
    turns: usize,
    left_behind: usize,
    lost: usize,
}

impl Samples {
    fn report(self, options: &Options, tally: Tally) -> Report {
        let priority = match options.equal {
            true => "as everybody",
            false => "on idle time",
        };
        let mut report = Report::new(format!(
            "one bridge, {} quiet guests, and {} others that came and went in {} s, {priority}",
            options.guests, self.turns, options.seconds
        ));
        let percentiles = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];
        let mut ratios = Vec::new();
        for (name, percent) in percentiles {
            let title = format!("call to a quiet guest in peace ({name})");
            let peace = report.percentile(&title, &self.peace, percent);
            let title = format!("... while others come and go ({name})");
            let unrest = report.percentile(&title, &self.unrest, percent);
            ratios.push((format!("{name} with unrest / in peace"), unrest / peace));
        }
        let slowest = tally.answers.iter().copied().fold(0.0, f64::max);
        let usual = median(&tally.answers);
        report.time("guest from its start to its first answer", tally.answers);
        report.time("the slowest of them", vec![slowest]);
        report.compare("the slowest / the median", slowest / usual);
        report.time(
            "bridge's CPU for one that comes and one that goes",
            self.cpu,
        );
        let resident = [
            self.resident.first(),
            self.resident.get(1),
            self.resident.last(),
        ];
        let titles = ["before", "after the first slice", "at the end"];
        for (title, bytes) in titles.into_iter().zip(resident) {
            let bytes = bytes.copied().unwrap_or_default();
            report.add(Figure::bytes(&format!("bridge resident {title}"), bytes));
        }
        report.none("guests that went without an answer", tally.missed);
        report.none("guests left in the list", self.left_behind);
        report.none("quiet guests lost from the list", self.lost);
        for (index, (name, ratio)) in ratios.into_iter().enumerate() {
            match index {
                1 => report.ratio(&name, ratio, 2.0, false),
                _ => report.compare(&name, ratio),
            }
        }
        report
    }
}
