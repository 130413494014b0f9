//! Follows the sockets in a folder.
//!
//! ```text
//!            the folder is there, watched: a review         something happened to a file: that one
//!   Waiting ─────────────────────────────────▶ Following ◀─────────────────────────────────────────┐
//!      ▲                                         │    └────────────────────────────────────────────┘
//!      └─────────────────────────────────────────┘
//!             the folder is gone, events were lost, or it is time for another review
//! ```
//!
//! A socket whose listener has gone stays a guest while its file is there: QEMU leaves the file when it is killed.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use futures_util::StreamExt as _;
use inotify::{EventMask, Inotify, WatchMask};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::{
    bridge::check_name,
    guest::{Guest, GuestSpec},
    guests::Guests,
    limits::{FOLDER_RETRY, FOLDER_REVIEW, INOTIFY_BUFFER},
};

/// A folder and the names of sockets in it, as the operator writes them: `/run/vms/*.sock`. What the star stands for is
/// the guest's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPattern {
    folder: PathBuf,
    before: String,
    behind: String,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no pattern of sockets: {why}; write /FOLDER/*.sock")]
pub struct PatternError {
    text: String,
    why: &'static str,
}

// === impl SocketPattern ===

impl FromStr for SocketPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = |why| {
            let text = text.escape_debug().to_string();
            Err(PatternError { text, why })
        };
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let Some((folder, name)) = path.rsplit_once('/') else {
            return bad("it must be an absolute path");
        };
        if !path.starts_with('/') {
            return bad("it must be an absolute path");
        }
        if folder.contains('*') {
            return bad("the folder must be one, without a star");
        }
        if name.contains(['?', '[', ']', '{', '}']) {
            return bad("only a star stands for something else");
        }
        let Some((before, behind)) = name.split_once('*') else {
            return bad("its last part needs a star, which stands for the guest's name");
        };
        if behind.contains('*') {
            return bad("there must be one star, which stands for the guest's name");
        }
        let folder = if folder.is_empty() { "/" } else { folder };
        Ok(Self {
            folder: folder.into(),
            before: before.to_owned(),
            behind: behind.to_owned(),
        })
    }
}

impl SocketPattern {
    /// The guest's name, if a file's name fits.
    fn guest<'a>(&self, file: &'a OsStr) -> Option<&'a str> {
        let name = file.to_str()?.strip_prefix(&self.before)?;
        name.strip_suffix(&self.behind)
            .filter(|name| !name.is_empty())
    }
}

/// A folder, and the guests of its sockets by the files' names.
struct Folder {
    pattern: SocketPattern,
    guests: Guests,
    known: HashMap<OsString, Arc<Guest>>,
    /// Files that are left out, and why: it is logged once.
    left_out: HashMap<OsString, String>,
}

/// Follows it for ever.
pub(super) async fn follow(pattern: SocketPattern, guests: Guests) {
    let mut folder = Folder {
        pattern,
        guests,
        known: HashMap::new(),
        left_out: HashMap::new(),
    };
    let mut complaint = None;
    loop {
        let mut up = false;
        let outcome = folder.session(&mut up).await;
        if up {
            complaint = None;
        }
        if let Err(error) = outcome {
            // What is not there any more is no guest.
            folder.review();
            let why = error.to_string();
            if complaint.as_ref() != Some(&why) {
                let path = folder.pattern.folder.display();
                warn!(folder = %path, "its sockets can't be followed: {why}");
                complaint = Some(why);
            }
            sleep(FOLDER_RETRY).await;
        }
    }
}

impl Folder {
    /// Until the folder is gone, or events were lost.
    async fn session(&mut self, up: &mut bool) -> io::Result<()> {
        let inotify = Inotify::init()?;
        // What happens to the files' permissions lets a guest be reached, which it looks for itself.
        let what = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(&self.pattern.folder, what)?;
        // Before the review: what happens from now on is told.
        let mut events = inotify.into_event_stream(vec![0; INOTIFY_BUFFER])?;
        self.review();
        *up = true;
        let end = Instant::now() + FOLDER_REVIEW;
        while let Ok(Some(event)) = timeout_at(end, events.next()).await {
            let event = event?;
            let ends = EventMask::DELETE_SELF
                | EventMask::MOVE_SELF
                | EventMask::IGNORED
                | EventMask::UNMOUNT
                | EventMask::Q_OVERFLOW;
            if event.mask.intersects(ends) {
                return Ok(());
            }
            if let Some(name) = &event.name {
                self.look(name);
            }
        }
        Ok(())
    }

    /// Looks at all files.
    fn review(&mut self) {
        let mut names: Vec<OsString> = self
            .known
            .keys()
            .chain(self.left_out.keys())
            .cloned()
            .collect();
        if let Ok(files) = fs::read_dir(&self.pattern.folder) {
            names.extend(files.flatten().map(|file| file.file_name()));
        }
        for name in names {
            self.look(&name);
        }
    }

    /// Looks at one file.
    fn look(&mut self, name: &OsStr) {
        let Some(guest) = self.pattern.guest(name) else {
            return;
        };
        let path = self.pattern.folder.join(name);
        match (is_socket(&path), self.known.contains_key(name)) {
            (true, false) => self.add(name, guest, &path),
            (false, false) => {
                self.left_out.remove(name);
            }
            (false, true) => {
                if let Some(guest) = self.known.remove(name) {
                    info!(guest = %guest.name(), "its socket is gone");
                    self.guests.remove(&guest);
                }
            }
            (true, true) => {}
        }
    }

    fn add(&mut self, file: &OsStr, name: &str, path: &Path) {
        let added = match check_name(name) {
            Ok(()) => {
                let added = self.guests.add(GuestSpec::new(name, path));
                added.map_err(|refusal| refusal.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match added {
            Ok(guest) => {
                info!(guest = %name, channel = %path.display(), "found");
                self.left_out.remove(file);
                self.known.insert(file.to_owned(), guest);
            }
            Err(why) => {
                let before = self.left_out.insert(file.to_owned(), why.clone());
                if before.as_ref() != Some(&why) {
                    let path = path.as_os_str().as_bytes().escape_ascii();
                    warn!(channel = %path, "is left out: {why}");
                }
            }
        }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_star_stands_for_the_guests_name() {
        let pattern: SocketPattern = "/run/vms/vm-*.sock".parse().unwrap();
        let name = |file: &'static str| pattern.guest(OsStr::new(file));
        assert_eq!(name("vm-web.sock"), Some("web"));
        assert_eq!(name("vm-a.b.sock"), Some("a.b"));
        for file in ["vm-.sock", "web.sock", "vm-web.qmp", "vm-web.sock.old"] {
            assert_eq!(name(file), None, "{file}");
        }
        assert_eq!("unix:/run/vms/vm-*.sock".parse(), Ok(pattern));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("vms/*.sock", "absolute"),
            ("*.sock", "absolute"),
            ("/run/*/a.sock", "folder"),
            ("/run/vms/web.sock", "needs a star"),
            ("/run/vms/*-*.sock", "one star"),
            ("/run/vms/[ab]*.sock", "only a star"),
        ] {
            let error = text.parse::<SocketPattern>().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("/FOLDER/*.sock"),
                "{error}"
            );
        }
    }
}
