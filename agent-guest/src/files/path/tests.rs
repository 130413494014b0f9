//! Paths, roots, and what is swapped in on the way.

use std::{
    fs,
    io::Read as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{RenameFlags, renameat_with};
use tonic::Code;

use super::*;

fn path(text: &str) -> GuestPath {
    GuestPath::parse("path", text).unwrap()
}

/// A root with the file `dir/file`, and a place outside of it with `file`, which is a secret.
fn house() -> (tempfile::TempDir, Root) {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    fs::create_dir_all(at("root/dir")).unwrap();
    fs::create_dir(at("outside")).unwrap();
    fs::write(at("root/dir/file"), "open").unwrap();
    fs::write(at("outside/file"), "secret").unwrap();
    let root = Root::below(fs::File::open(at("root")).unwrap().into());
    (temporary, root)
}

#[test]
fn a_path_is_absolute_and_has_one_spelling() {
    for (text, clean, name) in [
        ("/", "/", "/"),
        ("//./", "/", "/"),
        ("/a//b/./c/", "/a/b/c", "c"),
        ("/.../..a", "/.../..a", "..a"),
    ] {
        let path = path(text);
        assert_eq!((path.as_str(), path.name()), (clean, name));
    }
    let long = "/x".repeat(2049);
    for wrong in ["", "a", "./a", "/a/../b", "/..", "/a\0b", &long] {
        let status = GuestPath::parse("path", wrong).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("path: "), "{status}");
    }
    assert!(GuestPath::parse("path", &"/x".repeat(2048)).is_ok());
}

#[test]
fn nothing_leads_out_of_a_root() {
    let (temporary, root) = house();
    let outside = temporary.path().join("outside");
    let link = |to: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(to, temporary.path().join("root").join(name)).unwrap();
    };
    link(&outside, "absolute");
    link("../outside".as_ref(), "relative");
    link("dir".as_ref(), "inside");
    link(&outside.join("file"), "last");
    for (text, follow) in [
        ("/absolute/file", false),
        ("/relative/file", false),
        ("/last", true),
    ] {
        let status = root.regular(&path(text), OFlags::RDONLY, follow);
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{text}");
        assert!(status.message().contains("leads out"), "{status}");
    }
    let mut text = String::new();
    let file = root.regular(&path("/inside/file"), OFlags::RDONLY, false);
    file.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "open");
    let status = root
        .regular(&path("/last"), OFlags::RDONLY, false)
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[test]
fn a_link_that_is_swapped_in_at_any_moment_gives_no_secret() {
    let (temporary, root) = house();
    let at = |name: &str| temporary.path().join(name);
    // What takes the place of the file, and of the directory.
    std::os::unix::fs::symlink(at("outside/file"), at("root/dir/swap")).unwrap();
    std::os::unix::fs::symlink(at("outside"), at("root/swap")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let dir = fs::File::open(at("root/dir")).unwrap();
            let exchange = |dir: &fs::File, a: &str| {
                renameat_with(dir, a, dir, "swap", RenameFlags::EXCHANGE).unwrap();
            };
            let above = fs::File::open(at("root")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                exchange(&dir, "file");
                exchange(&above, "dir");
            }
        });
        let path = path("/dir/file");
        // Until both was seen: a thousand reads may be over before the other thread begins.
        for turn in 0.. {
            match root.regular(&path, OFlags::RDONLY, turn % 2 == 0) {
                Ok(mut file) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    assert_eq!(text, "open");
                    read += 1;
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

#[test]
fn directories_on_the_way_are_made_and_never_outside() {
    let (temporary, root) = house();
    root.make_parents(&path("/new/a/b/file")).unwrap();
    let made = temporary.path().join("root/new/a/b");
    let mode = rustix::fs::stat(&made).unwrap().st_mode;
    assert_eq!(mode & 0o7777, 0o755);
    std::os::unix::fs::symlink("../outside", temporary.path().join("root/out")).unwrap();
    assert!(root.make_parents(&path("/out/a/file")).is_err());
    assert!(!temporary.path().join("outside/a").exists());
}
