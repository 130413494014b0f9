//! Stands between a command and the bridge, counts what passes, and lets no more pass than it may.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::process::PATIENCE;

/// Where a command finds the bridge instead of where it is.
#[derive(Debug)]
pub struct Between {
    address: SocketAddr,
    passage: Arc<Passage>,
}

#[derive(Debug)]
struct Passage {
    passed: watch::Sender<u64>,
    most: watch::Sender<u64>,
}

// === impl Between ===

impl Between {
    /// Lets so many bytes pass, both ways together.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(bridge: SocketAddr, most: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let passage = Arc::new(Passage {
            passed: watch::Sender::new(0),
            most: watch::Sender::new(most),
        });
        let shared = Arc::clone(&passage);
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let Ok(there) = TcpStream::connect(bridge).await else {
                    continue;
                };
                let (here_read, here_write) = here.into_split();
                let (there_read, there_write) = there.into_split();
                tokio::spawn(pass(here_read, there_write, Arc::clone(&shared)));
                tokio::spawn(pass(there_read, here_write, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, passage })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have passed.
    pub fn passed(&self) -> u64 {
        *self.passage.passed.borrow()
    }

    /// Waits until no more may pass.
    ///
    /// # Errors
    /// So much does not come within [`PATIENCE`].
    pub async fn is_full(&self) -> Result<()> {
        let most = *self.passage.most.borrow();
        let mut passed = self.passage.passed.subscribe();
        let full = timeout(PATIENCE, passed.wait_for(|passed| *passed >= most)).await;
        full.context("so much does not come")??;
        Ok(())
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.passage.most.send_replace(u64::MAX);
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passage: Arc<Passage>,
) {
    let mut piece = vec![0; 16 * 1024];
    let mut most = passage.most.subscribe();
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let passed = *passage.passed.borrow();
        if most.wait_for(|most| passed < *most).await.is_err()
            || to.write_all(&piece[..count]).await.is_err()
        {
            return;
        }
        passage.passed.send_modify(|passed| *passed += count as u64);
    }
    let _ = to.shutdown().await;
}
