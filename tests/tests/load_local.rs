//! Many callers and large files, through a bridge to the agent that is shipped, on a Unix socket.

use std::{fs, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};
use vbridge_tests::{
    fixture::{Bridge, LocalAgent},
    load::{self, Abandoned, Check, Traces, Watchers},
    suite::Suite,
};

const NAME: &str = "local";

/// Far longer than any of these takes.
const LIMIT: Duration = Duration::from_secs(400);

/// Memory that a large file may cost agent and bridge each, beyond what they hold idle.
const TRANSFER_MEMORY: u64 = 32 << 20;

/// Memory that subscribers who do not read may cost agent and bridge each: what their windows and buffers hold at most.
const STUCK_MEMORY: u64 = 32 << 20;

/// The size of a large file: far more than any of us may hold.
const LARGE: u64 = 1 << 30;

/// New ones for each test: what they hold is measured.
struct World {
    bridge: Bridge,
    agent: LocalAgent,
    here: tempfile::TempDir,
}

/// What both hold, in bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    agent: u64,
    bridge: u64,
}

impl World {
    async fn start() -> Result<Self> {
        let agent = LocalAgent::shipped(&[]).await?;
        let bridge = Bridge::start([agent.seat(NAME)]).await?;
        bridge.ready(NAME).await?;
        Ok(Self {
            bridge,
            agent,
            // Not below /tmp, which may be memory.
            here: tempfile::tempdir_in(xtask::workspace::target_dir())?,
        })
    }

    fn path(&self, name: &str) -> Result<String> {
        let path = self.here.path().join(name);
        Ok(path.to_str().context("a path in UTF-8")?.to_owned())
    }

    /// What both hold now; their peaks begin anew.
    fn memory(&mut self) -> Result<Memory> {
        let (agent, bridge) = (self.agent.process(), self.bridge.process());
        agent.forget_peak()?;
        bridge.forget_peak()?;
        Ok(Memory {
            agent: agent.resident_bytes()?,
            bridge: bridge.resident_bytes()?,
        })
    }

    /// The most that both have held since `before`, which may not be `limit` more.
    fn has_grown_less(&mut self, what: &str, before: Memory, limit: u64) -> Result<()> {
        let peak = Memory {
            agent: self.agent.process().peak_bytes()?,
            bridge: self.bridge.process().peak_bytes()?,
        };
        let grown = Memory {
            agent: peak.agent.saturating_sub(before.agent),
            bridge: peak.bridge.saturating_sub(before.bridge),
        };
        let kib = |memory: Memory| (memory.agent >> 10, memory.bridge >> 10);
        eprintln!(
            "{what}: agent and bridge hold {:?} KiB idle, and at most {:?} KiB more",
            kib(before),
            kib(grown)
        );
        ensure!(
            grown.agent <= limit && grown.bridge <= limit,
            "{what}: they grow by {grown:?}, and {limit} is the most"
        );
        Ok(())
    }
}

async fn watchers() -> Result<()> {
    let mut world = World::start().await?;
    let place = world.bridge.place(NAME);
    let watchers = Watchers {
        lively: 180,
        stuck: 20,
        interval: Duration::from_millis(200),
        samples: 60,
    };
    let before = world.memory()?;
    watchers
        .run(&place, async || {
            world.has_grown_less("200 subscribers", before, STUCK_MEMORY)
        })
        .await
}

/// Up and down, each with its digests and all bytes compared.
async fn a_large_file() -> Result<()> {
    let mut world = World::start().await?;
    let channel = world.bridge.place(NAME).channel().await?;
    let path = world.path("large")?;
    // What is made with the first transfer is made once.
    load::upload(channel.clone(), &path, (1, 1 << 20), Check::Digests).await?;
    load::download(channel.clone(), &path, (1, 1 << 20), Check::Digests).await?;
    let before = world.memory()?;
    load::upload(channel.clone(), &path, (2, LARGE), Check::Digests).await?;
    world.has_grown_less("1 GiB to the guest", before, TRANSFER_MEMORY)?;
    let before = world.memory()?;
    load::download(channel, &path, (2, LARGE), Check::Digests).await?;
    world.has_grown_less("1 GiB from the guest", before, TRANSFER_MEMORY)
}

async fn abandoned() -> Result<()> {
    let mut world = World::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    // Holds each connection as long as the other end does.
    let accepting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    fs::write(world.path("file")?, vec![b'x'; 8 << 20])?;
    fs::create_dir(world.path("uploads")?)?;
    let calls = Abandoned {
        calls: 10_000,
        file: world.path("file")?,
        directory: world.path("uploads")?,
        port,
    };
    let place = world.bridge.place(NAME);
    let before = world.memory()?;
    let uploads = world.path("uploads")?;
    let bridge = world.bridge.descriptors()?;
    let agent = world.agent.process();
    let run = calls.run(&place, async || {
        Ok(Traces {
            descriptors: agent.descriptors()?,
            children: agent.children()?,
            files: fs::read_dir(&uploads)?.count(),
        })
    });
    run.await
        .with_context(|| format!("{}{}", world.bridge.log(), agent.log()))?;
    accepting.abort();
    ensure!(
        world.bridge.descriptors()? <= bridge + 1,
        "the bridge holds descriptors"
    );
    world.has_grown_less("10,000 abandoned calls", before, STUCK_MEMORY)
}

async fn limited(test: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(LIMIT, test).await.context("it takes for ever")?
}

fn main() -> ExitCode {
    // One after the other, since they measure time and memory.
    let mut suite = Suite::new(|| async { Ok(()) });
    suite.test(
        "a_hundred_and_eighty_subscribers_get_every_sample_beside_twenty_that_never_read",
        |_: Arc<()>| limited(watchers()),
    );
    suite.test(
        "a_gibibyte_each_way_costs_neither_agent_nor_bridge_thirty_two_mebibytes",
        |_| limited(a_large_file()),
    );
    suite.test("ten_thousand_abandoned_calls_leave_nothing_behind", |_| {
        limited(abandoned())
    });
    suite.main()
}
