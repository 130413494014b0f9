//! A daemon that answers each call as a script says, and remembers what it was sent.

use std::{
    io,
    sync::{Arc, Mutex},
};

use libvirt::rpc::Procedure;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

pub(crate) const CONNECT_OPEN: u32 = 1;
pub(crate) const AUTH_LIST: u32 = 66;
const CONNECT_GET_URI: u32 = 110;

/// A packet's words before its payload, without the length: program, version, procedure, type, serial, status.
const HEADER: usize = 6;

/// Types of packets.
const REPLY: u32 = 1;
const EVENT: u32 = 2;

/// What a script says to a call.
pub(crate) enum Answer {
    /// This.
    Say(Vec<u8>),
    /// This, and behind it that these things have happened.
    Tell(Vec<u8>, Vec<Event>),
    /// That an argument is wrong.
    Refuse,
    /// That it has no such procedure.
    Unsupported,
    /// Nothing, ever.
    Withhold,
    /// What a daemon says that lets anybody in; in most cases nothing.
    Usual,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) procedure: u32,
    pub(crate) payload: Vec<u8>,
}

/// A call as the daemon was sent it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) procedure: u32,
    pub(crate) arguments: Vec<u8>,
}

/// The daemon: it listens on a Unix socket or a port, and serves one client after the other.
pub(crate) struct Scripted {
    /// How to reach it.
    pub(crate) uri: String,
    calls: Calls,
    _folder: Option<TempDir>,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// What it says to a procedure with its arguments.
pub(crate) trait Script: Fn(u32, &[u8]) -> Answer + Send + Sync + 'static {}
impl<S: Fn(u32, &[u8]) -> Answer + Send + Sync + 'static> Script for S {}

// === impl Scripted ===

impl Scripted {
    /// On a Unix socket.
    pub(crate) fn unix(script: impl Script) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let calls = Calls::default();
        let log = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                serve(client, &log, &script).await;
            }
        });
        Self {
            uri: format!("test+unix:///default?socket={}", socket.display()),
            calls,
            _folder: Some(folder),
        }
    }

    /// On a port of this host.
    pub(crate) async fn tcp(script: impl Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Calls::default();
        let log = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                serve(client, &log, &script).await;
            }
        });
        Self {
            uri: format!("test+tcp://{address}/default"),
            calls,
            _folder: None,
        }
    }

    /// What it was sent.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The procedures of these calls.
    pub(crate) fn procedures(&self) -> Vec<u32> {
        self.calls().iter().map(|call| call.procedure).collect()
    }
}

/// Answers one client until it goes, which it may do at any time.
async fn serve<C: AsyncRead + AsyncWrite + Unpin>(
    mut client: C,
    calls: &Calls,
    script: &impl Script,
) {
    while let Ok((header, arguments)) = packet(&mut client).await {
        let procedure = header[2];
        let said = script(procedure, &arguments);
        calls.lock().unwrap().push(Call {
            procedure,
            arguments,
        });
        let (answer, events) = match said {
            Answer::Say(answer) => (Ok(answer), Vec::new()),
            Answer::Tell(answer, events) => (Ok(answer), events),
            Answer::Usual => (Ok(usual(procedure)), Vec::new()),
            Answer::Refuse => (Err(8), Vec::new()),
            Answer::Unsupported => (Err(3), Vec::new()),
            Answer::Withhold => continue,
        };
        let status = u32::from(answer.is_err());
        // An error: its code, of domain 0, no texts, level 2, and nothing else.
        let payload = answer.unwrap_or_else(|code| words(&[code, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]));
        let mut said = packed(
            [header[0], header[1], procedure, REPLY, header[4], status],
            &payload,
        );
        for event in events {
            // A daemon gives all of them this serial.
            let header = [header[0], header[1], event.procedure, EVENT, 1, 0];
            said.extend(packed(header, &event.payload));
        }
        if client.write_all(&said).await.is_err() {
            return;
        }
    }
}

/// A packet of these words and this payload.
fn packed(header: [u32; HEADER], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 * (1 + HEADER) + payload.len()).unwrap();
    [words(&[length]), words(&header), payload.to_vec()].concat()
}

/// The next packet: the words of its header, and its payload.
async fn packet(client: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u32>, Vec<u8>)> {
    let length = client.read_u32().await?;
    let mut packet = vec![0; length as usize - 4];
    client.read_exact(&mut packet).await?;
    let payload = packet.split_off(4 * HEADER);
    Ok((as_words(&packet), payload))
}

fn usual(procedure: u32) -> Vec<u8> {
    match procedure {
        // One way: nobody has to say who they are.
        AUTH_LIST => words(&[1, 0]),
        CONNECT_GET_URI => text("test:///default"),
        _ => Vec::new(),
    }
}

/// Whether a call was of this procedure.
pub(crate) fn is(procedure: u32, of: &Procedure) -> bool {
    i64::from(procedure) == i64::from(of.number)
}

// === XDR ===

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn as_words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
        .collect()
}

pub(crate) fn hyper(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = words(&[u32::try_from(text.len()).unwrap()]);
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
