use futures_util::{StreamExt as _, stream};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::Code;
use vbridge_api::guest::v1::{DigestAlgorithm, files_client::FilesClient};

use super::*;
use crate::qemu::{
    files::disk::Disk,
    script::{Script, no},
};

fn start(change: impl FnOnce(&mut FilesWriteStart)) -> Message {
    let mut start = FilesWriteStart {
        path: "/x".to_owned(),
        ..FilesWriteStart::default()
    };
    change(&mut start);
    Message::Start(start)
}

fn sha256(of: &[u8]) -> Digest {
    Digest {
        algorithm: DigestAlgorithm::Sha256.into(),
        value: Sha256::digest(of).to_vec(),
    }
}

async fn send(script: &Arc<Script>, messages: Vec<Message>) -> Result<FilesWriteResponse, Status> {
    let mut client = FilesClient::new(script.serve());
    let messages = messages.into_iter().map(|message| FilesWriteRequest {
        message: Some(message),
    });
    Ok(client.write(stream::iter(messages)).await?.into_inner())
}

async fn settled() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_is_written_in_pieces_and_its_digests_are_told() {
    let disk = Disk::with("/x", b"something longer that was there before");
    let content: Vec<u8> = (0..=250).cycle().take(AGENT_PIECE + 99_999).collect();
    let size = u64::try_from(content.len()).unwrap();
    let mut messages = vec![start(|start| start.size = Some(size))];
    messages.extend(
        content
            .chunks(100_000)
            .map(|data| Message::Data(data.to_vec())),
    );
    messages.push(Message::Digest(sha256(&content)));
    let written = send(&disk.script(), messages).await.unwrap();
    assert!(disk.content("/x").unwrap() == content);
    let file = written.file.unwrap();
    assert_eq!((file.name.as_str(), file.size), ("x", size));
    assert_eq!(written.sha256, sha256(&content).value);
    assert_eq!(written.md5.len(), 16);
    assert_eq!(disk.open(), 0);
}

#[tokio::test]
async fn it_is_added_at_the_end_or_put_into_the_middle() {
    for (there, mode, offset, expected) in [
        (Some("abcdef"), WriteMode::Append, 0, "abcdefXY"),
        (None, WriteMode::Append, 0, "XY"),
        (Some("abcdef"), WriteMode::InPlace, 2, "abXYef"),
        (None, WriteMode::InPlace, 0, "XY"),
        (Some("abcdef"), WriteMode::Replace, 0, "XY"),
    ] {
        let disk = match there {
            Some(there) => Disk::with("/x", there.as_bytes()),
            None => Disk::default(),
        };
        let begin = start(|start| {
            (start.mode, start.offset, start.no_digests) = (mode.into(), offset, true);
        });
        let data = Message::Data(b"XY".to_vec());
        let written = send(&disk.script(), vec![begin, data]).await.unwrap();
        assert_eq!(disk.content("/x").unwrap(), expected.as_bytes());
        let size = u64::try_from(expected.len()).unwrap();
        assert_eq!(written.file.unwrap().size, size);
        assert!(written.sha256.is_empty() && written.md5.is_empty());
    }
}

#[tokio::test]
async fn what_is_there_is_not_overwritten_if_it_must_not_be() {
    let disk = Disk::with("/x", b"old");
    let begin = || start(|start| start.no_overwrite = true);
    let status = send(&disk.script(), vec![begin()]).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(disk.content("/x").unwrap(), b"old");
    let disk = Disk::default();
    send(&disk.script(), vec![begin()]).await.unwrap();
    assert_eq!(disk.content("/x").unwrap(), b"");
    assert_eq!(disk.open(), 0);
}

#[tokio::test]
async fn a_wrong_digest_or_size_is_told_with_what_became_of_the_file() {
    let disk = Disk::default();
    let data = || Message::Data(b"new".to_vec());
    let begin = start(|start| start.digest = Some(sha256(b"other")));
    let status = send(&disk.script(), vec![begin, data()]).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().contains("can't take it back"), "{status}");
    let begin = start(|start| start.size = Some(4));
    let status = send(&disk.script(), vec![begin, data()]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(disk.content("/x").unwrap(), b"new");
    assert_eq!(disk.open(), 0);
}

#[tokio::test]
async fn what_the_agent_can_not_do_is_refused_before_the_file_is_opened() {
    type Change = fn(&mut FilesWriteStart);
    let wishes: [(&str, Change); 6] = [
        ("start.permissions", |start| start.permissions = Some(0o600)),
        ("start.owner", |start| start.owner = "web".to_owned()),
        ("start.group", |start| start.group = "web".to_owned()),
        ("start.make_parents", |start| start.make_parents = true),
        ("start.upload_id", |start| start.upload_id = "a".to_owned()),
        ("start.modified", |start| {
            start.modified = Some(prost_types::Timestamp::default());
        }),
    ];
    let script = Script::fixed([]);
    for (field, change) in wishes {
        let status = send(&script, vec![start(change)]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().starts_with(field), "{status}");
    }
    let invalid: [(&str, Change); 7] = [
        ("start.path", |start| start.path = "x".to_owned()),
        ("start.mode", |start| start.mode = 9),
        ("start.no_overwrite", |start| {
            (start.mode, start.no_overwrite) = (2, true)
        }),
        ("start.size", |start| {
            (start.mode, start.size) = (3, Some(1))
        }),
        ("start.offset", |start| start.offset = 1),
        ("start.offset", |start| {
            (start.mode, start.offset) = (3, u64::MAX)
        }),
        ("start.digest.value", |start| {
            start.digest = Some(Digest::default())
        }),
    ];
    for (field, change) in invalid {
        let status = send(&script, vec![start(change)]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
    assert!(script.commands().is_empty());
}

#[tokio::test]
async fn messages_in_a_wrong_order_close_the_file() {
    let data = || Message::Data(b"x".to_vec());
    let digest = || Message::Digest(sha256(b"x"));
    let begin = || start(|_| {});
    for (messages, code) in [
        (vec![], Code::InvalidArgument),
        (vec![data()], Code::InvalidArgument),
        (vec![begin(), begin()], Code::InvalidArgument),
        (
            vec![begin(), data(), digest(), data()],
            Code::InvalidArgument,
        ),
        (vec![begin(), Message::Hole(5)], Code::Unimplemented),
        (
            vec![begin(), Message::Digest(Digest::default())],
            Code::InvalidArgument,
        ),
    ] {
        let disk = Disk::default();
        let status = send(&disk.script(), messages).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        settled().await;
        assert_eq!(disk.open(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_no_file_open_and_one_that_is_silent_is_told_so() {
    let disk = Disk::default();
    let mut client = FilesClient::new(disk.script().serve());
    let begin = FilesWriteRequest {
        message: Some(start(|_| {})),
    };
    let messages = stream::once(std::future::ready(begin)).chain(stream::pending());
    let call = client.write(messages);
    let second = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(second, call).await.is_err());
    settled().await;
    assert_eq!((disk.open(), disk.content("/x").unwrap().len()), (0, 0));
    let status = client.write(stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_full_disk_is_told_when_it_shows() {
    for (fails, written) in [
        ("guest-file-write", json!({ "count": 1, "eof": false })),
        ("guest-file-flush", json!({ "count": 1, "eof": false })),
        ("nothing", json!({ "count": 0, "eof": false })),
        ("nothing", json!({ "count": 99, "eof": false })),
        ("nothing", json!({ "count": "all" })),
    ] {
        let script = Script::new(move |command, _| match command {
            _ if command == fails => Err(no(command, "failed: No space left on device")),
            "guest-file-open" => Ok(json!(1)),
            "guest-file-write" => Ok(written.clone()),
            _ => Ok(json!({})),
        });
        let data = Message::Data(b"x".to_vec());
        let status = send(&script, vec![start(|_| {}), data]).await.unwrap_err();
        let code = match fails {
            "nothing" => Code::Internal,
            _ => Code::ResourceExhausted,
        };
        assert_eq!(status.code(), code, "{status}");
        settled().await;
        assert_eq!(script.commands().last().unwrap(), "guest-file-close");
    }
}
