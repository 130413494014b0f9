//! What a fence keeps out, whoever moves what meanwhile.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{RenameFlags, renameat_with};
use tonic::Code;

use super::*;
use crate::{
    files::path::{GuestPath, Root, may_read},
    policy::{Access, PathRule, Policy, Rules},
};

/// `open` is a root with `dir/file`, `secret/file` in it is closed, and `outside/file` is out of it.
struct House {
    dir: tempfile::TempDir,
    policy: Policy,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["open/dir", "open/secret", "outside"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), name).unwrap();
        }
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let rule = PathRule::new("open", &at("open"), Access::Write).unwrap();
        let rule = rule.deny([at("open/secret"), "*.key".to_owned()]).unwrap();
        let everything = PathRule::new("rest", "/", Access::None).unwrap();
        let policy = Policy::new(Rules::default().path(rule).path(everything));
        Self { dir, policy }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Opens a path of the house, or says why not.
    fn open(&self, name: &str, follow: bool) -> Result<OwnedFd, Status> {
        let path = self.at(name);
        let path = GuestPath::parse("path", path.to_str().unwrap())?;
        let fence = self.policy.rules().fence(path.as_str(), Access::Read)?;
        Root::within(fence)?.find(&path, follow)
    }

    fn refuses(&self, name: &str) {
        let status = self.open(name, true).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}: {status}");
        assert!(status.message().contains("policy"), "{status}");
    }
}

fn text(found: &OwnedFd) -> String {
    let path = crate::files::path::by_descriptor(found.as_fd());
    fs::read_to_string(path).unwrap()
}

#[test]
fn no_way_leads_out_of_a_root_or_into_what_is_closed() {
    let house = House::new();
    let link = |to: &Path, name: &str| symlink(to, house.at(name)).unwrap();
    link(&house.at("outside"), "open/absolute");
    link("../outside".as_ref(), "open/relative");
    link("dir/../../outside/file".as_ref(), "open/last");
    link("secret".as_ref(), "open/inside");
    link("dir/../secret/file".as_ref(), "open/round");
    link(&house.at("open/dir"), "open/back");
    for name in [
        "open/absolute/file",
        "open/relative/file",
        "open/last",
        "open/secret",
        "open/secret/file",
        "open/inside/file",
        "open/round",
        "open/new.key",
        "open/dir/new.key",
        // As for the kernel's RESOLVE_BENEATH, an absolute link is out even if it leads back in.
        "open/back/file",
        "outside/file",
    ] {
        house.refuses(name);
    }
    assert_eq!(
        text(&house.open("open/dir/file", false).unwrap()),
        "open/dir"
    );
    link("dir/../dir/./file".as_ref(), "open/good");
    assert_eq!(text(&house.open("open/good", true).unwrap()), "open/dir");
    let missing = house.open("open/dir/none", true).unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let no_directory = house.open("open/dir/file/x", true).unwrap_err();
    assert_eq!(no_directory.code(), Code::FailedPrecondition);
}

#[test]
fn links_that_never_end_and_magic_ones_are_refused() {
    let house = House::new();
    symlink("loop", house.at("open/loop")).unwrap();
    let status = house.open("open/loop", true).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let policy = Policy::new(
        Rules::default().path(
            PathRule::new("all", "/", Access::Read)
                .unwrap()
                .deny(["x"])
                .unwrap(),
        ),
    );
    let open = |path: &str| {
        let path = GuestPath::parse("path", path)?;
        let fence = policy.rules().fence(path.as_str(), Access::Read)?;
        Root::within(fence)?.find(&path, true)
    };
    let descriptor = fs::File::open(house.at("outside/file")).unwrap();
    let magic = crate::files::path::by_descriptor(descriptor.as_fd());
    for path in ["/proc/self/root/etc", "/proc/self/cwd", &magic] {
        assert!(open(path).is_err(), "{path}");
    }
    assert!(
        open("/proc/self/status").is_ok(),
        "self itself is a link as others are"
    );
}

#[test]
fn what_may_be_read_is_there_and_a_file_or_a_directory() {
    let house = House::new();
    let rules = house.policy.rules();
    let may = |name: &str| may_read(&rules, house.at(name).to_str().unwrap());
    assert!(may("open/dir/file") && may("open/dir") && may("open"));
    let _socket = std::os::unix::net::UnixListener::bind(house.at("open/socket")).unwrap();
    for name in [
        "open/none",
        "open/secret/file",
        "outside/file",
        "open/socket",
    ] {
        assert!(!may(name), "{name}");
    }
    let way = format!("{}/../outside/file", house.at("open").display());
    assert!(!may_read(&rules, &way) && !may_read(&rules, "open/dir/file"));
}

#[test]
fn a_link_that_is_flipped_at_any_moment_leads_nowhere_else() {
    let house = House::new();
    symlink("secret", house.at("open/swap")).unwrap();
    symlink("../../outside/file", house.at("open/dir/swap")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let dir = fs::File::open(house.at("open/dir")).unwrap();
            let open = fs::File::open(house.at("open")).unwrap();
            let flip = |at: &fs::File, name: &str| {
                renameat_with(at, name, at, "swap", RenameFlags::EXCHANGE).unwrap();
            };
            while !stop.load(Ordering::Relaxed) {
                flip(&dir, "file");
                flip(&open, "dir");
            }
        });
        // Until both was seen: a thousand looks may be over before the other thread begins.
        for turn in 0.. {
            match house.open("open/dir/file", turn % 2 == 0) {
                Ok(found) => {
                    // A link that is not followed has no text.
                    if file_type(&found).unwrap() == FileType::RegularFile {
                        assert_eq!(text(&found), "open/dir");
                        read += 1;
                    }
                }
                Err(_) => refused += 1,
            }
            if turn >= 1000 && read > 0 && refused > 0 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(read > 0 && refused > 0);
}
