//! Many callers and large files on a real guest, and a clock that jumps.

use std::{env, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, timeout};
use tonic::{Streaming, transport::Channel};
use vbridge_api::guest::v1::{
    Command, ExecRunRequest, ExecRunResponse, MetricsWatchRequest, MetricsWatchResponse,
    PingRequest, TimeGetRequest, TimeSetRequest, exec_client::ExecClient,
    metrics_client::MetricsClient, system_client::SystemClient, time_client::TimeClient,
};
use vbridge_tests::{
    fixture::{Bridge, Guest},
    load::{self, Abandoned, Check, Traces, Watchers, busy},
    programs,
    suite::Suite,
};

const NAME: &str = "guest";

/// Far longer than any of these takes.
const LIMIT: Duration = Duration::from_secs(900);

/// The guest's memory: a file of 1 GiB lies in it.
const MEMORY_MIB: u32 = 3072;

/// The size of a large file, in MiB: `VBRIDGE_LARGE_MIB`, or this. It takes two minutes where the CPU is emulated.
const LARGE_MIB: u64 = 1024;

/// Memory that a large file may cost agent and bridge each, beyond what they hold idle.
const TRANSFER_MEMORY: u64 = 32 << 20;

/// The port that the guest listens on.
const PORT: u16 = 7000;

/// Ten years, in seconds.
const FAR: i64 = 10 * 365 * 24 * 3600;

struct Real {
    bridge: Bridge,
    guest: Guest,
}

impl Real {
    async fn start() -> Result<Self> {
        let image = programs::image().await?;
        let guest = Guest::boot_as(image, |vm| vm.memory_mib(MEMORY_MIB)).await?;
        let bridge = Bridge::start([guest.seat(NAME)]).await?;
        bridge.ready(NAME).await?;
        // Commands work and uploads go in a directory that has room for a large file.
        guest
            .exec("mkdir /tmp/load && mount -t tmpfs -o size=2g tmpfs /tmp/load && mkdir /tmp/load/uploads")
            .await?;
        Ok(Self { bridge, guest })
    }

    async fn channel(&self) -> Result<Channel> {
        self.bridge.place(NAME).channel().await
    }
}

async fn watchers(real: Arc<Real>) -> Result<()> {
    let watchers = Watchers {
        lively: 180,
        stuck: 20,
        interval: Duration::from_secs(1),
        samples: 12,
    };
    watchers
        .run(&real.bridge.place(NAME), async || Ok(()))
        .await
}

async fn all_at_once(real: Arc<Real>) -> Result<()> {
    let place = real.bridge.place(NAME);
    busy(&place, (100, 20), "/tmp/load", LIMIT).await?;
    real.guest.exec("rm /tmp/load/[0-9]*").await?;
    Ok(())
}

async fn a_large_file(real: Arc<Real>) -> Result<()> {
    let (path, channel) = ("/tmp/load/large", real.channel().await?);
    let mebibytes = match env::var("VBRIDGE_LARGE_MIB") {
        Ok(number) => number.parse()?,
        Err(_) => LARGE_MIB,
    };
    let large = mebibytes << 20;
    let (agent, bridge) = (
        real.guest.agent_resident_bytes().await?,
        real.bridge.resident_bytes()?,
    );
    real.guest.forget_agent_peak().await?;
    for up in [true, false] {
        let started = Instant::now();
        let mut most = 0;
        let transfer = async {
            match up {
                true => load::upload(channel.clone(), path, (3, large), Check::Bytes).await,
                false => load::download(channel.clone(), path, (3, large), Check::Bytes).await,
            }
        };
        tokio::pin!(transfer);
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                done = &mut transfer => break done?,
                _ = look.tick() => most = most.max(real.bridge.resident_bytes()?),
            }
        }
        let grown = (
            real.guest.agent_peak_bytes().await?.saturating_sub(agent),
            most.saturating_sub(bridge),
        );
        eprintln!(
            "{} MiB {} in {:?}: agent and bridge hold {} and {} KiB idle, and at most {} and {} KiB more",
            mebibytes,
            if up { "up" } else { "down" },
            started.elapsed(),
            agent >> 10,
            bridge >> 10,
            grown.0 >> 10,
            grown.1 >> 10
        );
        ensure!(
            grown.0 <= TRANSFER_MEMORY && grown.1 <= TRANSFER_MEMORY,
            "they grow by {grown:?}"
        );
    }
    real.guest.exec("rm /tmp/load/large").await?;
    Ok(())
}

async fn abandoned(real: Arc<Real>) -> Result<()> {
    real.guest
        .exec(&format!(
            "head -c 8000000 /dev/zero >/tmp/load/file; \
             (setsid nc -ll -p {PORT} -e cat </dev/null >/dev/null 2>&1 &)"
        ))
        .await?;
    let calls = Abandoned {
        calls: 10_000,
        file: "/tmp/load/file".to_owned(),
        directory: "/tmp/load/uploads".to_owned(),
        port: PORT,
    };
    let before = real.guest.agent_resident_bytes().await?;
    let line = "cat /run/agent.pid; ls /proc/$(cat /run/agent.pid)/fd | wc -l; \
                cat /proc/$(cat /run/agent.pid)/task/*/children | wc -w; ls -A /tmp/load/uploads | wc -l";
    let traces = async || {
        let told = real.guest.exec(line).await?;
        let numbers: Vec<usize> = told
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [_, descriptors, children, files] = numbers[..] else {
            anyhow::bail!("{told}");
        };
        Ok(Traces {
            descriptors,
            children,
            files,
        })
    };
    calls.run(&real.bridge.place(NAME), traces).await?;
    let after = real.guest.agent_resident_bytes().await?;
    eprintln!(
        "10,000 abandoned calls: the agent holds {} KiB, {} before",
        after >> 10,
        before >> 10
    );
    ensure!(after < before + (8 << 20), "the agent has grown to {after}");
    Ok(())
}

/// The next sample's uptime.
async fn next(watch: &mut Streaming<MetricsWatchResponse>) -> Result<(u64, Duration)> {
    let message = watch.message().await?.context("the stream has ended")?;
    ensure!(message.dropped == 0);
    let sample = message.sample.context("no sample")?;
    let uptime = sample.uptime.context("no uptime")?;
    let uptime = Duration::new(uptime.seconds.try_into()?, uptime.nanos.try_into()?);
    Ok((sample.sequence, uptime))
}

/// A command with a time limit that is longer than all jumps take.
async fn sleeper(channel: Channel) -> Result<(Duration, ExecRunResponse)> {
    let limit = prost_types::Duration {
        seconds: 8,
        nanos: 0,
    };
    let command = Command {
        argv: vec!["sleep".to_owned(), "600".to_owned()],
        timeout: Some(limit),
        ..Command::default()
    };
    let request = ExecRunRequest {
        command: Some(command),
        ..ExecRunRequest::default()
    };
    let started = Instant::now();
    let answer = ExecClient::new(channel).run(request).await?.into_inner();
    Ok((started.elapsed(), answer))
}

async fn clock_jumps(real: Arc<Real>) -> Result<()> {
    let interval = Duration::from_millis(250);
    let channel = real.channel().await?;
    let sessions = real.bridge.guest(NAME).await?.sessions;
    let request = MetricsWatchRequest {
        groups: Vec::new(),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 250_000_000,
        }),
    };
    let mut watch = MetricsClient::new(channel.clone())
        .watch(request)
        .await?
        .into_inner();
    let command = tokio::spawn(sleeper(channel.clone()));
    let mut time = TimeClient::new(channel.clone());
    let mut system = SystemClient::new(channel);
    let (_, mut before) = next(&mut watch).await?;
    let mut expected = 2;
    for jump in [FAR, -FAR, -FAR, FAR] {
        let now = time.get(TimeGetRequest {}).await?.into_inner().time;
        let mut to = now.context("no time")?;
        to.seconds += jump;
        time.set(TimeSetRequest {
            time: Some(to),
            keep_hardware_clock: true,
        })
        .await?;
        for _ in 0..6 {
            let (sequence, uptime) = timeout(Duration::from_secs(5), next(&mut watch))
                .await
                .context("the samples stop with the jump")??;
            ensure!(sequence == expected, "{sequence} instead of {expected}");
            let gap = uptime.saturating_sub(before);
            ensure!(
                sequence == 2 || (gap > interval / 3 && gap < interval * 2),
                "{gap:?} lie between two samples"
            );
            (before, expected) = (uptime, expected + 1);
        }
        system.ping(PingRequest::default()).await?;
    }
    let (took, answer) = command.await??;
    let status = answer.status.context("no status")?;
    ensure!(
        status.timed_out && (Duration::from_secs(8)..Duration::from_secs(14)).contains(&took),
        "the command's limit of 8 s came after {took:?}: {status:?}"
    );
    let told = status.duration.context("no duration")?;
    ensure!((8..14).contains(&told.seconds), "it ran {told:?}");
    ensure!(
        real.bridge.guest(NAME).await?.sessions == sessions,
        "the session was lost"
    );
    Ok(())
}

async fn limited(test: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(LIMIT, test).await.context("it takes for ever")?
}

fn main() -> ExitCode {
    let mut suite = Suite::new(Real::start)
        .telling(|real: &Real| format!("{}{}", real.bridge.log(), real.guest.vm().console_tail()));
    suite.test(
        "a_hundred_commands_and_twenty_transfers_at_once_get_their_own_bytes",
        |real| limited(all_at_once(real)),
    );
    suite.test(
        "a_hundred_and_eighty_subscribers_get_every_sample_beside_twenty_that_never_read",
        |real| limited(watchers(real)),
    );
    suite.test(
        "a_clock_that_jumps_moves_neither_timers_nor_the_session",
        |real| limited(clock_jumps(real)),
    );
    suite.test(
        "a_large_file_each_way_costs_neither_agent_nor_bridge_thirty_two_mebibytes",
        |real| limited(a_large_file(real)),
    );
    suite.test(
        "ten_thousand_abandoned_calls_leave_nothing_behind",
        |real| limited(abandoned(real)),
    );
    suite.main()
}
