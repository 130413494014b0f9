//! Calls that are opened and then left without a word.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};
use vbridge_api::guest::v1::{
    Command, EventsSubscribeRequest, ExecStart, ExecStartRequest, FilesReadRequest,
    FilesWatchRequest, FilesWriteRequest, FilesWriteStart, MetricsWatchRequest, SocketAddress,
    TunnelAddress, TunnelConnectRequest, events_client::EventsClient, exec_client::ExecClient,
    exec_start_request, files_client::FilesClient, files_write_request,
    metrics_client::MetricsClient, tunnel_address, tunnel_client::TunnelClient,
    tunnel_connect_request,
};

use crate::{fixture::eventually, place::Place};

/// Calls that are opened at once: fewer than there are places for any kind of them.
const AT_ONCE: usize = 16;

/// How long it may take until everything is as it was.
const CLEAN: Duration = Duration::from_secs(60);

/// What one call may take, tries included.
const CALL: Duration = Duration::from_secs(60);

/// Kinds of calls.
const KINDS: usize = 7;

/// What calls leave behind if nobody cleans up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traces {
    /// The agent's descriptors.
    pub descriptors: usize,
    /// Its processes.
    pub children: usize,
    /// Files in the directory that was written to.
    pub files: usize,
}

/// How many calls are abandoned, and where they lead.
#[derive(Debug, Clone)]
pub struct Abandoned {
    /// All of them.
    pub calls: usize,
    /// A file in the guest with some megabytes.
    pub file: String,
    /// A directory in the guest for uploads.
    pub directory: String,
    /// A port in the guest that somebody listens on.
    pub port: u16,
}

impl Abandoned {
    /// Opens the calls, each as far that the guest has begun with it, and leaves them. Waits until the guest is as it was.
    ///
    /// # Errors
    /// A call can't be opened, or something stays.
    pub async fn run<F: Future<Output = Result<Traces>>>(
        self,
        place: &Place,
        traces: impl Fn() -> F,
    ) -> Result<()> {
        let channel = place.channel().await?;
        let untouched = traces().await?;
        // What is made once and kept counts for nothing.
        self.leave_all(&channel, KINDS).await?;
        eventually("the first calls have ended", CLEAN, || async {
            let now = traces().await?;
            Ok((now.children, now.files) == (untouched.children, untouched.files))
        })
        .await?;
        let before = traces().await?;
        self.leave_all(&channel, self.calls).await?;
        let mut last = None;
        let is_clean = eventually("everything is as it was", CLEAN, || async {
            let now = traces().await?;
            Ok(now.descriptors <= before.descriptors
                && (now.children, now.files) == (before.children, before.files))
        })
        .await;
        if is_clean.is_err() {
            last = traces().await.ok();
        }
        is_clean.with_context(|| format!("{before:?} before, {last:?} now"))
    }

    async fn leave_all(&self, channel: &Channel, calls: usize) -> Result<()> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in 0..calls {
            let place = Arc::clone(&places).acquire_owned().await?;
            let (this, channel) = (self.clone(), channel.clone());
            tasks.spawn(async move {
                let opened = timeout(CALL, this.leave(&channel, number)).await;
                drop(place);
                opened.with_context(|| format!("call {number} is not taken"))?
            });
            while let Some(done) = tasks.try_join_next() {
                done??;
            }
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Opens one call and leaves it. One that finds all places taken, by calls whose end is still on its way, tries again.
    async fn leave(&self, channel: &Channel, number: usize) -> Result<()> {
        loop {
            match self.open(channel.clone(), number).await {
                Ok(()) => return Ok(()),
                Err(status) if status.code() == Code::ResourceExhausted => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn open(&self, channel: Channel, number: usize) -> Result<(), Status> {
        match number % KINDS {
            0 => exec(channel).await,
            1 => self.read(channel).await,
            2 => self.write(channel, number).await,
            3 => self.connect(channel).await,
            4 => {
                let request = MetricsWatchRequest::default();
                let call = MetricsClient::new(channel).watch(request).await?;
                call.into_inner().message().await.map(drop)
            }
            5 => {
                let request = FilesWatchRequest {
                    path: self.directory.clone(),
                    ..FilesWatchRequest::default()
                };
                FilesClient::new(channel).watch(request).await.map(drop)
            }
            _ => {
                let request = EventsSubscribeRequest::default();
                EventsClient::new(channel)
                    .subscribe(request)
                    .await
                    .map(drop)
            }
        }
    }

    async fn read(&self, channel: Channel) -> Result<(), Status> {
        let request = FilesReadRequest {
            path: self.file.clone(),
            ..FilesReadRequest::default()
        };
        let call = FilesClient::new(channel).read(request).await?;
        call.into_inner().message().await.map(drop)
    }

    async fn write(&self, channel: Channel, number: usize) -> Result<(), Status> {
        use files_write_request::Message;
        let (requests, messages) = mpsc::channel(1);
        let start = FilesWriteStart {
            path: format!("{}/upload-{number}", self.directory),
            ..FilesWriteStart::default()
        };
        let mut files = FilesClient::new(channel);
        let call = files.write(ReceiverStream::new(messages));
        let feed = async {
            let mut message = Some(Message::Start(start));
            // So many that the first have left the buffers on their way.
            for _ in 0..8 {
                let data = Message::Data(vec![b'x'; 128 * 1024]);
                let message = message.replace(data);
                let _ = requests.send(FilesWriteRequest { message }).await;
            }
        };
        tokio::select! {
            ended = call => match ended {
                Err(status) => Err(status),
                Ok(_) => Err(Status::internal("half an upload has succeeded")),
            },
            () = feed => Ok(()),
        }
    }

    async fn connect(&self, channel: Channel) -> Result<(), Status> {
        let address = tunnel_address::Address::Tcp(SocketAddress {
            host: "127.0.0.1".to_owned(),
            port: self.port.into(),
        });
        let connect = tunnel_connect_request::Message::Connect(TunnelAddress {
            address: Some(address),
        });
        let first = TunnelConnectRequest {
            message: Some(connect),
        };
        let (_requests, messages) = one(first).await;
        let call = TunnelClient::new(channel).connect(messages).await?;
        call.into_inner().message().await.map(drop)
    }
}

async fn exec(channel: Channel) -> Result<(), Status> {
    let command = Command {
        argv: vec!["sleep".to_owned(), "4321".to_owned()],
        ..Command::default()
    };
    let start = exec_start_request::Message::Start(ExecStart {
        command: Some(command),
        ..ExecStart::default()
    });
    let first = ExecStartRequest {
        message: Some(start),
    };
    let (_requests, messages) = one(first).await;
    let call = ExecClient::new(channel).start(messages).await?;
    call.into_inner().message().await.map(drop)
}

/// Messages with one in them that are not over.
async fn one<T>(first: T) -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (requests, messages) = mpsc::channel(1);
    // There is room for one.
    let _ = requests.send(first).await;
    (requests, ReceiverStream::new(messages))
}
