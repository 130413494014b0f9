//! A process's standard input, which several calls may write to.

use std::{io, sync::Arc};

use rustix::termios::{SpecialCodeIndex, tcgetattr};
use tokio::sync::{Mutex, watch};

use super::channel::Channel;

/// What ends the input of a terminal that does not say: Ctrl-D.
const END_OF_FILE: u8 = 4;

/// The input. What is written after its end is thrown away: the process may have closed it itself at any time.
#[derive(Debug)]
pub(crate) struct Stdin {
    /// Locked while a piece is written, so that pieces of two calls do not mix.
    channel: Mutex<Option<Arc<Channel>>>,
    is_terminal: bool,
    given: watch::Sender<u64>,
}

impl Stdin {
    pub(super) fn new(channel: Option<Arc<Channel>>, is_terminal: bool) -> Self {
        Self {
            channel: Mutex::new(channel),
            is_terminal,
            given: watch::Sender::new(0),
        }
    }

    /// Bytes that the process has been given so far.
    pub(crate) fn given(&self) -> u64 {
        *self.given.borrow()
    }

    /// Waits until it has been given so many.
    pub(crate) async fn until_given(&self, bytes: u64) {
        let mut given = self.given.subscribe();
        // The sender is here.
        let _ = given.wait_for(|given| *given >= bytes).await;
    }

    /// Gives the process bytes, as fast as it takes them. If the future is dropped, [`given`](Self::given) tells how many
    /// it was given.
    pub(super) async fn write(&self, mut bytes: &[u8]) {
        let mut channel = self.channel.lock().await;
        while let Some(open) = channel.as_ref()
            && !bytes.is_empty()
        {
            match open.write(bytes).await {
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    let written = u64::try_from(written).unwrap_or(u64::MAX);
                    self.given.send_modify(|given| *given += written);
                }
                // The process has closed it.
                Err(_) => *channel = None,
            }
        }
    }

    /// Ends the input: a pipe is closed, and a terminal gets its end-of-file character and stays open.
    pub(super) async fn end(&self) {
        if !self.is_terminal {
            self.close().await;
            return;
        }
        let channel = self.channel.lock().await;
        if let Some(open) = channel.as_ref() {
            let end = end_of_file(open).unwrap_or(END_OF_FILE);
            // A terminal that takes nothing any more needs no end.
            let _ = open.write(&[end]).await;
        }
    }

    /// The process has ended.
    pub(super) async fn close(&self) {
        *self.channel.lock().await = None;
    }
}

fn end_of_file(terminal: &Channel) -> io::Result<u8> {
    let attributes = tcgetattr(terminal.descriptor())?;
    Ok(attributes.special_codes[SpecialCodeIndex::VEOF])
}
