//! `vbridge.guest.v1.Storage`: disks and file systems, and a standstill for snapshots.
//!
//! | module | what it is |
//! |---|---|
//! | [`freeze`] | the standstill |
//! | [`trim`] | unused blocks are given back |
//! | [`plan`] | which file systems a call of these is about |

mod freeze;
mod plan;
#[cfg(test)]
mod tests;
mod trim;

pub(crate) use freeze::{Freezer, Records};

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    Disk, Filesystem, StorageFreezeRequest, StorageFreezeResponse, StorageFreezeStatusRequest,
    StorageFreezeStatusResponse, StorageListDisksRequest, StorageListDisksResponse,
    StorageListFilesystemsRequest, StorageListFilesystemsResponse, StorageThawRequest,
    StorageThawResponse, StorageTrimRequest, StorageTrimResponse, storage_server,
};

use self::trim::Trimmer;
use super::{
    aside,
    filesystems::{Filesystems, Measured},
};
use crate::{
    error,
    limits::{DEFAULT_FREEZE, MAX_FILESYSTEMS, MAX_FREEZE, MIN_FREEZE},
    source::{
        block::{self, Block},
        clock,
        filesystem::Kernel,
        links::Links,
    },
};

/// The service.
pub(crate) struct Storage {
    filesystems: Arc<Filesystems>,
    freezer: Freezer,
    trimmer: Trimmer,
}

impl Storage {
    pub(crate) fn new(
        filesystems: Arc<Filesystems>,
        kernel: Arc<dyn Kernel>,
        freezer: Freezer,
    ) -> Self {
        Self {
            filesystems,
            freezer,
            trimmer: Trimmer::new(kernel),
        }
    }
}

#[tonic::async_trait]
impl storage_server::Storage for Storage {
    async fn list_filesystems(
        &self,
        _: Request<StorageListFilesystemsRequest>,
    ) -> Result<Response<StorageListFilesystemsResponse>, Status> {
        let mut measured = self.filesystems.read().await;
        measured.sort_by_key(|measured| measured.mount.order);
        let filesystems = aside(move || {
            let disks = Block::new().disks();
            let links = Links::below(Path::new("/"));
            let filesystems = measured.iter();
            filesystems
                .map(|measured| describe(measured, &disks, &links))
                .collect()
        });
        Ok(Response::new(StorageListFilesystemsResponse {
            filesystems: filesystems.await?,
        }))
    }

    async fn list_disks(
        &self,
        _: Request<StorageListDisksRequest>,
    ) -> Result<Response<StorageListDisksResponse>, Status> {
        let disks = aside(|| Block::new().disks()).await?;
        Ok(Response::new(StorageListDisksResponse { disks }))
    }

    async fn freeze(
        &self,
        request: Request<StorageFreezeRequest>,
    ) -> Result<Response<StorageFreezeResponse>, Status> {
        let request = request.into_inner();
        error::at_most("mount_points", request.mount_points.len(), MAX_FILESYSTEMS)?;
        let limit = limit(request.limit.as_ref())?;
        let stopped = self.freezer.freeze(request.mount_points, limit).await?;
        Ok(Response::new(StorageFreezeResponse {
            frozen: stopped.frozen,
            skipped: stopped.skipped,
        }))
    }

    async fn thaw(
        &self,
        _: Request<StorageThawRequest>,
    ) -> Result<Response<StorageThawResponse>, Status> {
        let thawed = self.freezer.thaw().await?;
        Ok(Response::new(StorageThawResponse { thawed }))
    }

    async fn freeze_status(
        &self,
        _: Request<StorageFreezeStatusRequest>,
    ) -> Result<Response<StorageFreezeStatusResponse>, Status> {
        let (frozen, expired) = self.freezer.status();
        let remaining = frozen.as_ref().map(|frozen| {
            let remaining = frozen.until.saturating_duration_since(Instant::now());
            // It is far below what the message can hold.
            prost_types::Duration::try_from(remaining).unwrap_or_default()
        });
        Ok(Response::new(StorageFreezeStatusResponse {
            frozen: frozen.map(|frozen| frozen.mount_points).unwrap_or_default(),
            remaining,
            expired,
        }))
    }

    async fn trim(
        &self,
        request: Request<StorageTrimRequest>,
    ) -> Result<Response<StorageTrimResponse>, Status> {
        let request = request.into_inner();
        error::at_most("mount_points", request.mount_points.len(), MAX_FILESYSTEMS)?;
        self.freezer.check()?;
        let trimmed = self
            .trimmer
            .trim(request.mount_points, request.minimum_bytes);
        let results = trimmed.await?;
        Ok(Response::new(StorageTrimResponse { results }))
    }
}

fn limit(message: Option<&prost_types::Duration>) -> Result<Duration, Status> {
    let Some(message) = message else {
        return Ok(DEFAULT_FREEZE);
    };
    clock::duration(message)
        .filter(|limit| (MIN_FREEZE..=MAX_FREEZE).contains(limit))
        .ok_or_else(|| {
            error::invalid_field("limit", "must be 100 ms to 10 min; leave it out for 60 s")
        })
}

fn describe(measured: &Measured, disks: &[Disk], links: &Links) -> Filesystem {
    let (mount, status) = (&measured.mount, &measured.status);
    // Some file systems (btrfs) have a device number that is no disk's: what is mounted is then named by its path.
    let disk =
        block::by_device(disks, &mount.device).or_else(|| block::by_path(disks, &mount.source));
    let name = disk.map(|disk| disk.name.as_str()).unwrap_or_default();
    let is_on_device = !mount.device.starts_with("0:");
    let device = match disk {
        Some(disk) => disk.device.clone(),
        None if is_on_device => mount.device.clone(),
        None => String::new(),
    };
    Filesystem {
        mount_point: mount.point.clone(),
        source: mount.source.clone(),
        r#type: mount.kind.clone(),
        total_bytes: status.total_bytes,
        used_bytes: status.used_bytes,
        available_bytes: status.available_bytes,
        read_only: status.read_only,
        options: mount.options.clone(),
        device,
        disks: disk
            .map(|disk| block::below(disks, disk))
            .unwrap_or_default(),
        label: links.label(name),
        uuid: links.uuid(name),
    }
}
