//! What goes on while things are killed, and what must never happen to it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use futures_util::{StreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, Request, Status};

use crate::{
    content::{self, Random},
    exercise::v1::{BulkReadRequest, BulkWriteRequest, UnaryRequest},
    place::{self, Place},
};

/// A stream that is longer than any test.
const ENDLESS: u64 = 1 << 50;

/// Bytes of one bulk message.
const CHUNK: usize = 32 * 1024;
const CHUNK_U32: u32 = 32 * 1024;

/// The pings' deadline, and what it may be missed by.
const PING_DEADLINE: Duration = Duration::from_secs(3);
const PING_GRACE: Duration = Duration::from_secs(2);

/// A bulk stream that has moved nothing for so long hangs: a restart of the agent takes a fraction of it, a boot of the guest on an
/// overloaded machine up to 70 s.
const STALL: Duration = Duration::from_secs(120);

/// Between two tries of what failed, so that nothing spins while an end is away.
const RETRY: Duration = Duration::from_millis(20);

/// Two bulk streams, one each way, and a ping loop.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What has become of the traffic.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// Bytes that came, each of them right.
    pub read: u64,
    /// Bytes that were handed over to be sent.
    pub written: u64,
    /// Pings that were answered, each with its own bytes.
    pub pings: u64,
    /// Bulk streams that were cut off.
    pub bulk_failures: u64,
    /// Calls of all kinds that failed, by code.
    pub failures: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Shared {
    outcomes: Mutex<Outcomes>,
    wrong: Mutex<Option<String>>,
    /// The guest is known to stand still.
    silence: AtomicBool,
    stopping: AtomicBool,
}

impl Traffic {
    /// Starts it.
    pub fn start(place: &Place, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            outcomes: Mutex::default(),
            wrong: Mutex::default(),
            silence: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        let mut random = Random::new(seed);
        tasks.spawn(read(Arc::clone(&shared), place.clone(), random.number()));
        tasks.spawn(write(Arc::clone(&shared), place.clone(), random.number()));
        tasks.spawn(ping(Arc::clone(&shared), place.clone(), random.number()));
        Self { shared, tasks }
    }

    /// From now on, or no more, the guest stands still: streams may, too.
    pub fn expect_silence(&self, silence: bool) {
        self.shared.silence.store(silence, Ordering::Relaxed);
    }

    /// What has become of it so far.
    pub fn outcomes(&self) -> Outcomes {
        self.shared.outcomes().clone()
    }

    /// Whether all is well.
    ///
    /// # Errors
    /// A wrong byte was delivered, or something hung.
    pub fn check(&self) -> Result<()> {
        match &*self
            .shared
            .wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(wrong) => bail!("{wrong}"),
            None => Ok(()),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Traffic::check`].
    pub async fn stop(mut self) -> Result<Outcomes> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.tasks.shutdown().await;
        self.check()?;
        Ok(self.outcomes())
    }
}

impl Shared {
    fn outcomes(&self) -> MutexGuard<'_, Outcomes> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must not happen has happened. The first of it is told.
    fn wrong(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get_or_insert(what);
    }

    fn failed(&self, status: &Status, bulk: bool) {
        if self.stopping.load(Ordering::Relaxed) {
            return;
        }
        if status.code() == Code::DataLoss {
            self.wrong(format!(
                "wrong bytes were delivered to the guest: {}",
                status.message()
            ));
        }
        let mut outcomes = self.outcomes();
        outcomes.bulk_failures += u64::from(bulk);
        *outcomes
            .failures
            .entry(format!("{:?}", status.code()))
            .or_default() += 1;
    }

    fn is_silent(&self) -> bool {
        self.silence.load(Ordering::Relaxed)
    }
}

async fn read(shared: Arc<Shared>, place: Place, seed: u64) {
    let mut client = place::exercise(place.endpoint().connect_lazy());
    for seed in seed.. {
        let request = BulkReadRequest {
            size: ENDLESS,
            chunk: CHUNK_U32,
            seed,
            without_digest: true,
            ..Default::default()
        };
        if let Err(status) = read_one(&shared, &mut client, request).await {
            shared.failed(&status, true);
        }
        sleep(RETRY).await;
    }
}

type Client = crate::exercise::v1::exercise_client::ExerciseClient<tonic::transport::Channel>;

async fn read_one(
    shared: &Shared,
    client: &mut Client,
    request: BulkReadRequest,
) -> Result<(), Status> {
    let seed = request.seed;
    let mut stream = client.bulk_read(request).await?.into_inner();
    let mut offset = 0;
    let mut heard = Instant::now();
    loop {
        let part = match timeout(Duration::from_secs(1), stream.message()).await {
            Ok(part) => part?,
            Err(_) if shared.is_silent() => {
                heard = Instant::now();
                continue;
            }
            Err(_) if heard.elapsed() < STALL => continue,
            Err(_) => {
                shared.wrong(format!(
                    "a bulk stream from the guest has moved nothing for {STALL:?}"
                ));
                return Ok(());
            }
        };
        let Some(part) = part else {
            shared.wrong("an endless stream has ended without a failure".to_owned());
            return Ok(());
        };
        if let Some(position) = content::first_difference(seed, offset, &part.data) {
            shared.wrong(format!(
                "byte {position} of the content of seed {seed}, delivered to the client, is wrong"
            ));
        }
        heard = Instant::now();
        offset += part.data.len() as u64;
        shared.outcomes().read += part.data.len() as u64;
    }
}

async fn write(shared: Arc<Shared>, place: Place, seed: u64) {
    let mut client = place::exercise(place.endpoint().connect_lazy());
    for seed in seed.. {
        if let Err(status) = write_one(&shared, &mut client, seed).await {
            shared.failed(&status, true);
        }
        sleep(RETRY).await;
    }
}

async fn write_one(shared: &Arc<Shared>, client: &mut Client, seed: u64) -> Result<(), Status> {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let outcomes = Arc::clone(shared);
    let parts = stream::iter((0..ENDLESS).step_by(CHUNK)).map(move |offset| {
        count.store(offset, Ordering::Relaxed);
        outcomes.outcomes().written += CHUNK as u64;
        BulkWriteRequest {
            data: content::bytes(seed, offset, CHUNK),
            seed,
            without_digest: true,
            ..Default::default()
        }
    });
    let call = client.bulk_write(parts);
    tokio::pin!(call);
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        match timeout(Duration::from_secs(1), &mut call).await {
            Ok(answer) => {
                let answer = answer?.into_inner();
                shared.wrong(format!("an upload without end was answered: {answer:?}"));
                return Ok(());
            }
            Err(_) => {
                let now = sent.load(Ordering::Relaxed);
                if now != last || shared.is_silent() {
                    (last, moved) = (now, Instant::now());
                }
                if moved.elapsed() > STALL {
                    shared.wrong(format!(
                        "a bulk stream to the guest has moved nothing for {STALL:?}"
                    ));
                    return Ok(());
                }
            }
        }
    }
}

async fn ping(shared: Arc<Shared>, place: Place, seed: u64) {
    let mut random = Random::new(seed);
    let mut client = place::exercise(place.endpoint().connect_lazy());
    loop {
        let payload = random.bytes(200);
        let mut request = Request::new(UnaryRequest {
            payload: payload.clone(),
            answer: None,
        });
        request.set_timeout(PING_DEADLINE);
        match timeout(PING_DEADLINE + PING_GRACE, client.unary(request)).await {
            Ok(Ok(answer)) if answer.get_ref().payload == payload => {
                shared.outcomes().pings += 1;
                // As fast as it goes would leave the streams nothing.
                sleep(Duration::from_millis(2)).await;
            }
            Ok(Ok(_)) => shared.wrong("a ping got an answer that is not its own".to_owned()),
            Ok(Err(status)) => {
                shared.failed(&status, false);
                sleep(RETRY).await;
            }
            Err(_) => shared.wrong(format!("a ping with a deadline of {PING_DEADLINE:?} hangs")),
        }
    }
}
