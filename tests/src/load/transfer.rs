//! Files both ways, whose content is told from a seed: nobody keeps them.

use std::sync::mpsc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio_stream::{StreamExt as _, iter};
use tonic::transport::Channel;
use vbridge_api::guest::v1::{
    FilesReadRequest, FilesWriteRequest, FilesWriteStart, files_client::FilesClient,
    files_read_response::Piece, files_write_request::Message,
};

use crate::content;

/// Bytes in one message of an upload.
const PIECE: usize = 128 * 1024;

/// How it is seen that a file has arrived as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// By the agent's digests, too.
    Digests,
    /// By its bytes, when they come back: an emulated CPU takes minutes for the digests of a gibibyte.
    Bytes,
}

/// Writes a file with the content of `seed`, and compares the agent's digest with that of what was sent, if it makes one.
///
/// # Errors
/// The call fails, or the agent has other bytes.
pub async fn upload(
    channel: Channel,
    path: &str,
    (seed, size): (u64, u64),
    check: Check,
) -> Result<()> {
    let (sender, digest) = mpsc::channel();
    let start = FilesWriteStart {
        path: path.to_owned(),
        size: Some(size),
        no_digests: check == Check::Bytes,
        ..FilesWriteStart::default()
    };
    let pieces = (0..size).step_by(PIECE).map(move |offset| {
        let left = usize::try_from(size - offset).unwrap_or(PIECE);
        content::bytes(seed, offset, left.min(PIECE))
    });
    let messages = iter([Message::Start(start)])
        .chain(iter(hashed(pieces, sender)).map(|piece| Message::Data(piece.into())))
        .map(|message| FilesWriteRequest {
            message: Some(message),
        });
    let answer = FilesClient::new(channel)
        .write(messages)
        .await?
        .into_inner();
    let file = answer.file.context("the answer has no file")?;
    ensure!(file.size == size, "{path} has {} bytes", file.size);
    let sent = digest.recv().context("not everything was sent")?;
    ensure!(
        check == Check::Bytes || answer.sha256 == sent,
        "{path} has other bytes in the guest"
    );
    Ok(())
}

/// The pieces as they are; behind the last one goes their digest.
fn hashed(
    mut pieces: impl Iterator<Item = Bytes>,
    digest: mpsc::Sender<Vec<u8>>,
) -> impl Iterator<Item = Bytes> {
    let mut hasher = Some(Sha256::new());
    std::iter::from_fn(move || {
        let piece = pieces.next();
        match &piece {
            Some(piece) => hasher.as_mut()?.update(piece),
            None => {
                // Who does not wait for it is told nothing.
                let _ = digest.send(hasher.take()?.finalize().to_vec());
            }
        }
        piece
    })
}

/// Reads a file that must have the content of `seed`: every byte is compared, and the agent's digest, if it makes one, with
/// that of what has come.
///
/// # Errors
/// The call fails, or other bytes come.
pub async fn download(
    channel: Channel,
    path: &str,
    (seed, size): (u64, u64),
    check: Check,
) -> Result<()> {
    let request = FilesReadRequest {
        path: path.to_owned(),
        digest: (check == Check::Digests).then_some(0),
        ..FilesReadRequest::default()
    };
    let mut stream = FilesClient::new(channel).read(request).await?.into_inner();
    let (mut offset, mut hasher, mut told) = (0, Sha256::new(), None);
    while let Some(message) = stream.message().await? {
        match message.piece {
            Some(Piece::Data(data)) => {
                if let Some(wrong) = content::first_difference(seed, offset, &data) {
                    bail!("{path}: byte {wrong} is another one");
                }
                hasher.update(&data);
                offset += data.len() as u64;
            }
            Some(Piece::Digest(digest)) => told = Some(digest.value),
            Some(Piece::File(_)) => {}
            other => bail!("{path}: {other:?} was not asked for"),
        }
    }
    ensure!(offset == size, "{path}: {offset} of {size} bytes have come");
    let own = (check == Check::Digests).then(|| hasher.finalize().to_vec());
    ensure!(told == own, "{path}: another digest");
    Ok(())
}
