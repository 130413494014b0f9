//! Work in steps: what may block is done a step at a time, on threads where that may be.
//!
//! ```text
//!              ┌──── steps: some pieces ──▶ given to the caller, one by one ────┐
//!    waiting ──┤                                                               ├──▶ waiting, as long as the caller takes pieces
//!      ▲       └──── a step: Again, Later (after a pause) ─────────────────────┘
//!      │
//!    a thread and the state meet for a few steps
//! ```
//!
//! To get to a thread and back takes two switches, which cost an emulated CPU more than a piece does: so a few pieces are
//! made at once. Between that the state holds no thread. When the caller is gone it is dropped, on such a thread as well: to close
//! or remove a file may block, too.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::Status;

use crate::{
    error::{self, Reason},
    limits::{
        FOLLOW_INTERVAL, MAX_FILE_THREADS, MAX_FILE_TRANSFERS, MAX_FILE_WATCHES, PIECES_AHEAD,
    },
    services::aside,
};

/// What is done in steps.
pub(crate) trait Work: Send + 'static {
    /// What a caller gets of it.
    type Piece: Send + 'static;

    /// Does a bounded part of it.
    fn step(&mut self) -> Result<Step<Self::Piece>, Status>;
}

/// What a step has led to.
#[derive(Debug)]
pub(crate) enum Step<P> {
    /// Something for the caller.
    Piece(P),
    /// There is more to do.
    Again,
    /// There is nothing to do for a moment.
    Later,
    /// That was all.
    End,
}

/// The pieces of a piece of work, as a call answers with them.
pub(crate) type Pieces<P> = Pin<Box<dyn Stream<Item = Result<P, Status>> + Send>>;

/// What comes behind the pieces that were made at once.
#[derive(Debug)]
enum Then {
    /// Another step.
    More,
    /// Another step, after a pause.
    Later,
    /// Nothing.
    End,
    Failed(Status),
}

/// A piece of work with the pieces that are there already.
struct Making<W: Work> {
    worker: Worker<W>,
    pieces: VecDeque<W::Piece>,
    then: Then,
}

/// Threads and places for all calls that work with files.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    threads: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    watches: Arc<Semaphore>,
}

/// A state between its steps.
pub(crate) struct Worker<T: Send + 'static> {
    state: Option<T>,
    pool: Pool,
    runtime: Handle,
    /// The place that it takes, if it is a transfer.
    _place: Option<OwnedSemaphorePermit>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(MAX_FILE_THREADS)),
            transfers: Arc::new(Semaphore::new(MAX_FILE_TRANSFERS)),
            watches: Arc::new(Semaphore::new(MAX_FILE_WATCHES)),
        }
    }

    /// A place for a transfer, if there is one.
    pub(crate) fn transfer(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.transfers, "transfers of files", MAX_FILE_TRANSFERS)
    }

    /// A place for a watch, if there is one.
    pub(crate) fn watch(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.watches, "watches of files", MAX_FILE_WATCHES)
    }

    /// Does something short.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, Status> + Send + 'static,
    ) -> Result<R, Status> {
        let thread = self.thread().await?;
        aside(move || {
            let result = work();
            drop(thread);
            result
        })
        .await?
    }

    /// Begins something long. Must run within a runtime.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        place: OwnedSemaphorePermit,
        begin: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<Worker<T>, Status> {
        let state = self.run(begin).await?;
        Ok(Worker {
            state: Some(state),
            pool: self.clone(),
            runtime: Handle::current(),
            _place: Some(place),
        })
    }

    async fn thread(&self) -> Result<OwnedSemaphorePermit, Status> {
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        thread.map_err(|_| error::agent_stopping())
    }
}

fn place(
    places: &Arc<Semaphore>,
    what: &str,
    limit: usize,
) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        let message = format!("{limit} {what} are under way in the guest: wait until one ends");
        error::failure_for(Reason::TooMany, message, FOLLOW_INTERVAL)
    })
}

impl<T: Send + 'static> Worker<T> {
    /// Does a step with the state. One that fails is the last: the state is dropped before the failure is told, and what
    /// that takes away or puts right is so for who hears of it.
    pub(crate) async fn run<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut T) -> Result<R, Status> + Send + 'static,
    ) -> Result<R, Status> {
        // Before the state is taken: a caller who is gone while it waits for a thread drops it as it should be.
        let thread = self.pool.thread().await?;
        let Some(mut state) = self.state.take() else {
            return Err(error::failure(
                Reason::Internal,
                "an earlier step had failed",
            ));
        };
        let (state, result) = aside(move || {
            let result = work(&mut state);
            let state = result.is_ok().then_some(state);
            drop(thread);
            (state, result)
        })
        .await?;
        self.state = state;
        result
    }
}

impl<W: Work> Worker<W> {
    /// All pieces, each given when it is asked for.
    pub(crate) fn pieces(self) -> Pieces<W::Piece> {
        Box::pin(stream::unfold(
            Some(Making::new(self)),
            |making| async move {
                let mut making = making?;
                match making.next().await {
                    Ok(Some(piece)) => Some((Ok(piece), Some(making))),
                    Ok(None) => None,
                    Err(status) => Some((Err(status), None)),
                }
            },
        ))
    }

    /// The one piece of work that has one.
    pub(crate) async fn answer(self) -> Result<W::Piece, Status> {
        Making::new(self)
            .next()
            .await?
            .ok_or_else(|| error::failure(Reason::Internal, "the work ended without a result"))
    }
}

impl<W: Work> Making<W> {
    fn new(worker: Worker<W>) -> Self {
        Self {
            worker,
            pieces: VecDeque::new(),
            then: Then::More,
        }
    }

    /// Goes on until there is a piece, or no more.
    async fn next(&mut self) -> Result<Option<W::Piece>, Status> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            match std::mem::replace(&mut self.then, Then::End) {
                Then::More => {}
                Then::Later => tokio::time::sleep(FOLLOW_INTERVAL).await,
                Then::End => return Ok(None),
                Then::Failed(status) => return Err(status),
            }
            (self.pieces, self.then) = self.worker.run(|work| Ok(some(work))).await?;
        }
    }
}

/// Does steps as long as each of them leads to a piece, and not too many.
fn some<W: Work>(work: &mut W) -> (VecDeque<W::Piece>, Then) {
    let mut pieces = VecDeque::new();
    loop {
        let then = match work.step() {
            Ok(Step::Piece(piece)) => {
                pieces.push_back(piece);
                if pieces.len() < PIECES_AHEAD {
                    continue;
                }
                Then::More
            }
            Ok(Step::Again) => Then::More,
            Ok(Step::Later) => Then::Later,
            Ok(Step::End) => Then::End,
            Err(status) => Then::Failed(status),
        };
        return (pieces, then);
    }
}

impl<T: Send + 'static> Drop for Worker<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            self.runtime.spawn_blocking(move || drop(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use futures_util::StreamExt as _;
    use tonic::Code;

    use super::*;

    /// Tells on which thread it was dropped.
    struct Tells(mpsc::Sender<thread::ThreadId>);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[tokio::test]
    async fn a_state_is_dropped_where_it_may_block() {
        let pool = Pool::new();
        let (sender, receiver) = mpsc::channel();
        let place = pool.transfer().unwrap();
        let worker = pool.begin(place, move || Ok(Tells(sender))).await.unwrap();
        drop(worker);
        let dropped = aside(move || receiver.recv().unwrap()).await.unwrap();
        assert_ne!(dropped, thread::current().id());
    }

    #[tokio::test]
    async fn what_a_failed_step_leaves_is_dropped_before_the_failure_is_told() {
        let pool = Pool::new();
        let (sender, receiver) = mpsc::channel();
        let place = pool.transfer().unwrap();
        let worker = pool.begin(place, move || Ok(Tells(sender))).await;
        let mut worker = worker.unwrap();
        worker.run(|_| Ok(())).await.unwrap();
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
        let failing = worker.run(|_| Err::<(), _>(Status::aborted("as told")));
        assert_eq!(failing.await.unwrap_err().code(), Code::Aborted);
        assert_ne!(receiver.try_recv().unwrap(), thread::current().id());
        assert_eq!(
            worker.run(|_| Ok(())).await.unwrap_err().code(),
            Code::Internal
        );
    }

    /// Counts up to a number, and then fails.
    struct Counts(usize);

    impl Work for Counts {
        type Piece = usize;

        fn step(&mut self) -> Result<Step<usize>, Status> {
            match self.0 {
                0 => Err(Status::aborted("as told")),
                left if left % 3 == 0 => {
                    self.0 -= 1;
                    Ok(Step::Again)
                }
                left => {
                    self.0 -= 1;
                    Ok(Step::Piece(left))
                }
            }
        }
    }

    #[tokio::test]
    async fn pieces_that_were_made_at_once_come_one_by_one_and_a_failure_behind_them() {
        let pool = Pool::new();
        let place = pool.transfer().unwrap();
        let worker = pool.begin(place, || Ok(Counts(3 * PIECES_AHEAD))).await;
        let mut pieces = worker.unwrap().pieces();
        for left in (1..=3 * PIECES_AHEAD).rev().filter(|left| left % 3 != 0) {
            assert_eq!(pieces.next().await.unwrap().unwrap(), left);
        }
        let status = pieces.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        assert!(pieces.next().await.is_none());
    }

    #[tokio::test]
    async fn there_are_so_many_transfers_and_no_more() {
        let pool = Pool::new();
        let mut places: Vec<_> = (0..MAX_FILE_TRANSFERS)
            .map(|_| pool.transfer().unwrap())
            .collect();
        assert_eq!(pool.transfer().unwrap_err().code(), Code::ResourceExhausted);
        assert!(pool.watch().is_ok());
        places.pop();
        assert!(pool.transfer().is_ok());
    }
}
