//! The state of a connection: what it is now, and what it has been for those who watch.
//!
//! Every change goes through [`Status::advance`], so all who watch see the same changes in the same order.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use tokio::sync::watch;

use super::limits::STATES;
use crate::error::Error;
use crate::events::Topics;
use crate::rpc::ConnectionError;

/// Whether a connection is up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectState {
    /// Calls can be made.
    Up,
    /// It has broken and is being opened anew.
    Reconnecting {
        /// Which attempt comes next, from 1.
        attempt: u32,
        /// Why it broke, or why the last attempt failed.
        why: Error,
    },
    /// It is over.
    Ended(Error),
}

/// The states that a connection goes through, from the one at the time of [`Connect::states`](crate::Connect::states)
/// on: a [`Stream`], with [`next`](Self::next) for those who need no more.
///
/// A change between two looks is not lost: an outage that is over by then shows as
/// [`Reconnecting`](ConnectState::Reconnecting), with the reason, and [`Up`](ConnectState::Up). Two things are left out for
/// who looks seldom, and neither is ever the latest state:
///
/// - Of one outage's attempts to connect, those between the first, which says why the connection broke, and the latest.
/// - Of more than [`STATES`](crate::limits::STATES) states the oldest.
///
/// The last state is [`Ended`](ConnectState::Ended). A stream of states does not keep the connection: when the last
/// [`Connect`](crate::Connect) that shares it is gone, and the last handle and subscription, it ends as if it was closed.
pub struct States {
    line: Arc<Mutex<Line>>,
}

/// What a connection is.
#[derive(Debug, Clone)]
pub(super) enum State {
    Up(Topics),
    Reconnecting { attempt: u32, why: Error },
    Ended(Error),
}

/// The present state, and those who watch it.
pub(super) struct Status {
    current: watch::Sender<State>,
    /// Held while the state changes, so that each line has the changes in their order.
    lines: Mutex<Vec<Weak<Mutex<Line>>>>,
}

/// The states that wait for one who watches.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<ConnectState>,
    /// The attempts of the present outage so far.
    attempts: u32,
    /// The last state is among those that wait, or was taken.
    ended: bool,
    waker: Option<Waker>,
}

// === impl States ===

impl States {
    /// The next state; the first is the one at the time of the call. `None` after [`ConnectState::Ended`].
    pub async fn next(&mut self) -> Option<ConnectState> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for States {
    type Item = ConnectState;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut line = lock(&self.line);
        match line.waiting.pop_front() {
            Some(state) => Poll::Ready(Some(state)),
            None if line.ended => Poll::Ready(None),
            None => {
                line.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").finish_non_exhaustive()
    }
}

// === impl Status ===

impl Status {
    pub(super) fn new(state: State) -> Self {
        Self {
            current: watch::Sender::new(state),
            lines: Mutex::default(),
        }
    }

    /// What the connection is.
    pub(super) fn current(&self) -> watch::Ref<'_, State> {
        self.current.borrow()
    }

    /// For those who wait for a certain state.
    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.current.subscribe()
    }

    /// For those who want to see them all.
    pub(super) fn watch(&self) -> States {
        let mut lines = lock(&self.lines);
        lines.retain(|line| line.strong_count() > 0);
        let mut line = Line::default();
        line.push(self.current().public());
        let line = Arc::new(Mutex::new(line));
        lines.push(Arc::downgrade(&line));
        States { line }
    }

    /// Goes on to another state, and gives the one before; `None` if the connection has ended, for nothing follows that.
    pub(super) fn advance(&self, next: State) -> Option<State> {
        let mut lines = lock(&self.lines);
        let public = next.public();
        let mut before = None;
        self.current.send_if_modified(|state| {
            let going_on = !matches!(state, State::Ended(_));
            if going_on {
                before = Some(std::mem::replace(state, next));
            }
            going_on
        });
        if before.is_some() {
            lines.retain(|line| match line.upgrade() {
                Some(line) => {
                    lock(&line).push(public.clone());
                    true
                }
                None => false,
            });
        }
        before
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.advance(State::Ended(Error::Connection(ConnectionError::ClosedHere)));
    }
}

// === impl State ===

impl State {
    pub(super) fn public(&self) -> ConnectState {
        match self {
            Self::Up(_) => ConnectState::Up,
            Self::Reconnecting { attempt, why } => ConnectState::Reconnecting {
                attempt: *attempt,
                why: why.clone(),
            },
            Self::Ended(why) => ConnectState::Ended(why.clone()),
        }
    }
}

// === impl Line ===

impl Line {
    fn push(&mut self, state: ConnectState) {
        match state {
            ConnectState::Reconnecting { .. } => {
                self.attempts = self.attempts.saturating_add(1);
                // From the third on, what waits last is an attempt of this outage, and not the first.
                if self.attempts > 2 {
                    self.waiting.pop_back();
                }
            }
            ConnectState::Up => self.attempts = 0,
            ConnectState::Ended(_) => self.ended = true,
        }
        if self.waiting.len() == STATES {
            self.waiting.pop_front();
        }
        self.waiting.push_back(state);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A lock whose holders do not panic; and if one did, what it guards is complete after each statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn broken(attempt: u32) -> State {
        State::Reconnecting {
            attempt,
            why: Error::Connection(ConnectionError::ClosedByDaemon),
        }
    }

    /// A state in which calls can be made, on a connection whose other end is not there.
    fn up() -> State {
        let (ours, _) = tokio::io::duplex(1);
        State::Up(Topics::new(&crate::rpc::Client::over(
            ours,
            crate::rpc::Config::default(),
        )))
    }

    /// What waits, in short.
    fn seen(states: &mut States) -> Vec<String> {
        std::iter::from_fn(|| states.next().now_or_never().flatten())
            .map(|state| match state {
                ConnectState::Up => "up".to_owned(),
                ConnectState::Reconnecting { attempt, .. } => format!("attempt {attempt}"),
                ConnectState::Ended(why) => why.to_string(),
            })
            .collect()
    }

    #[tokio::test]
    async fn an_outage_between_two_looks_is_seen_with_its_reason() {
        let status = Status::new(up());
        let mut states = status.watch();
        status.advance(broken(1));
        status.advance(up());
        assert!(matches!(states.next().await, Some(ConnectState::Up)));
        let Some(ConnectState::Reconnecting { attempt: 1, why }) = states.next().await else {
            panic!("the outage is lost");
        };
        assert_eq!(why.to_string(), "the libvirt daemon closed the connection");
        assert_eq!(seen(&mut states), ["up"]);
    }

    #[tokio::test]
    async fn the_first_and_the_latest_attempt_of_an_outage_are_kept() {
        let status = Status::new(up());
        let mut states = status.watch();
        for attempt in 1..100 {
            status.advance(broken(attempt));
        }
        assert_eq!(seen(&mut states), ["up", "attempt 1", "attempt 99"]);
        for attempt in 100..200 {
            status.advance(broken(attempt));
        }
        assert_eq!(seen(&mut states), ["attempt 199"]);
        status.advance(broken(200));
        status.advance(up());
        status.advance(broken(1));
        assert_eq!(seen(&mut states), ["attempt 200", "up", "attempt 1"]);
    }

    #[tokio::test]
    async fn more_states_than_wait_leave_the_latest() {
        let status = Status::new(up());
        let mut states = status.watch();
        for _ in 0..STATES {
            status.advance(broken(1));
            status.advance(up());
        }
        status.advance(broken(7));
        let seen = seen(&mut states);
        assert_eq!(seen.len(), STATES);
        assert_eq!(seen.last().map(String::as_str), Some("attempt 7"));
    }

    #[tokio::test]
    async fn the_end_is_told_once_and_nothing_follows() {
        let status = Status::new(up());
        let mut states = status.watch();
        let ended = || State::Ended(Error::StreamOver);
        assert!(matches!(status.advance(ended()), Some(State::Up(_))));
        assert!(status.advance(up()).is_none());
        assert!(status.advance(ended()).is_none());
        let mut late = status.watch();
        drop(status);
        assert_eq!(seen(&mut states).len(), 2);
        assert!(states.next().await.is_none());
        assert_eq!(seen(&mut late).len(), 1);
        assert!(late.next().await.is_none());
    }

    #[tokio::test]
    async fn who_watches_learns_that_nobody_holds_the_connection_any_more() {
        let status = Status::new(up());
        let mut states = status.watch();
        let watching = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(state) = states.next().await {
                seen.push(state);
            }
            seen
        });
        tokio::task::yield_now().await;
        drop(status);
        let seen = watching.await.unwrap();
        assert!(
            matches!(&seen[..], [ConnectState::Up, ConnectState::Ended(_)]),
            "{seen:?}"
        );
    }
}
