//! A domain's disks.

use super::Domain;
use super::configuration::TEXTS;
use crate::code::Code;
use crate::object::{calls, text};
use crate::params::Params;
use crate::raw::api::{
    DomainBlockCommitFlags, DomainBlockCopyFlags, DomainBlockJobAbortFlags,
    DomainBlockJobInfoFlags, DomainBlockJobSetSpeedFlags, DomainBlockJobType, DomainBlockPullFlags,
    DomainBlockRebaseFlags, DomainBlockResizeFlags, DomainDiskErrorCode, DomainModificationImpact,
};
use crate::raw::remote;

/// A disk's sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// What the guest sees.
    pub capacity: u64,
    /// What is used of the image.
    pub allocation: u64,
    /// What the image takes on the host.
    pub physical: u64,
}

/// A job on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockJob {
    /// What it does.
    pub kind: Code<DomainBlockJobType>,
    /// Its limit; in MiB/s unless bytes were asked for.
    pub bandwidth: u64,
    /// How far it is.
    pub current: u64,
    /// Where it ends.
    pub end: u64,
}

/// A disk that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskError {
    /// The disk's target.
    pub disk: String,
    /// What happened to it.
    pub error: Code<DomainDiskErrorCode>,
}

/// As many as the protocol allows in one reply.
const DISK_ERRORS: u32 = remote::REMOTE_DOMAIN_DISK_ERRORS_MAX;

calls!(Domain [dom] {
    /// A disk's sizes, by its target or source.
    block_info(disk: &str) -> BlockInfo
        = domain_get_block_info(DomainGetBlockInfoArgs { path: disk.to_owned(), flags: 0 })
        |found| BlockInfo {
            capacity: found.capacity,
            allocation: found.allocation,
            physical: found.physical,
        };
    /// The disks that have failed.
    disk_errors() -> Vec<DiskError>
        = domain_get_disk_errors(DomainGetDiskErrorsArgs { maxerrors: DISK_ERRORS, flags: 0 })
        |found| found.errors.into_iter()
            .map(|raw| DiskError { disk: raw.disk, error: Code::new(raw.error) })
            .collect();
    /// Reads a disk as the guest sees it: at most 4 MiB.
    block_peek(disk: &str, offset: u64, size: u32) -> Vec<u8>
        = domain_block_peek(DomainBlockPeekArgs { path: disk.to_owned(), offset, size, flags: 0 })
        |found| found.buffer;
    /// Changes a disk's size to so many bytes.
    block_resize(disk: &str, size: u64)
        = domain_block_resize(DomainBlockResizeArgs {
            disk: disk.to_owned(), size, flags: DomainBlockResizeFlags::BYTES.bits(),
        });
    /// A disk's limits.
    block_io_tune(disk: &str, flags: DomainModificationImpact) -> Params
        = domain_get_block_io_tune(DomainGetBlockIoTuneArgs {
            disk: Some(disk.to_owned()), nparams: 32, flags: flags.bits() | TEXTS,
        }) |found| found.params.into();
    /// Sets a disk's limits.
    set_block_io_tune(disk: &str, params: &Params, flags: DomainModificationImpact)
        = domain_set_block_io_tune(DomainSetBlockIoTuneArgs {
            disk: disk.to_owned(), params: params.to_raw(), flags: flags.bits(),
        });
    /// Sets the limits that the disks of a group share. Since libvirt 11.2.
    set_throttle_group(group: &str, params: &Params, flags: DomainModificationImpact)
        = domain_set_throttle_group(DomainSetThrottleGroupArgs {
            group: group.to_owned(), params: params.to_raw(), flags: flags.bits(),
        });
    /// Removes a group of disks that share limits. Since libvirt 11.2.
    delete_throttle_group(group: &str, flags: DomainModificationImpact)
        = domain_del_throttle_group(DomainDelThrottleGroupArgs { group: Some(group.to_owned()), flags: flags.bits() });
    /// Tells with an event when a disk's image has grown beyond so many bytes.
    set_block_threshold(device: &str, threshold: u64)
        = domain_set_block_threshold(DomainSetBlockThresholdArgs { dev: device.to_owned(), threshold, flags: 0 });
    /// The job on a disk, if there is one.
    block_job(disk: &str, flags: DomainBlockJobInfoFlags) -> Option<BlockJob>
        = domain_get_block_job_info(DomainGetBlockJobInfoArgs { path: disk.to_owned(), flags: flags.bits() })
        |job| (job.found != 0).then(|| BlockJob {
            kind: Code::new(job.r#type),
            bandwidth: job.bandwidth,
            current: job.cur,
            end: job.end,
        });
    /// Ends the job on a disk.
    abort_block_job(disk: &str, flags: DomainBlockJobAbortFlags)
        = domain_block_job_abort(DomainBlockJobAbortArgs { path: disk.to_owned(), flags: flags.bits() });
    /// Limits the job on a disk.
    set_block_job_speed(disk: &str, bandwidth: u64, flags: DomainBlockJobSetSpeedFlags)
        = domain_block_job_set_speed(DomainBlockJobSetSpeedArgs {
            path: disk.to_owned(), bandwidth, flags: flags.bits(),
        });
    /// Copies what a disk's image has from its backing files into it.
    block_pull(disk: &str, bandwidth: u64, flags: DomainBlockPullFlags)
        = domain_block_pull(DomainBlockPullArgs { path: disk.to_owned(), bandwidth, flags: flags.bits() });
    /// As [`block_pull`](Self::block_pull), down to a backing file that stays.
    block_rebase(disk: &str, base: Option<&str>, bandwidth: u64, flags: DomainBlockRebaseFlags)
        = domain_block_rebase(DomainBlockRebaseArgs {
            path: disk.to_owned(), base: text(base), bandwidth, flags: flags.bits(),
        });
    /// Writes what an image has into its backing file.
    block_commit(
        disk: &str,
        base: Option<&str>,
        top: Option<&str>,
        bandwidth: u64,
        flags: DomainBlockCommitFlags,
    ) = domain_block_commit(DomainBlockCommitArgs {
        disk: disk.to_owned(), base: text(base), top: text(top), bandwidth, flags: flags.bits(),
    });
    /// Copies a disk to where the XML says.
    block_copy(disk: &str, to: &str, params: &Params, flags: DomainBlockCopyFlags)
        = domain_block_copy(DomainBlockCopyArgs {
            path: disk.to_owned(), destxml: to.to_owned(), params: params.to_raw(), flags: flags.bits(),
        });
    /// Starts a backup, with a checkpoint if wanted.
    begin_backup(backup: &str, checkpoint: Option<&str>, flags: crate::raw::api::DomainBackupBeginFlags)
        = domain_backup_begin(DomainBackupBeginArgs {
            backup_xml: backup.to_owned(), checkpoint_xml: text(checkpoint), flags: flags.bits(),
        });
    /// The backup that runs.
    backup_xml() -> String
        = domain_backup_get_xml_desc(DomainBackupGetXmlDescArgs { flags: 0 }) |found| found.xml;
});
