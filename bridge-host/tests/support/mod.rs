//! A bridge in this process, and guests that are scripted: well-behaved ones, and others that no real agent can play.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "every test file uses its part, and a test fails by panicking"
)]

use std::{
    convert::Infallible,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::mpsc::{Sender, channel},
    task::{Context, Poll, ready},
    time::Duration,
};

use bridge_host::{Bridge, BridgeBuilder, GuestSpec, ListenAddress};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{
    Request, Status,
    body::Body,
    server::NamedService,
    transport::{Channel, Endpoint, Server, server::Connected},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tower_service::Service;
use vbridge_api::host::v1::{ListGuestsRequest, bridge_client::BridgeClient};
use vbridge_link::{GuestConfig, GuestLink, Port, PortRead, Session};

/// Longer than anything here may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A bridge that serves in this process.
pub struct Running {
    pub address: ListenAddress,
    task: JoinHandle<()>,
    pub dir: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a bridge with guests whose channels are `NAME.sock` in a temporary folder.
pub async fn bridge(names: &[&str]) -> Running {
    bridge_with(names, |spec, _| spec).await
}

pub async fn bridge_with(
    names: &[&str],
    describe: impl Fn(GuestSpec, &Path) -> GuestSpec,
) -> Running {
    bridge_of(|mut builder, dir| {
        for name in names {
            let spec = GuestSpec::new(*name, socket(dir, name));
            builder = builder.guest(describe(spec, dir));
        }
        builder
    })
    .await
}

/// Starts a bridge that is described with the help of a temporary folder.
pub async fn bridge_of(describe: impl FnOnce(BridgeBuilder, &Path) -> BridgeBuilder) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let builder = Bridge::builder().listen(ListenAddress::Tcp(([127, 0, 0, 1], 0).into()));
    let builder = describe(builder, dir.path());
    let bound = builder.build().unwrap().bind().await.unwrap();
    let address = bound.addresses()[0].clone();
    let task = tokio::spawn(async move { bound.serve(std::future::pending()).await.unwrap() });
    Running { address, task, dir }
}

pub fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

impl Running {
    pub fn socket(&self, name: &str) -> PathBuf {
        socket(self.dir.path(), name)
    }

    /// A connection that names a guest in its authority.
    pub fn channel(&self, guest: &str) -> Channel {
        let ListenAddress::Tcp(address) = &self.address else {
            panic!("not TCP")
        };
        Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .origin(format!("http://{guest}.localhost").parse().unwrap())
            .connect_lazy()
    }

    /// A call to any guest: its health.
    pub async fn health(&self, guest: &str) -> Result<HealthCheckResponse, Status> {
        health(self.channel(guest)).await
    }

    /// Calls until the guest answers.
    pub async fn until_up(&self, guest: &str) {
        let deadline = Instant::now() + LIMIT;
        while let Err(status) = self.health(guest).await {
            assert!(
                Instant::now() < deadline,
                "{guest} did not come up: {status}"
            );
        }
    }

    /// Until the only guest has so many calls under way.
    pub async fn until_calls(&self, calls: u32) {
        let mut client = BridgeClient::new(self.channel("bridge"));
        let deadline = Instant::now() + LIMIT;
        loop {
            let guests = client.list_guests(ListGuestsRequest::default()).await;
            let under_way = guests.unwrap().into_inner().guests[0].active_calls;
            if under_way >= calls {
                return;
            }
            assert!(Instant::now() < deadline, "{under_way} calls are under way");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub async fn health(channel: Channel) -> Result<HealthCheckResponse, Status> {
    let call = async {
        HealthClient::new(channel)
            .check(Request::new(HealthCheckRequest::default()))
            .await
            .map(tonic::Response::into_inner)
    };
    timeout(LIMIT, call).await.expect("a call ends")
}

/// Something that is stopped when it is dropped.
pub struct Background(JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn background(future: impl Future<Output = ()> + Send + 'static) -> Background {
    Background(tokio::spawn(future))
}

/// Plays QEMU and the guest: `script` gets every connection to the channel, one after another.
pub fn fake_channel<F, S>(path: &Path, script: F) -> Background
where
    F: Fn(UnixStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::bind(path).unwrap();
    background(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            script(stream).await;
        }
    })
}

/// A well-behaved guest with a health service.
pub fn good_guest(path: &Path) -> GuestProcess {
    guest(path, GuestConfig::default())
}

/// A guest in a runtime of its own: when it is dropped, everything of it is gone, as after a crash.
pub struct GuestProcess(Option<tokio::runtime::Runtime>);

impl Drop for GuestProcess {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

pub fn guest(path: &Path, config: GuestConfig) -> GuestProcess {
    process(|| run_guest(path, config))
}

/// A guest that opens sessions and does with them what `script` does, in a runtime of its own.
pub fn fake_guest_process<F, S>(path: &Path, script: F) -> GuestProcess
where
    F: Fn(Session) -> S + Clone + Send + Sync + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    process(|| std::mem::forget(fake_guest(path, script)))
}

fn process(start: impl FnOnce()) -> GuestProcess {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let guard = runtime.enter();
    start();
    drop(guard);
    GuestProcess(Some(runtime))
}

impl GuestProcess {
    /// Lets nothing run in the guest until the result is dropped, as a paused or hung virtual machine does.
    pub fn freeze(&self) -> Sender<()> {
        let (sender, receiver) = channel();
        let (begun, has_begun) = channel();
        self.0.as_ref().unwrap().spawn(async move {
            begun.send(()).unwrap();
            // The runtime has one thread. Nothing is ever sent: the sender's end ends it.
            let _ = receiver.recv();
        });
        has_begun.recv().unwrap();
        sender
    }
}

/// Many guests in one runtime: they come and go together.
pub fn crowd(paths: impl IntoIterator<Item = PathBuf>) -> GuestProcess {
    process(|| {
        for path in paths {
            run_guest(&path, GuestConfig::default());
        }
    })
}

/// Starts a guest that ends with the runtime.
fn run_guest(path: &Path, config: GuestConfig) {
    let channel = fake_channel(path, move |stream| serve_guest(stream, config.clone()));
    std::mem::forget(channel);
}

/// A guest on one connection of its channel, until that ends.
pub async fn serve_guest(stream: UnixStream, config: GuestConfig) {
    let sessions = sessions(GuestLink::new(StreamPort(stream), config));
    let (_, health) = tonic_health::server::health_reporter();
    // The channel's end is the server's.
    let _ = Server::builder()
        .add_service(health)
        .serve_with_incoming(sessions)
        .await;
}

/// A well-behaved guest with a health service and one more.
pub fn guest_with<S>(path: &Path, service: S) -> GuestProcess
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    process(|| {
        let channel = fake_channel(path, move |stream| {
            let sessions = sessions(GuestLink::new(StreamPort(stream), GuestConfig::default()));
            let (_, health) = tonic_health::server::health_reporter();
            let server = Server::builder().add_service(health);
            let server = server.add_service(service.clone());
            async move {
                // The channel's end is the server's.
                let _ = server.serve_with_incoming(sessions).await;
            }
        });
        std::mem::forget(channel);
    })
}

/// A guest that opens sessions and does with them what `script` does.
pub fn fake_guest<F, S>(path: &Path, script: F) -> Background
where
    F: Fn(Session) -> S + Clone + Send + Sync + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    fake_channel(path, move |stream| {
        let script = script.clone();
        async move {
            let mut link = GuestLink::new(StreamPort(stream), GuestConfig::default());
            while let Ok(session) = link.accept().await {
                script(session).await;
            }
        }
    })
}

fn sessions(mut link: GuestLink) -> impl tokio_stream::Stream<Item = io::Result<TonicSession>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let session = link.accept().await;
            let failed = session.is_err();
            if sender.send(session.map(TonicSession)).await.is_err() || failed {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// A session as tonic's server wants it.
pub struct TonicSession(Session);

impl Connected for TonicSession {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for TonicSession {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TonicSession {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The guest's side of a channel, on the socket that the host connected.
pub struct StreamPort(pub UnixStream);

impl Port for StreamPort {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<PortRead>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        match buf.filled().len() {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            len => Poll::Ready(Ok(PortRead::Data(len))),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
}

/// Memory that this process holds resident, in bytes.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
