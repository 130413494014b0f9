//! Connections into a guest and out of it.
//!
//! | module | what it does |
//! |---|---|
//! | [`mod@connect`] | joins standard input and output to one connection in a guest |
//! | [`forward`] | listens here and connects in a guest |
//! | [`reverse`] | has a guest listen, and connects here |
//! | [`udp`] | the same with datagrams |
//! | [`spec`] | what the command line says of all this |
//! | [`host`] | sockets at this end |
//!
//! Here is what they share: a call that is a connection, and bytes between it and another one.

pub(super) mod connect;
pub(super) mod forward;
mod host;
mod reverse;
mod spec;
mod udp;

use std::{io, pin::pin};

use bridge_host::limits::{TUNNEL_ABORT, TUNNEL_QUEUE, TUNNEL_READ};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use vbridge_api::guest::v1::{
    TunnelAcceptRequest, TunnelAcceptResponse, TunnelConnectRequest, TunnelConnectResponse,
    tunnel_accept_request, tunnel_accept_response, tunnel_client::TunnelClient,
    tunnel_connect_request, tunnel_connect_response,
};

use super::client::{Client, Wire};
use spec::Endpoint;

/// What comes from the guest's end.
enum Event {
    Connected,
    Data(Vec<u8>),
    /// No more data comes.
    Closed,
}

/// A request of Connect or Accept.
trait Request: Send + 'static {
    fn data(data: Vec<u8>) -> Self;
    fn abort() -> Self;
}

/// An answer of Connect or Accept.
trait Answer {
    /// None for what this program does not know.
    fn event(self) -> Option<Event>;
}

/// A call that is a connection in the guest.
struct Call<Q, A> {
    requests: mpsc::Sender<Q>,
    answers: Streaming<A>,
}

/// Why a connection has ended before its end.
enum Broken {
    /// At the guest's end, or on the way there.
    There(Status),
    /// At this end.
    Here(io::Error),
}

/// Connects to an address in the guest.
async fn connect(
    client: &Client,
    target: &Endpoint,
) -> Result<Call<TunnelConnectRequest, TunnelConnectResponse>, String> {
    let first = TunnelConnectRequest {
        message: Some(tunnel_connect_request::Message::Connect(target.to_guest())),
    };
    open(client, first, async |mut tunnel, requests| {
        tunnel.connect(client.request(requests)).await
    })
    .await
}

/// Takes a connection that has come in the guest.
async fn accept(
    client: &Client,
    id: String,
) -> Result<Call<TunnelAcceptRequest, TunnelAcceptResponse>, String> {
    let first = TunnelAcceptRequest {
        message: Some(tunnel_accept_request::Message::Id(id)),
    };
    open(client, first, async |mut tunnel, requests| {
        tunnel.accept(client.request(requests)).await
    })
    .await
}

/// Begins a call, and waits until its connection stands.
async fn open<Q: Request, A: Answer>(
    client: &Client,
    first: Q,
    call: impl AsyncFnOnce(
        TunnelClient<Wire>,
        ReceiverStream<Q>,
    ) -> Result<tonic::Response<Streaming<A>>, Status>,
) -> Result<Call<Q, A>, String> {
    let (requests, queue) = mpsc::channel(TUNNEL_QUEUE);
    // There is room for it.
    let _ = requests.try_send(first);
    let tunnel = TunnelClient::new(client.channel());
    let begun = async {
        let mut answers = call(tunnel, ReceiverStream::new(queue)).await?.into_inner();
        match answers.message().await?.and_then(A::event) {
            Some(Event::Connected) => Ok(answers),
            _ => Err(strange()),
        }
    };
    match timeout(client.limit(), begun).await {
        Ok(Ok(answers)) => Ok(Call { requests, answers }),
        Ok(Err(status)) => Err(client.sentence(&status)),
        Err(_) => Err(client.call_details().too_late()),
    }
}

fn strange() -> Status {
    Status::internal("the guest's agent answers what this program does not understand")
}

impl<Q: Request, A: Answer> Call<Q, A> {
    /// Moves bytes until both directions have ended, or one has failed. What ends here half-closes the call, and what ends in
    /// the guest shuts `write` down; the call is over when all has arrived at both ends.
    async fn relay(
        self,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
    ) -> Result<(), Broken> {
        let mut answers = self.answers;
        let mut requests = Some(self.requests);
        let ended = {
            let up = pin!(up(read, &mut requests));
            let down = pin!(down(&mut answers, write));
            tokio::select! {
                ended = down => ended,
                error = up => Err(Broken::Here(error)),
            }
        };
        if let (Err(Broken::Here(_)), Some(requests)) = (&ended, requests) {
            give_up(requests).await;
        }
        ended
    }

    /// The connection is not wanted any more.
    async fn abort(self) {
        give_up(self.requests).await;
    }
}

/// Breaks a call off. Just dropped, it would first be half-closed, which is how an upload ends that is complete.
async fn give_up<Q: Request>(requests: mpsc::Sender<Q>) {
    // A guest that takes nothing for so long is not told.
    let _ = timeout(TUNNEL_ABORT, requests.send(Q::abort())).await;
}

/// From here to the guest; returns only what goes wrong.
async fn up<Q: Request>(
    mut read: impl AsyncRead + Unpin,
    requests: &mut Option<mpsc::Sender<Q>>,
) -> io::Error {
    let mut buffer = vec![0; TUNNEL_READ];
    while let Some(queue) = requests.as_ref() {
        // A place first: what can't be sent stays with the kernel. Without one the call has ended, and says why.
        let Ok(place) = queue.reserve().await else {
            break;
        };
        match read.read(&mut buffer).await {
            Ok(0) => {
                drop(place);
                *requests = None;
            }
            Ok(len) => place.send(Q::data(buffer[..len].to_vec())),
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// From the guest to here.
async fn down<A: Answer>(
    answers: &mut Streaming<A>,
    mut write: impl AsyncWrite + Unpin,
) -> Result<(), Broken> {
    while let Some(answer) = answers.message().await.map_err(Broken::There)? {
        match answer.event() {
            Some(Event::Data(data)) => {
                write.write_all(&data).await.map_err(Broken::Here)?;
                write.flush().await.map_err(Broken::Here)?;
            }
            Some(Event::Closed) => write.shutdown().await.map_err(Broken::Here)?,
            Some(Event::Connected) | None => return Err(Broken::There(strange())),
        }
    }
    Ok(())
}

impl Broken {
    /// What is to be told of it. A connection that one of its ends has reset is reset at the other, who knows then.
    fn sentence(&self, client: &Client) -> Option<String> {
        match self {
            Self::There(status) if status.code() == Code::Aborted => None,
            Self::There(status) => Some(client.sentence(status)),
            Self::Here(_) => None,
        }
    }
}

macro_rules! messages {
    ($request:ident, $requests:ident, $answer:ident, $answers:ident) => {
        impl Request for $request {
            fn data(data: Vec<u8>) -> Self {
                let message = Some($requests::Message::Data(data));
                Self { message }
            }

            fn abort() -> Self {
                let message = Some($requests::Message::Abort(true));
                Self { message }
            }
        }

        impl Answer for $answer {
            fn event(self) -> Option<Event> {
                match self.message? {
                    $answers::Message::Connected(_) => Some(Event::Connected),
                    $answers::Message::Data(data) => Some(Event::Data(data)),
                    $answers::Message::Closed(closed) => closed.then_some(Event::Closed),
                }
            }
        }
    };
}

messages!(
    TunnelConnectRequest,
    tunnel_connect_request,
    TunnelConnectResponse,
    tunnel_connect_response
);
messages!(
    TunnelAcceptRequest,
    tunnel_accept_request,
    TunnelAcceptResponse,
    tunnel_accept_response
);
