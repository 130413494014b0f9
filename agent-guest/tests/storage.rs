//! Disks and file systems of this machine, through the whole agent.
//!
//! Nothing here may freeze anything: it would stop the machine that runs the tests. What is frozen, in which order, and
//! what happens when that fails, is tested beside the service, on made-up file systems.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use common::{Running, within};
use tonic::Code;
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    StorageFreezeRequest, StorageFreezeStatusRequest, StorageFreezeStatusResponse,
    StorageListDisksRequest, StorageListFilesystemsRequest, StorageThawRequest, StorageTrimRequest,
    storage_client::StorageClient,
};

#[tokio::test]
async fn file_systems_and_disks_know_each_other() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut storage = StorageClient::new(host.channel().await);
    let filesystems = within(storage.list_filesystems(StorageListFilesystemsRequest {}));
    let filesystems = filesystems.await.unwrap().into_inner().filesystems;
    let disks = within(storage.list_disks(StorageListDisksRequest {}));
    let disks = disks.await.unwrap().into_inner().disks;
    let root = filesystems
        .iter()
        .find(|filesystem| filesystem.mount_point == "/")
        .unwrap();
    assert!(root.total_bytes >= root.used_bytes && root.total_bytes > 0);
    assert!(root.options.starts_with("rw") || root.options.starts_with("ro"));
    for filesystem in &filesystems {
        for name in &filesystem.disks {
            let disk = disks.iter().find(|disk| disk.name == *name).unwrap();
            assert!(!disk.partition, "{filesystem:?}");
        }
    }
    for disk in &disks {
        assert!(disk.device.contains(':'), "{disk:?}");
        let has_parent = disks.iter().any(|other| other.name == disk.parent);
        assert_eq!(has_parent, disk.partition, "{disk:?}");
    }
}

#[tokio::test]
async fn without_a_standstill_there_is_nothing_to_thaw() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut storage = StorageClient::new(host.channel().await);
    let status = within(storage.freeze_status(StorageFreezeStatusRequest {}));
    assert_eq!(
        status.await.unwrap().into_inner(),
        StorageFreezeStatusResponse::default()
    );
    let thawed = within(storage.thaw(StorageThawRequest {})).await.unwrap();
    assert!(thawed.into_inner().thawed.is_empty());
}

#[tokio::test]
async fn a_mount_point_that_is_none_is_not_found() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut storage = StorageClient::new(host.channel().await);
    // Not a word of this may be missing: without mount points all would be frozen.
    let mount_points = vec!["/no/such/mount/point".to_owned()];
    let request = StorageFreezeRequest {
        mount_points: mount_points.clone(),
        limit: None,
    };
    let status = within(storage.freeze(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().contains("/no/such/mount/point"),
        "{status}"
    );
    let request = StorageTrimRequest {
        mount_points,
        minimum_bytes: 0,
    };
    let status = within(storage.trim(request)).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "NOT_FOUND");
}
