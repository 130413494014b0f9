//! A bridge that is played: each call fails as the test says, or is answered, and is written down.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::TcpListener as StdListener,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::Runtime,
};
use tonic::{Status, body::Body};
use vbridge_api::guest::v1::{
    ExecStartResponse, ExitStatus, FileInfo, FilesStatResponse, PingRequest, PingResponse,
    ProcessOutput, ProcessStarted, exec_start_response, exit_status::How, process_output,
};

/// A call that has come.
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) metadata: HeaderMap,
}

impl Call {
    /// A metadatum's text.
    pub(crate) fn text(&self, name: &str) -> &str {
        let value = self.metadata.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

#[derive(Default)]
struct State {
    /// What the next calls fail with; none for one that is answered.
    failures: VecDeque<Option<Status>>,
    calls: Vec<Call>,
}

/// The bridge. It ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
    _runtime: Runtime,
}

impl Server {
    /// On a port of this machine.
    pub(crate) fn start(failures: impl IntoIterator<Item = Status>) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::run(address, failures, |state| async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        })
    }

    /// On a socket.
    pub(crate) fn on(path: &Path, failures: impl IntoIterator<Item = Status>) -> Self {
        let address = format!("unix:{}", path.display());
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::run(address, failures, |state| async move {
            let listener = UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
        })
    }

    fn run<F: Future<Output = ()> + Send + 'static>(
        address: String,
        failures: impl IntoIterator<Item = Status>,
        accept: impl FnOnce(Arc<Mutex<State>>) -> F,
    ) -> Self {
        let state = Arc::new(Mutex::new(State {
            failures: failures.into_iter().map(Some).collect(),
            calls: Vec::new(),
        }));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let accepting = accept(Arc::clone(&state));
        runtime.spawn(accepting);
        Self {
            address,
            state,
            _runtime: runtime,
        }
    }

    /// What the next calls fail with.
    pub(crate) fn fail(&self, failures: impl IntoIterator<Item = Status>) {
        self.fail_after(0, failures);
    }

    /// The same for those that come after so many calls.
    pub(crate) fn fail_after(&self, answered: usize, failures: impl IntoIterator<Item = Status>) {
        let answered = std::iter::repeat_n(None, answered);
        let mut state = self.state.lock().unwrap();
        state.failures = answered.chain(failures.into_iter().map(Some)).collect();
    }

    /// The calls that have come since the last time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    state: Arc<Mutex<State>>,
) {
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    // A client goes when it has what it wants.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let metadata = request.headers().clone();
    let failure = {
        let mut state = state.lock().unwrap();
        state.calls.push(Call {
            path: path.clone(),
            metadata,
        });
        state.failures.pop_front().flatten()
    };
    if let Some(status) = failure {
        return Ok(status.into_http());
    }
    // A command's input has no end before the command has one.
    let frames = match path.as_str() {
        "/vbridge.guest.v1.Exec/Start" => exec(),
        _ => {
            let sent = request.into_body().collect().await;
            let sent = sent
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            unary(&path, &sent)
        }
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frames).with_trailers(async { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(Body::new(body)).unwrap())
}

/// A ping's own bytes, a file, and of all else a message of nothing.
fn unary(path: &str, sent: &[u8]) -> Bytes {
    match path {
        "/vbridge.guest.v1.System/Ping" => {
            let ping = PingRequest::decode(sent.get(5..).unwrap_or_default()).unwrap();
            framed(&PingResponse {
                payload: ping.payload,
                ..PingResponse::default()
            })
        }
        "/vbridge.guest.v1.Files/Stat" => framed(&FilesStatResponse {
            file: Some(FileInfo::default()),
            ..FilesStatResponse::default()
        }),
        _ => framed(&()),
    }
}

/// A command that has ended well.
fn exec() -> Bytes {
    use exec_start_response::Message;
    let exit = ExitStatus {
        how: Some(How::Code(0)),
        ..ExitStatus::default()
    };
    let messages = [
        Message::Started(ProcessStarted::default()),
        Message::Output(ProcessOutput {
            output: Some(process_output::Output::Exit(exit)),
            ..ProcessOutput::default()
        }),
    ];
    let mut frames = BytesMut::new();
    for message in messages {
        frames.extend_from_slice(&framed(&ExecStartResponse {
            message: Some(message),
        }));
    }
    frames.freeze()
}

/// A message as gRPC sends it.
fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}
