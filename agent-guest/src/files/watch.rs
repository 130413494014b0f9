//! What changes in directories: inotify(7), with the directories that come later.
//!
//! ```text
//!    Looking ── all directories are watched ──▶ Watching ── the top is gone ──▶ Over
//!       │  ▲                                       │  ▲
//!       ▼  │ a bounded number of entries           ▼  │ a bounded number of events
//!      scans: directories to be looked through ◀── a new directory
//! ```
//!
//! A directory is watched first and looked through afterwards. What was put into it in between is told by both, so an
//! entry of a new directory may be told twice, and none is missed. What the caller does not take stays in the kernel's
//! queue, which is bounded and tells when it has lost something.

use std::{
    collections::{HashMap, VecDeque},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, OFlags,
        inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    },
    io::Errno,
};
use tonic::Status;
use vbridge_api::guest::v1::{
    FileChange, FileEvent, FilesWatchResponse, files_watch_response::Message,
};

use super::{
    failure::{errno, failed, shown, told},
    path::{GuestPath, PATH, Root, by_descriptor, open_again, os, stat},
    walk::Guard,
    work::{Step, Work},
};
use crate::{
    error::{self, Reason},
    limits::{MAX_WATCHED, WATCH_BUFFER, WATCH_STEP},
};

/// What is asked of the kernel.
const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// A watch.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
    path: GuestPath,
    /// What all directories are opened below. None is held open, not even the top: the kernel tells that something is
    /// gone when nobody has it open any more.
    root: Root,
    /// Whether a link at the path's end is followed.
    follow: bool,
    top_watch: i32,
    /// What is closed below the top, and is not told of.
    guard: Guard,
    recursive: bool,
    /// The directories by the kernel's number.
    nodes: HashMap<i32, Node>,
    /// Directories that must still be looked through, and whether what is there is told as new.
    scans: VecDeque<(i32, bool)>,
    /// The one that is being looked through.
    scan: Option<(i32, bool, Dir)>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Looking,
    Watching,
    Over,
}

/// A watched directory.
#[derive(Debug)]
struct Node {
    /// The one that it is in; none for the top.
    parent: Option<i32>,
    name: Vec<u8>,
}

/// An event as the kernel has it.
#[derive(Debug)]
struct Raw {
    watch: i32,
    events: ReadFlags,
    cookie: u32,
    name: Option<Vec<u8>>,
}

impl Watch {
    pub(crate) fn new(
        root: Root,
        path: GuestPath,
        recursive: bool,
        follow: bool,
    ) -> Result<Self, Status> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(|errno| no_watch(&path, errno))?;
        let (found, guard) = root.find_guarded(&path, follow)?;
        let (file_type, _) = stat(&found, &path)?;
        let top_watch = inotify::add_watch(&inotify, by_descriptor(found.as_fd()), MASK)
            .map_err(|errno| no_watch(&path, errno))?;
        let top = Node {
            parent: None,
            name: Vec::new(),
        };
        let recursive = recursive && file_type.is_dir();
        Ok(Self {
            inotify,
            path,
            root,
            follow,
            top_watch,
            guard,
            recursive,
            nodes: HashMap::from([(top_watch, top)]),
            scans: VecDeque::from_iter(recursive.then_some((top_watch, false))),
            scan: None,
            state: State::Looking,
        })
    }

    /// What becomes readable when there are events.
    pub(crate) fn inotify(&self) -> Result<OwnedFd, Status> {
        let inotify = self.inotify.try_clone();
        inotify.map_err(|error| failed("watch", &self.path, errno(&error)))
    }

    /// The path of an entry of a watched directory below the top, or of that itself; none if it is not watched any more.
    fn below(&self, watch: i32, name: &[u8]) -> Option<Vec<u8>> {
        let mut names = vec![name];
        let mut at = self.nodes.get(&watch)?;
        while let Some(parent) = at.parent {
            names.push(&at.name);
            at = self.nodes.get(&parent)?;
        }
        names.reverse();
        names.retain(|name| !name.is_empty());
        Some(names.join(&b'/'))
    }

    /// Whether a watched directory is another one, or lies in it.
    fn lies_in(&self, watch: i32, other: i32) -> bool {
        let mut at = Some(watch);
        while let Some(watch) = at {
            if watch == other {
                return true;
            }
            at = self.nodes.get(&watch).and_then(|node| node.parent);
        }
        false
    }

    /// The whole path that a caller is told.
    fn shown(&self, below: &[u8]) -> String {
        let below = String::from_utf8_lossy(below);
        match (self.path.as_str(), below.as_ref()) {
            (path, "") => path.to_owned(),
            ("/", below) => format!("/{below}"),
            (path, below) => format!("{path}/{below}"),
        }
    }

    /// Whether the policy has closed an entry of a watched directory.
    fn hides(&self, watch: i32, name: &[u8]) -> bool {
        let below = self.below(watch, name);
        below.is_some_and(|below| self.guard.hides(&below))
    }

    /// Opens a directory below the top, or the top itself.
    fn open(&self, below: &[u8]) -> Result<OwnedFd, Errno> {
        let path = [self.root.relative(&self.path).as_bytes(), below].join(&b'/');
        let follow = below.is_empty() && self.follow;
        self.root.open(os(&path), PATH | OFlags::DIRECTORY, follow)
    }

    /// Watches a directory that has come, and has it looked through.
    fn add(&mut self, parent: i32, name: &[u8], tell: bool) -> Result<(), Status> {
        let Some(below) = self.below(parent, name) else {
            return Ok(());
        };
        let path = self.shown(&below);
        let opened = self.open(&below);
        let added = opened
            .and_then(|dir| inotify::add_watch(&self.inotify, by_descriptor(dir.as_fd()), MASK));
        let watch = match added {
            Ok(watch) => watch,
            Err(errno @ (Errno::NOSPC | Errno::NOMEM)) => return Err(no_watch(&path, errno)),
            // It is gone by now, or it may not be read.
            Err(_) => return Ok(()),
        };
        // The kernel has one number for a directory, however it is reached. One that lies in itself, by a mount or since it was
        // moved while its events waited, would have no path.
        if self.lies_in(parent, watch) {
            return Ok(());
        }
        let node = Node {
            parent: Some(parent),
            name: name.to_vec(),
        };
        if self.nodes.insert(watch, node).is_none() {
            self.scans.push_back((watch, tell));
        }
        match self.nodes.len() > MAX_WATCHED {
            false => Ok(()),
            true => {
                let what = format!("has more than {MAX_WATCHED} directories: watch some of them");
                Err(told(Reason::TooMany, &self.path, &what))
            }
        }
    }

    /// Forgets a directory that has moved away, and all below it.
    fn forget(&mut self, parent: i32, name: &[u8]) {
        let is_it = |node: &Node| node.parent == Some(parent) && node.name == name;
        let found = self.nodes.iter().find(|(_, node)| is_it(node));
        let mut gone: Vec<i32> = found.map(|(watch, _)| *watch).into_iter().collect();
        while let Some(watch) = gone.pop() {
            self.nodes.remove(&watch);
            // The kernel may have done so.
            let _ = inotify::remove_watch(&self.inotify, watch);
            let below = self
                .nodes
                .iter()
                .filter(|(_, node)| node.parent == Some(watch));
            gone.extend(below.map(|(watch, _)| *watch));
        }
    }

    /// Looks through a part of a directory.
    fn look(&mut self) -> Result<Vec<FilesWatchResponse>, Status> {
        let mut told = Vec::new();
        for _ in 0..WATCH_STEP {
            let Some((watch, tell, dir)) = &mut self.scan else {
                let Some((watch, tell)) = self.scans.pop_front() else {
                    break;
                };
                let Some(below) = self.below(watch, b"") else {
                    continue;
                };
                let opened = self.open(&below);
                // One that is gone needs no look.
                let dir = opened.and_then(open_again).and_then(Dir::new);
                self.scan = dir.ok().map(|dir| (watch, tell, dir));
                continue;
            };
            let (watch, tell) = (*watch, *tell);
            let Some(Ok(entry)) = dir.read() else {
                self.scan = None;
                continue;
            };
            let name = entry.file_name().to_bytes().to_vec();
            if matches!(name.as_slice(), b"." | b"..") {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Unknown => dir
                    .fd()
                    .and_then(|dir| rustix::fs::statat(dir, os(&name), AtFlags::SYMLINK_NOFOLLOW))
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()),
                file_type => file_type.is_dir(),
            };
            if self.hides(watch, &name) {
                continue;
            }
            if tell && let Some(below) = self.below(watch, &name) {
                let path = self.shown(&below);
                told.push(change(FileEvent::Created, path, is_directory, 0));
            }
            if is_directory {
                self.add(watch, &name, tell)?;
            }
        }
        Ok(told)
    }

    /// Reads a bounded number of events; none if there are none for the moment.
    fn events(&mut self) -> Result<Option<Vec<FilesWatchResponse>>, Status> {
        let mut buffer = vec![MaybeUninit::uninit(); WATCH_BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut raw = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => raw.push(Raw {
                    watch: event.wd(),
                    events: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_bytes().to_vec()),
                }),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(failed("watch", &self.path, errno)),
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        let mut told = Vec::new();
        for event in raw {
            self.event(&event, &mut told)?;
        }
        Ok(Some(told))
    }

    fn event(&mut self, raw: &Raw, told: &mut Vec<FilesWatchResponse>) -> Result<(), Status> {
        if raw.events.contains(ReadFlags::QUEUE_OVERFLOW) {
            let message = Some(Message::Overflow(true));
            told.push(FilesWatchResponse { message });
            // A directory may have come unseen.
            if self.recursive {
                self.scans = self.nodes.keys().map(|watch| (*watch, false)).collect();
            }
            return Ok(());
        }
        if raw.events.contains(ReadFlags::IGNORED) {
            self.nodes.remove(&raw.watch);
            if raw.watch == self.top_watch {
                self.state = State::Over;
            }
            return Ok(());
        }
        let Some(event) = kind(raw.events) else {
            return Ok(());
        };
        let is_directory = raw.events.contains(ReadFlags::ISDIR);
        let Some(name) = &raw.name else {
            // Of a directory below, the one above it tells the same.
            if raw.watch == self.top_watch {
                let path = self.shown(b"");
                told.push(change(event, path, is_directory, 0));
                if event == FileEvent::MovedFrom {
                    self.state = State::Over;
                }
            }
            return Ok(());
        };
        let Some(below) = self.below(raw.watch, name) else {
            return Ok(());
        };
        if self.guard.hides(&below) {
            return Ok(());
        }
        told.push(change(event, self.shown(&below), is_directory, raw.cookie));
        if is_directory && self.recursive {
            match event {
                FileEvent::Created | FileEvent::MovedTo => self.add(raw.watch, name, true)?,
                FileEvent::MovedFrom => self.forget(raw.watch, name),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Work for Watch {
    type Piece = Vec<FilesWatchResponse>;

    fn step(&mut self) -> Result<Step<Vec<FilesWatchResponse>>, Status> {
        if self.state == State::Over {
            return Ok(Step::End);
        }
        let told = if self.scan.is_some() || !self.scans.is_empty() {
            self.look()?
        } else if self.state == State::Looking {
            self.state = State::Watching;
            let message = Some(Message::Watching(true));
            vec![FilesWatchResponse { message }]
        } else {
            match self.events()? {
                None => return Ok(Step::Later),
                Some(told) => told,
            }
        };
        Ok(match told.is_empty() {
            true => Step::Again,
            false => Step::Piece(told),
        })
    }
}

fn kind(events: ReadFlags) -> Option<FileEvent> {
    let kinds = [
        (ReadFlags::CREATE, FileEvent::Created),
        (ReadFlags::MODIFY, FileEvent::Modified),
        (ReadFlags::CLOSE_WRITE, FileEvent::Closed),
        (ReadFlags::ATTRIB, FileEvent::Attributes),
        (ReadFlags::DELETE, FileEvent::Removed),
        (ReadFlags::DELETE_SELF, FileEvent::Removed),
        (ReadFlags::MOVED_FROM, FileEvent::MovedFrom),
        (ReadFlags::MOVE_SELF, FileEvent::MovedFrom),
        (ReadFlags::MOVED_TO, FileEvent::MovedTo),
    ];
    let found = kinds.into_iter().find(|(flag, _)| events.contains(*flag));
    found.map(|(_, kind)| kind)
}

fn change(event: FileEvent, path: String, is_directory: bool, cookie: u32) -> FilesWatchResponse {
    FilesWatchResponse {
        message: Some(Message::Change(FileChange {
            event: event.into(),
            path,
            is_directory,
            cookie,
        })),
    }
}

/// The kernel has no watch left; it says so as if a disk were full.
fn no_watch(path: impl AsRef<[u8]>, errno: Errno) -> Status {
    let setting = match errno {
        Errno::NOSPC | Errno::NOMEM => "fs.inotify.max_user_watches",
        Errno::MFILE => "fs.inotify.max_user_instances",
        errno => return failed("watch", path, errno),
    };
    let path = shown(path);
    error::failure(
        Reason::TooMany,
        format!("can't watch {path} in the guest: its kernel has no watch left ({setting})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_lies_in_itself_is_watched_once_and_keeps_its_path() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("a/b")).unwrap();
        let path = GuestPath::parse("path", place.path().to_str().unwrap()).unwrap();
        let mut watch = Watch::new(Root::whole().unwrap(), path, true, false).unwrap();
        let top = watch.top_watch;
        watch.add(top, b"a", false).unwrap();
        let a = *watch.nodes.keys().find(|number| **number != top).unwrap();
        watch.add(a, b"b", false).unwrap();
        // As a mount of a directory below itself shows it: another name for the same.
        for (parent, name) in [(top, &b"."[..]), (a, b".."), (a, b".")] {
            watch.add(parent, name, false).unwrap();
        }
        assert_eq!(watch.nodes.len(), 3);
        assert_eq!(watch.below(a, b"x").unwrap(), b"a/x");
    }
}
