//! A listener's connections: how many there may be, who goes when there are too many, and how they end.
//!
//! ```text
//!              first words in time              a call begins
//!    New ─────────────────────────────▶ Idle ◀─────────────────▶ Busy
//!     │                                  │      the last ends
//!     │ too late, or its place           │ its place is needed: told to go, and cut off
//!     │ is needed: cut off               │ if it does not
//!     └────────────────▶ closed ◀────────┘
//! ```
//!
//! Whoever has no call under way may have to make room, first those that never made one: ten thousand clients that connect and
//! say nothing do not keep another from being served.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::limits::{EVICTION, FIRST_CALL, MAX_CONNECTIONS};

/// What a client that speaks HTTP/2 says first (RFC 9113, section 3.4), in bytes; no HTTP/1 request is known by fewer.
const PREFACE: u64 = 24;

/// The connections of one listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// One has gone, or is idle.
    room: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    calls: usize,
    /// Whether it ever made a call that was allowed.
    is_used: bool,
    idle_since: Instant,
    leave: CancellationToken,
}

/// A connection's place. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    number: u64,
    leave: CancellationToken,
    /// Bytes that have come.
    read: AtomicU64,
}

/// A call under way on a connection.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Connection>);

impl Connections {
    /// A place for a connection that is there.
    pub(crate) fn enter(&self) -> Arc<Connection> {
        Arc::new(self.0.table().enter(&self.0))
    }

    /// Done when there are no more than there may be. Until then one after another is told to go.
    pub(crate) async fn room(&self) {
        loop {
            // Before the look: what happens behind it is not missed.
            let room = self.0.room.notified();
            {
                let table = self.0.table();
                if table.entries.len() <= MAX_CONNECTIONS {
                    return;
                }
                if let Some(idle) = table.idlest() {
                    idle.leave.cancel();
                }
            }
            // One that does not go, or has begun another call, does not keep the others from going.
            let _ = timeout(EVICTION, room).await;
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // It is whole after each statement.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn enter(&mut self, shared: &Arc<Shared>) -> Connection {
        let number = self.next;
        self.next += 1;
        let leave = CancellationToken::new();
        let entry = Entry {
            calls: 0,
            is_used: false,
            idle_since: Instant::now(),
            leave: leave.clone(),
        };
        self.entries.insert(number, entry);
        Connection {
            shared: Arc::clone(shared),
            number,
            leave,
            read: AtomicU64::new(0),
        }
    }

    /// Whose place is needed least, of those that were not told to go: who never made a call, and then who has been idle for the
    /// longest. Who has just come may be about to; but where most of them never made one, nobody waits for them.
    fn idlest(&self) -> Option<&Entry> {
        let is_free = |entry: &&Entry| entry.calls == 0 && !entry.leave.is_cancelled();
        let unused = self.entries.values().filter(|entry| !entry.is_used);
        let is_flood = unused.count() > self.entries.len() / 2;
        let may_be_about_to =
            |entry: &Entry| !is_flood && !entry.is_used && entry.idle_since.elapsed() < FIRST_CALL;
        let idle = self.entries.values().filter(is_free);
        idle.min_by_key(|entry| {
            let rank = match entry.is_used {
                false if may_be_about_to(entry) => 2,
                false => 0,
                true => 1,
            };
            (rank, entry.idle_since)
        })
    }
}

impl Connection {
    /// Counts what comes.
    pub(crate) fn watch<S>(self: &Arc<Self>, stream: S) -> Watched<S> {
        Watched {
            stream,
            connection: Arc::clone(self),
        }
    }

    /// A call begins that is allowed.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        if let Some(entry) = self.shared.table().entries.get_mut(&self.number) {
            entry.calls += 1;
            entry.is_used = true;
        }
        Busy(Arc::clone(self))
    }

    /// Done when its place is needed for another.
    pub(crate) async fn leave(&self) {
        self.leave.cancelled().await;
    }

    /// Whether it may be cut off without a word: it never made a call.
    pub(crate) fn is_unused(&self) -> bool {
        let table = self.shared.table();
        let entry = table.entries.get(&self.number);
        entry.is_none_or(|entry| !entry.is_used)
    }

    /// Whether no call is under way, and none has ended so lately that its answer may still be on its way.
    pub(crate) fn is_idle(&self) -> bool {
        let table = self.shared.table();
        let entry = table.entries.get(&self.number);
        entry.is_none_or(|entry| entry.calls == 0 && entry.idle_since.elapsed() >= EVICTION)
    }

    /// Whether the client has not even said which protocol it speaks.
    pub(crate) fn is_mute(&self) -> bool {
        self.read.load(Ordering::Relaxed) < PREFACE && self.is_unused()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.table().entries.remove(&self.number);
        self.shared.room.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let is_idle = match self.0.shared.table().entries.get_mut(&self.0.number) {
            Some(entry) => {
                entry.calls = entry.calls.saturating_sub(1);
                entry.idle_since = Instant::now();
                entry.calls == 0
            }
            None => false,
        };
        if is_idle {
            self.0.shared.room.notify_waiters();
        }
    }
}

/// A connection's stream.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len().saturating_sub(before);
        self.connection
            .read
            .fetch_add(count as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// One more than there may be.
    fn full() -> (Connections, Vec<Arc<Connection>>) {
        let connections = Connections::default();
        let all = (0..=MAX_CONNECTIONS).map(|_| connections.enter()).collect();
        (connections, all)
    }

    /// Those that are told to go.
    fn told(all: &[Arc<Connection>]) -> Vec<usize> {
        let told = |index: &usize| all[*index].leave().now_or_never().is_some();
        (0..all.len()).filter(told).collect()
    }

    /// As if it had been there for a while.
    fn age(connections: &Connections, connection: &Connection) {
        if let Some(entry) = connections.0.table().entries.get_mut(&connection.number) {
            entry.idle_since -= 2 * FIRST_CALL;
        }
    }

    #[tokio::test]
    async fn one_too_many_takes_the_place_of_one_that_never_called() {
        let (connections, mut all) = full();
        for (index, connection) in all.iter().enumerate() {
            if index != 7 {
                drop(connection.busy());
            }
        }
        age(&connections, &all[7]);
        let mut room = Box::pin(connections.room());
        assert!((&mut room).now_or_never().is_none());
        assert_eq!(told(&all), [7]);
        assert!(all[7].is_unused());
        drop(all.remove(7));
        room.await;
    }

    #[tokio::test]
    async fn who_has_just_come_takes_the_place_of_the_one_that_is_idle_for_the_longest() {
        let (connections, all) = full();
        for connection in &all[..MAX_CONNECTIONS] {
            drop(connection.busy());
        }
        drop(all[0].busy());
        let _first_busy = all[1].busy();
        assert!(connections.room().now_or_never().is_none());
        assert_eq!(told(&all), [2]);
    }

    #[tokio::test]
    async fn in_a_flood_those_go_that_came_first_and_who_has_called_stays() {
        let (connections, all) = full();
        drop(all[0].busy());
        assert!(connections.room().now_or_never().is_none());
        assert_eq!(told(&all), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_go_does_not_keep_the_next_from_going() {
        let (connections, all) = full();
        let mut room = Box::pin(connections.room());
        assert!((&mut room).now_or_never().is_none());
        assert!(timeout(2 * EVICTION, &mut room).await.is_err());
        assert!(told(&all).len() >= 2);
    }

    #[tokio::test]
    async fn where_all_are_busy_one_too_many_waits_until_a_call_ends() {
        let (connections, all) = full();
        let mut calls: Vec<_> = all.iter().map(Connection::busy).collect();
        let mut room = Box::pin(connections.room());
        assert!((&mut room).now_or_never().is_none());
        assert!(told(&all).is_empty());
        drop(calls.remove(5));
        assert!((&mut room).now_or_never().is_none());
        assert_eq!(told(&all), [5]);
    }

    #[tokio::test]
    async fn a_client_is_mute_until_it_has_said_which_protocol_it_speaks() {
        let connections = Connections::default();
        let connection = connections.enter();
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = connection.watch(server);
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        client.write_all(&[0; 23]).await.unwrap();
        server.read_exact(&mut [0; 23]).await.unwrap();
        assert!(connection.is_mute());
        client.write_all(&[0]).await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        assert!(!connection.is_mute());
    }
}
