//! A daemon that reads packets and says what it is told, byte by byte if need be.

#![allow(dead_code, reason = "each test program takes what it needs")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libvirt::rpc::{Client, Config, KeepaliveConfig};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

pub(crate) const CALL: u32 = 0;
pub(crate) const REPLY: u32 = 1;
pub(crate) const MESSAGE: u32 = 2;
pub(crate) const STREAM: u32 = 3;
pub(crate) const HOLE: u32 = 6;
pub(crate) const OK: u32 = 0;
pub(crate) const ERROR: u32 = 1;
pub(crate) const CONTINUE: u32 = 2;

const REMOTE: u32 = 0x2000_8086;
const KEEPALIVE: u32 = 0x6b65_6570;

/// The bytes that a pipe in memory holds each way.
pub(crate) const PIPE: usize = 4 << 20;

/// A socket on which daemons wait for clients.
pub(crate) struct Place {
    folder: TempDir,
    listener: UnixListener,
}

/// The other end of a connection.
pub(crate) struct Daemon {
    stream: Box<dyn Duplex>,
    /// The same socket, where descriptors can travel.
    unix: Option<std::os::unix::net::UnixStream>,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A packet as the client sent it.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) program: u32,
    pub(crate) procedure: u32,
    pub(crate) kind: u32,
    pub(crate) serial: u32,
    pub(crate) status: u32,
    pub(crate) descriptors: usize,
    pub(crate) payload: Vec<u8>,
}

/// A client over a Unix socket, and its daemon.
pub(crate) fn connect() -> (Client, Daemon) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    // A daemon of ours takes as many calls as come.
    let config = Config {
        calls_at_once: usize::MAX,
        ..Config::default()
    };
    let client = Client::over_std_unix(ours, config).unwrap();
    (client, Daemon::over(theirs))
}

/// A client over a Unix socket that lets its daemon have one call at a time, and the daemon.
pub(crate) fn connect_one_by_one() -> (Client, Daemon) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let config = Config {
        calls_at_once: 1,
        ..Config::default()
    };
    let client = Client::over_std_unix(ours, config).unwrap();
    (client, Daemon::over(theirs))
}

/// A client over a pipe in memory, for tests whose clock stands still, and its daemon.
pub(crate) fn connect_bytes(keepalive: KeepaliveConfig) -> (Client, Daemon) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let daemon = Daemon {
        stream: Box::new(theirs),
        unix: None,
    };
    (Client::over(ours, keepalive), daemon)
}

/// A packet of the remote program.
pub(crate) fn packet(
    procedure: u32,
    kind: u32,
    serial: u32,
    status: u32,
    payload: &[u8],
) -> Vec<u8> {
    packet_of(REMOTE, procedure, kind, serial, status, payload)
}

/// A packet of any program.
fn packet_of(
    program: u32,
    procedure: u32,
    kind: u32,
    serial: u32,
    status: u32,
    payload: &[u8],
) -> Vec<u8> {
    let length = 28 + u32::try_from(payload.len()).unwrap();
    let mut packet = words(&[length, program, 1, procedure, kind, serial, status]);
    packet.extend(payload);
    packet
}

/// A keepalive packet: 1 asks, 2 answers.
pub(crate) fn keepalive(procedure: u32) -> Vec<u8> {
    packet_of(KEEPALIVE, procedure, MESSAGE, 0, OK, b"")
}

/// Numbers as XDR has them.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A string as XDR has it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = words(&[u32::try_from(text.len()).unwrap()]);
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A `virNetMessageError`.
pub(crate) fn error_payload(code: i32, domain: i32, message: &str) -> Vec<u8> {
    let mut payload = words(&[code.cast_unsigned(), domain.cast_unsigned(), 1]);
    payload.extend(text(message));
    // level; no domain; three texts, two numbers and a network that are not there
    payload.extend(words(&[2, 0, 0, 0, 0, 0, 0, 0]));
    payload
}

// === impl Place ===

impl Place {
    /// A socket in a folder of its own.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self { folder, listener }
    }

    /// Where a client finds it.
    pub(crate) fn uri(&self) -> String {
        let socket = self.folder.path().join("socket");
        format!("test+unix:///default?socket={}", socket.display())
    }

    /// The daemon that serves the next client.
    pub(crate) async fn daemon(&self) -> Daemon {
        let (socket, _) = self.listener.accept().await.unwrap();
        Daemon::over(socket.into_std().unwrap())
    }
}

// === impl Daemon ===

impl Daemon {
    fn over(socket: std::os::unix::net::UnixStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        let unix = socket.try_clone().unwrap();
        Self {
            stream: Box::new(UnixStream::from_std(socket).unwrap()),
            unix: Some(unix),
        }
    }

    /// Answers every call until the client closes the connection; an error is what [`error_payload`] makes.
    pub(crate) async fn serve(
        mut self,
        mut answer: impl FnMut(&Packet) -> Result<Vec<u8>, Vec<u8>>,
    ) {
        while let Some(call) = self.next().await {
            let (status, payload) = match answer(&call) {
                Ok(payload) => (OK, payload),
                Err(payload) => (ERROR, payload),
            };
            let Packet {
                program,
                procedure,
                serial,
                ..
            } = call;
            let reply = packet_of(program, procedure, REPLY, serial, status, &payload);
            // A client that has gone meanwhile hears nothing more.
            if self.stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    }

    /// The client's next packet.
    pub(crate) async fn packet(&mut self) -> Packet {
        self.next()
            .await
            .expect("the client has closed the connection")
    }

    /// All packets until the client closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(packet) = self.next().await {
            packets.push(packet);
        }
        packets
    }

    async fn next(&mut self) -> Option<Packet> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(parse(&body))
    }

    /// The next packet and the descriptors that follow it.
    pub(crate) async fn packet_with_descriptors(&mut self) -> (Packet, Vec<OwnedFd>) {
        let packet = self.packet().await;
        let mut fds = Vec::new();
        while fds.len() < packet.descriptors {
            let socket =
                UnixStream::from_std(self.unix.as_ref().unwrap().try_clone().unwrap()).unwrap();
            socket.readable().await.unwrap();
            let received = socket.try_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let mut carrier = [0];
                rustix::net::recvmsg(
                    &socket,
                    &mut [IoSliceMut::new(&mut carrier)],
                    &mut ancillary,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                Ok(())
            });
            if let Err(error) = received {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            }
        }
        (packet, fds)
    }

    /// Sends a packet.
    pub(crate) async fn say(
        &mut self,
        procedure: u32,
        kind: u32,
        serial: u32,
        status: u32,
        payload: &[u8],
    ) {
        self.raw(&packet(procedure, kind, serial, status, payload))
            .await;
    }

    /// Answers the next call.
    pub(crate) async fn answer(&mut self, payload: &[u8]) {
        let call = self.packet().await;
        self.say(call.procedure, REPLY, call.serial, OK, payload)
            .await;
    }

    /// Answers a call with descriptors.
    pub(crate) async fn answer_with_descriptors(
        &mut self,
        call: &Packet,
        payload: &[u8],
        fds: &[OwnedFd],
    ) {
        let mut body = words(&[u32::try_from(fds.len()).unwrap()]);
        body.extend(payload);
        let reply = packet_of(call.program, call.procedure, 5, call.serial, OK, &body);
        self.raw(&reply).await;
        for fd in fds {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let rights = [fd.as_fd()];
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&rights)));
            rustix::net::sendmsg(
                self.unix.as_ref().unwrap(),
                &[IoSlice::new(&[0])],
                &mut ancillary,
                SendFlags::empty(),
            )
            .unwrap();
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads bytes as they are.
    pub(crate) async fn raw_read(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).await.unwrap();
    }
}

fn parse(body: &[u8]) -> Packet {
    let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    let kind = word(12);
    let with_descriptors = kind == 4;
    Packet {
        program: word(0),
        procedure: word(8),
        kind,
        serial: word(16),
        status: word(20),
        descriptors: if with_descriptors {
            word(24) as usize
        } else {
            0
        },
        payload: body[if with_descriptors { 28 } else { 24 }..].to_vec(),
    }
}
