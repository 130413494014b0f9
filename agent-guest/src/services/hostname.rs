//! Another name for the guest: in the kernel for now, in `/etc/hostname` for the next boot.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use tonic::Status;

use crate::{
    error::{self, Reason},
    limits::MAX_HOSTNAME,
};

/// The mode of the file if there was none.
const MODE: u32 = 0o644;

/// Whether it can be a host's name (hostname(7)); else why not.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_HOSTNAME {
        return Err(format!(
            "must have 1 to {MAX_HOSTNAME} characters, and has {}",
            name.len()
        ));
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match name.split('.').all(is_label) {
        true => Ok(()),
        false => Err(
            "must consist of letters, digits and hyphens, with dots between such labels, and no label may \
             begin or end with a hyphen"
                .to_owned(),
        ),
    }
}

/// Gives the guest this name. The file comes first: a name that the next boot forgets is worse than none.
pub(crate) fn set(root: &Path, name: &str) -> io::Result<()> {
    write(root, name)?;
    rustix::system::sethostname(name.as_bytes())?;
    Ok(())
}

/// Puts the name into the file: whole, or the old one stays.
fn write(root: &Path, name: &str) -> io::Result<()> {
    let path = root.join("etc/hostname");
    let mode = fs::metadata(&path).map_or(MODE, |old| old.permissions().mode() & 0o7777);
    let new = root.join("etc/.hostname.vbridge");
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(format!("{name}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if written.is_err() {
        // What is left of it helps nobody; the error that counts is the first.
        let _ = fs::remove_file(&new);
    }
    written
}

/// The error as the caller sees it.
pub(crate) fn status(error: &io::Error) -> Status {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Reason::PermissionDenied
        }
        _ => Reason::KernelRefused,
    };
    error::failure(reason, format!("the host name can't be set: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_labels_between_dots() {
        for name in ["web", "web-1", "a.b.example", "X9", &"a".repeat(64)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "-web",
            "web-",
            "a..b",
            ".a",
            "a b",
            "ä",
            "a/b",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let path = etc.join("hostname");
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write(dir.path(), "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&etc).unwrap().count(), 1);
    }

    #[test]
    fn without_a_place_for_the_file_nothing_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let error = set(dir.path(), "new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
