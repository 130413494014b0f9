//! Uploads.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use vbridge_api::guest::v1::{
    Digest, DigestAlgorithm, FilesGetUploadRequest, WriteMode, files_write_request::Message,
};

use super::*;

fn data(bytes: &[u8]) -> impl Iterator<Item = Message> + '_ {
    bytes
        .chunks(100_000)
        .map(|piece| Message::Data(piece.to_vec()))
}

fn expected(bytes: &[u8]) -> Digest {
    Digest {
        algorithm: DigestAlgorithm::Sha256.into(),
        value: sha256(bytes),
    }
}

#[tokio::test]
async fn what_is_written_is_read_whatever_its_size() {
    let guest = Guest::start().await;
    const PIECE: usize = 64 * 1024;
    for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5, 1_500_000] {
        let bytes = noise(size);
        let mut start = guest.upload("file");
        start.digest = Some(expected(&bytes));
        start.size = Some(size as u64);
        let last = Message::Digest(expected(&bytes));
        let written = guest
            .write(start, data(&bytes).chain([last]))
            .await
            .unwrap();
        assert_eq!(written.sha256, sha256(&bytes));
        assert_eq!(written.file.unwrap().size, size as u64);
        assert_eq!(guest.read(&guest.path("file")).await.unwrap(), bytes);
        let request = FilesReadRequest {
            path: guest.path("file"),
            digest: Some(DigestAlgorithm::Sha256.into()),
            ..FilesReadRequest::default()
        };
        let pieces = guest.pieces(request).await.unwrap();
        assert_eq!(pieces.last(), Some(&Piece::Digest(expected(&bytes))));
    }
    assert_eq!(guest.names(), ["file"]);
}

/// An upload whose messages come one by one, until its sender is dropped; and the call.
fn slow(
    guest: &Guest,
    start: FilesWriteStart,
) -> (
    mpsc::Sender<FilesWriteRequest>,
    tokio::task::JoinHandle<Result<FilesWriteResponse, Status>>,
) {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(message(Message::Start(start))).unwrap();
    let mut files = guest.files.clone();
    let call = tokio::spawn(async move {
        let answer = files.write(ReceiverStream::new(receiver)).await?;
        Ok(answer.into_inner())
    });
    (sender, call)
}

/// Waits until a hidden file has so many bytes.
async fn until_hidden_has(guest: &Guest, size: u64) {
    let has = || {
        let entries = fs::read_dir(guest.dir.path()).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .any(|entry| {
                entry
                    .metadata()
                    .is_ok_and(|metadata| metadata.len() == size)
            })
    };
    until(has).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_the_old_file_and_nothing_else() {
    let guest = Guest::start().await;
    fs::write(guest.at("file"), "old").unwrap();
    let (sender, call) = slow(&guest, guest.upload("file"));
    sender
        .send(message(Message::Data(noise(1000))))
        .await
        .unwrap();
    until_hidden_has(&guest, 1000).await;
    assert_eq!(fs::read(guest.at("file")).unwrap(), b"old");
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    guest.until_only("", &["file"]).await;
    assert_eq!(fs::read(guest.at("file")).unwrap(), b"old");
}

#[tokio::test]
async fn an_upload_with_an_id_is_resumed_where_it_broke_off() {
    let guest = Guest::start().await;
    let bytes = noise(150_000);
    let mut start = guest.upload("file");
    start.upload_id = "up-1".to_owned();
    let (sender, call) = slow(&guest, start.clone());
    let first = message(Message::Data(bytes[..100_000].to_vec()));
    sender.send(first).await.unwrap();
    until_hidden_has(&guest, 100_000).await;
    let busy = guest.write(start.clone(), []).await.unwrap_err();
    assert_eq!(reason(&busy), "ABORTED");
    call.abort();
    assert!(call.await.is_err());

    let request = |id: &str| FilesGetUploadRequest {
        path: guest.path("file"),
        upload_id: id.to_owned(),
    };
    let there = within(guest.files.clone().get_upload(request("up-1"))).await;
    assert_eq!(there.unwrap().into_inner().size, 100_000);
    let other = within(guest.files.clone().get_upload(request("up-2"))).await;
    assert_eq!(reason(&other.unwrap_err()), "FILE_NOT_FOUND");

    start.offset = 100_001;
    // The agent has to see first that the call is over.
    let far = loop {
        let far = guest.write(start.clone(), []).await.unwrap_err();
        if reason(&far) != "ABORTED" {
            break far;
        }
    };
    assert_eq!(reason(&far), "INVALID_FIELD");
    // Less than is there: what comes again counts.
    start.offset = 90_000;
    start.digest = Some(expected(&bytes));
    let written = guest.write(start, data(&bytes[90_000..])).await.unwrap();
    assert_eq!(written.sha256, sha256(&bytes));
    assert_eq!(fs::read(guest.at("file")).unwrap(), bytes);
    assert_eq!(guest.names(), ["file"]);
}

#[tokio::test]
async fn without_digests_the_same_is_written_and_none_is_told_or_expected() {
    let guest = Guest::start().await;
    let bytes = noise(300_000);
    let start = || FilesWriteStart {
        no_digests: true,
        ..guest.upload("file")
    };
    let answer = guest.write(start(), data(&bytes)).await.unwrap();
    assert!(answer.sha256.is_empty() && answer.md5.is_empty());
    assert_eq!(fs::read(guest.at("file")).unwrap(), bytes);
    let digest = Message::Digest(expected(&bytes));
    let refused = guest.write(start(), data(&bytes).chain([digest])).await;
    assert_eq!(reason(&refused.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn a_wrong_digest_or_length_changes_nothing() {
    let guest = Guest::start().await;
    fs::write(guest.at("file"), "old").unwrap();
    let mut start = guest.upload("file");
    start.upload_id = "id".to_owned();
    start.digest = Some(expected(b"other"));
    let wrong = guest.write(start, data(b"new")).await.unwrap_err();
    assert_eq!(reason(&wrong), "DIGEST_MISMATCH");
    let last = Message::Digest(Digest {
        algorithm: DigestAlgorithm::Md5.into(),
        value: vec![0; 16],
    });
    let wrong = guest.write(guest.upload("file"), data(b"new").chain([last.clone()]));
    assert_eq!(reason(&wrong.await.unwrap_err()), "DIGEST_MISMATCH");
    for size in [2, 4] {
        let mut start = guest.upload("file");
        start.size = Some(size);
        let wrong = guest.write(start, data(b"new")).await.unwrap_err();
        assert!(wrong.message().starts_with("start.size: "), "{wrong}");
    }
    let after = guest.write(guest.upload("file"), [last, Message::Data(vec![1])]);
    assert_eq!(reason(&after.await.unwrap_err()), "INVALID_FIELD");
    let large = guest.write(
        guest.upload("file"),
        [Message::Data(vec![0; 256 * 1024 + 1])],
    );
    assert_eq!(reason(&large.await.unwrap_err()), "INVALID_FIELD");
    let mut start = guest.upload("file");
    start.size = Some(1 << 60);
    assert_eq!(
        reason(&guest.write(start, []).await.unwrap_err()),
        "NO_SPACE"
    );
    assert_eq!(fs::read(guest.at("file")).unwrap(), b"old");
    guest.until_only("", &["file"]).await;
}

#[tokio::test]
async fn attributes_are_those_that_are_asked_for_or_those_of_the_old_file() {
    let guest = Guest::start().await;
    let written = guest.write(guest.upload("new"), []).await.unwrap();
    assert_eq!(written.file.unwrap().mode, 0o644);
    fs::set_permissions(guest.at("new"), fs::Permissions::from_mode(0o2751)).unwrap();
    let written = guest.write(guest.upload("new"), data(b"x")).await.unwrap();
    assert_eq!(written.file.unwrap().mode, 0o2751);
    let mut start = guest.upload("new");
    let own = fs::metadata(guest.at("new")).unwrap();
    start.permissions = Some(0o600);
    start.owner = own.uid().to_string();
    start.group = own.gid().to_string();
    start.modified = Some(prost_types::Timestamp {
        seconds: 1_000_000_000,
        nanos: 5,
    });
    let written = guest.write(start.clone(), []).await.unwrap().file.unwrap();
    assert_eq!((written.mode, written.uid), (0o600, own.uid()));
    assert_eq!(written.modified, start.modified);
}

#[tokio::test]
async fn what_must_not_be_replaced_is_not_and_missing_directories_are_made() {
    let guest = Guest::start().await;
    fs::write(guest.at("file"), "old").unwrap();
    let mut start = guest.upload("file");
    start.no_overwrite = true;
    let there = guest.write(start.clone(), data(b"new")).await.unwrap_err();
    assert_eq!(reason(&there), "FILE_EXISTS");
    // One that comes while the upload is under way.
    start.path = guest.path("later");
    let (sender, call) = slow(&guest, start);
    sender.send(message(Message::Data(vec![1]))).await.unwrap();
    until_hidden_has(&guest, 1).await;
    fs::write(guest.at("later"), "first").unwrap();
    drop(sender);
    let there = within(call).await.unwrap().unwrap_err();
    assert_eq!(reason(&there), "FILE_EXISTS");
    assert_eq!(fs::read(guest.at("later")).unwrap(), b"first");

    let mut start = guest.upload("a/b/c");
    let missing = guest.write(start.clone(), []).await.unwrap_err();
    assert_eq!(reason(&missing), "FILE_NOT_FOUND");
    start.make_parents = true;
    guest.write(start, data(b"deep")).await.unwrap();
    assert_eq!(fs::read(guest.at("a/b/c")).unwrap(), b"deep");
}

#[tokio::test]
async fn bytes_are_added_at_the_end_or_put_into_the_middle() {
    let guest = Guest::start().await;
    let mut append = guest.upload("file");
    append.mode = WriteMode::Append.into();
    guest.write(append.clone(), data(b"abc")).await.unwrap();
    let written = guest.write(append.clone(), data(b"def")).await.unwrap();
    assert_eq!(written.sha256, sha256(b"def"));
    let mut inside = guest.upload("file");
    inside.mode = WriteMode::InPlace.into();
    inside.offset = 2;
    let hole = [Message::Data(b"X".to_vec()), Message::Hole(1)];
    guest.write(inside.clone(), hole).await.unwrap();
    assert_eq!(fs::read(guest.at("file")).unwrap(), b"abX\0ef");
    inside.offset = 8;
    guest.write(inside.clone(), data(b"Y")).await.unwrap();
    assert_eq!(fs::read(guest.at("file")).unwrap(), b"abX\0ef\0\0Y");
    guest.write(append, [Message::Hole(2)]).await.unwrap();
    assert_eq!(fs::metadata(guest.at("file")).unwrap().len(), 11);
    std::os::unix::fs::symlink("file", guest.at("link")).unwrap();
    inside.path = guest.path("link");
    let link = guest.write(inside, data(b"Z")).await.unwrap_err();
    assert_eq!(reason(&link), "WRONG_FILE_TYPE");
}

#[tokio::test]
async fn holes_stay_holes_both_ways() {
    let guest = Guest::start().await;
    const HOLE: u64 = 20 << 20;
    let bytes = noise(8192);
    let messages = [
        Message::Hole(HOLE),
        Message::Data(bytes.clone()),
        Message::Hole(HOLE),
    ];
    let written = guest.write(guest.upload("file"), messages).await.unwrap();
    let info = written.file.unwrap();
    assert_eq!(info.size, 2 * HOLE + 8192);
    assert!(info.allocated_bytes < 1 << 20, "{}", info.allocated_bytes);
    let mut request = FilesReadRequest {
        path: guest.path("file"),
        sparse: true,
        ..FilesReadRequest::default()
    };
    let pieces = guest.pieces(request.clone()).await.unwrap();
    let whole = [Piece::Hole(HOLE), Piece::Data(bytes), Piece::Hole(HOLE)];
    assert_eq!(pieces, whole);
    request.digest = Some(DigestAlgorithm::Sha256.into());
    let pieces = guest.pieces(request).await.unwrap();
    let digest = Digest {
        algorithm: DigestAlgorithm::Sha256.into(),
        value: written.sha256,
    };
    assert_eq!(pieces.last(), Some(&Piece::Digest(digest)));
    let far = guest.write(guest.upload("file"), [Message::Hole(u64::MAX)]);
    assert_eq!(reason(&far.await.unwrap_err()), "INVALID_FIELD");
}
