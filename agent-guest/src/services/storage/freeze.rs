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

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::sync::{oneshot, watch};
use tonic::Status;

use super::plan::Plan;
use crate::{
    error::{self, Reason},
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
}

impl Freezer {
    pub(crate) fn new(kernel: Arc<dyn Kernel>, standstill: Standstill) -> Self {
        Self(Arc::new(Shared {
            kernel,
            standstill,
            state: Mutex::default(),
            threads: watch::Sender::new(0),
        }))
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
        // Where the second can't be started, the first sees that and ends.
        shared
            .spawn("standstill", move || keeper.run(reply))
            .map_err(failed)?;
        let (worker, done) = (Arc::clone(shared), sender.clone());
        shared
            .spawn("freeze", move || {
                // The keeper may have gone without it.
                let _ = done.send(Event::Done(worker.freeze(&job, &points)));
            })
            .map_err(failed)?;
        state.keeper = Some(sender);
        // Before the first is frozen: the log may lie on it.
        shared.standstill.set(Some(Frozen {
            mount_points: Vec::new(),
            until,
        }));
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

// === the worker ===

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

    fn freeze(&self, job: &Mutex<Job>, points: &[String]) -> Result<Stopped, Status> {
        let mountinfo = self.kernel.mountinfo();
        let mountinfo = mountinfo.map_err(|error| error::source_unavailable(&error))?;
        let plan = Plan::new(&mountinfo, points)?;
        let skip = |point: &str, why: &str| format!("{point}: {why}");
        let mut stopped = Stopped::default();
        stopped
            .skipped
            .extend(plan.skipped.iter().map(|(point, why)| skip(point, why)));
        let mut open = Vec::new();
        for mount in &plan.chosen {
            match self.on(job, &mount.point, || self.kernel.open(mount))? {
                Ok(filesystem) => open.push((mount, filesystem)),
                Err(why) => stopped.skipped.push(skip(&mount.point, &why)),
            }
        }
        // What was mounted later may lie on what was mounted before, in a file or a folder of it.
        for (mount, filesystem) in open.into_iter().rev() {
            let frozen = self.on(job, &mount.point, || {
                let frozen = filesystem.freeze();
                let mut job = lock(job);
                match (frozen, job.is_over) {
                    (Ok(()), false) => job
                        .frozen
                        .push((mount.point.clone(), Arc::clone(&filesystem))),
                    (Ok(()), true) => {
                        // Nobody waits for it any more, and nobody else knows of it.
                        drop(job);
                        let _ = filesystem.thaw();
                    }
                    (Err(_), _) => {}
                }
                frozen
            })?;
            match frozen {
                Ok(()) => stopped.frozen.push(mount.point.clone()),
                Err(Errno::OPNOTSUPP) => {
                    let why = format!("{} has no means to be frozen", mount.kind);
                    stopped.skipped.push(skip(&mount.point, &why));
                }
                Err(error) => return Err(refused(&mount.point, error)),
            }
        }
        Ok(stopped)
    }

    /// Does something that may take any time, as long as the job is not over.
    fn on<T>(&self, job: &Mutex<Job>, point: &str, work: impl FnOnce() -> T) -> Result<T, Status> {
        let over = || error::failure(Reason::Aborted, "it was ended before all were frozen");
        {
            let mut job = lock(job);
            if job.is_over {
                return Err(over());
            }
            job.current = Some(point.to_owned());
        }
        let result = work();
        let mut job = lock(job);
        job.current = None;
        if job.is_over {
            lock(&self.state).stuck = None;
            return Err(over());
        }
        Ok(result)
    }
}

fn refused(point: &str, error: Errno) -> Status {
    let reason = match error {
        Errno::PERM | Errno::ACCESS => Reason::PermissionDenied,
        _ => Reason::KernelRefused,
    };
    let hint = match error {
        Errno::BUSY => " (something else has frozen it)",
        Errno::PERM => " (the agent must run as root, with CAP_SYS_ADMIN)",
        _ => "",
    };
    let message = format!(
        "{point} can't be frozen: {error}{hint}; what was frozen before it is thawed again"
    );
    error::failure(reason, message)
}

fn failed(message: &str) -> Status {
    error::failure(Reason::Internal, format!("the agent failed: {message}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds a lock can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === the keeper ===

struct Keeper {
    shared: Arc<Shared>,
    job: Arc<Mutex<Job>>,
    events: mpsc::Receiver<Event>,
    limit: Duration,
    until: Instant,
}

/// Why a standstill ends.
enum End {
    /// Somebody wants it.
    Wanted(Option<oneshot::Sender<Thawed>>),
    /// Its time is over.
    Limit,
}

impl Keeper {
    fn run(self, reply: oneshot::Sender<Result<Stopped, Status>>) {
        match self.next() {
            Ok(Event::Done(Ok(stopped))) if !stopped.frozen.is_empty() => {
                self.shared.standstill.set(Some(Frozen {
                    mount_points: stopped.frozen.clone(),
                    until: self.until,
                }));
                match reply.send(Ok(stopped)) {
                    Ok(()) => self.stand(),
                    // The caller is gone, and would not know that there is something to thaw.
                    Err(_) => drop(self.end(End::Wanted(None))),
                }
            }
            Ok(Event::Done(result)) => {
                let thawed = self.end(End::Wanted(None));
                let _ = reply.send(result.map_err(|status| with_failures(status, &thawed)));
            }
            Ok(Event::Thaw(asked)) => {
                self.end(End::Wanted(asked));
                let message = "it was thawed before all were frozen";
                let _ = reply.send(Err(error::failure(Reason::Aborted, message)));
            }
            Err(()) => {
                let current = lock(&self.job).current.clone().unwrap_or_default();
                let thawed = self.end(End::Limit);
                let message = format!(
                    "the kernel has not frozen {current} within the limit of {:?}; everything is thawed again",
                    self.limit
                );
                let status = error::failure(Reason::KernelRefused, message);
                let _ = reply.send(Err(with_failures(status, &thawed)));
            }
        }
    }

    /// What happens next; an error when the time is over.
    fn next(&self) -> Result<Event, ()> {
        let left = self.until.saturating_duration_since(Instant::now());
        // Without any sender there was no second thread, and nothing is frozen.
        self.events.recv_timeout(left).map_err(|_| ())
    }

    /// Everything is frozen.
    fn stand(&self) {
        let end = loop {
            match self.next() {
                // The worker says it once.
                Ok(Event::Done(_)) => {}
                Ok(Event::Thaw(asked)) => break End::Wanted(asked),
                Err(()) => break End::Limit,
            }
        };
        self.end(end);
    }

    /// Thaws, and tells all who want to know.
    fn end(&self, end: End) -> Thawed {
        let begun = self.until.checked_sub(self.limit);
        let frozen = self.take();
        let mut thawed = Thawed::default();
        // What was frozen last was mounted first: what lies on it can't go on before it does.
        for (point, filesystem) in frozen.into_iter().rev() {
            match filesystem.thaw() {
                Ok(()) => thawed.points.push(point),
                // Something else was faster.
                Err(Errno::INVAL) => {}
                Err(error) => thawed.failed.push(format!("{point}: {error}")),
            }
        }
        let is_expired = matches!(end, End::Limit);
        {
            let mut state = lock(&self.shared.state);
            state.keeper = None;
            state.expired = is_expired;
        }
        self.shared.standstill.set(None);
        // From here on the log may be written to.
        let points = thawed.points.join(", ");
        let points = points.escape_debug();
        let time = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        if is_expired {
            tracing::warn!(
                "{points} stood still until the limit of {time:.1?}, and go on: nobody has thawed them"
            );
        } else if !thawed.points.is_empty() {
            tracing::info!("{points} stood still for {time:.1?}");
        }
        if !thawed.failed.is_empty() {
            let failed = thawed.failed.join("; ");
            tracing::error!("can't be thawed: {}", failed.escape_debug());
        }
        if let End::Wanted(Some(asked)) = end {
            let _ = asked.send(thawed.clone());
        }
        // Who has asked meanwhile gets the same answer; nobody can ask any more.
        while let Ok(event) = self.events.try_recv() {
            if let Event::Thaw(Some(asked)) = event {
                let _ = asked.send(thawed.clone());
            }
        }
        thawed
    }

    /// Ends the job, and takes what it has frozen.
    fn take(&self) -> Vec<(String, Arc<dyn Filesystem>)> {
        let mut job = lock(&self.job);
        job.is_over = true;
        if let Some(current) = &job.current {
            lock(&self.shared.state).stuck = Some(current.clone());
        }
        std::mem::take(&mut job.frozen)
    }
}

/// Adds what could not be thawed to an error.
fn with_failures(status: Status, thawed: &Thawed) -> Status {
    if thawed.failed.is_empty() {
        return status;
    }
    let failed = thawed.failed.join("; ");
    let message = format!("{}; but can't be thawed: {failed}", status.message());
    error::failure(Reason::KernelRefused, message)
}
