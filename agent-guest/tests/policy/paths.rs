//! Files in roots, and the ways out of them.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
};

use agent_guest::{Access, PathRule};
use rustix::fs::{RenameFlags, renameat_with};
use tar::{EntryType, Header};
use vbridge_api::guest::v1::{
    FilesChecksumRequest, FilesGetUploadRequest, FilesListRequest, FilesMkdirRequest,
    FilesPullTreeRequest, FilesPushTreeRequest, FilesPushTreeStart, FilesRemoveRequest,
    FilesRenameRequest, FilesSetAttributesRequest, FilesStatRequest, FilesWatchRequest,
    FilesWriteRequest, FilesWriteStart, TreeSummary, files_pull_tree_response,
    files_push_tree_request, files_watch_response::Message as Told, files_write_request::Message,
};

use super::*;

/// `write` and `read` are roots, `write/closed` and keys in them are closed, and the rest of the guest is nobody's.
async fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in [
        "write/dir",
        "write/closed",
        "write/nest/closed",
        "read",
        "outside",
    ] {
        fs::create_dir_all(at(name)).unwrap();
        fs::write(at(name) + "/file", name).unwrap();
    }
    fs::write(at("write/dir/x.key"), "secret").unwrap();
    let root = |name: &str, access| PathRule::new(name, &at(name), access).unwrap();
    let closed = [
        at("write/closed"),
        at("write/nest/closed"),
        "*.key".to_owned(),
    ];
    let rules = Rules::default()
        .path(root("write", Access::Write).deny(closed).unwrap())
        .path(root("read", Access::Read))
        .path(PathRule::new("rest", "/", Access::None).unwrap());
    Scene::at(dir, rules).await
}

impl Scene {
    async fn write(&self, name: &str, content: &str) -> Result<(), Status> {
        let start = FilesWriteStart {
            path: self.path(name),
            ..FilesWriteStart::default()
        };
        let data = Message::Data(content.as_bytes().to_vec());
        let messages = [Message::Start(start), data].map(|message| FilesWriteRequest {
            message: Some(message),
        });
        within(self.files().write(tokio_stream::iter(messages)))
            .await
            .map(drop)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Status> {
        let request = FilesRenameRequest {
            from: self.path(from),
            to: self.path(to),
            no_overwrite: false,
        };
        within(self.files().rename(request)).await.map(drop)
    }

    async fn push(&self, name: &str, archive: Vec<u8>) -> Result<TreeSummary, Status> {
        use files_push_tree_request::Message;
        let start = FilesPushTreeStart {
            path: self.path(name),
            no_owner: true,
            ..FilesPushTreeStart::default()
        };
        let messages =
            [Message::Start(start), Message::Data(archive)].map(|message| FilesPushTreeRequest {
                message: Some(message),
            });
        let mut files = self.files();
        let answer = within(files.push_tree(tokio_stream::iter(messages))).await?;
        Ok(answer.into_inner().summary.unwrap())
    }

    async fn list(&self, name: &str) -> Result<Vec<String>, Status> {
        let request = FilesListRequest {
            path: self.path(name),
            ..FilesListRequest::default()
        };
        let mut stream = within(self.files().list(request)).await?.into_inner();
        let mut names = Vec::new();
        while let Some(message) = within(stream.message()).await? {
            names.extend(message.files.into_iter().map(|file| file.name));
        }
        Ok(names)
    }

    async fn remove(&self, name: &str) -> Result<(), Status> {
        let request = FilesRemoveRequest {
            path: self.path(name),
            recursive: true,
            ..FilesRemoveRequest::default()
        };
        within(self.files().remove(request)).await.map(drop)
    }
}

fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_path(path).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[tokio::test]
async fn a_root_is_read_or_written_as_its_rule_says() {
    let scene = scene().await;
    scene.write("write/dir/new", "x").await.unwrap();
    assert_eq!(
        scene.read(&scene.path("write/dir/new")).await.unwrap(),
        b"x"
    );
    assert_eq!(scene.read(&scene.path("read/file")).await.unwrap(), b"read");
    refused(scene.write("read/new", "x").await, "read");
    refused(scene.read(&scene.path("outside/file")).await, "rest");
    refused(scene.read("/etc/hostname").await, "rest");
    refused(scene.rename("write/dir/new", "read/new").await, "read");
    refused(scene.rename("read/file", "write/new").await, "read");
    refused(scene.remove("write").await, "write");
    scene.rename("write/dir/new", "write/moved").await.unwrap();
    scene.remove("write/moved").await.unwrap();
}

#[tokio::test]
async fn no_method_follows_a_link_out_of_its_root() {
    let scene = scene().await;
    symlink("../outside", scene.place("write/out")).unwrap();
    let path = || scene.path("write/out/file");
    let mut files = scene.files();
    let rule = "write";
    let stat = FilesStatRequest {
        path: path(),
        ..FilesStatRequest::default()
    };
    refused(within(files.stat(stat)).await.map(drop), rule);
    refused(scene.list("write/out/file").await, rule);
    refused(scene.read(&path()).await, rule);
    refused(scene.write("write/out/file", "x").await, rule);
    let mkdir = FilesMkdirRequest {
        path: path() + "/x",
        parents: true,
        ..FilesMkdirRequest::default()
    };
    refused(within(files.mkdir(mkdir)).await.map(drop), rule);
    refused(scene.remove("write/out/file").await, rule);
    refused(scene.rename("write/out/file", "write/x").await, rule);
    refused(scene.rename("write/dir/file", "write/out/x").await, rule);
    let set = FilesSetAttributesRequest {
        path: path(),
        permissions: Some(0o777),
        ..FilesSetAttributesRequest::default()
    };
    refused(within(files.set_attributes(set)).await.map(drop), rule);
    let checksum = FilesChecksumRequest {
        path: path(),
        algorithm: 1,
        ..FilesChecksumRequest::default()
    };
    refused(within(files.checksum(checksum)).await.map(drop), rule);
    let pull = FilesPullTreeRequest {
        path: path(),
        one_file_system: false,
    };
    refused(within(files.pull_tree(pull)).await.map(drop), rule);
    refused(scene.push("write/out/file", Vec::new()).await, rule);
    let watch = FilesWatchRequest {
        path: path(),
        ..FilesWatchRequest::default()
    };
    refused(within(files.watch(watch)).await.map(drop), rule);
    let upload = FilesGetUploadRequest {
        path: path(),
        upload_id: "x".to_owned(),
    };
    refused(within(files.get_upload(upload)).await.map(drop), rule);
    assert_eq!(fs::read(scene.place("outside/file")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(scene.place("outside")).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_closed_is_neither_read_nor_told_of() {
    let scene = scene().await;
    refused(scene.read(&scene.path("write/closed/file")).await, "write");
    refused(scene.read(&scene.path("write/dir/x.key")).await, "write");
    refused(scene.write("write/dir/new.key", "x").await, "write");
    symlink("closed", scene.place("write/way")).unwrap();
    refused(scene.read(&scene.path("write/way/file")).await, "write");
    assert_eq!(scene.list("write").await.unwrap(), ["dir", "nest", "way"]);
    assert_eq!(scene.list("write/dir").await.unwrap(), ["file"]);
    let pull = FilesPullTreeRequest {
        path: scene.path("write"),
        one_file_system: true,
    };
    let mut stream = within(scene.files().pull_tree(pull))
        .await
        .unwrap()
        .into_inner();
    let (mut packed, mut summary) = (Vec::new(), TreeSummary::default());
    while let Some(message) = within(stream.message()).await.unwrap() {
        match message.piece.unwrap() {
            files_pull_tree_response::Piece::Data(data) => packed.extend(data),
            files_pull_tree_response::Piece::Summary(told) => summary = told,
        }
    }
    assert_eq!(summary.skipped_count, 3, "{:?}", summary.skipped);
    let text = String::from_utf8_lossy(&packed);
    assert!(!text.contains("secret") && !text.contains("/closed"));
    let watch = FilesWatchRequest {
        path: scene.path("write"),
        recursive: true,
        ..FilesWatchRequest::default()
    };
    let mut stream = within(scene.files().watch(watch))
        .await
        .unwrap()
        .into_inner();
    while within(stream.message()).await.unwrap().unwrap().message != Some(Told::Watching(true)) {}
    fs::write(scene.place("write/closed/new"), "").unwrap();
    fs::write(scene.place("write/dir/new.key"), "").unwrap();
    fs::write(scene.place("write/dir/last"), "").unwrap();
    let Some(Told::Change(change)) = within(stream.message()).await.unwrap().unwrap().message
    else {
        panic!("no change");
    };
    assert_eq!(
        change.path,
        scene.path("write/dir/last"),
        "the others are not told"
    );
}

#[tokio::test]
async fn what_holds_something_closed_is_neither_moved_nor_removed() {
    let scene = scene().await;
    refused(scene.rename("write/nest", "write/other").await, "write");
    refused(scene.remove("write/nest").await, "write");
    // What would be closed there is not put there either.
    fs::create_dir_all(scene.place("write/dir/closed")).unwrap();
    fs::remove_dir_all(scene.place("write/nest")).unwrap();
    refused(scene.rename("write/dir", "write/nest").await, "write");
    scene.rename("write/dir", "write/free").await.unwrap();
}

#[tokio::test]
async fn a_directory_stays_in_its_root_for_another_closes_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in ["keys/dir", "free"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("keys/dir/x.key"), "secret").unwrap();
    fs::write(at("keys/file"), "").unwrap();
    let root = |name: &str| PathRule::new(name, &at(name), Access::Write).unwrap();
    let rules = Rules::default()
        .path(root("keys").deny(["*.key"]).unwrap())
        .path(root("free"))
        .path(PathRule::new("rest", "/", Access::None).unwrap());
    let scene = Scene::at(dir, rules).await;
    let status = scene.rename("keys/dir", "free/dir").await.unwrap_err();
    assert!(status.message().contains("directory"), "{status}");
    refused(Err::<(), _>(status), "keys");
    assert!(scene.place("keys/dir/x.key").exists());
    scene.rename("keys/file", "free/file").await.unwrap();
    scene.rename("keys/dir", "keys/other").await.unwrap();
}

#[tokio::test]
async fn a_tree_brings_nothing_in_or_out() {
    let scene = scene().await;
    for entries in [
        &[("closed/new", EntryType::Regular, "")][..],
        &[("x.key", EntryType::Regular, "")],
        &[("new", EntryType::Link, "closed/file")],
        &[("new", EntryType::Link, "dir/x.key")],
        &[
            ("way", EntryType::Symlink, "closed"),
            ("way/new", EntryType::Regular, ""),
        ],
        &[
            ("way", EntryType::Symlink, "../outside"),
            ("way/new", EntryType::Regular, ""),
        ],
    ] {
        refused(scene.push("write", archive(entries)).await, "write");
        let _ = fs::remove_file(scene.place("write/way"));
    }
    assert!(!scene.place("outside/new").exists() && !scene.place("write/closed/new").exists());
    let good = archive(&[("dir/new", EntryType::Regular, "")]);
    assert_eq!(scene.push("write", good).await.unwrap().files, 1);
}

#[tokio::test]
async fn dots_magic_links_and_devices_lead_nowhere() {
    let scene = scene().await;
    for path in [
        "write/../outside/file",
        "write/dir/../../outside/file",
        "..",
    ] {
        let status = scene.read(&scene.path(path)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}");
    }
    let roots = ["/proc", "/dev"].map(|root| PathRule::new("root", root, Access::Write).unwrap());
    let rules = roots.into_iter().fold(Rules::default(), Rules::path);
    let open = Scene::new(rules).await;
    let secret = open.path("secret");
    fs::write(&secret, "secret").unwrap();
    let file = fs::File::open(&secret).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    // The agent runs in this process: its descriptor is ours.
    for path in [
        format!("/proc/self/fd/{descriptor}"),
        format!("/proc/self/root{secret}"),
        "/proc/self/cwd/Cargo.toml".to_owned(),
        format!("/proc/thread-self/root{secret}"),
        "/proc/self/exe".to_owned(),
    ] {
        let mut files = open.files();
        let stat = FilesStatRequest {
            path: path.clone(),
            follow: true,
            ..FilesStatRequest::default()
        };
        assert!(within(files.stat(stat)).await.is_err(), "{path}");
        assert!(open.read(&path).await.is_err(), "{path}");
    }
    for device in ["/dev/null", "/dev/zero"] {
        let status = open.read(device).await.unwrap_err();
        assert_eq!(info(&status).0, "WRONG_FILE_TYPE", "{device}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_flipped_during_calls_shows_and_changes_nothing_outside() {
    let scene = scene().await;
    symlink("../outside", scene.place("write/swap")).unwrap();
    let stop = AtomicBool::new(false);
    let write = fs::File::open(scene.place("write")).unwrap();
    let path = scene.path("write/dir/file");
    let (mut done, mut refusals) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(&write, "dir", &write, "swap", RenameFlags::EXCHANGE).unwrap();
            }
        });
        let runtime = tokio::runtime::Handle::current();
        let calls = async {
            for turn in 0.. {
                let read = scene.read(&path).await;
                let written = scene.write("write/dir/mine", "mine").await;
                for result in [
                    read.map(|content| assert_eq!(content, b"write/dir")),
                    written,
                ] {
                    match result {
                        Ok(()) => done += 1,
                        Err(_) => refusals += 1,
                    }
                }
                if turn >= 100 && done > 0 && refusals > 0 {
                    break;
                }
            }
        };
        tokio::task::block_in_place(|| runtime.block_on(calls));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(done > 0 && refusals > 0);
    assert_eq!(fs::read_dir(scene.place("outside")).unwrap().count(), 1);
}
