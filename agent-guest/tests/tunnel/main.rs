//! Connections through the agent: into the guest and out of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod datagrams;
mod ends;
mod limits;
mod listen;
mod readers;
mod streams;

use std::{io, time::Duration};

use bytes::Bytes;
use common::{Host, PATIENCE, Running, until, within};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    SocketAddress, TunnelAcceptRequest, TunnelAcceptResponse, TunnelAddress, TunnelConnectRequest,
    TunnelConnectResponse, TunnelConnected, TunnelIncoming, TunnelListenRequest,
    TunnelListenResponse, tunnel_accept_request, tunnel_accept_response, tunnel_address,
    tunnel_client::TunnelClient, tunnel_connect_request, tunnel_connect_response,
    tunnel_listen_response,
};

/// Much more than all buffers on the way hold together.
const BULK: usize = 8 * 1024 * 1024;

/// How long they may take on a machine that is badly overloaded.
const BULK_PATIENCE: Duration = Duration::from_secs(120);

/// An agent, and a channel to it.
struct World {
    agent: Running,
    _host: Host,
    channel: Channel,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut agent_guest::TunnelLimits)) -> Self {
        let mut limits = agent_guest::TunnelLimits::default();
        change(&mut limits);
        let agent = Running::start_with(|builder| builder.tunnel_limits(limits));
        let mut host = agent.host().await;
        let channel = host.channel().await;
        Self {
            agent,
            _host: host,
            channel,
        }
    }

    fn client(&self) -> TunnelClient<Channel> {
        TunnelClient::new(self.channel.clone())
    }

    /// A tunnel to an address, and both its ends.
    async fn connect(&self, address: TunnelAddress) -> Result<(Tunnel, TunnelConnected), Status> {
        let (requests, queue) = mpsc::channel(4);
        requests.send(to(address)).await.unwrap();
        let answers = self.client().connect(ReceiverStream::new(queue)).await?;
        let mut tunnel = Tunnel {
            requests: Some(requests),
            answers: answers.into_inner(),
        };
        match within(tunnel.answers.message()).await? {
            Some(TunnelConnectResponse {
                message: Some(tunnel_connect_response::Message::Connected(connected)),
            }) => Ok((tunnel, connected)),
            other => panic!("{other:?}"),
        }
    }

    /// A tunnel to somebody who listens here, and his end of the connection.
    async fn pair(&self) -> (Tunnel, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp(listener.local_addr().unwrap().port());
        let (tunnel, connected) = self.connect(address).await.unwrap();
        let (stream, peer) = within(listener.accept()).await.unwrap();
        assert_eq!(connected.local, peer.to_string());
        assert_eq!(connected.peer, listener.local_addr().unwrap().to_string());
        (tunnel, stream)
    }

    /// Listens in the guest.
    async fn listen(&self, address: TunnelAddress) -> (Streaming<TunnelListenResponse>, String) {
        let request = TunnelListenRequest {
            address: Some(address),
        };
        let mut calls = within(self.client().listen(request))
            .await
            .unwrap()
            .into_inner();
        match within(calls.message()).await.unwrap().unwrap().message {
            Some(tunnel_listen_response::Message::Listening(address)) => (calls, address),
            other => panic!("{other:?}"),
        }
    }

    /// Takes a connection.
    async fn accept(
        &self,
        id: &str,
    ) -> Result<
        (
            mpsc::Sender<TunnelAcceptRequest>,
            Streaming<TunnelAcceptResponse>,
        ),
        Status,
    > {
        let (requests, queue) = mpsc::channel(4);
        let first = tunnel_accept_request::Message::Id(id.to_owned());
        requests
            .send(TunnelAcceptRequest {
                message: Some(first),
            })
            .await
            .unwrap();
        let answers = self.client().accept(ReceiverStream::new(queue)).await?;
        let mut answers = answers.into_inner();
        match within(answers.message()).await?.unwrap().message {
            Some(tunnel_accept_response::Message::Connected(_)) => Ok((requests, answers)),
            other => panic!("{other:?}"),
        }
    }
}

/// The caller's end of a tunnel.
struct Tunnel {
    requests: Option<mpsc::Sender<TunnelConnectRequest>>,
    answers: Streaming<TunnelConnectResponse>,
}

impl Tunnel {
    async fn send(&self, data: &[u8]) {
        self.say(tunnel_connect_request::Message::Data(data.to_vec()))
            .await;
    }

    async fn say(&self, message: tunnel_connect_request::Message) {
        let message = Some(message);
        let requests = self.requests.as_ref().unwrap();
        within(requests.send(TunnelConnectRequest { message }))
            .await
            .unwrap();
    }

    fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next piece of data; none for "closed".
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let answer = within(self.answers.message()).await?;
        match answer.expect("the call has ended").message {
            Some(tunnel_connect_response::Message::Data(data)) => Ok(Some(data)),
            Some(tunnel_connect_response::Message::Closed(true)) => Ok(None),
            other => panic!("{other:?}"),
        }
    }

    /// Everything up to "closed".
    async fn all(&mut self) -> Result<Vec<u8>, Status> {
        let mut all = Vec::new();
        while let Some(data) = self.next().await? {
            all.extend(data);
        }
        Ok(all)
    }

    /// The call is over, without a failure.
    async fn ends(mut self) {
        assert!(within(self.answers.message()).await.unwrap().is_none());
    }
}

fn to(address: TunnelAddress) -> TunnelConnectRequest {
    TunnelConnectRequest {
        message: Some(tunnel_connect_request::Message::Connect(address)),
    }
}

fn socket(host: &str, port: u32) -> SocketAddress {
    let host = host.to_owned();
    SocketAddress { host, port }
}

fn tcp(port: u16) -> TunnelAddress {
    TunnelAddress {
        address: Some(tunnel_address::Address::Tcp(socket("", port.into()))),
    }
}

fn udp(port: u16) -> TunnelAddress {
    let address = Some(tunnel_address::Address::Udp(socket("", port.into())));
    TunnelAddress { address }
}

fn unix(path: &str) -> TunnelAddress {
    let address = Some(tunnel_address::Address::Unix(path.to_owned()));
    TunnelAddress { address }
}

/// Bytes in which no piece is like another.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone())
        .unwrap_or_default()
}

/// Sends back what comes, and closes behind it.
async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

/// Sends 8 MiB while they come back.
async fn goes_there_and_back(mut tunnel: Tunnel) {
    let sent = content(BULK);
    let requests = tunnel.requests.take().unwrap();
    let upload = async {
        for piece in sent.chunks(50_000) {
            let message = Some(tunnel_connect_request::Message::Data(piece.to_vec()));
            requests
                .send(TunnelConnectRequest { message })
                .await
                .unwrap();
        }
        drop(requests);
    };
    let both = async { tokio::join!(tunnel.all(), upload) };
    let both = tokio::time::timeout(BULK_PATIENCE, both).await;
    let (received, ()) = both.expect("it takes for ever");
    assert!(received.unwrap() == sent, "other bytes have come back");
    tunnel.ends().await;
}

/// Whether a connection ends with a reset, and not as one that has said all.
async fn was_reset(stream: &mut TcpStream) -> bool {
    let ended = within(stream.read_to_end(&mut Vec::new())).await;
    matches!(ended, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}
