//! Things are killed, paused and disturbed while bulk streams and pings go on; afterwards everything must be as if
//! nothing had happened.
//!
//! ```text
//!   reader ◀── content by seed ──┐                       ┌── kill -9, garbage, pause, reboot
//!   writer ─── content by seed ──┼── bridge ── guest ◀───┤
//!   pinger ◀── its own bytes ────┘                       └── then: the next call, timed
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `traffic` | what goes on meanwhile, and what must never happen to it |
//! | `garbage` | what a stranger, or an old session, may leave in the channel |

mod garbage;
mod traffic;

use std::{
    env,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic::{Code, Request};
use xtask::qemu::AGENT_PORT_ID;

pub use self::{
    garbage::{Garbage, Recording},
    traffic::{Outcomes, Traffic},
};
use crate::{
    content::Random,
    exercise::v1::{CountersRequest, CountersResponse, UnaryRequest},
    fixture::{Bridge, Guest, Seat, eventually},
    matrix, place,
};

/// The guest's name at the bridge.
const NAME: &str = "guest";

/// The next call succeeds within this time of both ends being up.
const RECOVERY: Duration = Duration::from_secs(2);

/// A call to a guest that does not answer fails within this time: the promise is a second, the rest is the machine's.
const FAIL_FAST: Duration = Duration::from_millis(1500);

/// What a deadline may be missed by, on a machine that is overloaded.
const GRACE: Duration = Duration::from_secs(1);

/// Descriptors and tasks of what has ended are gone within this time.
const SETTLE: Duration = Duration::from_secs(15);

/// Of so many bytes that were handed over the guest's channel has had some: more than the client and the bridge hold.
const UNDER_WAY: u64 = 2 * 1024 * 1024;

/// Buffers of a port, in each direction.
const PORT_BUFFERS: u64 = 128;

/// After a failure, for how long it is seen whether it passes by itself.
const AFTERMATH: Duration = Duration::from_secs(20);

/// What the guest knows of its agent and its port.
const LOOK_INSIDE: &str = "mkdir -p /sys/kernel/debug; mount -t debugfs none /sys/kernel/debug 2>/dev/null; \
     tail -n +1 /sys/kernel/debug/virtio-ports/*; \
     P=/proc/$(cat /run/agent.pid); tail -n +1 $P/task/*/stat $P/task/*/wchan $P/task/*/syscall $P/fdinfo/*; \
     grep virtio /proc/interrupts; true";

/// Longest time of undisturbed traffic before something happens.
const CALM_MS: u64 = 600;

/// A bridge that has just started has greeted its guest within this time, in microseconds.
const GREETING_US: u64 = 20_000;

/// How often each thing happens. Each can be set by an environment variable, for quick runs.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// `VBRIDGE_BRIDGE_KILLS`.
    pub bridge_kills: u64,
    /// `VBRIDGE_AGENT_KILLS`.
    pub agent_kills: u64,
    /// `VBRIDGE_STREAM_KILLS`, at most.
    pub stream_kills: u64,
    /// `VBRIDGE_REBOOTS`.
    pub reboots: u64,
    /// `VBRIDGE_PAUSE_SECONDS`.
    pub pause_seconds: u64,
    /// `VBRIDGE_GARBAGE`.
    pub garbage: u64,
    /// `VBRIDGE_PAUSED_RECONNECTS`.
    pub paused_reconnects: u64,
}

impl Counts {
    /// Numbers, unless the environment has others.
    #[must_use]
    pub fn or_environment(self) -> Self {
        let or = |name, number| {
            env::var(name)
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(number)
        };
        Self {
            bridge_kills: or("VBRIDGE_BRIDGE_KILLS", self.bridge_kills),
            agent_kills: or("VBRIDGE_AGENT_KILLS", self.agent_kills),
            stream_kills: or("VBRIDGE_STREAM_KILLS", self.stream_kills),
            reboots: or("VBRIDGE_REBOOTS", self.reboots),
            pause_seconds: or("VBRIDGE_PAUSE_SECONDS", self.pause_seconds),
            garbage: or("VBRIDGE_GARBAGE", self.garbage),
            paused_reconnects: or("VBRIDGE_PAUSED_RECONNECTS", self.paused_reconnects),
        }
    }
}

/// A guest, a bridge, and what happens to them.
#[derive(Debug)]
pub struct Story {
    guest: Guest,
    bridge: Bridge,
    counts: Counts,
    figures: Vec<Figure>,
}

/// The times that one kind of event took to be over.
#[derive(Debug, Clone)]
pub struct Figure {
    what: &'static str,
    recoveries: Vec<Duration>,
    outcomes: Outcomes,
}

/// What must be the same before and after, when nothing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Footprint {
    bridge_descriptors: usize,
    bridge_calls: u32,
    agent_descriptors: u64,
    agent_tasks: u64,
    agent_calls: u64,
}

impl Story {
    /// Boots a guest and starts a bridge.
    ///
    /// # Errors
    /// One of them does not come up.
    pub async fn begin(cpus: u32, counts: Counts) -> Result<Self> {
        let guest = Guest::boot(cpus).await?;
        let bridge = Bridge::start([guest.seat(NAME)]).await?;
        bridge.ready(NAME).await?;
        Ok(Self {
            guest,
            bridge,
            counts,
            figures: Vec::new(),
        })
    }

    /// The figures so far, as a table.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<44} {:>5} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
            "event", "times", "median", "p90", "max", "MiB", "pings"
        );
        for figure in &self.figures {
            let mut times = figure.recoveries.clone();
            times.sort();
            let at = |percent: usize| {
                times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
            };
            let ms = |time: Option<&Duration>| {
                time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()))
            };
            let _ = writeln!(
                text,
                "{:<44} {:>5} {:>9} {:>9} {:>9} {:>9} {:>8}",
                figure.what,
                times.len(),
                ms(at(50)),
                ms(at(90)),
                ms(times.last()),
                (figure.outcomes.read + figure.outcomes.written) >> 20,
                figure.outcomes.pings,
            );
        }
        text
    }

    // === Scenes ===

    /// kill -9 of the bridge at random moments.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn the_bridge_is_killed(&mut self) -> Result<()> {
        let mut scene = self.scene("kill -9 of the bridge").await?;
        for _ in 0..self.counts.bridge_kills {
            scene.calm().await?;
            self.bridge.kill9().await?;
            self.bridge.start_again().await?;
            // Now and then while it still greets.
            if scene.random.below(4) == 0 {
                sleep(Duration::from_micros(scene.random.below(GREETING_US))).await;
                self.bridge.kill9().await?;
                self.bridge.start_again().await?;
            }
            scene.recovered(&self.bridge, Instant::now()).await?;
        }
        self.end(scene).await
    }

    /// kill -9 of the agent at random moments.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn the_agent_is_killed(&mut self) -> Result<()> {
        let mut scene = self.scene("kill -9 of the agent").await?;
        for _ in 0..self.counts.agent_kills {
            scene.calm().await?;
            let before = self.guest.agent_pid().await?;
            self.guest.kill_agent().await?;
            // Now and then while it still starts, or is being greeted.
            if scene.random.below(4) == 0 {
                sleep(Duration::from_micros(scene.random.below(10 * GREETING_US))).await;
                self.guest.kill_agent().await?;
            }
            // Stricter than the promise: the guest needs a moment to start the agent again.
            scene.recovered(&self.bridge, Instant::now()).await?;
            let after = scene.counters(&self.bridge).await?.pid;
            ensure!(before != after, "the agent {before} was not killed");
        }
        let outcomes = scene.traffic.outcomes();
        // The bridge was there all the time: every call that was cut off was told by it.
        let strange: Vec<_> = outcomes
            .failures
            .keys()
            .filter(|code| *code != "Unavailable")
            .collect();
        ensure!(
            strange.is_empty(),
            "calls that were cut off ended with {:?}",
            outcomes.failures
        );
        self.end(scene).await
    }

    /// The bridge is killed in the midst of a stream from the guest: every other time, QEMU loses one of the port's buffers
    /// by it. When it has lost all, the port is stuck, and the agent must free it.
    ///
    /// # Errors
    /// Something was not as if nothing had happened, or it did not come to that.
    pub async fn qemu_loses_the_buffers_of_the_port(&mut self) -> Result<()> {
        let mut scene = self.scene("kill -9 until the port is stuck").await?;
        let mut lost = 0;
        for _ in 0..self.counts.stream_kills {
            let before = scene.traffic.outcomes().read;
            eventually("the guest's stream goes on", SETTLE, || {
                let goes_on = scene.traffic.outcomes().read > before;
                async move { Ok(goes_on) }
            })
            .await
            .with_context(|| scene.where_we_are())?;
            self.bridge.kill9().await?;
            self.bridge.start_again().await?;
            scene.recovered(&self.bridge, Instant::now()).await?;
            let now = buffers_lost(&self.guest).await?;
            if now < lost {
                // The driver has begun anew.
                ensure!(
                    lost + 1 >= PORT_BUFFERS,
                    "the port was freed when {lost} buffers were lost"
                );
                return self.end(scene).await;
            }
            lost = now;
        }
        // A QEMU without the fault loses none, and there is nothing to free.
        ensure!(
            lost == 0 || self.counts.stream_kills < 2 * PORT_BUFFERS,
            "QEMU has lost {lost} buffers only"
        );
        self.end(scene).await
    }

    /// The guest restarts.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn the_guest_reboots(&mut self) -> Result<()> {
        let mut scene = self.scene("reboot of the guest").await?;
        for _ in 0..self.counts.reboots {
            scene.calm().await?;
            // How long it takes to start is the machine's affair: mostly a second, and once it was 70.
            scene.traffic.expect_silence(true);
            self.guest.reboot().await?;
            scene.traffic.expect_silence(false);
            scene.recovered(&self.bridge, Instant::now()).await?;
        }
        self.end(scene).await
    }

    /// The guest is paused for a long time; the bridge has its monitor, so the session goes on.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn the_guest_pauses_and_the_bridge_knows(&mut self) -> Result<()> {
        self.reseat(self.guest.seat(NAME).monitor(self.guest.vm().monitor()))
            .await?;
        let mut scene = self.scene("pause, with the monitor").await?;
        scene.calm().await?;
        // A stream that has not begun is refused as every new call is.
        eventually("both bulk streams are under way", SETTLE, || {
            let outcomes = scene.traffic.outcomes();
            let both = outcomes.read > 0 && outcomes.written > UNDER_WAY;
            async move { Ok(both) }
        })
        .await
        .with_context(|| scene.where_we_are())?;
        let sessions = self.bridge.guest(NAME).await?.sessions;
        self.pause(&mut scene, "GUEST_PAUSED").await?;
        let now = self.bridge.guest(NAME).await?.sessions;
        ensure!(
            now == sessions,
            "the pause cost the session: {sessions} before, {now} after"
        );
        let cut = scene.traffic.outcomes().bulk_failures;
        ensure!(
            cut == 0,
            "{cut} bulk streams were cut off by a pause that the bridge knew of"
        );
        self.end(scene).await?;
        self.reseat(self.guest.seat(NAME)).await
    }

    /// The guest is paused for a long time, and nobody tells the bridge.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn the_guest_pauses_and_nobody_tells(&mut self) -> Result<()> {
        let mut scene = self.scene("pause, without a monitor").await?;
        scene.calm().await?;
        self.pause(&mut scene, "").await?;
        self.end(scene).await
    }

    /// Something else is written to the channel before the bridge connects.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn garbage_is_written_to_the_channel(&mut self) -> Result<()> {
        // The channel takes one client at a time.
        self.bridge.kill9().await?;
        let recording = Recording::of(&self.guest)
            .await
            .context("no session could be recorded")?;
        self.bridge.start_again().await?;
        let mut scene = self.scene("garbage before a connect").await?;
        for index in 0..self.counts.garbage {
            scene.calm().await?;
            self.bridge.kill9().await?;
            let garbage = Garbage::choose(index, &mut scene.random, &recording);
            garbage
                .write(&self.guest)
                .await
                .with_context(|| format!("{garbage:?}"))?;
            self.bridge.start_again().await?;
            let recovered = scene.recovered(&self.bridge, Instant::now()).await;
            recovered.with_context(|| format!("after {garbage:?}"))?;
        }
        self.end(scene).await
    }

    /// The bridge connects anew while the guest stands still.
    ///
    /// # Errors
    /// Something was not as if nothing had happened.
    pub async fn the_bridge_reconnects_while_the_guest_is_paused(&mut self) -> Result<()> {
        let mut scene = self.scene("reconnect while the guest is paused").await?;
        for index in 0..self.counts.paused_reconnects {
            scene.calm().await?;
            scene.traffic.expect_silence(true);
            self.guest.pause().await?;
            // Once, twice, three times: each connect leaves a greeting in the channel.
            for _ in 0..=index % 3 {
                self.bridge.kill9().await?;
                self.bridge.start_again().await?;
                scene.fails_fast(&self.bridge, "").await?;
            }
            self.guest.resume().await?;
            let resumed = Instant::now();
            scene.traffic.expect_silence(false);
            scene.recovered(&self.bridge, resumed).await?;
        }
        self.end(scene).await
    }

    /// After a failure: what the bridge says, when calls succeed again, and what the guest looks like from inside.
    pub async fn aftermath(&self) -> String {
        let mut text = String::new();
        let started = Instant::now();
        loop {
            let guest = timeout(RECOVERY, self.bridge.guest(NAME)).await;
            let _ = writeln!(text, "the bridge: {guest:?}");
            let call = timeout(RECOVERY, matrix::counters(&self.bridge.place(NAME), "")).await;
            let call = match call {
                Ok(Ok(counters)) => format!("answered: {counters:?}"),
                Ok(Err(error)) => format!("failed: {error:#}"),
                Err(_) => format!("not answered within {RECOVERY:?}"),
            };
            let _ = writeln!(text, "a call {:?} later: {call}", started.elapsed());
            if call.starts_with("answered") || started.elapsed() > AFTERMATH {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        match self.guest.exec(LOOK_INSIDE).await {
            Ok(output) => {
                let _ = writeln!(text, "the guest:\n{output}");
            }
            Err(error) => {
                let _ = writeln!(text, "the guest: {error:#}");
            }
        }
        let _ = writeln!(text, "its console:\n{}", self.guest.vm().console_tail());
        text
    }

    async fn pause(&self, scene: &mut Scene, reason: &str) -> Result<()> {
        scene.traffic.expect_silence(true);
        self.guest.pause().await?;
        let until = Instant::now() + Duration::from_secs(self.counts.pause_seconds);
        while Instant::now() < until {
            scene.fails_fast(&self.bridge, reason).await?;
            sleep(Duration::from_secs(1)).await;
        }
        self.guest.resume().await?;
        let resumed = Instant::now();
        scene.traffic.expect_silence(false);
        scene.recovered(&self.bridge, resumed).await
    }

    /// Another bridge with another description of the guest.
    async fn reseat(&mut self, seat: Seat) -> Result<()> {
        self.bridge.terminate().await?;
        self.bridge = Bridge::start([seat]).await?;
        self.bridge.ready(NAME).await
    }

    async fn scene(&self, what: &'static str) -> Result<Scene> {
        let seed = Random::seed_from("VBRIDGE_CHAOS_SEED");
        eprintln!("{what}: replay with VBRIDGE_CHAOS_SEED={seed}");
        self.bridge.ready(NAME).await?;
        let before = self.footprint().await?;
        let traffic = Traffic::start(&self.bridge.place(NAME), seed);
        Ok(Scene {
            what,
            seed,
            before,
            traffic,
            random: Random::new(seed),
            recoveries: Vec::new(),
        })
    }

    /// Nothing wrong may have been seen, and nothing be left behind.
    async fn end(&mut self, scene: Scene) -> Result<()> {
        let Scene {
            what,
            seed,
            before,
            traffic,
            recoveries,
            ..
        } = scene;
        let outcomes = traffic
            .stop()
            .await
            .with_context(|| format!("seed {seed}"))?;
        let started = Instant::now();
        loop {
            let now = self.footprint().await?;
            if now.is_within(&before) {
                break;
            }
            ensure!(
                started.elapsed() < SETTLE,
                "{what}, seed {seed}: something is left behind: {before:?} before, {now:?} after"
            );
            sleep(Duration::from_millis(100)).await;
        }
        eprintln!("{what}: {outcomes:?}");
        self.figures.push(Figure {
            what,
            recoveries,
            outcomes,
        });
        Ok(())
    }

    async fn footprint(&self) -> Result<Footprint> {
        let counters = matrix::counters(&self.bridge.place(NAME), "").await?;
        Ok(Footprint {
            bridge_descriptors: self.bridge.descriptors()?,
            bridge_calls: self.bridge.guest(NAME).await?.active_calls,
            agent_descriptors: counters.descriptors,
            agent_tasks: counters.tasks,
            agent_calls: counters.calls,
        })
    }
}

impl Footprint {
    fn is_within(&self, before: &Self) -> bool {
        self.bridge_descriptors <= before.bridge_descriptors
            && self.bridge_calls <= before.bridge_calls
            && self.agent_descriptors <= before.agent_descriptors
            && self.agent_tasks <= before.agent_tasks
            && self.agent_calls <= before.agent_calls
    }
}

/// Buffers of the agent's port that QEMU has taken and will never return.
async fn buffers_lost(guest: &Guest) -> Result<u64> {
    let arguments = json!({
        "path": format!("/machine/peripheral/{AGENT_PORT_ID}-bus/virtio-backend"),
        // Towards the host. The queues of a port without a number and of the control port come before.
        "queue": 5,
    });
    let status = guest
        .vm()
        .qmp(json!({"execute": "x-query-virtio-queue-status", "arguments": arguments}))
        .await?;
    let number = |name: &str| {
        status[name]
            .as_u64()
            .with_context(|| format!("there is no {name} in {status}"))
    };
    // The indices have 16 bits.
    let away = number("last-avail-idx")?.wrapping_sub(number("used-idx")?) & 0xffff;
    Ok(away.saturating_sub(number("inuse")?))
}

/// One kind of event, again and again.
struct Scene {
    what: &'static str,
    seed: u64,
    before: Footprint,
    traffic: Traffic,
    random: Random,
    recoveries: Vec<Duration>,
}

impl Scene {
    /// Lets the traffic go on for a while, and sees that nothing wrong has happened to it.
    async fn calm(&mut self) -> Result<()> {
        sleep(Duration::from_millis(self.random.below(CALM_MS))).await;
        self.traffic.check().with_context(|| self.where_we_are())
    }

    /// Both ends are up since `up`: the next call succeeds in time.
    async fn recovered(&mut self, bridge: &Bridge, up: Instant) -> Result<()> {
        self.next_call(bridge, up)
            .await
            .with_context(|| self.where_we_are())?;
        self.traffic.check().with_context(|| self.where_we_are())
    }

    async fn next_call(&mut self, bridge: &Bridge, up: Instant) -> Result<()> {
        let place = bridge.place(NAME);
        let mut failures = Vec::new();
        loop {
            let mut client = place::exercise(place.endpoint().connect_lazy());
            let payload = self.random.bytes(1000);
            let mut request = Request::new(UnaryRequest {
                payload: payload.clone(),
                answer: None,
            });
            request.set_timeout(RECOVERY);
            request
                .metadata_mut()
                .insert("x-vbridge-wait", "2s".parse()?);
            match timeout(RECOVERY + GRACE, client.unary(request)).await {
                Ok(Ok(answer)) => {
                    ensure!(
                        answer.into_inner().payload == payload,
                        "a call got an answer that is not its own"
                    );
                    let took = up.elapsed();
                    self.recoveries.push(took);
                    ensure!(
                        took <= RECOVERY,
                        "the next call succeeded after {took:?}; before it: {failures:?}"
                    );
                    return Ok(());
                }
                // What was sent into a session that was just ending.
                Ok(Err(status)) => {
                    failures.push(format!("{:?}: {}", status.code(), status.message()))
                }
                Err(_) => bail!("a call hangs past its deadline; before it: {failures:?}"),
            }
            ensure!(
                up.elapsed() <= RECOVERY,
                "no call succeeds within {RECOVERY:?}: {failures:?}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The guest does not answer: calls say so, soon.
    async fn fails_fast(&mut self, bridge: &Bridge, reason: &str) -> Result<()> {
        let mut client = place::exercise(bridge.place(NAME).endpoint().connect_lazy());
        let started = Instant::now();
        let mut request = Request::new(UnaryRequest::default());
        request.set_timeout(Duration::from_secs(10));
        let answer = timeout(Duration::from_secs(10) + GRACE, client.unary(request)).await;
        let took = started.elapsed();
        match answer {
            Err(_) => bail!(
                "{}: a call to a guest that stands still hangs past its deadline",
                self.where_we_are()
            ),
            Ok(Ok(_)) => bail!(
                "{}: a guest that stands still has answered",
                self.where_we_are()
            ),
            Ok(Err(status)) => {
                ensure!(
                    status.code() == Code::Unavailable,
                    "{}: {status:?}",
                    self.where_we_are()
                );
                let details = String::from_utf8_lossy(status.details()).into_owned();
                ensure!(
                    details.contains(reason),
                    "{}: not {reason}: {status:?}",
                    self.where_we_are()
                );
                ensure!(
                    took < FAIL_FAST,
                    "{}: it took {took:?} to say {}",
                    self.where_we_are(),
                    status.message()
                );
                Ok(())
            }
        }
    }

    async fn counters(&self, bridge: &Bridge) -> Result<CountersResponse> {
        let mut client = place::exercise(bridge.place(NAME).channel().await?);
        Ok(client
            .counters(CountersRequest::default())
            .await?
            .into_inner())
    }

    fn where_we_are(&self) -> String {
        format!(
            "{}, after {} times, seed {}",
            self.what,
            self.recoveries.len(),
            self.seed
        )
    }
}
