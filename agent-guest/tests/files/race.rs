//! Links that are put in the way while a call is on its way, and files that are none.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use tonic::Code;
use vbridge_api::guest::v1::{
    DigestAlgorithm, FilesChecksumRequest, FilesGetUploadRequest, FilesListRequest,
    FilesPullTreeRequest, FilesRemoveRequest, FilesSetAttributesRequest, FilesWatchRequest,
};

use super::*;

/// Calls of each kind against a name that changes all the time. Some thousand changes happen meanwhile.
const CALLS: usize = 300;

/// Two names whose contents change places as fast as the kernel can, until it is dropped.
struct Swap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Swap {
    fn of(one: &Path, other: &Path) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (one, other, is_over) = (one.to_owned(), other.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut changes = 0;
            while !is_over.load(Ordering::Relaxed) {
                // One of them may be gone for a moment: it is what the calls do.
                let swapped = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                changes += u64::from(swapped.is_ok());
            }
            changes
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; how often they have changed places.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_link_that_takes_a_files_place_is_never_read_through() {
    let guest = Guest::start().await;
    fs::write(guest.at("victim"), "victim").unwrap();
    fs::write(guest.at("file"), "own").unwrap();
    symlink("victim", guest.at("link")).unwrap();
    let swap = Swap::of(&guest.at("file"), &guest.at("link"));
    let (mut read, mut refused) = (0, 0);
    for _ in 0..CALLS {
        match guest.read(&guest.path("file")).await {
            Ok(content) => {
                assert_eq!(content, b"own");
                read += 1;
            }
            Err(status) => {
                assert_eq!(reason(&status), "WRONG_FILE_TYPE", "{status}");
                refused += 1;
            }
        }
    }
    let changes = swap.end();
    assert!(
        changes > 100 && read > 0 && refused > 0,
        "{changes} {read} {refused}"
    );
}

#[tokio::test]
async fn a_link_that_takes_a_files_place_is_replaced_and_never_written_through() {
    let guest = Guest::start().await;
    fs::write(guest.at("victim"), "victim").unwrap();
    for mode in 1..=3 {
        // Either may be the link by now.
        for name in ["file", "link"] {
            let _ = fs::remove_file(guest.at(name));
        }
        fs::write(guest.at("file"), "own").unwrap();
        symlink("victim", guest.at("link")).unwrap();
        let swap = Swap::of(&guest.at("file"), &guest.at("link"));
        // Each waits for the disk.
        for _ in 0..CALLS / 5 {
            let start = FilesWriteStart {
                mode,
                ..guest.upload("file")
            };
            // It may be refused, as long as nothing else is written to.
            let _ = guest.write(start, [Message::Data(b"new".to_vec())]).await;
        }
        swap.end();
        assert_eq!(fs::read(guest.at("victim")).unwrap(), b"victim", "{mode}");
    }
}

#[tokio::test]
async fn a_link_that_takes_a_directorys_place_leads_no_removal_out_of_its_tree() {
    let guest = Guest::start().await;
    fs::create_dir(guest.at("victim")).unwrap();
    fs::write(guest.at("victim/kept"), "kept").unwrap();
    for _ in 0..CALLS / 10 {
        fs::create_dir_all(guest.at("tree/directory/deeper")).unwrap();
        symlink(guest.at("victim"), guest.at("tree/link")).unwrap();
        let swap = Swap::of(&guest.at("tree/directory"), &guest.at("tree/link"));
        let request = FilesRemoveRequest {
            path: guest.path("tree"),
            recursive: true,
            ignore_missing: false,
        };
        // It may be told that others change what it removes.
        let _ = within(guest.files.clone().remove(request)).await;
        swap.end();
        let _ = fs::remove_dir_all(guest.at("tree"));
        assert_eq!(fs::read(guest.at("victim/kept")).unwrap(), b"kept");
    }
}

/// What comes of every call that opens what is at a path.
async fn outcomes(guest: &Guest, path: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let (files, text) = (guest.files.clone(), || path.to_owned());
    let checksum = FilesChecksumRequest {
        path: text(),
        ..FilesChecksumRequest::default()
    };
    let digest = FilesStatRequest {
        path: text(),
        follow: true,
        digest: Some(DigestAlgorithm::Sha256.into()),
    };
    let list = FilesListRequest {
        path: text(),
        follow_link: true,
    };
    let upload = FilesGetUploadRequest {
        path: format!("{path}/x"),
        upload_id: "x".to_owned(),
    };
    let size = FilesSetAttributesRequest {
        path: text(),
        size: Some(1),
        ..FilesSetAttributesRequest::default()
    };
    let write = FilesWriteStart {
        path: text(),
        mode: 2,
        ..FilesWriteStart::default()
    };
    let written = guest.write(write, [Message::Data(vec![0])]).await;
    vec![
        ("read", guest.read(path).await.map(drop)),
        ("append", written.map(drop)),
        (
            "checksum",
            within(files.clone().checksum(checksum)).await.map(drop),
        ),
        ("digest", within(files.clone().stat(digest)).await.map(drop)),
        ("list", within(files.clone().list(list)).await.map(drop)),
        (
            "upload",
            within(files.clone().get_upload(upload)).await.map(drop),
        ),
        (
            "size",
            within(files.clone().set_attributes(size)).await.map(drop),
        ),
    ]
}

#[tokio::test]
async fn a_pipe_or_device_holds_up_no_call_and_is_not_even_opened() {
    let guest = Guest::start().await;
    mknodat(CWD, guest.at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(guest.at("socket")).unwrap();
    let paths = ["pipe", "socket"].map(|name| guest.path(name));
    let devices = ["/dev/zero", "/dev/tty", "/dev/full"].map(str::to_owned);
    for path in paths.iter().chain(&devices) {
        for (call, outcome) in outcomes(&guest, path).await {
            let status = outcome.expect_err(call);
            let code = status.code();
            assert!(
                [Code::FailedPrecondition, Code::NotFound].contains(&code),
                "{call} of {path}: {status}"
            );
        }
    }
    // A tree has them as they are, or names them.
    let request = FilesPullTreeRequest {
        path: guest.path(""),
        one_file_system: true,
    };
    let mut stream = within(guest.files.clone().pull_tree(request))
        .await
        .unwrap()
        .into_inner();
    while within(stream.message()).await.unwrap().is_some() {}
    let request = FilesWatchRequest {
        path: guest.path("pipe"),
        ..FilesWatchRequest::default()
    };
    within(guest.files.clone().watch(request))
        .await
        .map(drop)
        .unwrap();
}

#[tokio::test]
async fn no_call_goes_through_a_magic_link_of_proc() {
    let guest = Guest::start().await;
    let pid = std::process::id();
    for path in [
        "/proc/self/root/etc".to_owned(),
        "/proc/self/cwd/src".to_owned(),
        "/proc/self/fd/0".to_owned(),
        format!("/proc/{pid}/exe"),
        format!("/proc/{pid}/task/{pid}/root/etc/passwd"),
    ] {
        for (call, outcome) in outcomes(&guest, &path).await {
            let status = outcome.expect_err(call);
            assert!(
                ["WRONG_FILE_TYPE", "FILE_NOT_FOUND", "PERMISSION_DENIED"]
                    .contains(&reason(&status).as_str()),
                "{call} of {path}: {status}"
            );
        }
    }
}
