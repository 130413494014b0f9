//! The way out of a connection: a message leaves as a whole or not at all, whenever its sender gives up.
//!
//! It is taken back if nothing of it has left; once its first byte has, the rest leaves before the next message.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::{Buf as _, BytesMut};
use tokio::{io::AsyncWriteExt as _, net::unix::OwnedWriteHalf};

#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    /// What has not left of a message whose beginning has.
    rest: BytesMut,
    /// Messages whose beginning has left.
    begun: u64,
}

/// A message on its way. If it is dropped before anything has left, nothing will.
struct Outgoing<'a> {
    writer: &'a mut Writer,
    whole: usize,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(half: OwnedWriteHalf) -> Self {
        Self {
            half,
            rest: BytesMut::new(),
            begun: 0,
        }
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Sends a message behind whatever is left of an earlier one. `begun` tells who gives up whether its beginning has left.
    pub(super) async fn send(&mut self, message: &[u8], begun: &AtomicBool) -> io::Result<()> {
        self.flush().await?;
        let mut outgoing = Outgoing::new(self, message);
        outgoing.leave(begun).await
    }

    /// Sends what is left of an earlier message.
    async fn flush(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            self.advance().await?;
        }
        Ok(())
    }

    /// Sends some of it.
    async fn advance(&mut self) -> io::Result<()> {
        match self.half.write(&self.rest).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            count => {
                self.rest.advance(count);
                Ok(())
            }
        }
    }
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    fn new(writer: &'a mut Writer, message: &[u8]) -> Self {
        writer.rest = BytesMut::from(message);
        let whole = message.len();
        Self { writer, whole }
    }

    async fn leave(&mut self, begun: &AtomicBool) -> io::Result<()> {
        if self.whole > 0 {
            self.writer.advance().await?;
            self.writer.begun += 1;
            begun.store(true, Ordering::Relaxed);
        }
        self.writer.flush().await
    }
}

impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        if self.writer.rest.len() == self.whole {
            self.writer.rest.clear();
        }
    }
}
