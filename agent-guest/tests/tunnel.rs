//! Connections through the agent: into the guest and out of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{io, time::Duration};

use bytes::Bytes;
use common::{Host, PATIENCE, Running, within};
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

// === Streams ===

#[tokio::test]
async fn bytes_go_both_ways_at_once_and_arrive_as_they_were_sent() {
    let world = World::new().await;
    let (tunnel, stream) = world.pair().await;
    tokio::spawn(echo(stream));
    goes_there_and_back(tunnel).await;
}

#[tokio::test]
async fn unix_sockets_are_reached_by_path_and_by_name() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo.sock");
    let name = format!("vbridge-test-{}", std::process::id());
    let by_name = format!("\0{name}");
    for (bound, address) in [
        (path.clone(), path.to_str().unwrap().to_owned()),
        (by_name.into(), format!("@{name}")),
    ] {
        let listener = UnixListener::bind(bound).unwrap();
        let (tunnel, connected) = world.connect(unix(&address)).await.unwrap();
        assert_eq!((connected.peer, connected.local), (address, String::new()));
        tokio::spawn(async move { echo(listener.accept().await.unwrap().0).await });
        goes_there_and_back(tunnel).await;
    }
}

#[tokio::test]
async fn a_caller_that_has_no_more_to_say_is_still_answered() {
    let world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    tunnel.send(b"question").await;
    tunnel.half_close();
    let mut question = Vec::new();
    within(stream.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    stream.write_all(b"answer").await.unwrap();
    drop(stream);
    assert_eq!(tunnel.all().await.unwrap(), b"answer");
    tunnel.ends().await;
}

#[tokio::test]
async fn an_other_end_that_has_no_more_to_say_still_listens() {
    let world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    stream.write_all(b"banner").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(tunnel.all().await.unwrap(), b"banner");
    tunnel.send(b"and").await;
    tunnel.send(b" so on").await;
    tunnel.half_close();
    let mut rest = String::new();
    within(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "and so on");
    tunnel.ends().await;
}

#[tokio::test]
async fn nobody_there_is_told_with_address_and_reason() {
    let world = World::new().await;
    // A port that nobody listens on: taken and given back.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.sock");
    let missing = missing.to_str().unwrap();
    let literal = tunnel_address::Address::Tcp(socket("127.0.0.1", address.port().into()));
    let literal = TunnelAddress {
        address: Some(literal),
    };
    let unknown = tunnel_address::Address::Tcp(socket("no-such-host.invalid", 80));
    let unknown = TunnelAddress {
        address: Some(unknown),
    };
    for (to, words) in [
        (
            tcp(address.port()),
            vec![
                format!("port {}", address.port()),
                "Connection refused".into(),
            ],
        ),
        (
            literal,
            vec![address.to_string(), "Connection refused".into()],
        ),
        (
            unix(missing),
            vec![missing.to_owned(), "No such file".into()],
        ),
        (unknown, vec!["no-such-host.invalid:80".into()]),
    ] {
        let status = world.connect(to).await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(reason(&status), "CONNECT_FAILED");
        for word in words {
            assert!(status.message().contains(&word), "{}", status.message());
        }
    }
}

#[tokio::test]
async fn a_name_is_looked_up_in_the_guest() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = tunnel_address::Address::Tcp(socket("localhost", port.into()));
    let address = Some(address);
    let (_tunnel, connected) = world.connect(TunnelAddress { address }).await.unwrap();
    assert_eq!(connected.peer, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn what_is_no_address_is_refused_by_its_field() {
    let world = World::new().await;
    let of = |address| TunnelAddress {
        address: Some(address),
    };
    for (address, field) in [
        (TunnelAddress::default(), "connect"),
        (tcp(0), "connect.tcp.port"),
        (udp(0), "connect.udp.port"),
        (
            of(tunnel_address::Address::Tcp(socket("h", 65_536))),
            "connect.tcp.port",
        ),
        (
            of(tunnel_address::Address::Tcp(socket(" ", 80))),
            "connect.tcp.host",
        ),
        (
            of(tunnel_address::Address::Tcp(socket("a\0", 80))),
            "connect.tcp.host",
        ),
        (
            of(tunnel_address::Address::Tcp(socket(&"h".repeat(254), 80))),
            "connect.tcp.host",
        ),
        (unix(""), "connect.unix"),
        (unix("relative"), "connect.unix"),
        (unix("/nul\0"), "connect.unix"),
        (unix(&format!("/{}", "x".repeat(107))), "connect.unix"),
    ] {
        let status = world.connect(address).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_error_details();
        let violations = &details
            .bad_request()
            .expect("it names the field")
            .field_violations;
        assert_eq!(violations[0].field, field);
    }
}

#[tokio::test]
async fn messages_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let data = |len| TunnelConnectRequest {
        message: Some(tunnel_connect_request::Message::Data(vec![0; len])),
    };
    let requests = tokio_stream::iter([data(1)]);
    let answers = within(world.client().connect(requests)).await.unwrap();
    let status = within(answers.into_inner().message()).await.unwrap_err();
    assert!(status.message().contains("first message"), "{status:?}");

    let empty = TunnelConnectRequest { message: None };
    for (wrong, why) in [
        (to(tcp(1)), "INVALID_FIELD"),
        (empty, "INVALID_FIELD"),
        (data(64 * 1024 + 1), "INVALID_FIELD"),
        (data(1024 * 1024), "REQUEST_TOO_LARGE"),
    ] {
        let (mut tunnel, mut stream) = world.pair().await;
        within(tunnel.requests.as_ref().unwrap().send(wrong))
            .await
            .unwrap();
        let status = tunnel.next().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status), why);
        assert!(
            was_reset(&mut stream).await,
            "half of it looks like all of it"
        );
    }
}

// === Ends that come too early ===

/// Whether a connection ends with a reset, and not as one that has said all.
async fn was_reset(stream: &mut TcpStream) -> bool {
    let ended = within(stream.read_to_end(&mut Vec::new())).await;
    matches!(ended, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_reset_is_told_behind_what_has_come_before_it() {
    let world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    stream.write_all(b"so far").await.unwrap();
    assert_eq!(tunnel.next().await.unwrap().unwrap(), b"so far");
    stream.set_zero_linger().unwrap();
    drop(stream);
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(reason(&status), "CONNECTION_RESET");
    assert!(status.message().contains("reset by peer"), "{status:?}");
}

#[tokio::test]
async fn a_tunnel_that_is_broken_off_is_reset_and_not_ended() {
    let world = World::new().await;
    let (tunnel, mut stream) = world.pair().await;
    tunnel.send(b"half of").await;
    tunnel
        .say(tunnel_connect_request::Message::Abort(true))
        .await;
    let mut half = [0; 7];
    // The reset may overtake what has not been read.
    if within(stream.read_exact(&mut half)).await.is_ok() {
        assert_eq!(&half, b"half of");
        assert!(was_reset(&mut stream).await);
    }
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_reset_and_not_ended() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let (client, connection) = within(h2::client::handshake(host.take_session()))
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = http::Request::post("http://guest.test/vbridge.guest.v1.Tunnel/Connect")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut client = within(client.ready()).await.unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    let message = to(tcp(listener.local_addr().unwrap().port())).encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    upload.send_data(Bytes::from(framed), false).unwrap();
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    // The call's answer has come: the tunnel stands.
    let mut body = within(response).await.unwrap().into_body();
    within(body.data()).await.unwrap().unwrap();
    upload.send_reset(h2::Reason::CANCEL);
    assert!(
        was_reset(&mut stream).await,
        "half of it looks like all of it"
    );
}

#[tokio::test]
async fn a_lost_session_ends_its_tunnels() {
    let world = World::new().await;
    let (tunnel, mut stream) = world.pair().await;
    let World {
        agent,
        _host,
        channel,
    } = world;
    drop((tunnel, channel, _host));
    // Ended in either way: there is no call any more that could break it off.
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
    agent.until_quiet().await;
}

#[tokio::test]
async fn an_agent_that_stops_ends_its_tunnels_at_once_and_says_so() {
    let mut world = World::new().await;
    let (mut tunnel, mut stream) = world.pair().await;
    let (mut calls, _) = world.listen(tcp(0)).await;
    world.agent.ask_to_stop();
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(reason(&status), "AGENT_STOPPING");
    let status = within(calls.message()).await.unwrap_err();
    assert_eq!(reason(&status), "AGENT_STOPPING");
    assert!(was_reset(&mut stream).await);
}

// === Readers that do not read ===

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_sender_and_nobody_else() {
    let world = World::new().await;
    let (_stalled, mut flood) = world.pair().await;
    let (mut other, stream) = world.pair().await;
    // It goes on until all buffers are full; 64 MiB would never fit.
    let flooded = tokio::spawn(async move {
        let piece = vec![7; 64 * 1024];
        let mut sent = 0;
        while sent < 64 * 1024 * 1024 {
            match tokio::time::timeout(Duration::from_millis(300), flood.write_all(&piece)).await {
                Ok(written) => written.unwrap(),
                Err(_) => return (sent, flood),
            }
            sent += piece.len();
        }
        (sent, flood)
    });
    let (sent, _flood) = within(flooded).await.unwrap();
    assert!(sent < 64 * 1024 * 1024, "nothing stops the sender");
    tokio::spawn(echo(stream));
    other.send(b"quick").await;
    other.half_close();
    assert_eq!(other.all().await.unwrap(), b"quick");
    other.ends().await;
}

#[tokio::test]
async fn a_caller_that_does_not_read_still_sends() {
    let world = World::new().await;
    let (tunnel, stream) = world.pair().await;
    let (mut read, mut write) = stream.into_split();
    tokio::spawn(async move {
        let piece = vec![7; 64 * 1024];
        // Its end is the test's.
        while write.write_all(&piece).await.is_ok() {}
    });
    let sent = content(1024 * 1024);
    let upload = async {
        for piece in sent.chunks(64 * 1024) {
            tunnel.send(piece).await;
        }
    };
    let mut received = vec![0; sent.len()];
    let (arrived, ()) =
        within(async { tokio::join!(read.read_exact(&mut received), upload) }).await;
    arrived.unwrap();
    assert!(received == sent, "other bytes have arrived");
}

// === Datagrams ===

#[tokio::test]
async fn datagrams_keep_their_boundaries_both_ways() {
    let world = World::new().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    let (mut tunnel, connected) = world.connect(udp(port)).await.unwrap();
    let mut buffer = vec![0; 65_536];
    for size in [1, 0, 1000, 65_507] {
        let datagram = content(size);
        tunnel.send(&datagram).await;
        let (len, from) = within(peer.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from.to_string(), connected.local);
        assert!(buffer[..len] == datagram[..], "{size}");
        peer.send_to(&buffer[..len], from).await.unwrap();
        assert!(tunnel.next().await.unwrap().unwrap() == datagram, "{size}");
    }
    tunnel.send(&vec![0; 65_508]).await;
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("65507"), "{status:?}");
}

#[tokio::test]
async fn datagrams_that_nobody_takes_are_told() {
    let world = World::new().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    drop(peer);
    let (mut tunnel, _) = world.connect(udp(port)).await.unwrap();
    tunnel.send(b"anybody?").await;
    let status = tunnel.next().await.unwrap_err();
    assert_eq!(reason(&status), "CONNECT_FAILED");
}

#[tokio::test]
async fn an_answer_comes_back_behind_a_half_closed_udp_call() {
    let world = World::new().await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = peer.local_addr().unwrap().port();
    let (mut tunnel, _) = world.connect(udp(port)).await.unwrap();
    tunnel.send(b"question").await;
    tunnel.half_close();
    let mut buffer = [0; 100];
    let (_, from) = within(peer.recv_from(&mut buffer)).await.unwrap();
    peer.send_to(b"answer", from).await.unwrap();
    assert_eq!(tunnel.next().await.unwrap().unwrap(), b"answer");
}

// === Listening ===

async fn incoming(calls: &mut Streaming<TunnelListenResponse>) -> TunnelIncoming {
    match within(calls.message()).await.unwrap().unwrap().message {
        Some(tunnel_listen_response::Message::Incoming(incoming)) => incoming,
        other => panic!("{other:?}"),
    }
}

fn piece(data: &[u8]) -> TunnelAcceptRequest {
    TunnelAcceptRequest {
        message: Some(tunnel_accept_request::Message::Data(data.to_vec())),
    }
}

async fn received(answers: &mut Streaming<TunnelAcceptResponse>) -> Option<Vec<u8>> {
    match within(answers.message()).await.unwrap().unwrap().message {
        Some(tunnel_accept_response::Message::Data(data)) => Some(data),
        Some(tunnel_accept_response::Message::Closed(true)) => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connections_that_come_are_told_and_taken_in_any_order() {
    let world = World::new().await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = within(TcpStream::connect(&address)).await.unwrap();
        let told = incoming(&mut calls).await;
        assert_eq!(told.peer, client.local_addr().unwrap().to_string());
        clients.push((client, told.id));
    }
    clients.reverse();
    for (number, (mut client, id)) in (0..).zip(clients) {
        let (requests, mut answers) = world.accept(&id).await.unwrap();
        let taken_twice = world.accept(&id).await.err().unwrap();
        assert_eq!(taken_twice.code(), Code::NotFound);
        client.write_all(&[number]).await.unwrap();
        assert_eq!(received(&mut answers).await.unwrap(), [number]);
        client.shutdown().await.unwrap();
        assert_eq!(received(&mut answers).await, None);
        requests.send(piece(&[number, 1])).await.unwrap();
        drop(requests);
        let mut answer = Vec::new();
        within(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, [number, 1]);
        assert!(within(answers.message()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_connection_that_nobody_takes_in_time_is_reset() {
    let world = World::with(|limits| limits.accept_timeout = Duration::from_millis(50)).await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let mut client = within(TcpStream::connect(&address)).await.unwrap();
    let told = incoming(&mut calls).await;
    assert!(was_reset(&mut client).await);
    let status = world.accept(&told.id).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "NOT_FOUND")
    );
    // It listens on.
    let _client = within(TcpStream::connect(&address)).await.unwrap();
    assert_ne!(incoming(&mut calls).await.id, told.id);
}

#[tokio::test]
async fn a_full_backlog_waits_in_the_kernel_until_one_is_taken() {
    let world = World::with(|limits| limits.backlog = 1).await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let _first = within(TcpStream::connect(&address)).await.unwrap();
    let told = incoming(&mut calls).await;
    let mut second = within(TcpStream::connect(&address)).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(100), calls.message()).await;
    assert!(waited.is_err(), "{waited:?}");
    let _taken = world.accept(&told.id).await.unwrap();
    let told = incoming(&mut calls).await;
    let (requests, _answers) = world.accept(&told.id).await.unwrap();
    requests.send(piece(b"x")).await.unwrap();
    assert_eq!(within(second.read_u8()).await.unwrap(), b'x');
}

#[tokio::test]
async fn the_listener_and_what_waits_there_end_with_the_call() {
    let world = World::new().await;
    let (mut calls, address) = world.listen(tcp(0)).await;
    let mut client = within(TcpStream::connect(&address)).await.unwrap();
    incoming(&mut calls).await;
    drop(calls);
    assert!(was_reset(&mut client).await);
    within(async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_listened_on_for_its_owner_alone_and_its_file_goes_with_the_call() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("listen.sock");
    let text = path.to_str().unwrap();
    let (mut calls, address) = world.listen(unix(text)).await;
    assert_eq!(address, text);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = within(UnixStream::connect(&path)).await.unwrap();
    let told = incoming(&mut calls).await;
    let (requests, _answers) = world.accept(&told.id).await.unwrap();
    requests.send(piece(b"x")).await.unwrap();
    assert_eq!(within(client.read_u8()).await.unwrap(), b'x');

    let request = TunnelListenRequest {
        address: Some(unix(text)),
    };
    let mut again = within(world.client().listen(request))
        .await
        .unwrap()
        .into_inner();
    let status = within(again.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(path.exists(), "a socket that is in use was removed");

    drop(calls);
    within(async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

// === Limits ===

#[tokio::test]
async fn more_than_the_most_are_refused_until_one_ends() {
    let world = World::with(|limits| {
        limits.connections = 1;
        limits.listeners = 1;
    })
    .await;
    let (mut tunnel, stream) = world.pair().await;
    let (calls, _) = world.listen(tcp(0)).await;
    let status = world.connect(tcp(1)).await.err().unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "TOO_MANY")
    );
    let request = TunnelListenRequest {
        address: Some(tcp(0)),
    };
    let mut more = within(world.client().listen(request.clone()))
        .await
        .unwrap()
        .into_inner();
    let status = within(more.message()).await.unwrap_err();
    assert_eq!(reason(&status), "TOO_MANY");
    drop(stream);
    tunnel.half_close();
    tunnel.all().await.unwrap();
    tunnel.ends().await;
    drop(calls);
    within(async {
        loop {
            let status = world.connect(tcp(1)).await.err().unwrap();
            let mut calls = world
                .client()
                .listen(request.clone())
                .await
                .unwrap()
                .into_inner();
            if reason(&status) != "TOO_MANY" && calls.message().await.is_ok() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn connecting_takes_no_longer_than_it_may() {
    let world = World::with(|limits| limits.connect_timeout = Duration::from_millis(50)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.sock");
    // Its backlog is full, and stays so.
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&path).await.unwrap();
    let begin = tokio::time::Instant::now();
    let status = world
        .connect(unix(path.to_str().unwrap()))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&status), "CONNECT_FAILED");
    assert!(status.message().contains("50ms"), "{status:?}");
    assert!(begin.elapsed() < PATIENCE);
}
