//! Trimming: disks learn which blocks are no longer in use. It may take minutes, on a thread of its own.

use std::{
    sync::{Arc, PoisonError, TryLockError},
    thread,
};

use rustix::io::Errno;
use tokio::sync::oneshot;
use tonic::Status;
use vbridge_api::guest::v1::TrimResult;

use super::plan::Plan;
use crate::{
    error::{self, Reason},
    source::filesystem::Kernel,
};

/// Trims, for one caller at a time.
#[derive(Clone)]
pub(super) struct Trimmer {
    kernel: Arc<dyn Kernel>,
    /// Held while there is a thread.
    turn: Arc<std::sync::Mutex<()>>,
}

/// What a file system or disk says that can't be trimmed.
const CAN_NOT: [Errno; 2] = [Errno::OPNOTSUPP, Errno::NOTTY];

impl Trimmer {
    pub(super) fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self {
            kernel,
            turn: Arc::default(),
        }
    }

    /// Trims what is mounted at `points`, or all that can be if there are none.
    pub(super) async fn trim(
        &self,
        points: Vec<String>,
        minimum: u64,
    ) -> Result<Vec<TrimResult>, Status> {
        let (reply, answer) = oneshot::channel();
        let trimmer = self.clone();
        thread::Builder::new()
            .name("trim".to_owned())
            .spawn(move || trimmer.run(&points, minimum, reply))
            .map_err(|error| failed(&format!("there are no threads: {error}")))?;
        answer
            .await
            .unwrap_or_else(|_| Err(failed("trimming ended without a result")))
    }

    fn run(
        &self,
        points: &[String],
        minimum: u64,
        mut reply: oneshot::Sender<Result<Vec<TrimResult>, Status>>,
    ) {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => PoisonError::into_inner(turn),
            Err(TryLockError::WouldBlock) => {
                let _ = reply.send(Err(error::failure(
                    Reason::TooMany,
                    "the guest trims its file systems already: one call at a time does",
                )));
                return;
            }
        };
        let result = self.all(points, minimum, &mut reply);
        // Before the answer: who has it may call again at once.
        drop(turn);
        let _ = reply.send(result);
    }

    fn all(
        &self,
        points: &[String],
        minimum: u64,
        reply: &mut oneshot::Sender<Result<Vec<TrimResult>, Status>>,
    ) -> Result<Vec<TrimResult>, Status> {
        let mountinfo = self.kernel.mountinfo();
        let mountinfo = mountinfo.map_err(|error| error::source_unavailable(&error))?;
        let plan = Plan::new(&mountinfo, points)?;
        let is_asked_for = !points.is_empty();
        let mut results = Vec::new();
        let mut add = |mount_point: &str, trimmed_bytes, error| {
            results.push(TrimResult {
                mount_point: mount_point.to_owned(),
                trimmed_bytes,
                error,
            });
        };
        for mount in &plan.chosen {
            // Nobody waits for the rest.
            if reply.is_closed() {
                break;
            }
            let trimmed = match self.kernel.open(mount) {
                Ok(filesystem) => filesystem.trim(minimum),
                Err(why) => {
                    add(&mount.point, 0, why);
                    continue;
                }
            };
            match trimmed {
                Ok(bytes) => add(&mount.point, bytes, String::new()),
                Err(error) if CAN_NOT.contains(&error) => {
                    if is_asked_for {
                        add(
                            &mount.point,
                            0,
                            "the file system or its disk can't".to_owned(),
                        );
                    }
                }
                Err(error) => add(&mount.point, 0, error.to_string()),
            }
        }
        if is_asked_for {
            for (point, why) in plan.skipped {
                add(&point, 0, why);
            }
        }
        Ok(results)
    }
}

fn failed(message: &str) -> Status {
    error::failure(Reason::Internal, format!("the agent failed: {message}"))
}
