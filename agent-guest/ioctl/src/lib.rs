//! Freezing, thawing and trimming file systems on Linux, as safe functions.
//!
//! The kernel has no other interface for these than `ioctl`, whose argument is whatever the request says it is: calling it
//! is `unsafe`. Programs that do it (fsfreeze, fstrim) are missing in small guests, and can't be started once the file
//! system that holds them is frozen. So this crate has the three calls, and nothing else: it is the only one in the
//! workspace where `unsafe` is allowed, and it is small enough to be checked by reading.
//!
//! The numbers are those of `include/uapi/linux/fs.h`.

use std::{ffi::c_int, os::fd::AsFd};

use rustix::{
    io,
    ioctl::{self, IntegerSetter, Opcode, Updater, opcode},
};

/// `#define FIFREEZE _IOWR('X', 119, int)`
const FIFREEZE: Opcode = opcode::read_write::<c_int>(b'X', 119);

/// `#define FITHAW _IOWR('X', 120, int)`
const FITHAW: Opcode = opcode::read_write::<c_int>(b'X', 120);

/// `#define FITRIM _IOWR('X', 121, struct fstrim_range)`
const FITRIM: Opcode = opcode::read_write::<FstrimRange>(b'X', 121);

/// `struct fstrim_range`: three `__u64`, so without padding.
#[repr(C)]
struct FstrimRange {
    start: u64,
    len: u64,
    minlen: u64,
}

/// Writes all that waits to the disk, and holds up all writing to the file system that `fd` lies on, until it is thawed.
/// Closing `fd`, or the end of the process, does not thaw it.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EOPNOTSUPP` if this type of file system can't be frozen, `EBUSY` if it is frozen
/// already, and what the disk says.
#[allow(unsafe_code, reason = "see the head of the crate")]
pub fn freeze(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: The number is that of linux/fs.h. Despite its name the request takes no argument: `ioctl_fsfreeze` in the
    // kernel's fs/ioctl.c does not look at it, so any integer will do.
    let request = unsafe { IntegerSetter::<FIFREEZE>::new_usize(0) };
    // SAFETY: The request neither reads nor writes this process's memory. What has another meaning for the number, a
    // device's driver, is never asked: the kernel takes it itself before any driver does (`do_vfs_ioctl`).
    unsafe { ioctl::ioctl(fd, request) }
}

/// Lets writing to the file system that `fd` lies on go on.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` if it is not frozen, and what the disk says.
#[allow(unsafe_code, reason = "see the head of the crate")]
pub fn thaw(fd: impl AsFd) -> io::Result<()> {
    // SAFETY: As in `freeze`: the number is right, and `ioctl_fsthaw` does not look at the argument.
    let request = unsafe { IntegerSetter::<FITHAW>::new_usize(0) };
    // SAFETY: As in `freeze`: no memory of this process is touched, and no driver is asked.
    unsafe { ioctl::ioctl(fd, request) }
}

/// Tells the disk below `fd`, a directory or a regular file, which blocks between the bytes `start` and `start + len` of
/// its file system are not in use; runs shorter than `min` bytes are left out. Returns how many bytes those are.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EOPNOTSUPP` or `ENOTTY` if file system or disk can't, and what the disk says.
#[allow(unsafe_code, reason = "see the head of the crate")]
pub fn trim(fd: impl AsFd, start: u64, len: u64, min: u64) -> io::Result<u64> {
    let mut range = FstrimRange {
        start,
        len,
        minlen: min,
    };
    // SAFETY: The number is that of linux/fs.h, and the request reads and writes one `struct fstrim_range`, whose layout
    // `FstrimRange` has.
    let request = unsafe { Updater::<FITRIM, FstrimRange>::new(&mut range) };
    // SAFETY: `range` is borrowed by the request until the call has returned, any three numbers are a valid range, and
    // whatever the kernel writes into it is one. The number holds the structure's size and the letter of file systems; no
    // driver in the kernel has another meaning for it.
    unsafe { ioctl::ioctl(fd, request) }?;
    Ok(range.len)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        // As a C compiler prints them on x86-64 and arm64.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        {
            let bits = |number: Opcode| format!("{number:#010x}");
            assert_eq!(bits(FIFREEZE), "0xc0045877");
            assert_eq!(bits(FITHAW), "0xc0045878");
            assert_eq!(bits(FITRIM), "0xc0185879");
        }
        assert_eq!(size_of::<FstrimRange>(), 24);
    }

    /// What can't be frozen by anybody, so that the test harms no machine: the kernel's own `/proc`.
    #[test]
    fn what_can_not_be_frozen_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        for result in [freeze(&proc), trim(&proc, 0, u64::MAX, 0).map(drop)] {
            let error = result.unwrap_err();
            // The first without the privilege, the others with it.
            let expected = [io::Errno::PERM, io::Errno::OPNOTSUPP, io::Errno::NOTTY];
            assert!(expected.contains(&error), "{error}");
        }
        let error = thaw(&proc).unwrap_err();
        let expected = [io::Errno::PERM, io::Errno::OPNOTSUPP, io::Errno::INVAL];
        assert!(expected.contains(&error), "{error}");
    }
}
