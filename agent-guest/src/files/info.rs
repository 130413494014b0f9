//! What is known of a file: from statx to [`FileInfo`].

use std::{ffi::OsStr, os::fd::AsFd};

use prost_types::Timestamp;
use rustix::{
    fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, StatxTimestamp},
    io::Errno,
};
use vbridge_api::guest::v1::{FileInfo, FileType as Type};

use crate::source::{Reader, accounts::Accounts};

/// Tells of files, with the names of owners as they were when it was made.
#[derive(Debug)]
pub(crate) struct Teller {
    accounts: Accounts,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self {
            accounts: Accounts::read(&mut Reader::new()),
        }
    }

    /// What is open, under the name `name`.
    pub(crate) fn open(&self, fd: impl AsFd, name: &str) -> Result<FileInfo, Errno> {
        let attributes = attributes(&fd, OsStr::new(""))?;
        Ok(self.tell(fd, OsStr::new(""), name.as_bytes(), &attributes))
    }

    /// What the directory `dir` has under `name`; a link is not followed.
    pub(crate) fn entry(&self, dir: impl AsFd, name: &OsStr) -> Result<FileInfo, Errno> {
        let attributes = attributes(&dir, name)?;
        Ok(self.tell(dir, name, name.as_encoded_bytes(), &attributes))
    }

    fn tell(&self, dir: impl AsFd, at: &OsStr, name: &[u8], statx: &Statx) -> FileInfo {
        let file_type = file_type(statx);
        let link_target = match file_type {
            FileType::Symlink => rustix::fs::readlinkat(dir, at, Vec::new())
                .map(|target| target.to_string_lossy().into_owned())
                .unwrap_or_default(),
            _ => String::new(),
        };
        let text = String::from_utf8_lossy(name);
        let is_text = matches!(text, std::borrow::Cow::Borrowed(_));
        let knows_birth = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
        FileInfo {
            name: text.into_owned(),
            name_bytes: if is_text { Vec::new() } else { name.to_vec() },
            r#type: contract_type(file_type).into(),
            size: statx.stx_size,
            // statx counts in sectors, whatever the disk has.
            allocated_bytes: statx.stx_blocks.saturating_mul(512),
            mode: u32::from(statx.stx_mode) & 0o7777,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            owner: self.accounts.user(statx.stx_uid).to_owned(),
            group: self.accounts.group(statx.stx_gid).to_owned(),
            modified: timestamp(&statx.stx_mtime),
            accessed: timestamp(&statx.stx_atime),
            changed: timestamp(&statx.stx_ctime),
            created: knows_birth.then(|| timestamp(&statx.stx_btime)).flatten(),
            link_target,
            links: statx.stx_nlink.into(),
            inode: statx.stx_ino,
            device: rustix::fs::makedev(statx.stx_dev_major, statx.stx_dev_minor),
        }
    }
}

/// The attributes of an entry of a directory, or of what is open itself if the name is empty.
pub(crate) fn attributes(dir: impl AsFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    rustix::fs::statx(dir, name, flags, mask)
}

/// Its type.
pub(crate) fn file_type(statx: &Statx) -> FileType {
    FileType::from_raw_mode(statx.stx_mode.into())
}

/// The device that it is on.
pub(crate) fn device(statx: &Statx) -> (u32, u32) {
    (statx.stx_dev_major, statx.stx_dev_minor)
}

/// Whether something is mounted there, as seen from a file of the device `device`.
pub(crate) fn is_mounted(statx: &Statx, above: (u32, u32)) -> bool {
    device(statx) != above || statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

fn contract_type(file_type: FileType) -> Type {
    match file_type {
        FileType::RegularFile => Type::Regular,
        FileType::Directory => Type::Directory,
        FileType::Symlink => Type::Symlink,
        FileType::BlockDevice => Type::BlockDevice,
        FileType::CharacterDevice => Type::CharacterDevice,
        FileType::Fifo => Type::Fifo,
        FileType::Socket => Type::Socket,
        FileType::Unknown => Type::Unspecified,
    }
}

fn timestamp(time: &StatxTimestamp) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: time.tv_sec,
        nanos: i32::try_from(time.tv_nsec).ok()?,
    })
}
