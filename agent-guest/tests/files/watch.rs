//! Watches.

use std::{collections::BTreeSet, fs};

use tonic::Streaming;
use vbridge_api::guest::v1::{
    FileChange, FileEvent, FilesWatchRequest, FilesWatchResponse, files_watch_response::Message,
};

use super::*;

async fn watch(guest: &Guest, name: &str, recursive: bool) -> Streaming<FilesWatchResponse> {
    let request = FilesWatchRequest {
        path: guest.path(name),
        recursive,
        ..FilesWatchRequest::default()
    };
    let mut stream = within(guest.files.clone().watch(request))
        .await
        .unwrap()
        .into_inner();
    let first = within(stream.message()).await.unwrap().unwrap();
    assert_eq!(first.message, Some(Message::Watching(true)));
    stream
}

async fn change(stream: &mut Streaming<FilesWatchResponse>) -> FileChange {
    let message = within(stream.message()).await.unwrap().unwrap();
    match message.message {
        Some(Message::Change(change)) => change,
        other => panic!("no change: {other:?}"),
    }
}

/// Waits for a change; those before it do not matter.
async fn until(
    stream: &mut Streaming<FilesWatchResponse>,
    event: FileEvent,
    path: &str,
) -> FileChange {
    loop {
        let change = change(stream).await;
        if change.event() == event && change.path == path {
            return change;
        }
    }
}

#[tokio::test]
async fn every_change_of_a_directory_is_told() {
    let guest = Guest::start().await;
    let mut stream = watch(&guest, "", false).await;
    let file = guest.path("file");
    fs::write(&file, "x").unwrap();
    for event in [FileEvent::Created, FileEvent::Modified, FileEvent::Closed] {
        let change = change(&mut stream).await;
        assert_eq!((change.event(), change.path), (event, file.clone()));
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&file, mode).unwrap();
    until(&mut stream, FileEvent::Attributes, &file).await;
    fs::rename(&file, guest.at("other")).unwrap();
    let from = change(&mut stream).await;
    let to = change(&mut stream).await;
    assert_eq!((from.event(), from.path), (FileEvent::MovedFrom, file));
    assert_eq!(
        (to.event(), to.path),
        (FileEvent::MovedTo, guest.path("other"))
    );
    assert!(from.cookie == to.cookie && from.cookie != 0);
    fs::remove_file(guest.at("other")).unwrap();
    until(&mut stream, FileEvent::Removed, &guest.path("other")).await;
    fs::create_dir(guest.at("dir")).unwrap();
    assert!(change(&mut stream).await.is_directory);
    fs::write(guest.at("dir/below"), "").unwrap();
    fs::write(guest.at("last"), "").unwrap();
    let next = change(&mut stream).await;
    assert_eq!(
        next.path,
        guest.path("last"),
        "what lies below is not watched"
    );
    fs::remove_dir_all(guest.dir.path()).unwrap();
    until(
        &mut stream,
        FileEvent::Removed,
        guest.path("").trim_end_matches('/'),
    )
    .await;
    while within(stream.message()).await.unwrap().is_some() {}
}

#[tokio::test]
async fn directories_that_come_are_watched_with_what_is_in_them() {
    let guest = Guest::start().await;
    fs::create_dir_all(guest.at("there/below")).unwrap();
    let mut stream = watch(&guest, "", true).await;
    fs::write(guest.at("there/below/a"), "").unwrap();
    until(
        &mut stream,
        FileEvent::Created,
        &guest.path("there/below/a"),
    )
    .await;
    // Faster than anybody can watch them.
    let mut missing = BTreeSet::new();
    for number in 0..20 {
        let dir = guest.path(&format!("new{number}/x/y"));
        fs::create_dir_all(&dir).unwrap();
        let file = format!("{dir}/file");
        fs::write(&file, "").unwrap();
        missing.insert(file);
    }
    while !missing.is_empty() {
        let change = change(&mut stream).await;
        if change.event() == FileEvent::Created {
            missing.remove(&change.path);
        }
    }
    // A directory that moves is watched under its new name.
    fs::rename(guest.at("new1"), guest.at("there/moved")).unwrap();
    until(
        &mut stream,
        FileEvent::Created,
        &guest.path("there/moved/x/y/file"),
    )
    .await;
    fs::write(guest.at("there/moved/x/y/file"), "more").unwrap();
    until(
        &mut stream,
        FileEvent::Modified,
        &guest.path("there/moved/x/y/file"),
    )
    .await;
    // One that is gone may come again.
    fs::remove_dir_all(guest.at("there")).unwrap();
    until(&mut stream, FileEvent::Removed, &guest.path("there")).await;
    fs::create_dir(guest.at("there")).unwrap();
    until(&mut stream, FileEvent::Created, &guest.path("there")).await;
    fs::write(guest.at("there/b"), "").unwrap();
    until(&mut stream, FileEvent::Created, &guest.path("there/b")).await;
}

#[tokio::test]
async fn a_file_is_watched_until_it_is_gone() {
    let guest = Guest::start().await;
    fs::write(guest.at("file"), "").unwrap();
    let mut stream = watch(&guest, "file", false).await;
    fs::write(guest.at("file"), "x").unwrap();
    until(&mut stream, FileEvent::Modified, &guest.path("file")).await;
    fs::remove_file(guest.at("file")).unwrap();
    until(&mut stream, FileEvent::Removed, &guest.path("file")).await;
    assert_eq!(within(stream.message()).await.unwrap(), None);
}

#[tokio::test]
async fn a_caller_who_takes_nothing_is_told_that_changes_were_lost() {
    let guest = Guest::start().await;
    let mut stream = watch(&guest, "", false).await;
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    // Each pair of names gives two events; what is not in the kernel's queue waits on its way to the caller.
    fs::write(guest.at("a"), "").unwrap();
    let mut overflowed = false;
    for _ in 0..limit * 2 {
        fs::rename(guest.at("a"), guest.at("b")).unwrap();
        fs::rename(guest.at("b"), guest.at("a")).unwrap();
    }
    fs::write(guest.at("last"), "").unwrap();
    while !overflowed {
        let message = within(stream.message()).await.unwrap().unwrap();
        overflowed = message.message == Some(Message::Overflow(true));
    }
    // It goes on.
    fs::remove_file(guest.at("last")).unwrap();
    until(&mut stream, FileEvent::Removed, &guest.path("last")).await;
}

#[tokio::test]
async fn watches_are_bounded_and_a_missing_path_is_told() {
    let guest = Guest::start().await;
    let mut watches = Vec::new();
    let request = |name: &str| FilesWatchRequest {
        path: guest.path(name),
        ..FilesWatchRequest::default()
    };
    let missing = within(guest.files.clone().watch(request("no"))).await;
    assert_eq!(reason(&missing.unwrap_err()), "FILE_NOT_FOUND");
    let refused = loop {
        match within(guest.files.clone().watch(request(""))).await {
            Ok(stream) => watches.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&refused), "TOO_MANY");
    assert!(watches.len() <= 32);
}
