//! Directories with all that is in them, as a tar archive.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    time::{Duration, SystemTime},
};

use indicatif::ProgressBar;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use vbridge_api::guest::v1::{
    FilesPullTreeRequest, FilesPushTreeRequest, FilesPushTreeStart, TreeSummary,
    files_pull_tree_response::Piece, files_push_tree_request::Message,
};

use super::{
    super::{
        super::{client::Client, failure::Failure, output::printable, say},
        failure,
        place::GuestPath,
        service,
    },
    Options, PIECE, QUEUE, here, progress,
};

/// Packs a directory here, and unpacks it in the guest as `parent/name`.
pub(super) async fn up(
    options: &Options,
    client: &Client,
    from: &Path,
    parent: &str,
    name: &str,
) -> Result<(), Failure> {
    let (to, pieces) = mpsc::channel(QUEUE);
    let bar = progress::bar(options, name, None);
    let packer = {
        let (from, name, bar) = (from.to_owned(), name.to_owned(), bar.clone());
        tokio::task::spawn_blocking(move || pack(&from, &name, Pieces { to, bar }))
    };
    let start = FilesPushTreeRequest {
        message: Some(Message::Start(FilesPushTreeStart {
            path: if parent.is_empty() { "/" } else { parent }.to_owned(),
            no_owner: !options.preserve,
            no_overwrite: options.no_overwrite,
        })),
    };
    let data = ReceiverStream::new(pieces).map(|data| FilesPushTreeRequest {
        message: Some(Message::Data(data)),
    });
    let request = client.request(tokio_stream::once(start).chain(data));
    let pushed = service(client).push_tree(request).await;
    // The call has ended, so that nobody takes pieces any more and the packer ends, too.
    let packed = packer.await;
    bar.finish_and_clear();
    match (packed, pushed) {
        // What the guest says of it comes first: a packer that nobody listens to fails only for that.
        (_, Err(status)) => Err(failure(client, parent, &status)),
        (Ok(Err(error)), _) => Err(here(from, error)),
        (Err(error), _) => Err(here(from, error)),
        (Ok(Ok(())), Ok(answer)) => summary(answer.into_inner().summary),
    }
}

/// Has a directory packed in the guest, and unpacks it here as `target`.
pub(super) async fn down(
    options: &Options,
    client: &Client,
    from: &GuestPath,
    target: &Path,
) -> Result<(), Failure> {
    let request = client.request(FilesPullTreeRequest {
        path: from.path.clone(),
        one_file_system: false,
    });
    let failed = |status: &tonic::Status| failure(client, &from.path, status);
    let mut answers = service(client)
        .pull_tree(request)
        .await
        .map_err(|status| failed(&status))?
        .into_inner();
    let bar = progress::bar(options, &from.path, None);
    let (pieces, archive) = mpsc::channel(QUEUE);
    let unpacker = {
        let (target, bar) = (target.to_owned(), bar.clone());
        let unpack = Unpack {
            preserve: options.preserve,
            overwrite: !options.no_overwrite,
        };
        tokio::task::spawn_blocking(move || {
            unpack.run(
                Archive {
                    from: archive,
                    rest: io::Cursor::default(),
                    bar,
                },
                &target,
            )
        })
    };
    let mut told = None;
    let pulled = loop {
        match answers.message().await {
            Ok(Some(answer)) => match answer.piece {
                Some(Piece::Data(data)) => {
                    let taken = pieces.send(data).await;
                    // The unpacker has ended, and says why below.
                    if taken.is_err() {
                        break Ok(());
                    }
                }
                Some(Piece::Summary(summary)) => told = Some(summary),
                None => {}
            },
            Ok(None) => break Ok(()),
            Err(status) => break Err(failed(&status)),
        }
    };
    drop(pieces);
    let unpacked = unpacker.await;
    bar.finish_and_clear();
    pulled?;
    unpacked
        .map_err(|error| here(target, error))?
        .map_err(|error| here(target, error))?;
    summary(told)
}

/// Says what was left out.
fn summary(summary: Option<TreeSummary>) -> Result<(), Failure> {
    let summary = summary.unwrap_or_default();
    for skipped in &summary.skipped {
        say(&format!("left out: {}", printable(skipped)));
    }
    match summary.skipped_count {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{count} of the tree's entries were left out"
        ))),
    }
}

fn pack(from: &Path, name: &str, to: Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(PIECE, to));
    archive.follow_symlinks(false);
    archive.append_dir_all(name, from)?;
    archive.into_inner()?.flush()
}

/// How an archive is unpacked here.
#[derive(Debug, Clone, Copy)]
struct Unpack {
    preserve: bool,
    overwrite: bool,
}

// === impl Unpack ===

impl Unpack {
    /// Unpacks into an empty directory, and moves what is there: no entry of the guest's, and no link that it has packed,
    /// reaches anything that was here before.
    fn run(self, from: impl Read, target: &Path) -> io::Result<()> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let beside = tempfile::Builder::new()
            .prefix(".")
            .suffix(".part")
            .tempdir_in(parent)?;
        self.unpack(from, beside.path())?;
        let mut tops = fs::read_dir(beside.path())?;
        match (tops.next(), tops.next()) {
            (Some(top), None) => self.place(&top?.path(), target),
            _ => Err(io::Error::other(
                "the guest's archive is not of one directory: nothing was copied",
            )),
        }
    }

    /// Unpacks as [`tar::Archive::unpack`] does, which leaves directories' times as they come: directories last, and of these
    /// the deepest first, so that neither their modes nor what is put into them are in the way.
    fn unpack(self, from: impl Read, into: &Path) -> io::Result<()> {
        let mut archive = tar::Archive::new(from);
        archive.set_preserve_permissions(self.preserve);
        archive.set_preserve_mtime(self.preserve);
        // As with tar(1), only root gives files away.
        let is_root = rustix::process::geteuid().is_root();
        archive.set_preserve_ownerships(self.preserve && is_root);
        let mut directories = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.header().entry_type().is_dir() {
                directories.push(entry);
            } else {
                entry.unpack_in(into)?;
            }
        }
        directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
        let root = fs::File::open(into)?;
        for mut directory in directories {
            if directory.unpack_in(into)? && self.preserve {
                let path = directory.path()?;
                set_time(&root, &path, directory.header().mtime()?)?;
            }
        }
        Ok(())
    }

    /// Gives it its name. Directories that are there are kept, and so is what is in them and not in the new ones.
    fn place(self, from: &Path, to: &Path) -> io::Result<()> {
        let is_directory = from.symlink_metadata()?.is_dir();
        match to.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
            Ok(_) if is_directory && to.is_dir() => {
                for entry in fs::read_dir(from)? {
                    let entry = entry?;
                    self.place(&entry.path(), &to.join(entry.file_name()))?;
                }
                Ok(())
            }
            Ok(there) if self.overwrite && is_directory == there.is_dir() => fs::rename(from, to),
            Ok(_) => {
                let sentence = format!("{} is there already", to.display());
                Err(io::Error::new(io::ErrorKind::AlreadyExists, sentence))
            }
        }
    }
}

/// Sets a directory's time, of which archives know the seconds. No link leads to another one.
fn set_time(root: &fs::File, path: &Path, seconds: u64) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let only_below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // Archives may write a path from the root on, which tar takes as one from here on.
    let path = path.strip_prefix("/").unwrap_or(path);
    let directory = match openat2(root, path, flags, Mode::empty(), only_below) {
        Ok(directory) => fs::File::from(directory),
        // One that not even its owner may read keeps the time that it has.
        Err(Errno::ACCESS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let time = time.ok_or_else(|| io::Error::other("the archive has a time that can't be"))?;
    directory.set_times(fs::FileTimes::new().set_modified(time))
}

/// The end of a packer: what it writes goes into the call.
struct Pieces {
    to: Sender<Vec<u8>>,
    bar: ProgressBar,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let sent = self.to.blocking_send(piece.to_vec());
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.bar.inc(piece.len() as u64);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The beginning of an unpacker: what comes from the call.
struct Archive {
    from: Receiver<Vec<u8>>,
    /// The last piece, up to where it was read.
    rest: io::Cursor<Vec<u8>>,
    bar: ProgressBar,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.rest.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                self.bar.inc(count as u64);
                return Ok(count);
            }
            match self.from.blocking_recv() {
                Some(piece) => self.rest = io::Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNPACK: Unpack = Unpack {
        preserve: false,
        overwrite: true,
    };

    fn archive(entries: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        entries(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, path: &str, to: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, path, to).unwrap();
    }

    #[test]
    fn a_tree_gets_the_name_that_was_asked_for_and_is_merged_with_what_is_there() {
        let here = tempfile::tempdir().unwrap();
        let target = here.path().join("new");
        let first = archive(|it| {
            file(it, "old/a", "1");
            file(it, "old/d/b", "2");
        });
        UNPACK.run(first.as_slice(), &target).unwrap();
        fs::write(target.join("mine"), "3").unwrap();
        let second = archive(|it| file(it, "old/d/b", "4"));
        UNPACK.run(second.as_slice(), &target).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert_eq!(
            (read("a"), read("d/b"), read("mine")),
            ("1".into(), "4".into(), "3".into())
        );
        let keep = Unpack {
            overwrite: false,
            ..UNPACK
        };
        let error = keep.run(second.as_slice(), &target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            fs::read_dir(here.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn an_archive_reaches_nothing_that_was_here_before() {
        let here = tempfile::tempdir().unwrap();
        let secret = here.path().join("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("keys"), "mine").unwrap();
        let target = here.path().join("tree");
        let through_a_link = archive(|it| {
            link(it, "tree/way", "../../secret");
            file(it, "tree/way/keys", "theirs");
        });
        let absolute = archive(|it| {
            link(it, "tree/way", secret.to_str().unwrap());
            file(it, "tree/way/keys", "theirs");
        });
        let beside = archive(|it| {
            file(it, "tree/a", "");
            file(it, "secret/keys", "theirs");
        });
        for bytes in [through_a_link, absolute, beside] {
            // It may be refused or not; it may only do nothing to others.
            let _ = UNPACK.run(bytes.as_slice(), &target);
            assert_eq!(fs::read_to_string(secret.join("keys")).unwrap(), "mine");
        }
    }
}
