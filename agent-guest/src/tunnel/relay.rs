//! Bytes between a call and a connection.
//!
//! ```text
//!                    half-close: shutdown(Write)
//!         Both ──────────────────────────────────▶ Down only
//!          │                                          │
//!          │ end of file: `closed`                    │ end of file: `closed`
//!          ▼                                          ▼
//!       Up only ─────────────────────────────────▶ Ended, OK
//!                    half-close: shutdown(Write)
//!
//!     in each but the last:
//!        the connection is reset       ─▶ ABORTED
//!        `abort`, the call is cancelled ─▶ the connection is reset
//! ```
//!
//! A direction waits for its own reader and for nothing else: a caller that does not read stops the reading of the
//! connection, and the kernel stops whoever sends; a connection that takes nothing stops the reading of the call, and HTTP/2
//! stops the caller.
//!
//! A connection that takes no more bytes may have sent some before it broke: they go out before the failure is told.

use std::{io, pin::pin};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::sleep,
};
use tonic::{Code, Status, Streaming};
use vbridge_api::guest::v1::{
    TunnelAcceptRequest, TunnelAcceptResponse, TunnelConnectRequest, TunnelConnectResponse,
    TunnelConnected, tunnel_accept_request, tunnel_accept_response, tunnel_connect_request,
    tunnel_connect_response,
};

use super::{Answers, socket::Socket};
use crate::{
    error::{self, Reason, invalid_field},
    limits::{MAX_DATAGRAM, MAX_TUNNEL_DATA, MAX_TUNNEL_REQUEST, TUNNEL_READ, TUNNEL_UDP_LINGER},
};

/// What a caller sends once a connection stands.
pub(crate) enum Piece {
    Data(Vec<u8>),
    Abort,
}

/// A request of Connect or Accept.
pub(crate) trait Request {
    /// What it is behind the first.
    fn piece(self) -> Result<Piece, Status>;
}

/// An answer of Connect or Accept.
pub(crate) trait Answer: Send + 'static {
    fn connected(connected: TunnelConnected) -> Self;
    fn data(data: Vec<u8>) -> Self;
    fn closed() -> Self;
}

/// Moves bytes until both directions have ended, or one has failed.
pub(crate) async fn relay<Q: Request, A: Answer>(
    socket: Socket,
    mut requests: Streaming<Q>,
    answers: &Answers<A>,
) -> Result<(), Status> {
    let connected = A::connected(TunnelConnected {
        local: socket.local(),
        peer: socket.peer(),
    });
    match socket {
        Socket::Tcp(stream) => {
            let mut stream = Resetting(Some(stream));
            tell(answers, connected).await?;
            let Some(halves) = stream.0.as_mut().map(TcpStream::split) else {
                return Ok(());
            };
            bytes(halves.0, halves.1, &mut requests, answers).await?;
            stream.close();
            Ok(())
        }
        Socket::Unix(mut stream) => {
            tell(answers, connected).await?;
            let (read, write) = stream.split();
            bytes(read, write, &mut requests, answers).await
        }
        Socket::Udp(socket) => {
            tell(answers, connected).await?;
            datagrams(&socket, &mut requests, answers).await
        }
    }
}

/// A TCP connection that is reset when it is dropped before its end. An end of file would tell whoever reads at the other end
/// that all has arrived.
pub(crate) struct Resetting(pub(crate) Option<TcpStream>);

impl Resetting {
    /// Its end has come in order.
    fn close(&mut self) {
        self.0 = None;
    }

    /// Somebody else looks after it.
    pub(crate) fn take(&mut self) -> Option<TcpStream> {
        self.0.take()
    }
}

impl Drop for Resetting {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            // Refused, it is closed.
            let _ = stream.set_zero_linger();
        }
    }
}

async fn tell<A>(answers: &Answers<A>, answer: A) -> Result<(), Status> {
    answers.send(Ok(answer)).await.map_err(|_| gone())
}

/// Nobody reads it: the call has ended.
fn gone() -> Status {
    Status::cancelled("the call has ended")
}

// === Streams ===

async fn bytes<Q: Request, A: Answer>(
    read: impl AsyncRead + Unpin,
    write: impl AsyncWrite + Unpin,
    requests: &mut Streaming<Q>,
    answers: &Answers<A>,
) -> Result<(), Status> {
    let up = pin!(up(write, requests));
    let down = pin!(down(read, answers));
    let (up, ()) = tokio::try_join!(up, down)?;
    up.map_err(|error| reset(&error))
}

/// From the call to the connection. A call that fails ends both directions; a connection that takes no more, only this one.
async fn up<Q: Request>(
    mut write: impl AsyncWrite + Unpin,
    requests: &mut Streaming<Q>,
) -> Result<io::Result<()>, Status> {
    while let Some(data) = next(requests).await? {
        if let Err(error) = write.write_all(&data).await {
            return Ok(Err(error));
        }
    }
    Ok(write.shutdown().await)
}

/// From the connection to the call.
async fn down<A: Answer>(
    mut read: impl AsyncRead + Unpin,
    answers: &Answers<A>,
) -> Result<(), Status> {
    let mut buffer = vec![0; TUNNEL_READ];
    loop {
        // A place first: what can't be passed on stays with the kernel.
        let place = answers.reserve().await.map_err(|_| gone())?;
        match read.read(&mut buffer).await {
            Ok(0) => {
                place.send(Ok(A::closed()));
                return Ok(());
            }
            Ok(len) => place.send(Ok(A::data(buffer[..len].to_vec()))),
            Err(error) => return Err(reset(&error)),
        }
    }
}

fn reset(error: &io::Error) -> Status {
    let message = format!("the connection's other end in the guest has broken it off: {error}");
    error::failure(Reason::ConnectionReset, message)
}

// === Datagrams ===

async fn datagrams<Q: Request, A: Answer>(
    socket: &UdpSocket,
    requests: &mut Streaming<Q>,
    answers: &Answers<A>,
) -> Result<(), Status> {
    let mut buffer = vec![0; MAX_TUNNEL_DATA];
    let mut is_open = true;
    loop {
        tokio::select! {
            data = next(requests), if is_open => match data? {
                Some(data) if data.len() > MAX_DATAGRAM => {
                    let len = data.len();
                    let description = format!("a datagram has at most {MAX_DATAGRAM} bytes, and this has {len}");
                    return Err(invalid_field("data", description));
                }
                Some(data) => {
                    socket.send(&data).await.map_err(|error| unreachable(socket, &error))?;
                }
                None => is_open = false,
            },
            received = receive(socket, &mut buffer, answers) => received?,
            () = sleep(TUNNEL_UDP_LINGER), if !is_open => return Ok(()),
        }
    }
}

/// Passes one datagram on. Dropped before its end, it has taken none.
async fn receive<A: Answer>(
    socket: &UdpSocket,
    buffer: &mut [u8],
    answers: &Answers<A>,
) -> Result<(), Status> {
    let place = answers.reserve().await.map_err(|_| gone())?;
    let len = socket
        .recv(buffer)
        .await
        .map_err(|error| unreachable(socket, &error))?;
    place.send(Ok(A::data(buffer[..len].to_vec())));
    Ok(())
}

fn unreachable(socket: &UdpSocket, error: &io::Error) -> Status {
    let peer = socket
        .peer_addr()
        .map_or_else(|_| "there".to_owned(), |peer| peer.to_string());
    let message = format!("datagrams do not reach {peer} in the guest: {error}");
    error::failure(Reason::ConnectFailed, message)
}

// === Messages ===

/// The caller's next bytes; none behind its half-close.
async fn next<Q: Request>(requests: &mut Streaming<Q>) -> Result<Option<Vec<u8>>, Status> {
    let Some(request) = requests.message().await.map_err(too_large)? else {
        return Ok(None);
    };
    match request.piece()? {
        Piece::Data(data) if data.len() > MAX_TUNNEL_DATA => {
            let description = format!(
                "has {} bytes, and {MAX_TUNNEL_DATA} is the most",
                data.len()
            );
            Err(invalid_field("data", description))
        }
        Piece::Data(data) => Ok(Some(data)),
        Piece::Abort => Err(Status::cancelled(
            "the caller has broken the connection off",
        )),
    }
}

/// tonic calls a message that is too long OUT_OF_RANGE.
pub(crate) fn too_large(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => error::request_too_large(MAX_TUNNEL_REQUEST),
        _ => status,
    }
}

fn only_first(field: &str) -> Status {
    invalid_field(field, "must be in the first message, and in no other")
}

fn nothing() -> Status {
    invalid_field("message", "must be data or abort")
}

impl Request for TunnelConnectRequest {
    fn piece(self) -> Result<Piece, Status> {
        use tunnel_connect_request::Message;
        match self.message {
            Some(Message::Data(data)) => Ok(Piece::Data(data)),
            Some(Message::Abort(true)) => Ok(Piece::Abort),
            Some(Message::Connect(_)) => Err(only_first("connect")),
            Some(Message::Abort(false)) | None => Err(nothing()),
        }
    }
}

impl Request for TunnelAcceptRequest {
    fn piece(self) -> Result<Piece, Status> {
        use tunnel_accept_request::Message;
        match self.message {
            Some(Message::Data(data)) => Ok(Piece::Data(data)),
            Some(Message::Abort(true)) => Ok(Piece::Abort),
            Some(Message::Id(_)) => Err(only_first("id")),
            Some(Message::Abort(false)) | None => Err(nothing()),
        }
    }
}

macro_rules! answer {
    ($message:ident, $kind:ident) => {
        impl Answer for $message {
            fn connected(connected: TunnelConnected) -> Self {
                let message = Some($kind::Message::Connected(connected));
                Self { message }
            }

            fn data(data: Vec<u8>) -> Self {
                let message = Some($kind::Message::Data(data));
                Self { message }
            }

            fn closed() -> Self {
                let message = Some($kind::Message::Closed(true));
                Self { message }
            }
        }
    };
}

answer!(TunnelConnectResponse, tunnel_connect_response);
answer!(TunnelAcceptResponse, tunnel_accept_response);
