//! How a failure with a file looks to the caller: which reason, and the sentence.

use rustix::{fs::FileType, io::Errno};
use tonic::Status;

use crate::error::{self, Reason};

/// Characters of a path in a message: a message travels in a header, and a path may have 4,096 bytes.
const SHOWN: usize = 400;

/// What the kernel has refused to do with `path`. The one place that decides the reason.
pub(crate) fn failed(doing: &str, path: impl AsRef<[u8]>, errno: Errno) -> Status {
    let (reason, hint) = reason(errno);
    let path = shown(path);
    error::failure(
        reason,
        format!("can't {doing} {path} in the guest: {errno}{hint}"),
    )
}

fn reason(errno: Errno) -> (Reason, &'static str) {
    match errno {
        Errno::NOENT => (Reason::FileNotFound, ""),
        Errno::EXIST => (Reason::FileExists, ""),
        Errno::NOTDIR => (
            Reason::WrongFileType,
            " (a part of the path is no directory)",
        ),
        Errno::ISDIR | Errno::NXIO | Errno::NODEV => (Reason::WrongFileType, ""),
        Errno::LOOP => (
            Reason::WrongFileType,
            " (it leads through a magic link of /proc, or there are too many links)",
        ),
        Errno::ACCESS | Errno::PERM => (Reason::PermissionDenied, ""),
        Errno::ROFS => (Reason::PermissionDenied, " (it is mounted read-only)"),
        Errno::NOSPC | Errno::DQUOT => (Reason::NoSpace, ""),
        Errno::NAMETOOLONG => (Reason::InvalidField, " (255 bytes is the most for a name)"),
        Errno::NOTEMPTY => (
            Reason::KernelRefused,
            " (ask for `recursive` to remove what is in it)",
        ),
        Errno::XDEV => (
            Reason::KernelRefused,
            " (it is on another file system: copy it)",
        ),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => (Reason::TooMany, ""),
        Errno::OPNOTSUPP | Errno::NOSYS => (Reason::Unsupported, ""),
        Errno::IO => (Reason::Internal, " (the disk may be damaged)"),
        _ => (Reason::KernelRefused, ""),
    }
}

/// A path that could not be resolved below its root.
pub(crate) fn unresolved(path: impl AsRef<[u8]>, errno: Errno) -> Status {
    match errno {
        Errno::XDEV => told(
            Reason::PermissionDenied,
            path,
            "leads out of the directory that it must stay in",
        ),
        Errno::AGAIN => told(
            Reason::Aborted,
            path,
            "could not be opened, for directories on its way are moved all the time: try again",
        ),
        Errno::NOSYS => error::failure(
            Reason::Unsupported,
            "the guest's kernel has no openat2, which paths are resolved with: it needs Linux 5.6",
        ),
        errno => failed("open", path, errno),
    }
}

/// Something of the type `found`, where only `wanted` will do.
pub(crate) fn wrong_type(path: impl AsRef<[u8]>, found: FileType, wanted: &str) -> Status {
    let hint = match found {
        FileType::Symlink => ": ask for what it leads to",
        _ => "",
    };
    let (path, found) = (shown(path), type_name(found));
    error::failure(
        Reason::WrongFileType,
        format!("{path} is {found}, and this works with {wanted} only{hint}"),
    )
}

/// A failure that needs no errno.
pub(crate) fn told(reason: Reason, path: impl AsRef<[u8]>, what: &str) -> Status {
    error::failure(reason, format!("{} {what}", shown(path)))
}

fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "of an unknown type",
    }
}

/// A path as a message shows it: quoted, escaped and not too long.
pub(crate) fn shown(path: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(path.as_ref());
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

/// What the kernel said, of an error of the standard library.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn an_errno_has_its_reason_and_the_message_names_the_path() {
        for (errno, code, reason) in [
            (Errno::NOENT, Code::NotFound, "FILE_NOT_FOUND"),
            (Errno::EXIST, Code::AlreadyExists, "FILE_EXISTS"),
            (Errno::ISDIR, Code::FailedPrecondition, "WRONG_FILE_TYPE"),
            (Errno::NOTDIR, Code::FailedPrecondition, "WRONG_FILE_TYPE"),
            (Errno::ACCESS, Code::PermissionDenied, "PERMISSION_DENIED"),
            (Errno::PERM, Code::PermissionDenied, "PERMISSION_DENIED"),
            (Errno::ROFS, Code::PermissionDenied, "PERMISSION_DENIED"),
            (Errno::NOSPC, Code::ResourceExhausted, "NO_SPACE"),
            (Errno::DQUOT, Code::ResourceExhausted, "NO_SPACE"),
            (Errno::BUSY, Code::FailedPrecondition, "KERNEL_REFUSED"),
        ] {
            let status = failed("read", "/a\nb", errno);
            assert_eq!(status.code(), code, "{errno}");
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, reason);
            let start = "can't read \"/a\\nb\" in the guest: ";
            assert!(status.message().starts_with(start), "{}", status.message());
        }
    }

    #[test]
    fn a_long_path_is_cut_in_messages() {
        let text = shown("ä".repeat(4000));
        assert_eq!(text.chars().count(), SHOWN + 3);
        assert_eq!(shown(b"\xff"), "\"\u{fffd}\"");
    }
}
