//! A program of one's own that serves gRPC to the host: the agent is a library in it, and its service stands beside the
//! agent's.
//!
//! ```text
//! embedded                  serves on the guest's virtio-serial port, as vbridge-agent would
//! embedded unix:PATH        listens on a Unix socket instead: without a virtual machine
//! ```
//!
//! On the host: `grpcurl -plaintext -d '{"job": "sweep"}' 127.0.0.1:7411 org.example.jobs.v1.Jobs/Push`.

use std::{
    collections::VecDeque,
    env,
    error::Error,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use agent_guest::Agent;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{Request, Response, Status};

use v1::{
    PopRequest, PopResponse, PushRequest, PushResponse, WatchRequest, WatchResponse,
    jobs_server::{self, JobsServer},
};

mod v1 {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    tonic::include_proto!("org.example.jobs.v1");
}

/// What reflection says of the service.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/jobs.binpb"));

/// Jobs that may wait.
const MAX_WAITING: usize = 1000;

/// The queue.
struct Jobs {
    waiting: Mutex<VecDeque<String>>,
    /// How many wait, for those who watch.
    count: watch::Sender<u32>,
}

impl Jobs {
    fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Does something to the queue, and tells how long it is then.
    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<String>) -> T) -> (T, u32) {
        // Nothing that holds it can panic half-way.
        let mut jobs = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut jobs);
        // MAX_WAITING is far less.
        let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        self.count
            .send_if_modified(|old| std::mem::replace(old, count) != count);
        (changed, count)
    }
}

#[tonic::async_trait]
impl jobs_server::Jobs for Jobs {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let job = request.into_inner().job;
        let (is_in, waiting) = self.change(|jobs| {
            let has_room = jobs.len() < MAX_WAITING;
            if has_room {
                jobs.push_back(job);
            }
            has_room
        });
        if !is_in {
            return Err(Status::resource_exhausted(format!(
                "{waiting} jobs wait already: try again when some are done"
            )));
        }
        Ok(Response::new(PushResponse { waiting }))
    }

    async fn pop(&self, _: Request<PopRequest>) -> Result<Response<PopResponse>, Status> {
        match self.change(VecDeque::pop_front) {
            (Some(job), _) => Ok(Response::new(PopResponse { job })),
            (None, _) => Err(Status::not_found("no job waits")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let counts = WatchStream::new(self.count.subscribe());
        let answers = counts.map(|waiting| Ok(WatchResponse { waiting }));
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut agent = Agent::builder()
        .add_service(JobsServer::new(Jobs::new()))
        .descriptor_set(DESCRIPTORS);
    if let Some(place) = env::args().nth(1) {
        let path = place
            .strip_prefix("unix:")
            .ok_or("usage: embedded [unix:PATH]")?;
        agent = agent.listen(path);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    agent.build()?.run(shutdown).await?;
    Ok(())
}
