//! Directories, names, attributes, removal.

use std::{fs, os::unix::fs::MetadataExt as _};

use vbridge_api::guest::v1::{
    FilesMkdirRequest, FilesRemoveRequest, FilesRenameRequest, FilesSetAttributesRequest,
};

use super::*;

#[tokio::test]
async fn a_directory_is_made_with_its_parents_if_that_is_wanted() {
    let guest = Guest::start().await;
    let make = async |name: &str, parents, permissions| {
        let request = FilesMkdirRequest {
            path: guest.path(name),
            parents,
            permissions,
        };
        let made = within(guest.files.clone().mkdir(request)).await;
        made.map(|made| made.into_inner().file.unwrap().mode)
    };
    assert_eq!(make("a", false, None).await.unwrap(), 0o755);
    assert_eq!(make("b", false, Some(0o1777)).await.unwrap(), 0o1777);
    assert_eq!(
        reason(&make("a", false, None).await.unwrap_err()),
        "FILE_EXISTS"
    );
    let missing = make("c/d", false, None).await.unwrap_err();
    assert_eq!(reason(&missing), "FILE_NOT_FOUND");
    assert_eq!(make("c/d/e", true, Some(0o700)).await.unwrap(), 0o700);
    assert_eq!(guest.stat("c/d").await.unwrap().mode, 0o755);
    assert_eq!(make("c/d/e", true, Some(0o755)).await.unwrap(), 0o700);
    fs::write(guest.at("file"), "").unwrap();
    let file = make("file", true, None).await.unwrap_err();
    assert_eq!(reason(&file), "WRONG_FILE_TYPE");
    let bits = make("x", false, Some(0o10000)).await.unwrap_err();
    assert_eq!(reason(&bits), "INVALID_FIELD");
}

async fn remove(guest: &Guest, name: &str, recursive: bool, ignore: bool) -> Result<u64, Status> {
    let request = FilesRemoveRequest {
        path: guest.path(name),
        recursive,
        ignore_missing: ignore,
    };
    let removed = within(guest.files.clone().remove(request)).await;
    removed.map(|removed| removed.into_inner().removed)
}

#[tokio::test]
async fn a_tree_is_removed_without_following_its_links() {
    let guest = Guest::start().await;
    fs::create_dir_all(guest.at("tree/a/b")).unwrap();
    fs::create_dir(guest.at("other")).unwrap();
    fs::write(guest.at("other/kept"), "").unwrap();
    for number in 0..1000 {
        fs::write(guest.at(&format!("tree/a/{number}")), "").unwrap();
    }
    std::os::unix::fs::symlink("../../other", guest.at("tree/a/link")).unwrap();
    std::os::unix::fs::symlink("tree", guest.at("link")).unwrap();
    let full = remove(&guest, "tree", false, false).await.unwrap_err();
    assert_eq!(reason(&full), "KERNEL_REFUSED");
    assert!(full.message().contains("recursive"), "{full}");
    // The link goes, and not what it leads to.
    assert_eq!(remove(&guest, "link", true, false).await.unwrap(), 1);
    assert_eq!(remove(&guest, "tree", true, false).await.unwrap(), 1004);
    assert_eq!(guest.names(), ["other"]);
    assert!(guest.at("other/kept").exists());
    assert_eq!(remove(&guest, "other/kept", false, false).await.unwrap(), 1);
    assert_eq!(remove(&guest, "other", false, false).await.unwrap(), 1);
    let missing = remove(&guest, "other", false, false).await.unwrap_err();
    assert_eq!(reason(&missing), "FILE_NOT_FOUND");
    assert_eq!(remove(&guest, "other/x", true, true).await.unwrap(), 0);
    let request = FilesRemoveRequest {
        path: "/".to_owned(),
        recursive: true,
        ignore_missing: false,
    };
    let root = within(guest.files.clone().remove(request)).await;
    assert_eq!(reason(&root.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn a_tree_is_removed_as_deep_as_is_promised() {
    let guest = Guest::start().await;
    fs::create_dir_all(guest.at(&format!("deep{}", "/d".repeat(127)))).unwrap();
    assert_eq!(remove(&guest, "deep", true, false).await.unwrap(), 128);
    fs::create_dir_all(guest.at(&format!("deep{}", "/d".repeat(128)))).unwrap();
    let deep = remove(&guest, "deep", true, false).await.unwrap_err();
    assert_eq!(reason(&deep), "TOO_MANY");
}

#[tokio::test]
async fn a_name_is_changed_and_what_has_it_is_replaced_only_if_it_may_be() {
    let guest = Guest::start().await;
    fs::write(guest.at("a"), "a").unwrap();
    fs::write(guest.at("b"), "b").unwrap();
    let rename = async |from: &str, to: &str, no_overwrite| {
        let request = FilesRenameRequest {
            from: guest.path(from),
            to: guest.path(to),
            no_overwrite,
        };
        within(guest.files.clone().rename(request)).await
    };
    let there = rename("a", "b", true).await.unwrap_err();
    assert_eq!(reason(&there), "FILE_EXISTS");
    rename("a", "b", false).await.unwrap();
    rename("b", "c", true).await.unwrap();
    assert_eq!(fs::read(guest.at("c")).unwrap(), b"a");
    let missing = rename("b", "d", false).await.unwrap_err();
    assert_eq!(reason(&missing), "FILE_NOT_FOUND");
    fs::create_dir(guest.at("dir")).unwrap();
    let directory = rename("c", "dir", false).await.unwrap_err();
    assert_eq!(reason(&directory), "WRONG_FILE_TYPE");
}

#[tokio::test]
async fn attributes_change_and_what_is_absent_stays() {
    let guest = Guest::start().await;
    fs::write(guest.at("file"), "12345").unwrap();
    std::os::unix::fs::symlink("file", guest.at("link")).unwrap();
    let own = fs::metadata(guest.at("file")).unwrap();
    let set = async |request: FilesSetAttributesRequest| {
        let set = within(guest.files.clone().set_attributes(request)).await;
        set.map(|set| set.into_inner().file.unwrap())
    };
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 7 });
    let request = FilesSetAttributesRequest {
        path: guest.path("link"),
        permissions: Some(0o4711),
        owner: own.uid().to_string(),
        modified: time(1_000),
        size: Some(1 << 20),
        ..FilesSetAttributesRequest::default()
    };
    let file = set(request.clone()).await.unwrap();
    assert_eq!((file.mode, file.size), (0o4711, 1 << 20));
    assert_eq!(file.modified, time(1_000));
    let request = FilesSetAttributesRequest {
        path: guest.path("file"),
        accessed: time(2_000),
        ..FilesSetAttributesRequest::default()
    };
    let file = set(request.clone()).await.unwrap();
    assert_eq!((file.mode, file.size), (0o4711, 1 << 20));
    assert_eq!((file.modified, file.accessed), (time(1_000), time(2_000)));
    for wrong in [
        FilesSetAttributesRequest {
            owner: "nobody has this name".to_owned(),
            ..request.clone()
        },
        FilesSetAttributesRequest {
            permissions: Some(0o10000),
            ..request.clone()
        },
        FilesSetAttributesRequest {
            size: Some(u64::MAX),
            ..request.clone()
        },
        FilesSetAttributesRequest {
            modified: time(-1),
            ..request
        },
    ] {
        assert_eq!(reason(&set(wrong).await.unwrap_err()), "INVALID_FIELD");
    }
    let directory = FilesSetAttributesRequest {
        path: guest.path(""),
        size: Some(0),
        ..FilesSetAttributesRequest::default()
    };
    assert_eq!(
        reason(&set(directory).await.unwrap_err()),
        "WRONG_FILE_TYPE"
    );
}
