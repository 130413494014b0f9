//! One end of time for all the steps of connecting.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::Error;

/// When connecting is given up, and with whom.
#[derive(Debug)]
pub(super) struct Deadline {
    limit: Duration,
    /// `None` if the limit is beyond the clock's range.
    end: Option<Instant>,
    peer: String,
}

impl Deadline {
    pub(super) fn new(limit: Duration, peer: String) -> Self {
        let end = Instant::now().checked_add(limit);
        Self { limit, end, peer }
    }

    /// The same end, with somebody else.
    pub(super) fn with(self, peer: String) -> Self {
        Self { peer, ..self }
    }

    /// Carries out a step. `doing` stands before the peer in the error.
    pub(super) async fn within<T>(
        &self,
        doing: &'static str,
        step: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let Some(end) = self.end else {
            return Ok(step.await);
        };
        timeout_at(end, step).await.map_err(|_| Error::Timeout {
            doing,
            peer: self.peer.clone(),
            limit: self.limit,
        })
    }
}
