use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tonic::Code;
use vbridge_api::guest::v1::{DigestAlgorithm, files_client::FilesClient};

use super::*;
use crate::qemu::{
    files::disk::Disk,
    script::{Script, no},
};

fn asked(offset: u64, length: Option<u64>) -> FilesReadRequest {
    FilesReadRequest {
        path: "/x".to_owned(),
        offset,
        length,
        digest: Some(DigestAlgorithm::Sha256.into()),
        ..FilesReadRequest::default()
    }
}

/// The size that is told, the content, and whether the digest is that of the content.
async fn read_all(
    script: &Arc<Script>,
    request: FilesReadRequest,
) -> Result<(u64, Vec<u8>, bool), Status> {
    let mut client = FilesClient::new(script.serve());
    let mut pieces = client.read(request).await?.into_inner();
    let (mut size, mut content, mut is_right) = (0, Vec::new(), false);
    while let Some(piece) = pieces.message().await? {
        match piece.piece.unwrap() {
            Piece::File(file) => size = file.size,
            Piece::Data(data) => {
                assert!(data.len() <= MAX_PIECE);
                content.extend(data);
            }
            Piece::Digest(digest) => is_right = digest.value == Sha256::digest(&content).to_vec(),
            Piece::Hole(_) => panic!("holes are not told"),
        }
    }
    Ok((size, content, is_right))
}

/// Closing goes on in the background.
async fn settled() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_or_a_part_of_it_comes_in_pieces_with_its_digest() {
    let content: Vec<u8> = (0..=250).cycle().take(AGENT_PIECE * 2 + 77).collect();
    let disk = Disk::with("/x", &content);
    let all = u64::try_from(content.len()).unwrap();
    for (offset, length, expected) in [
        (0, None, &content[..]),
        (5, Some(10), &content[5..15]),
        (7, None, &content[7..]),
        (0, Some(0), &[]),
        (all + 9, None, &[]),
    ] {
        let (size, read, is_right) = read_all(&disk.script(), asked(offset, length))
            .await
            .unwrap();
        assert_eq!(size, all);
        assert!(read == expected && is_right);
        assert_eq!(disk.open(), 0);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_file_open() {
    let disk = Disk::with("/x", &vec![1; AGENT_PIECE * 4]);
    let mut client = FilesClient::new(disk.script().serve());
    let mut pieces = client.read(asked(0, None)).await.unwrap().into_inner();
    pieces.message().await.unwrap();
    assert_eq!(disk.open(), 1);
    drop(pieces);
    settled().await;
    assert_eq!(disk.open(), 0);
    // Wherever the call is when it is dropped, while the file is opened and before.
    for turns in 0..20 {
        let gone = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = client.read(asked(0, None)) => {}
            () = gone => {}
        }
        settled().await;
        assert_eq!(disk.open(), 0, "after {turns} turns");
    }
}

#[tokio::test]
async fn only_so_many_files_are_open_at_once() {
    let disk = Disk::with("/x", &vec![1; AGENT_PIECE * 4]);
    let services = disk.script().serve();
    let mut client = FilesClient::new(services);
    let mut open = Vec::new();
    for _ in 0..crate::limits::MAX_AGENT_FILES {
        open.push(client.read(asked(0, None)).await.unwrap());
    }
    let status = client.read(asked(0, None)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(open);
    settled().await;
    client.read(asked(0, None)).await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_read_is_an_error_of_the_call() {
    let script = Disk::default().script();
    assert_eq!(
        read_all(&script, asked(0, None)).await.unwrap_err().code(),
        Code::NotFound
    );
    let directory = Script::new(|command, _| match command {
        "guest-file-open" => Ok(json!(1)),
        "guest-file-seek" => Ok(json!({ "position": i64::MAX, "eof": false })),
        "guest-file-read" => Err(no(command, "failed to read file: Is a directory")),
        _ => Ok(json!({})),
    });
    let status = read_all(&directory, asked(0, None)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    settled().await;
    assert_eq!(directory.commands().last().unwrap(), "guest-file-close");
}

#[tokio::test]
async fn a_file_without_an_end_to_look_for_is_read_from_its_beginning() {
    let script = Script::new(|command, arguments| match command {
        "guest-file-open" => Ok(json!(1)),
        "guest-file-seek" => Err(no(command, "failed to seek: Invalid argument")),
        "guest-file-read" if arguments["count"] == AGENT_PIECE => {
            Ok(json!({ "count": 0, "buf-b64": "", "eof": true }))
        }
        _ => Ok(json!({})),
    });
    let (size, content, _) = read_all(&script, asked(0, None)).await.unwrap();
    assert_eq!((size, content.len()), (0, 0));
    assert!(read_all(&script, asked(1, None)).await.is_err());
}

#[tokio::test]
async fn what_the_agent_can_not_do_is_refused_and_bad_paths_are_invalid() {
    let script = Script::fixed([]);
    let mut sparse = asked(0, None);
    sparse.sparse = true;
    let mut follow = asked(0, None);
    follow.follow = true;
    for request in [sparse, follow] {
        let status = read_all(&script, request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
    let mut path = asked(0, None);
    path.path = "x".to_owned();
    let mut digest = asked(0, None);
    digest.digest = Some(9);
    for request in [path, digest, asked(u64::MAX, None)] {
        let status = read_all(&script, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert!(script.commands().is_empty());
}

#[tokio::test]
async fn bytes_that_make_no_sense_are_one_clear_error() {
    for answer in [
        json!({ "count": 3, "buf-b64": "QQ==", "eof": false }),
        json!({ "count": 1, "buf-b64": "§", "eof": false }),
        json!({ "count": -1, "buf-b64": "", "eof": false }),
        json!({ "count": 11, "buf-b64": "QUFBQUFBQUFBQUE=", "eof": false }),
        json!([]),
        Value::Null,
    ] {
        let script = Script::new(move |command, _| match command {
            "guest-file-open" => Ok(json!(1)),
            "guest-file-seek" => Ok(json!({ "position": 0, "eof": false })),
            "guest-file-read" => Ok(answer.clone()),
            _ => Ok(json!({})),
        });
        let status = read_all(&script, asked(0, Some(10))).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        settled().await;
        assert_eq!(script.commands().last().unwrap(), "guest-file-close");
    }
}

#[tokio::test]
async fn a_checksum_is_made_of_what_is_read() {
    let disk = Disk::with("/x", b"0123456789");
    let mut client = FilesClient::new(disk.script().serve());
    let request = FilesChecksumRequest {
        path: "/x".to_owned(),
        offset: 2,
        length: Some(3),
        ..FilesChecksumRequest::default()
    };
    let answer = client.checksum(request).await.unwrap().into_inner();
    assert_eq!(answer.size, 3);
    assert_eq!(
        answer.digest.unwrap().value,
        Sha256::digest(b"234").to_vec()
    );
    assert_eq!(disk.open(), 0);
}
