//! The keeper: it watches the clock and the worker, and thaws.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::sync::oneshot;
use tonic::Status;
use vbridge_api::guest::v1::{FreezeChanged, events_subscribe_response::Event};

use super::{Event as Told, Job, Shared, Stopped, Thawed, lock};
use crate::{
    error::{self, Reason},
    standstill::Frozen,
};

/// What the thread has.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) job: Arc<Mutex<Job>>,
    pub(super) events: mpsc::Receiver<Told>,
    pub(super) limit: Duration,
    pub(super) until: Instant,
}

/// Why a standstill ends.
enum End {
    /// Somebody wants it.
    Wanted(Option<oneshot::Sender<Thawed>>),
    /// Its time is over.
    Limit,
}

impl Keeper {
    /// Sees a standstill through, from its first file system to its end.
    pub(super) fn run(self, reply: oneshot::Sender<Result<Stopped, Status>>) {
        match self.next() {
            Ok(Told::Done(Ok(stopped))) if !stopped.frozen.is_empty() => {
                self.shared.standstill.set(Some(Frozen {
                    mount_points: stopped.frozen.clone(),
                    until: self.until,
                }));
                let points = stopped.frozen.clone();
                match reply.send(Ok(stopped)) {
                    Ok(()) => self.stand(points),
                    // The caller is gone, and would not know that there is something to thaw.
                    Err(_) => drop(self.end(End::Wanted(None))),
                }
            }
            Ok(Told::Done(result)) => {
                let thawed = self.end(End::Wanted(None));
                let _ = reply.send(result.map_err(|status| with_failures(status, &thawed)));
            }
            Ok(Told::Thaw(asked)) => {
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
    fn next(&self) -> Result<Told, ()> {
        let left = self.until.saturating_duration_since(Instant::now());
        // Without any sender there was no second thread, and nothing is frozen.
        self.events.recv_timeout(left).map_err(|_| ())
    }

    /// Everything is frozen.
    fn stand(&self, points: Vec<String>) {
        self.publish(true, points, false);
        let end = loop {
            match self.next() {
                // The worker says it once.
                Ok(Told::Done(_)) => {}
                Ok(Told::Thaw(asked)) => break End::Wanted(asked),
                Err(()) => break End::Limit,
            }
        };
        let expired = matches!(end, End::Limit);
        let thawed = self.end(end);
        self.publish(false, thawed.points, expired);
    }

    /// Tells those who have subscribed to events.
    fn publish(&self, frozen: bool, mount_points: Vec<String>, expired: bool) {
        let change = FreezeChanged {
            frozen,
            mount_points,
            expired,
        };
        self.shared.events.publish(Event::Freeze(change));
    }

    /// Thaws, and tells all who want to know.
    fn end(&self, end: End) -> Thawed {
        let begun = self.until.checked_sub(self.limit);
        let Job { frozen, record, .. } = self.take();
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
        drop(record);
        {
            let mut state = lock(&self.shared.state);
            // Under the lock: the next standstill must not be taken for the end of this one.
            self.shared.standstill.set(None);
            state.keeper = None;
            state.expired = is_expired;
        }
        // From here on the log may be written to.
        let time = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        say(&thawed, time, is_expired);
        if let End::Wanted(Some(asked)) = end {
            let _ = asked.send(thawed.clone());
        }
        // Who has asked meanwhile gets the same answer; nobody can ask any more.
        while let Ok(event) = self.events.try_recv() {
            if let Told::Thaw(Some(asked)) = event {
                let _ = asked.send(thawed.clone());
            }
        }
        thawed
    }

    /// Ends the job, and takes what it has.
    fn take(&self) -> Job {
        let over = Job {
            is_over: true,
            ..Job::default()
        };
        let mut job = lock(&self.job);
        let taken = std::mem::replace(&mut *job, over);
        // Under the job's lock: a worker that comes back finds that it was left behind, or that it was not.
        lock(&self.shared.state).stuck.clone_from(&taken.current);
        taken
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

/// Tells the log.
fn say(thawed: &Thawed, time: Duration, is_expired: bool) {
    let points = thawed.points.join(", ");
    let points = points.escape_debug();
    match (thawed.points.is_empty(), is_expired) {
        (true, _) => {}
        (false, false) => tracing::info!("{points} stood still for {time:.1?}"),
        (false, true) => {
            tracing::warn!(
                "{points} stood still for {time:.1?}, until the limit: nobody has thawed them"
            );
        }
    }
    say_failed(&thawed.failed);
}

/// Tells the log what stays frozen.
pub(super) fn say_failed(failed: &[String]) {
    if !failed.is_empty() {
        let failed = failed.join("; ");
        tracing::error!("can't be thawed: {}", failed.escape_debug());
    }
}
