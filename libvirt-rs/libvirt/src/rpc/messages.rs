//! What the daemon sends unasked, for one subscriber.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;

use super::client::Handle;
use super::connection::Message;
use super::error::ConnectionError;
use super::procedure::Procedure;
use super::subscription::Next;

/// A bounded queue of the messages that one subscriber wants, in the order in which the daemon sent them.
///
/// It never holds up the connection: when the queue is full, be it by the messages' number or by their bytes (32 MiB), the
/// oldest make room, and the next item says how many were missed.
#[derive(Debug)]
pub struct Messages {
    handle: Arc<Handle>,
    id: u64,
    done: bool,
}

/// What a subscriber learns beside messages.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// So many messages came faster than they were taken, and are lost. Look at the state anew.
    #[error("{0} events came faster than they were taken and were dropped")]
    Missed(u64),
    /// The connection has ended; nothing follows.
    #[error(transparent)]
    Ended(ConnectionError),
}

// === impl Messages ===

impl Messages {
    pub(crate) fn new(handle: Arc<Handle>, id: u64) -> Self {
        Self {
            handle,
            id,
            done: false,
        }
    }

    /// Of this procedure's messages only those of one callback, from now on and among those that wait: `callback` is
    /// the number that the daemon gave when it was asked for the events.
    pub fn only(&mut self, procedure: &Procedure, callback: i32) {
        let mut state = self.handle.shared.lock();
        if let Some(subscription) = state.subscriptions.get_mut(&self.id) {
            subscription.only(procedure, callback);
        }
    }

    /// The next message. `None` after the connection's end was told.
    pub async fn next(&mut self) -> Option<Result<Message, Interruption>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Messages {
    type Item = Result<Message, Interruption>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let next = {
            let mut guard = self.handle.shared.lock();
            let state = &mut *guard;
            let ended = state.ended.clone();
            match state.subscriptions.get_mut(&self.id) {
                Some(subscription) => match (subscription.next(), ended) {
                    (Next::Missed(missed), _) => Some(Err(Interruption::Missed(missed))),
                    (Next::Message(message), _) => Some(Ok(message)),
                    (Next::Nothing, Some(why)) => Some(Err(Interruption::Ended(why))),
                    (Next::Nothing, None) => {
                        subscription.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                },
                None => None,
            }
        };
        self.done = matches!(next, None | Some(Err(Interruption::Ended(_))));
        Poll::Ready(next)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.handle.shared.lock().subscriptions.remove(&self.id);
    }
}
