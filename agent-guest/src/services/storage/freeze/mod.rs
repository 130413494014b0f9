//! The standstill: file systems are frozen, stay so for a while, and are thawed whatever happens.
//!
//! ```text
//!              Freeze                all are frozen, and the caller is still there
//!    Idle ──────────────▶ Freezing ────────────────────────────────▶ Standing
//!      ▲                     │ one fails; Thaw; the limit;              │ Thaw; the limit;
//!      │                     ▼ the agent's end                          ▼ the agent's end
//!      └──────────────── Thawing ◀──────────────────────────────────────┘
//! ```
//!
//! While file systems are frozen, whatever writes to them blocks, and no signal wakes it. So nothing here depends on the
//! runtime or on its threads, all of which calls to `Files` or `Exec` may have blocked. Each standstill has two threads
//! that exist before anything is frozen, and that write nothing:
//!
//! - the *worker* freezes one file system after the other. The kernel first writes out what waits for the disk, which may
//!   take any time and can't be interrupted;
//! - the *keeper* watches the clock and the worker, and thaws. Should the worker not be done at the limit, it is left
//!   behind: it thaws by itself what the kernel freezes for it after all, and until then there is no further standstill.
//!
//! An agent that is killed thaws nothing. The next one does, when it starts, by the [`record`].

mod keeper;
mod record;
mod worker;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use tonic::Status;

pub(crate) use self::record::Records;
use self::{keeper::Keeper, record::Record};
use crate::{
    error::{self, Reason},
    events::Bus,
    gate,
    limits::THAW_TIMEOUT,
    source::filesystem::{Filesystem, Kernel},
    standstill::{Frozen, Standstill},
};

/// Freezes and thaws. Clones do it to the same file systems.
#[derive(Clone)]
pub(crate) struct Freezer(Arc<Shared>);

/// What stands still.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    pub(super) frozen: Vec<String>,
    pub(super) skipped: Vec<String>,
}

/// What became of thawing.
#[derive(Debug, Clone, Default)]
struct Thawed {
    /// The mount points, but for those that something else had thawed.
    points: Vec<String>,
    /// Those that the kernel does not thaw, and why.
    failed: Vec<String>,
}

struct Shared {
    kernel: Arc<dyn Kernel>,
    standstill: Standstill,
    events: Bus,
    records: Records,
    state: Mutex<State>,
    /// How many threads there are.
    threads: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// To the keeper, while there is one. Each call of Thaw puts one event into it at most, so calls bound it.
    keeper: Option<mpsc::Sender<Event>>,
    /// The mount point of which a worker that was left behind waits.
    stuck: Option<String>,
    /// Whether the last standstill was ended by its limit.
    expired: bool,
}

/// What a keeper waits for.
enum Event {
    /// The worker is done.
    Done(Result<Stopped, Status>),
    /// It has to end, and somebody may want to know what was thawed.
    Thaw(Option<oneshot::Sender<Thawed>>),
}

/// What worker and keeper share.
#[derive(Default)]
struct Job {
    /// In the order in which they were frozen.
    frozen: Vec<(String, Arc<dyn Filesystem>)>,
    /// The mount point of what the worker is waiting for.
    current: Option<String>,
    /// Nothing more is to be frozen.
    is_over: bool,
    /// For the next agent, if this one is killed.
    record: Option<Arc<Record>>,
}

impl Freezer {
    pub(crate) fn new(
        kernel: Arc<dyn Kernel>,
        standstill: Standstill,
        events: Bus,
        records: Records,
    ) -> Self {
        Self(Arc::new(Shared {
            kernel,
            standstill,
            events,
            records,
            state: Mutex::default(),
            threads: watch::Sender::new(0),
        }))
    }

    /// Thaws what an agent that was killed has left frozen, in a thread of its own.
    pub(crate) fn recover(&self) {
        let shared = Arc::clone(&self.0);
        let started = self.0.spawn("thaw", move || {
            match shared.records.recover(shared.kernel.as_ref()) {
                Ok((thawed, failed)) => {
                    let points = thawed.join(", ");
                    if !thawed.is_empty() {
                        tracing::warn!(
                            "{} stood still since an agent was killed, and is thawed",
                            points.escape_debug()
                        );
                    }
                    keeper::say_failed(&failed);
                }
                Err(error) => {
                    tracing::warn!("what an earlier agent may have frozen can't be read: {error}");
                }
            }
        });
        if let Err(error) = started {
            tracing::warn!(
                "what an earlier agent may have frozen stays so, without a thread: {error}"
            );
        }
    }

    /// Freezes what is mounted at `points`, or all if there are none, until it is thawed or `limit` has passed. A caller
    /// that does not wait for the answer gets no standstill.
    pub(super) async fn freeze(
        &self,
        points: Vec<String>,
        limit: Duration,
    ) -> Result<Stopped, Status> {
        self.begin(points, limit)?
            .await
            .unwrap_or_else(|_| Err(failed("freezing ended without a result")))
    }

    fn begin(
        &self,
        points: Vec<String>,
        limit: Duration,
    ) -> Result<oneshot::Receiver<Result<Stopped, Status>>, Status> {
        let shared = &self.0;
        let mut state = lock(&shared.state);
        if state.keeper.is_some() {
            return Err(self.refusal());
        }
        if let Some(point) = &state.stuck {
            let message = format!("the kernel has not yet come back from freezing {point} earlier");
            return Err(error::failure(Reason::KernelRefused, message));
        }
        let until = Instant::now()
            .checked_add(limit)
            .ok_or_else(|| error::invalid_field("limit", "is too long"))?;
        let (sender, events) = mpsc::channel();
        let (reply, answer) = oneshot::channel();
        let job = Arc::<Mutex<Job>>::default();
        let keeper = Keeper {
            shared: Arc::clone(shared),
            job: Arc::clone(&job),
            events,
            limit,
            until,
        };
        let failed = |error: io::Error| failed(&format!("there are no threads: {error}"));
        // Before the first is frozen: the log may lie on it.
        shared.standstill.set(Some(Frozen {
            mount_points: Vec::new(),
            until,
        }));
        let started = shared.spawn("standstill", move || keeper.run(reply));
        started.map_err(|error| {
            shared.standstill.set(None);
            failed(error)
        })?;
        // Where the second can't be started, the first sees that and ends.
        let (worker, done) = (Arc::clone(shared), sender.clone());
        shared
            .spawn("freeze", move || {
                // The keeper may have gone without it.
                let _ = done.send(Event::Done(worker.freeze(&job, &points)));
            })
            .map_err(failed)?;
        state.keeper = Some(sender);
        Ok(answer)
    }

    /// Thaws. The mount points of what was frozen until now.
    pub(super) async fn thaw(&self) -> Result<Vec<String>, Status> {
        let (reply, answer) = oneshot::channel();
        if !self.order(Some(reply)) {
            return Ok(Vec::new());
        }
        match tokio::time::timeout(THAW_TIMEOUT, answer).await {
            Ok(Ok(thawed)) if thawed.failed.is_empty() => Ok(thawed.points),
            Ok(Ok(thawed)) => Err(error::failure(
                Reason::KernelRefused,
                format!("can't be thawed: {}", thawed.failed.join("; ")),
            )),
            Ok(Err(_)) => Err(failed("thawing ended without a result")),
            Err(_) => Err(error::failure(
                Reason::KernelRefused,
                format!(
                    "the kernel takes longer than {THAW_TIMEOUT:?} to thaw; it goes on with it"
                ),
            )),
        }
    }

    /// What is frozen now, and whether the last standstill was ended by its limit.
    pub(super) fn status(&self) -> (Option<Frozen>, bool) {
        (self.0.standstill.now(), lock(&self.0.state).expired)
    }

    /// How a call is refused that needs file systems that go on.
    pub(super) fn check(&self) -> Result<(), Status> {
        match self.0.standstill.is_frozen() {
            true => Err(self.refusal()),
            false => Ok(()),
        }
    }

    /// Thaws as soon as what it gives is dropped.
    pub(crate) fn thaw_on_drop(&self) -> ThawOnDrop {
        ThawOnDrop(self.clone())
    }

    /// Thaws for good, since the agent ends: what is frozen then stays frozen.
    pub(crate) async fn end(&self) {
        self.order(None);
        let mut threads = self.0.threads.subscribe();
        let ended = threads.wait_for(|threads| *threads == 0);
        if tokio::time::timeout(THAW_TIMEOUT, ended).await.is_err() {
            tracing::error!("the kernel takes longer than {THAW_TIMEOUT:?} to thaw file systems");
        }
    }

    /// Tells the keeper to end. Whether there is one.
    fn order(&self, reply: Option<oneshot::Sender<Thawed>>) -> bool {
        let state = lock(&self.0.state);
        let event = Event::Thaw(reply);
        state
            .keeper
            .as_ref()
            .is_some_and(|keeper| keeper.send(event).is_ok())
    }

    fn refusal(&self) -> Status {
        let over = || Frozen {
            mount_points: Vec::new(),
            until: Instant::now(),
        };
        gate::refusal(&self.0.standstill.now().unwrap_or_else(over))
    }
}

/// Thaws when it is dropped.
pub(crate) struct ThawOnDrop(Freezer);

impl Drop for ThawOnDrop {
    fn drop(&mut self) {
        self.0.order(None);
    }
}

impl Shared {
    fn spawn(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        struct Counted(watch::Sender<usize>);

        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.send_modify(|threads| *threads -= 1);
            }
        }

        self.threads.send_modify(|threads| *threads += 1);
        let counted = Counted(self.threads.clone());
        let builder = thread::Builder::new().name(name.to_owned());
        builder.spawn(move || {
            let _counted = counted;
            work();
        })?;
        Ok(())
    }
}

fn failed(message: &str) -> Status {
    error::failure(Reason::Internal, format!("the agent failed: {message}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds a lock can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
