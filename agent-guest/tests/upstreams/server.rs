//! A gRPC server as it might run in a guest: hyper, and answers in bytes.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tonic::{Status, body::Body};
use tower::Service as _;
use vbridge_api::guest::v1::PingRequest;

/// Answers of `Many`.
pub(crate) const MANY: usize = 1000;

/// Where a server listens.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Unix,
    Tcp,
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    address: String,
    task: tokio::task::JoinHandle<()>,
    hangs: UnboundedReceiver<()>,
    gone: UnboundedReceiver<()>,
    _dir: Option<tempfile::TempDir>,
}

#[derive(Clone)]
struct Tell {
    hangs: UnboundedSender<()>,
    gone: UnboundedSender<()>,
}

impl Server {
    pub(crate) async fn start(place: Place) -> Self {
        match place {
            Place::Unix => {
                let dir = tempfile::tempdir().unwrap();
                let mut server = Self::start_at(&dir.path().join("server.sock")).await;
                server._dir = Some(dir);
                server
            }
            Place::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap().to_string();
                Self::run(address, move |tell| async move {
                    let mut connections = JoinSet::new();
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        connections.spawn(serve(stream, tell.clone()));
                    }
                })
            }
        }
    }

    pub(crate) async fn start_at(path: &Path) -> Self {
        let path = PathBuf::from(path);
        let listener = UnixListener::bind(&path).unwrap();
        Self::run(format!("unix:{}", path.display()), move |tell| async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, tell.clone()));
            }
        })
    }

    fn run<F: Future<Output = ()> + Send + 'static>(
        address: String,
        accept: impl FnOnce(Tell) -> F,
    ) -> Self {
        let (hang, hangs) = unbounded_channel();
        let (go, gone) = unbounded_channel();
        let tell = Tell {
            hangs: hang,
            gone: go,
        };
        Self {
            address,
            task: tokio::spawn(accept(tell)),
            hangs,
            gone,
            _dir: None,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Waits until a call hangs.
    pub(crate) async fn hangs(&mut self) {
        self.hangs.recv().await.unwrap();
    }

    /// Waits until a call was given up.
    pub(crate) async fn gone(&mut self) {
        self.gone.recv().await.unwrap();
    }

    /// Breaks all connections off, and does not listen any more.
    pub(crate) async fn die(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, tell: Tell) {
    let service = service_fn(move |request| answer(request, tell.clone()));
    let http = http2::Builder::new(TokioExecutor::new());
    // It ends as the agent's end of it does.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, tell: Tell) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers()["te"], "trailers");
    Ok(match path.as_str() {
        "/org.example.Echo/Echo" => respond(Echo {
            body: request.into_body(),
            is_over: false,
            gone: tell.gone,
        }),
        "/org.example.Echo/Length" => {
            let mut body = Body::new(request.into_body());
            let mut length = 0;
            while let Some(frame) = next(&mut body).await {
                length += frame.into_data().unwrap().len();
            }
            respond(Ready::new([message(length.to_string().as_bytes())]))
        }
        "/org.example.Echo/Many" => {
            let mut body = Body::new(request.into_body());
            let mut one = Vec::new();
            while let Some(frame) = next(&mut body).await {
                one.extend_from_slice(&frame.into_data().unwrap());
            }
            respond(Ready::new(vec![Bytes::from(one); MANY]))
        }
        "/org.example.Echo/Fail" => {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("x-why", "because".parse().unwrap());
            let details = Bytes::from_static(b"details");
            let code = tonic::Code::DataLoss;
            Status::with_details_and_metadata(code, "lost: 50%", details, metadata).into_http()
        }
        "/org.example.Echo/Timeout" => {
            let told = request
                .headers()
                .get("grpc-timeout")
                .map(HeaderValue::as_bytes);
            respond(Ready::new([message(told.unwrap_or_default())]))
        }
        "/org.example.Echo/Hang" => {
            let _gone = Gone(tell.gone);
            tell.hangs.send(()).unwrap();
            std::future::pending().await
        }
        path if path.starts_with("/grpc.reflection.v1.") => {
            let mut server = tonic_reflection::server::Builder::configure()
                .register_file_descriptor_set(descriptors())
                .build_v1()
                .unwrap();
            server.call(request).await.unwrap()
        }
        _ => Status::unimplemented("there is no such method").into_http(),
    })
}

fn respond(
    body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn message(payload: &[u8]) -> Bytes {
    let message = PingRequest {
        payload: payload.to_vec(),
    };
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed.into()
}

fn trailers() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Frame::trailers(trailers)
}

async fn next(body: &mut Body) -> Option<Frame<Bytes>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    frame.map(Result::unwrap)
}

/// What comes goes back.
struct Echo {
    body: Incoming,
    is_over: bool,
    gone: UnboundedSender<()>,
}

impl http_body::Body for Echo {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(frame) => Some(frame.map_err(|error| Status::from_error(Box::new(error)))),
            None => {
                self.is_over = true;
                Some(Ok(trailers()))
            }
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.gone.send(());
        }
    }
}

/// Answers that are there, one frame after the other.
struct Ready(std::vec::IntoIter<Bytes>, bool);

impl Ready {
    fn new(messages: impl Into<Vec<Bytes>>) -> Self {
        Self(messages.into().into_iter(), false)
    }
}

impl http_body::Body for Ready {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match self.0.next() {
            Some(message) => Some(Ok(Frame::data(message))),
            None if self.1 => None,
            None => {
                self.1 = true;
                Some(Ok(trailers()))
            }
        })
    }
}

/// Tells that it is dropped.
struct Gone(UnboundedSender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn descriptors() -> FileDescriptorSet {
    let word = || Some(".org.example.Word".to_owned());
    let method = MethodDescriptorProto {
        name: Some("Echo".to_owned()),
        input_type: word(),
        output_type: word(),
        ..MethodDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("org/example/echo.proto".to_owned()),
        package: Some("org.example".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some("Word".to_owned()),
            ..DescriptorProto::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: Some("Echo".to_owned()),
            method: vec![method],
            ..ServiceDescriptorProto::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }
}
