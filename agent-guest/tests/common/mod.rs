//! An agent on a socket, and the host's end of its link.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use agent_guest::{Agent, AgentBuilder, RunError};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tonic::transport::{Channel, Endpoint};
use vbridge_link::{HostConfig, HostLink, Session};

/// What is waited for happens well within it, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An agent that runs in this process, on a thread and a runtime of its own: the tasks there are all the agent's.
pub(crate) struct Running {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<(), RunError>>,
    runtime: Handle,
}

impl Running {
    /// Starts the agent with its usual services.
    pub(crate) fn start() -> Self {
        Self::start_with(|builder| builder)
    }

    pub(crate) fn start_with(configure: impl FnOnce(AgentBuilder) -> AgentBuilder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = Agent::builder().listen(dir.path().join("agent.sock"));
        let agent = configure(builder).build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || {
            let result = runtime.block_on(agent.run(async {
                let _ = stopped.await;
            }));
            let _ = end.send(result);
        });
        Self {
            dir,
            stop: Some(stop),
            ended,
            runtime: handle,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    pub(crate) async fn host(&self) -> Host {
        Host::connect(&self.socket()).await
    }

    /// Asks the agent to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), RunError> {
        self.ask_to_stop();
        within(self.ended).await.unwrap()
    }

    pub(crate) fn ask_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until all that is left is the link's own task: sessions, calls, streams and the sampler have gone.
    pub(crate) async fn until_quiet(&self) {
        let metrics = self.runtime.metrics();
        until(|| metrics.num_alive_tasks() <= 1).await;
    }
}

/// The host's end of a link, with an open session. Dropped, it disconnects.
pub(crate) struct Host {
    pub(crate) link: HostLink,
    session: Option<Session>,
}

impl Host {
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::connect_with(socket, HostConfig::default()).await
    }

    pub(crate) async fn connect_with(socket: &Path, config: HostConfig) -> Self {
        Self::over(connect(socket).await, config).await
    }

    pub(crate) async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: HostConfig,
    ) -> Self {
        let mut link = HostLink::new(stream, config);
        let session = within(link.session()).await.unwrap();
        Self {
            link,
            session: Some(session),
        }
    }

    /// The session itself, for those who speak HTTP/2 on their own.
    pub(crate) fn take_session(&mut self) -> Session {
        self.session.take().unwrap()
    }

    /// A gRPC channel over the session.
    pub(crate) async fn channel(&mut self) -> Channel {
        self.channel_with(|endpoint| endpoint).await
    }

    /// The same, with settings of its own.
    pub(crate) async fn channel_with(
        &mut self,
        configure: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Channel {
        let mut session = Some(TokioIo::new(self.take_session()));
        let connector = tower::service_fn(move |_| {
            let session = session
                .take()
                .ok_or_else(|| std::io::Error::other("used up"));
            std::future::ready(session)
        });
        // As the bridge has it.
        let endpoint =
            Endpoint::from_static("http://guest.test").initial_stream_window_size(256 * 1024);
        let endpoint = configure(endpoint);
        within(endpoint.connect_with_connector(connector))
            .await
            .unwrap()
    }
}

/// A socket that stops reading when it is told to.
pub(crate) struct Gated {
    stream: UnixStream,
    closed: Arc<AtomicBool>,
}

impl Gated {
    pub(crate) fn new(stream: UnixStream) -> (Self, Arc<AtomicBool>) {
        let closed = Arc::<AtomicBool>::default();
        (
            Self {
                stream,
                closed: Arc::clone(&closed),
            },
            closed,
        )
    }
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closed.load(Ordering::Relaxed) {
            // For ever: nobody opens it again.
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
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
}

/// Connects as soon as somebody listens.
pub(crate) async fn connect(socket: &Path) -> UnixStream {
    within(async {
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// Fails the test if something takes for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes for ever")
}

/// Waits until something is so of which nobody tells that it has become so (a file, a process, a task): one can only look,
/// until PATIENCE is over.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
