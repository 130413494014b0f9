//! Connections into the guest and out of it.
//!
//! | module | what it is |
//! |---|---|
//! | [`address`] | where to: what a caller may name, and what a name stands for |
//! | [`socket`] | a connection to there, and what its failure is called |
//! | [`relay`] | bytes between a call and a connection |
//! | [`listen`] | connections that come, and wait to be taken |
//!
//! Each call has a task of its own, and a place among as many as there may be. The task ends with the call, and whatever it
//! holds with the task.

pub(crate) mod address;
pub(crate) mod listen;
pub(crate) mod relay;
pub(crate) mod socket;

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    error::{self, Reason},
    limits::{
        MAX_TUNNEL_BACKLOG, MAX_TUNNEL_LISTENERS, MAX_TUNNEL_THREADS, MAX_TUNNELS,
        TUNNEL_ACCEPT_TIMEOUT, TUNNEL_CONNECT_TIMEOUT, TUNNEL_QUEUE,
    },
};
use listen::Waiting;

/// When a caller may ask again for what there was too much of.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// How many tunnels there may be, and how long they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunnelLimits {
    /// Connections at once. Default: [`MAX_TUNNELS`].
    pub connections: usize,
    /// Listeners at once. Default: [`MAX_TUNNEL_LISTENERS`].
    pub listeners: usize,
    /// Connections of one listener that wait to be taken. Default: [`MAX_TUNNEL_BACKLOG`].
    pub backlog: usize,
    /// How long it may take to connect. Default: [`TUNNEL_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// How long a connection waits to be taken. Default: [`TUNNEL_ACCEPT_TIMEOUT`].
    pub accept_timeout: Duration,
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            connections: MAX_TUNNELS,
            listeners: MAX_TUNNEL_LISTENERS,
            backlog: MAX_TUNNEL_BACKLOG,
            connect_timeout: TUNNEL_CONNECT_TIMEOUT,
            accept_timeout: TUNNEL_ACCEPT_TIMEOUT,
        }
    }
}

/// What all tunnels of an agent share.
#[derive(Debug, Clone)]
pub(crate) struct Tunnels {
    limits: TunnelLimits,
    connections: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
    waiting: Arc<Waiting>,
    aside: Aside,
    stop: watch::Sender<bool>,
}

/// A call's answers, with room for [`TUNNEL_QUEUE`].
pub(crate) type Answers<A> = mpsc::Sender<Result<A, Status>>;

/// The same as tonic takes them.
pub(crate) type AnswerStream<A> = ReceiverStream<Result<A, Status>>;

impl Tunnels {
    pub(crate) fn new(limits: TunnelLimits) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(limits.connections)),
            listeners: Arc::new(Semaphore::new(limits.listeners)),
            waiting: Arc::default(),
            aside: Aside(Arc::new(Semaphore::new(MAX_TUNNEL_THREADS))),
            stop: watch::Sender::new(false),
            limits,
        }
    }

    /// Ends every tunnel: the agent stops.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Does what a call is about in a task of its own, until it is done, the call is cancelled, or the agent stops. Dropped
    /// before its end, the work has broken off whatever it held.
    pub(crate) fn serve<A, F>(&self, work: impl FnOnce(Answers<A>) -> F) -> AnswerStream<A>
    where
        A: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (answers, stream) = mpsc::channel(TUNNEL_QUEUE);
        let work = work(answers.clone());
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            let ended = tokio::select! {
                () = answers.closed() => return,
                () = stopped(&mut stop) => Err(error::agent_stopping()),
                ended = work => ended,
            };
            if let Err(status) = ended {
                // Behind all answers before it. A caller that has gone needs none.
                let _ = answers.send(Err(status)).await;
            }
        });
        ReceiverStream::new(stream)
    }

    /// A place among the connections.
    pub(crate) fn connection(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.connections, || {
            let most = self.limits.connections;
            format!("the guest already has {most} tunnels: end one, or wait for one to end")
        })
    }

    /// A place among the listeners.
    fn listener(&self) -> Result<OwnedSemaphorePermit, Status> {
        place(&self.listeners, || {
            let most = self.limits.listeners;
            format!("the guest already listens at {most} addresses for tunnels: end one of them")
        })
    }
}

fn place(
    places: &Arc<Semaphore>,
    message: impl FnOnce() -> String,
) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(places)
        .try_acquire_owned()
        .map_err(|_| error::failure_for(Reason::TooMany, message(), RETRY_SOON))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The agent is gone altogether, and this task with it.
        std::future::pending().await
    }
}

/// A few threads for what may block: [`MAX_TUNNEL_THREADS`].
#[derive(Debug, Clone)]
pub(crate) struct Aside(Arc<Semaphore>);

impl Aside {
    /// Does `work` when there is a thread for it. What is not waited for any more goes on, and keeps its thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        // A panic, or the runtime ends.
        done.await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}
