//! A file or tree to a guest.

use std::{
    fs::{File, Metadata},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use indicatif::ProgressBar;
use prost_types::Timestamp;
use rustix::{fs::SeekFrom as Extent, io::Errno};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use vbridge_api::guest::v1::{
    Digest, DigestAlgorithm, FileType, FilesGetUploadRequest, FilesWriteRequest, FilesWriteStart,
    WriteMode, files_write_request::Message,
};

use super::{
    super::{
        super::{
            client::Client,
            failure::{Failure, is_final},
            output::printable,
        },
        failure, look,
        place::GuestPath,
        service,
    },
    Options, PIECE, QUEUE, file_name, hash_zeros, here, identity, progress, tree,
};

/// Copies one.
pub(super) async fn copy(
    options: &Options,
    client: &Client,
    from: &Path,
    to: &GuestPath,
) -> Result<(), Failure> {
    let metadata = std::fs::metadata(from).map_err(|error| here(from, error))?;
    let name = file_name(from)?;
    let is_directory = match look(client, &to.path).await? {
        Some(there) => there.r#type() == FileType::Directory,
        None if to.path.ends_with('/') => {
            return Err(Failure::new(format!("{to}: there is no such directory")));
        }
        None => false,
    };
    if options.places.len() > 2 && !is_directory {
        return Err(Failure::new(format!(
            "{to}: several files need a directory to go to, and this is none"
        )));
    }
    let (parent, name) = match is_directory {
        true => (to.path.trim_end_matches('/'), name.as_str()),
        false => to.path.rsplit_once('/').unwrap_or_default(),
    };
    if metadata.is_dir() {
        if !options.recursive {
            return Err(here(
                from,
                "is a directory: give -r to copy it with all that is in it",
            ));
        }
        return tree::up(options, client, from, parent, name).await;
    }
    if !metadata.is_file() {
        return Err(here(from, "is neither a file nor a directory"));
    }
    let file = File::open(from).map_err(|error| here(from, error))?;
    upload(
        options,
        client,
        file,
        &metadata,
        &format!("{parent}/{name}"),
    )
    .await
}

async fn upload(
    options: &Options,
    client: &Client,
    file: File,
    metadata: &Metadata,
    path: &str,
) -> Result<(), Failure> {
    let start = start(options, client, metadata, path).await?;
    let bar = progress::bar(options, path, start.size);
    let (to, pieces) = mpsc::channel(QUEUE);
    let reader = {
        let bar = bar.clone();
        tokio::task::spawn_blocking(move || read(file, start, &to, &bar))
    };
    // When the file can't be read to its end, the upload is short, and stays until it is tried again.
    let request = client.request(ReceiverStream::new(pieces));
    let written = service(client).write(request).await;
    // The call has ended, so that nobody takes pieces any more and the reader ends, too.
    let read = reader.await;
    bar.finish_and_clear();
    let there = printable(path);
    match (read, written) {
        (Ok(Err(error)), _) => Err(Failure::new(format!(
            "{there}: can't read it here: {error}"
        ))),
        (_, Err(status)) if is_final(status.code()) => Err(failure(client, path, &status)),
        (_, Err(status)) => {
            let failure = failure(client, path, &status);
            let sentence = failure.sentence().unwrap_or_default();
            Err(Failure::new(format!(
                "{sentence}; the same command goes on with what has arrived"
            )))
        }
        (Err(error), _) => Err(Failure::new(format!("{there}: {error}"))),
        (Ok(Ok(())), Ok(_)) => Ok(()),
    }
}

/// What is to be written, and from where on: an earlier call may have sent some of it.
async fn start(
    options: &Options,
    client: &Client,
    metadata: &Metadata,
    path: &str,
) -> Result<FilesWriteStart, Failure> {
    let size = metadata.size();
    let upload_id = identity(&[
        path.as_bytes(),
        &size.to_le_bytes(),
        &metadata.mtime().to_le_bytes(),
        &metadata.mtime_nsec().to_le_bytes(),
        &metadata.ino().to_le_bytes(),
        &metadata.dev().to_le_bytes(),
    ]);
    let wanted = FilesGetUploadRequest {
        path: path.to_owned(),
        upload_id: upload_id.clone(),
    };
    let asked = client.asked(wanted, async |request| {
        service(client).get_upload(request).await
    });
    let offset = match asked.await {
        // More than the file has is not of this file.
        Ok(answer) => Some(answer.size)
            .filter(|there| *there <= size)
            .unwrap_or(0),
        Err(status) if status.code() == Code::NotFound => 0,
        Err(status) => return Err(failure(client, path, &status)),
    };
    let modified = Timestamp {
        seconds: metadata.mtime(),
        nanos: i32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
    };
    Ok(FilesWriteStart {
        path: path.to_owned(),
        mode: WriteMode::Replace.into(),
        permissions: options.preserve.then_some(metadata.mode() & 0o7777),
        no_overwrite: options.no_overwrite,
        size: Some(size),
        offset,
        upload_id,
        modified: options.preserve.then_some(modified),
        ..FilesWriteStart::default()
    })
}

/// Sends a file's content from where the other end is, its holes as holes, and at last its digest.
fn read(
    mut file: File,
    start: FilesWriteStart,
    to: &Sender<FilesWriteRequest>,
    bar: &ProgressBar,
) -> std::io::Result<()> {
    let offset = start.offset;
    let send = |message| {
        let message = FilesWriteRequest {
            message: Some(message),
        };
        // If nobody takes it, the call has ended, and says why.
        to.blocking_send(message).is_ok()
    };
    if !send(Message::Start(start)) {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    let size = file.metadata()?.size();
    while let Some((data, end)) = extent(&file, at, size)? {
        hash_zeros(&mut hash, data - at);
        if data > at.max(offset) && !send(Message::Hole(data - at.max(offset))) {
            return Ok(());
        }
        file.seek(SeekFrom::Start(data))?;
        at = data;
        while at < end {
            let most = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let count = file.read(&mut piece[..most])?;
            if count == 0 {
                // It became shorter: the other end finds it too short.
                return Ok(());
            }
            hash.update(&piece[..count]);
            let next = at + count as u64;
            // What is there already is only hashed.
            let known =
                usize::try_from(offset.saturating_sub(at)).map_or(count, |known| known.min(count));
            if known < count && !send(Message::Data(piece[known..count].to_vec())) {
                return Ok(());
            }
            at = next;
            bar.set_position(at);
        }
    }
    hash_zeros(&mut hash, size.saturating_sub(at));
    if size > at.max(offset) && !send(Message::Hole(size - at.max(offset))) {
        return Ok(());
    }
    send(Message::Digest(Digest {
        algorithm: DigestAlgorithm::Sha256.into(),
        value: hash.finalize().to_vec(),
    }));
    Ok(())
}

/// Where the next data lies, from and to; none behind the last.
fn extent(file: &File, at: u64, size: u64) -> std::io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let data = match rustix::fs::seek(file, Extent::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return Ok(None),
        // A file system without holes.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, Extent::Hole(data))?;
    Ok(Some((data, end.min(size))).filter(|(data, end)| data < end))
}
