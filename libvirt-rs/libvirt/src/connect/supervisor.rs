//! Watches a connection, and opens it again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::session::{self, Purpose, Session};
use super::states::State;
use crate::error::Error;
use crate::events::{Registered, Registration, Topics};
use crate::rpc::ConnectionError;

/// A connection that has lasted so long was a good one: the next attempt follows at once.
const STABLE: Duration = Duration::from_secs(2);

/// Runs until the connection is over for good, or nobody holds it any more.
pub(super) async fn run(inner: Weak<Inner>, ended: impl Future<Output = ConnectionError> + Send) {
    let mut since = Instant::now();
    let mut why = Error::Connection(ended.await);
    let mut failures = 0;
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        if strong.settings.reconnect.is_none() || strong.is_ended() {
            strong.status.advance(State::Ended(why));
            strong.registrations().end();
            return;
        }
        drop(strong);
        // A daemon that accepts us and dies at once is as bad as one that does not accept us.
        failures = if since.elapsed() < STABLE {
            failures + 1
        } else {
            0
        };
        let Some(ended) = reopen(&inner, why, &mut failures).await else {
            return;
        };
        since = Instant::now();
        why = Error::Connection(ended.await);
    }
}

/// Tries until it succeeds; `None` when nobody wants it any more. Gives what waits for the new connection's end.
async fn reopen(
    inner: &Weak<Inner>,
    mut why: Error,
    failures: &mut u32,
) -> Option<impl Future<Output = ConnectionError> + Send + use<>> {
    loop {
        let strong = inner.upgrade()?;
        let backoff = strong.settings.reconnect?;
        strong.status.advance(State::Reconnecting {
            attempt: failures.saturating_add(1),
            why: why.clone(),
        })?;
        tracing::debug!(uri = strong.uri, failures, %why, "opening the connection again");
        let mut state = strong.status.subscribe();
        let settings = strong.settings.clone();
        // Only a weak hold while we wait: a connection that nobody holds must not be opened for ever.
        drop(strong);
        if *failures > 0 {
            let pause = tokio::time::sleep(backoff.pause(*failures));
            tokio::select! {
                () = pause => {}
                // Closed, or dropped.
                _ = state.wait_for(|state| matches!(state, State::Ended(_))) => return None,
            }
        }
        let attempt = async {
            let session = session::open(&settings, Purpose::Calls).await?;
            match inner.upgrade() {
                Some(strong) => adopt(&strong, session).await.map(Some),
                None => Ok(None),
            }
        };
        let attempt = tokio::select! {
            attempt = attempt => attempt,
            _ = state.wait_for(|state| matches!(state, State::Ended(_))) => return None,
        };
        match attempt {
            Ok(ended) => return ended,
            Err(error) => why = error,
        }
        *failures = failures.saturating_add(1);
    }
}

/// Registers all subscriptions on a new connection, and makes it the one that is used.
async fn adopt(
    inner: &Arc<Inner>,
    session: Session,
) -> Result<impl Future<Output = ConnectionError> + Send + use<>, Error> {
    let client = session.client;
    let ended = client.watch_end();
    let topics = Topics::new(&client);
    let limit = inner.settings.opening;
    let registered = tokio::time::timeout(limit, register_all(inner, &topics));
    let registered = registered.await.unwrap_or_else(|_| {
        let uri = inner.settings.uri.to_string();
        Err(Error::OpeningTooSlow { uri, limit })
    })?;
    let adopted = inner.status.advance(State::Up(topics)).is_some();
    for (registration, events) in registered {
        registration.install(events);
    }
    if adopted {
        tracing::debug!(uri = inner.uri, "the connection is up again");
    }
    Ok(ended)
}

/// Registers all subscriptions on a new connection. A daemon that answers pings and not this is of no use either.
async fn register_all(
    inner: &Inner,
    topics: &Topics,
) -> Result<Vec<(Arc<Registration>, Registered)>, Error> {
    let waiting = inner.registrations().all();
    let mut registered = Vec::with_capacity(waiting.len());
    for registration in waiting {
        if let Some(events) = registration.register_again(topics).await? {
            registered.push((registration, events));
        }
    }
    Ok(registered)
}

// === impl Inner ===

impl Inner {
    fn is_ended(&self) -> bool {
        matches!(*self.status.current(), State::Ended(_))
    }
}
