//! What a stranger, or an old session, may leave in the channel.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    content::Random,
    exercise::v1::{BulkWriteRequest, UnaryRequest},
    fixture::{Bridge, Guest, Seat, eventually},
    place,
};

/// Bytes of a session that are recorded: its greeting, its HTTP/2 preface, and the beginning of a bulk stream.
const RECORDED: usize = 256 * 1024;

/// For what is written to be taken. The agent reads whatever comes.
const TAKEN: Duration = Duration::from_secs(10);

/// What the host's end of a session has sent.
#[derive(Debug, Clone)]
pub struct Recording {
    bytes: Bytes,
}

impl Recording {
    /// Records a session: a bridge of its own is led through a socket that listens in. Nobody else may be connected.
    ///
    /// # Errors
    /// No session comes about.
    pub async fn of(guest: &Guest) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("vb").tempdir()?;
        let path = directory.path().join("tap");
        let listener = UnixListener::bind(&path)?;
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let tap = Tap(tokio::spawn(listen_in(
            listener,
            guest.vm().channel(),
            Arc::clone(&recorded),
        )));
        let bridge = Bridge::start([Seat::new("tapped", &path)]).await?;
        bridge.ready("tapped").await?;
        let channel = bridge.place("tapped").channel().await?;
        let mut client = place::exercise(channel);
        client.unary(UnaryRequest::default()).await?;
        let parts = (0..16).map(|_| BulkWriteRequest {
            data: vec![0; 32 * 1024].into(),
            ..Default::default()
        });
        // How it ends does not matter here.
        let _ = client.bulk_write(futures_util::stream::iter(parts)).await;
        eventually("the session is recorded", TAKEN, || {
            let len = recorded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len();
            async move { Ok(len > 10_000) }
        })
        .await?;
        drop(tap);
        let bytes = recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        ensure!(!bytes.is_empty(), "nothing was recorded");
        Ok(Self {
            bytes: bytes.into(),
        })
    }
}

/// Stops listening in when it is dropped.
struct Tap(JoinHandle<()>);

impl Drop for Tap {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen_in(
    listener: UnixListener,
    channel: std::path::PathBuf,
    recorded: Arc<Mutex<Vec<u8>>>,
) {
    while let Ok((bridge, _)) = listener.accept().await {
        let Ok(guest) = UnixStream::connect(&channel).await else {
            return;
        };
        let (mut from_bridge, mut to_bridge) = bridge.into_split();
        let (mut from_guest, mut to_guest) = guest.into_split();
        let there = async {
            let mut block = vec![0; 64 * 1024];
            while let Ok(len @ 1..) = from_bridge.read(&mut block).await {
                {
                    let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = RECORDED - recorded.len();
                    recorded.extend_from_slice(&block[..len.min(room)]);
                }
                if to_guest.write_all(&block[..len]).await.is_err() {
                    return;
                }
            }
        };
        let back = tokio::io::copy(&mut from_guest, &mut to_bridge);
        tokio::select! {
            () = there => {}
            _ = back => {}
        }
    }
}

/// Bytes that are no session.
pub struct Garbage {
    what: &'static str,
    bytes: Bytes,
}

impl Garbage {
    /// One kind after the other.
    pub fn choose(index: u64, random: &mut Random, recording: &Recording) -> Self {
        let old = &recording.bytes;
        let cut = |random: &mut Random| {
            usize::try_from(random.below(old.len() as u64)).expect("less than a length")
        };
        let (what, bytes) = match index % 5 {
            0 => {
                let len = usize::try_from(1 + random.below(200_000)).expect("a small number");
                ("random bytes", random.bytes(len))
            }
            1 => ("an old session's bytes", old.clone()),
            2 => {
                let end = cut(random);
                (
                    "the beginning of an old session, cut off anywhere",
                    old.slice(..end),
                )
            }
            3 => {
                let start = cut(random);
                ("an old session from anywhere on", old.slice(start..))
            }
            // The greeting comes first in a session: half of it.
            _ => {
                let end = usize::try_from(1 + random.below(40)).expect("a small number");
                ("half a greeting", old.slice(..end.min(old.len())))
            }
        };
        Self { what, bytes }
    }

    /// Writes it to the channel as a client would that then goes away.
    ///
    /// # Errors
    /// The channel does not take it.
    pub async fn write(&self, guest: &Guest) -> Result<()> {
        let stream = guest.intrude().await?;
        let (mut answers, mut stream) = stream.into_split();
        // A client that never read would only be cut off later; this one is as nasty and quicker.
        let drain = tokio::spawn(async move {
            let mut block = vec![0; 64 * 1024];
            while let Ok(1..) = answers.read(&mut block).await {}
        });
        let written = timeout(TAKEN, stream.write_all(&self.bytes)).await;
        drain.abort();
        written
            .with_context(|| format!("the channel does not take {self:?} within {TAKEN:?}"))??;
        Ok(())
    }
}

impl fmt::Debug for Garbage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.what, self.bytes.len())
    }
}
