//! Calls about the host, of a daemon that is as strict as libvirt's QEMU driver.

use std::path::Path;

use libvirt::Connect;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const CONNECT_GET_URI: u32 = 110;
const AUTH_LIST: u32 = 66;
const NODE_GET_CPU_STATS: u32 = 227;
const NODE_GET_MEMORY_STATS: u32 = 228;

/// A packet's words before its payload, without the length: program, version, procedure, type, serial, status.
const HEADER: usize = 6;

/// What the daemon counts.
const COUNTERS: [(&str, u64); 3] = [("kernel", 1), ("user", 2), ("idle", 1 << 40)];

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = words(&[u32::try_from(text.len()).unwrap()]);
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An answer: only nothing or everything can be asked for; `None` is an error.
fn counters(asked: u32) -> Option<Vec<u8>> {
    let count = u32::try_from(COUNTERS.len()).unwrap();
    match asked {
        0 => Some(words(&[0, count])),
        asked if asked == count => {
            let mut answer = words(&[count]);
            for (name, value) in COUNTERS {
                answer.extend(text(name));
                answer.extend(value.to_be_bytes());
            }
            answer.extend(words(&[count]));
            Some(answer)
        }
        _ => None,
    }
}

fn answer(procedure: u32, arguments: &[u32]) -> Option<Vec<u8>> {
    match procedure {
        // One way: nobody has to say who they are.
        AUTH_LIST => Some(words(&[1, 0])),
        CONNECT_GET_URI => Some(text("test:///default")),
        NODE_GET_CPU_STATS => counters(arguments[1]),
        NODE_GET_MEMORY_STATS => counters(arguments[0]),
        _ => Some(Vec::new()),
    }
}

/// Answers one client until it goes.
async fn serve(mut client: UnixStream) {
    while let Ok(length) = client.read_u32().await {
        let mut packet = vec![0; length as usize - 4];
        client.read_exact(&mut packet).await.unwrap();
        let call: Vec<u32> = packet
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
            .collect();
        let answer = answer(call[2], &call[HEADER..]);
        let status = u32::from(answer.is_none());
        // An error: code 8 (an invalid argument) of domain 0, no texts, level 2, and nothing else.
        let payload = answer.unwrap_or_else(|| words(&[8, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]));
        let length = 4 * (1 + HEADER) + payload.len();
        let length = u32::try_from(length).unwrap();
        let mut reply = words(&[length, call[0], call[1], call[2], 1, call[4], status]);
        reply.extend(payload);
        client.write_all(&reply).await.unwrap();
    }
}

async fn connect(folder: &Path) -> Connect {
    let socket = folder.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    let uri = format!("test+unix:///default?socket={}", socket.display());
    let builder = Connect::builder(&uri).keepalive(None);
    builder.open().await.unwrap()
}

#[tokio::test]
async fn the_host_is_asked_for_as_many_counters_as_it_has() {
    let folder = TempDir::new().unwrap();
    let connect = connect(folder.path()).await;
    let cpu = connect.cpu_stats(-1).await.unwrap();
    let memory = connect.memory_stats(-1).await.unwrap();
    for stats in [cpu, memory] {
        let found: Vec<_> = COUNTERS.map(|(name, _)| stats.number(name)).into();
        assert_eq!(found, COUNTERS.map(|(_, value)| Some(value)));
        assert_eq!(stats.len(), COUNTERS.len());
    }
    connect.close().await;
}
