//! Reads, digests and lists.

use std::{fs, io::Write as _};

use rustix::fs::{CWD, FileType as Type, Mode, mknodat};
use vbridge_api::guest::v1::{
    DigestAlgorithm, FileType, FilesChecksumRequest, FilesListRequest, PingRequest,
    system_client::SystemClient,
};

use super::*;

fn request(path: String) -> FilesReadRequest {
    FilesReadRequest {
        path,
        ..FilesReadRequest::default()
    }
}

#[tokio::test]
async fn a_part_of_a_file_is_read_and_has_its_digest() {
    let guest = Guest::start().await;
    let bytes = noise(200_000);
    fs::write(guest.at("file"), &bytes).unwrap();
    for (offset, length) in [
        (0, 0),
        (10, 100_000),
        (199_999, 5),
        (200_000, 1),
        (300_000, 1),
    ] {
        let end = (offset + length).min(bytes.len());
        let part = bytes.get(offset..end).unwrap_or_default();
        let read = FilesReadRequest {
            offset: offset as u64,
            length: Some(length as u64),
            ..request(guest.path("file"))
        };
        let pieces = guest.pieces(read).await.unwrap();
        let read: Vec<u8> = pieces.iter().flat_map(content).collect();
        assert_eq!(read, part, "{offset} {length}");
        let checksum = FilesChecksumRequest {
            path: guest.path("file"),
            algorithm: DigestAlgorithm::Sha256.into(),
            offset: offset as u64,
            length: Some(length as u64),
            ..FilesChecksumRequest::default()
        };
        let answer = within(guest.files.clone().checksum(checksum))
            .await
            .unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.digest.unwrap().value, sha256(part));
        assert_eq!(answer.size, part.len() as u64);
    }
}

#[tokio::test]
async fn a_file_that_is_followed_tells_what_is_added_and_that_it_became_shorter() {
    let guest = Guest::start().await;
    fs::write(guest.at("log"), "one").unwrap();
    let mut log = fs::OpenOptions::new()
        .append(true)
        .open(guest.at("log"))
        .unwrap();
    let follow = FilesReadRequest {
        follow: true,
        ..request(guest.path("log"))
    };
    let stream = within(guest.files.clone().read(follow)).await.unwrap();
    let mut stream = stream.into_inner();
    let mut seen = Vec::new();
    for (add, all) in [("", "one"), ("two", "onetwo"), ("three", "onetwothree")] {
        log.write_all(add.as_bytes()).unwrap();
        while seen != all.as_bytes() {
            let message = within(stream.message()).await.unwrap().unwrap();
            seen.extend(content(&message.piece.unwrap()));
        }
    }
    log.set_len(1).unwrap();
    let status = within(stream.message()).await.unwrap_err();
    assert_eq!(reason(&status), "ABORTED");
}

#[tokio::test]
async fn files_of_proc_are_read_and_its_magic_links_are_refused() {
    let guest = Guest::start().await;
    let sparse = FilesReadRequest {
        sparse: true,
        ..request("/proc/version".to_owned())
    };
    let pieces = guest.pieces(sparse).await.unwrap();
    let version: Vec<u8> = pieces.iter().flat_map(content).collect();
    assert!(version.starts_with(b"Linux"), "a size of 0 is no hole");
    let status = guest.read("/proc/self/status").await.unwrap();
    assert!(status.starts_with(b"Name:"));
    for path in [
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/Cargo.toml",
        "/proc/thread-self/root",
        "/proc/self/exe",
    ] {
        let read = FilesReadRequest {
            follow_link: true,
            ..request(path.to_owned())
        };
        let refused = guest.pieces(read).await.unwrap_err();
        assert_eq!(reason(&refused), "WRONG_FILE_TYPE", "{path}");
    }
}

#[tokio::test]
async fn a_pipe_a_device_and_a_link_are_refused_at_once() {
    let guest = Guest::start().await;
    mknodat(CWD, guest.at("pipe"), Type::Fifo, Mode::RWXU, 0).unwrap();
    fs::write(guest.at("file"), "x").unwrap();
    std::os::unix::fs::symlink("file", guest.at("link")).unwrap();
    let paths = ["pipe", "link", "."].map(|name| guest.path(name));
    for path in paths.into_iter().chain(["/dev/zero".to_owned()]) {
        let refused = guest.read(&path).await.unwrap_err();
        assert_eq!(reason(&refused), "WRONG_FILE_TYPE", "{path}");
        let mut start = guest.upload("");
        for mode in 1..=3 {
            (start.path, start.mode) = (path.clone(), mode);
            let refused = guest.write(start.clone(), []).await.unwrap_err();
            assert_eq!(reason(&refused), "WRONG_FILE_TYPE", "{path}");
        }
    }
    let follow = FilesReadRequest {
        follow_link: true,
        ..request(guest.path("link"))
    };
    assert_eq!(
        guest.pieces(follow).await.unwrap(),
        [Piece::Data(vec![b'x'])]
    );
    for path in ["", "file", "/a/../etc/passwd"] {
        let refused = guest.read(path).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD");
    }
    let missing = guest.read(&guest.path("no\nfile")).await.unwrap_err();
    assert_eq!(reason(&missing), "FILE_NOT_FOUND");
    assert!(missing.message().contains("no\\nfile"), "{missing}");
}

#[tokio::test]
async fn every_type_of_file_is_told() {
    let guest = Guest::start().await;
    fs::write(guest.at("file"), "12345").unwrap();
    std::os::unix::fs::symlink("nowhere", guest.at("link")).unwrap();
    mknodat(CWD, guest.at("pipe"), Type::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(guest.at("socket")).unwrap();
    for (name, file_type) in [
        ("file", FileType::Regular),
        (".", FileType::Directory),
        ("link", FileType::Symlink),
        ("pipe", FileType::Fifo),
        ("socket", FileType::Socket),
    ] {
        let info = guest.stat(name).await.unwrap();
        assert_eq!(info.r#type(), file_type, "{name}");
        assert!(info.modified.is_some() && info.inode > 0);
    }
    assert_eq!(guest.stat("link").await.unwrap().link_target, "nowhere");
    let file = guest.stat("file").await.unwrap();
    assert_eq!((file.name.as_str(), file.size, file.links), ("file", 5, 1));
    let request = |path: &str, follow| FilesStatRequest {
        path: path.to_owned(),
        follow,
        digest: None,
    };
    let zero = within(guest.files.clone().stat(request("/dev/zero", false))).await;
    let zero = zero.unwrap().into_inner().file.unwrap();
    assert_eq!(zero.r#type(), FileType::CharacterDevice);
    assert_eq!(zero.owner, "root");
    let root = within(guest.files.clone().stat(request("/", false))).await;
    assert_eq!(root.unwrap().into_inner().file.unwrap().name, "/");
    let dangling = request(&guest.path("link"), true);
    let dangling = within(guest.files.clone().stat(dangling)).await;
    assert_eq!(reason(&dangling.unwrap_err()), "FILE_NOT_FOUND");
    let digest = FilesStatRequest {
        digest: Some(DigestAlgorithm::Md5.into()),
        ..request(&guest.path("file"), false)
    };
    let digest = within(guest.files.clone().stat(digest)).await.unwrap();
    let digest = digest.into_inner().digest.unwrap().value;
    // `printf 12345 | md5sum`
    assert_eq!(digest[..4], [0x82, 0x7c, 0xcb, 0x0e]);
}

#[tokio::test]
async fn three_thousand_entries_are_listed_in_order_and_in_messages() {
    let guest = Guest::start().await;
    let mut names: Vec<_> = (0..3000).map(|number| format!("f{number}")).collect();
    for name in &names {
        fs::write(guest.at(name), "").unwrap();
    }
    let odd = std::ffi::OsStr::new("z\u{e4}");
    fs::write(guest.dir.path().join(odd), "").unwrap();
    let raw: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"z\xff");
    fs::write(guest.dir.path().join(raw), "").unwrap();
    let request = FilesListRequest {
        path: guest.path(""),
        ..FilesListRequest::default()
    };
    let stream = within(guest.files.clone().list(request)).await.unwrap();
    let mut stream = stream.into_inner();
    let mut listed = Vec::new();
    while let Some(message) = within(stream.message()).await.unwrap() {
        assert!((1..=256).contains(&message.files.len()));
        listed.extend(message.files);
    }
    names.sort();
    names.extend(["z\u{e4}".to_owned(), "z\u{fffd}".to_owned()]);
    assert!(listed.iter().map(|file| &file.name).eq(&names));
    assert_eq!(listed.last().unwrap().name_bytes, b"z\xff");
    assert!(listed[0].name_bytes.is_empty());
}

#[tokio::test]
async fn readers_that_do_not_read_delay_nobody_and_are_bounded() {
    let guest = Guest::start().await;
    let file = fs::File::create(guest.at("large")).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut stuck = Vec::new();
    let refused = loop {
        let stream = within(guest.files.clone().read(request(guest.path("large")))).await;
        match stream {
            Ok(stream) => stuck.push(stream.into_inner()),
            Err(status) => break status,
        }
    };
    assert_eq!((stuck.len(), reason(&refused).as_str()), (32, "TOO_MANY"));
    assert_eq!(guest.stat("large").await.unwrap().size, 1 << 30);
    let mut system = SystemClient::new(guest.channel.clone());
    within(system.ping(PingRequest::default())).await.unwrap();
    stuck.pop();
    // As soon as the agent has seen that one is gone there is a place again.
    within(async {
        let small = FilesReadRequest {
            length: Some(1),
            ..request(guest.path("large"))
        };
        while guest.pieces(small.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
