//! The worker: it freezes one file system after the other, and waits for the kernel as long as that takes.

use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use tonic::Status;

use super::{super::plan::Plan, Job, Record, Shared, Stopped, lock};
use crate::error::{self, Reason};

impl Shared {
    /// Freezes what is mounted at `points`, or all, unless the job is over before.
    pub(super) fn freeze(&self, job: &Mutex<Job>, points: &[String]) -> Result<Stopped, Status> {
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
        let points: Vec<&str> = open.iter().map(|(mount, _)| mount.point.as_str()).collect();
        // It is held here as well: one that is left behind in the kernel may freeze something yet.
        let record = self.record(&points);
        lock(job).record.clone_from(&record);
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

    fn record(&self, points: &[&str]) -> Option<Arc<Record>> {
        match self.records.keep(points) {
            Ok(record) => Some(Arc::new(record)),
            Err(error) => {
                tracing::warn!(
                    "there is no record of what is frozen, should the agent be killed: {error}"
                );
                None
            }
        }
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
