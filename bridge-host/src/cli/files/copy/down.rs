//! A file or tree from a guest.

use std::{
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{self, Receiver, Sender};
use vbridge_api::guest::v1::{
    DigestAlgorithm, FileInfo, FileType, FilesChecksumRequest, FilesReadRequest,
    files_read_response::Piece,
};

use super::{
    super::{
        super::{
            client::{Client, Twice},
            failure::Failure,
            units,
        },
        failure, look,
        place::GuestPath,
        service,
    },
    Options, PIECE, QUEUE, hash_zeros, here, identity, progress, shown, tree,
};

/// Copies one.
pub(super) async fn copy(
    options: &Options,
    client: &Client,
    from: &GuestPath,
    to: &Path,
) -> Result<(), Failure> {
    let file = look(client, &from.path)
        .await?
        .ok_or_else(|| Failure::new(format!("{from}: there is no such file or directory")))?;
    let target = target(options, from, to)?;
    match file.r#type() {
        FileType::Directory if options.recursive => {
            tree::down(options, client, from, &target).await
        }
        FileType::Directory => Err(Failure::new(format!(
            "{from}: is a directory: give -r to copy it with all that is in it"
        ))),
        _ => download(options, client, from, &file, &target).await,
    }
}

/// The new name here.
fn target(options: &Options, from: &GuestPath, to: &Path) -> Result<PathBuf, Failure> {
    if to.is_dir() {
        let name = from.path.trim_end_matches('/').rsplit('/').next();
        // A guest's ".." must not lead out of the directory.
        return match name.unwrap_or_default() {
            "" | "." | ".." => Err(Failure::new(format!(
                "{from}: has no name: say what it is to be called here"
            ))),
            name => Ok(to.join(name)),
        };
    }
    let text = to.to_string_lossy();
    if options.places.len() > 2 || text.ends_with('/') {
        return Err(here(to, "is no directory"));
    }
    Ok(to.to_owned())
}

async fn download(
    options: &Options,
    client: &Client,
    from: &GuestPath,
    file: &FileInfo,
    target: &Path,
) -> Result<(), Failure> {
    if options.no_overwrite && target.symlink_metadata().is_ok() {
        return Err(here(target, "is there already"));
    }
    let part = part(client, from, file, target)?;
    let (beside, offset, hash) =
        left_before(&part, file.size).map_err(|error| here(&part, error))?;
    let bar = progress::bar(options, &from.path, Some(file.size));
    bar.set_position(offset);
    let (pieces, to) = mpsc::channel(QUEUE);
    let writer = {
        let bar = bar.clone();
        tokio::task::spawn_blocking(move || write(beside, hash, to, &bar))
    };
    let received = receive(client, from, offset, pieces).await;
    // Nothing more comes. What has come is written also if that was not all.
    let written = writer.await.map_err(|error| here(&part, error))?;
    bar.finish_and_clear();
    let unfinished = |status: tonic::Status| {
        let failure = failure(client, &from.path, &status);
        match failure.sentence() {
            Some(sentence) => Failure::new(format!(
                "{sentence}; what there is stays in {}: the same command goes on with it",
                shown(&part)
            )),
            None => failure,
        }
    };
    let told = received.map_err(unfinished)?;
    let (beside, own) = written.map_err(|error| here(&part, error))?;
    let digest = match offset {
        0 => told,
        _ => checksum(client, from).await.map_err(unfinished)?,
    };
    if digest.as_deref() != Some(own.as_slice()) {
        // It would never be right.
        let _ = fs::remove_file(&part);
        return Err(Failure::new(format!(
            "{from}: what has arrived has another SHA-256 than the file there: it changed meanwhile; copy it again"
        )));
    }
    put_in_place(options, file, &beside, &part, target).map_err(|error| here(target, error))
}

/// What an earlier call has left: the file, to whose end it is read, its length, and the beginning of its digest.
fn left_before(part: &Path, size: u64) -> io::Result<(File, u64, Sha256)> {
    let mut beside = open(part)?;
    let there = beside.metadata()?.len();
    // Files of /proc have no size, and always begin anew.
    let offset = if there <= size { there } else { 0 };
    beside.set_len(offset)?;
    let hash = hashed(&mut beside)?;
    Ok((beside, offset, hash))
}

/// Passes on what the guest's file has from there on. Its digest, if all of it was asked for.
async fn receive(
    client: &Client,
    from: &GuestPath,
    offset: u64,
    pieces: Sender<Piece>,
) -> Result<Option<Vec<u8>>, tonic::Status> {
    let request = client.request(FilesReadRequest {
        path: from.path.clone(),
        offset,
        sparse: true,
        follow_link: true,
        digest: (offset == 0).then_some(DigestAlgorithm::Sha256.into()),
        ..FilesReadRequest::default()
    });
    let mut answers = service(client).read(request).await?.into_inner();
    let mut digest = None;
    while let Some(answer) = answers.message().await? {
        match answer.piece {
            Some(Piece::Digest(told)) => digest = Some(told.value),
            Some(piece) => {
                let Ok(()) = pieces.send(piece).await else {
                    // The writer has ended, and says why.
                    break;
                };
            }
            None => {}
        }
    }
    Ok(digest)
}

/// The digest of all of the guest's file.
async fn checksum(client: &Client, from: &GuestPath) -> Result<Option<Vec<u8>>, tonic::Status> {
    let wanted = FilesChecksumRequest {
        path: from.path.clone(),
        algorithm: DigestAlgorithm::Sha256.into(),
        follow_link: true,
        ..FilesChecksumRequest::default()
    };
    let asked = client.again(Twice::Harmless, async || {
        let request = client.request(wanted.clone());
        let answer = service(client).checksum(request).await;
        answer.map(tonic::Response::into_inner)
    });
    let answer = asked.await?;
    Ok(answer.digest.map(|digest| digest.value))
}

/// Beside the target: for this file of this guest alone.
fn part(
    client: &Client,
    from: &GuestPath,
    file: &FileInfo,
    target: &Path,
) -> Result<PathBuf, Failure> {
    let modified = file.modified.unwrap_or_default();
    let id = identity(&[
        client.name().as_bytes(),
        from.path.as_bytes(),
        &file.size.to_le_bytes(),
        &modified.seconds.to_le_bytes(),
        &modified.nanos.to_le_bytes(),
        &file.inode.to_le_bytes(),
        &file.device.to_le_bytes(),
    ]);
    let name = target
        .file_name()
        .ok_or_else(|| here(target, "has no name"))?;
    let name = format!(".{}.{id}.part", name.to_string_lossy());
    Ok(target.with_file_name(name))
}

/// Only its owner sees it until it is done; a link that somebody has put there is not followed.
fn open(part: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(part)
}

/// Hashes a file to its end, where it then stands.
fn hashed(file: &mut File) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash),
            count => hash.update(&piece[..count]),
        }
    }
}

/// Writes what comes. The file, and the SHA-256 of all of it.
fn write(
    mut file: File,
    mut hash: Sha256,
    mut pieces: Receiver<Piece>,
    bar: &ProgressBar,
) -> io::Result<(File, Vec<u8>)> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Data(data) => {
                file.write_all(&data)?;
                hash.update(&data);
                bar.inc(data.len() as u64);
            }
            Piece::Hole(length) => {
                let end = file.seek(SeekFrom::Current(
                    i64::try_from(length).map_err(io::Error::other)?,
                ))?;
                file.set_len(end)?;
                hash_zeros(&mut hash, length);
                bar.inc(length);
            }
            Piece::File(_) | Piece::Digest(_) => {}
        }
    }
    Ok((file, hash.finalize().to_vec()))
}

fn put_in_place(
    options: &Options,
    info: &FileInfo,
    file: &File,
    part: &Path,
    target: &Path,
) -> io::Result<()> {
    let mode = match options.preserve {
        true => info.mode & 0o7777,
        // As a new file would be: without what this user does not give to others.
        false => info.mode & 0o777 & !umask(),
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    if options.preserve
        && let Some(time) = units::time(info.modified.as_ref())
    {
        file.set_times(FileTimes::new().set_modified(time))?;
    }
    file.sync_all()?;
    if options.no_overwrite {
        // Nothing that came there meanwhile is replaced.
        fs::hard_link(part, target)?;
        return fs::remove_file(part);
    }
    fs::rename(part, target)
}

/// The kernel gives it only in exchange for another one.
fn umask() -> u32 {
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(old);
    old.bits()
}
