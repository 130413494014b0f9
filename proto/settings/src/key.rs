//! The file with a pre-shared key.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use vbridge_link::{Key, KeyError};

use crate::access::{reason, regular_file};

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It can't be read.
    #[error("{0}")]
    Read(String),
    /// Its permissions let others read or change it.
    #[error("others than its owner have access to it (mode {mode:03o}); run `chmod 600 {path}`")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is somebody else's, who can read and change it.
    #[error("it belongs to user {0}, neither to root nor to this program's own user")]
    Foreign(u32),
    /// It holds no key.
    #[error(transparent)]
    Content(KeyError),
}

/// Checks that nobody else has access to a file with a secret.
///
/// # Errors
/// It is not there, or others may read or change it.
pub fn check_private(path: &Path) -> Result<(), KeyFileError> {
    let metadata = regular_file(path).map_err(KeyFileError::Read)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    check_owner(metadata.uid(), rustix::process::geteuid().as_raw())
}

/// Reads a key that nobody else has access to.
///
/// # Errors
/// It can't be read, others may read or change it, or it is too short or too long.
pub fn read_key(path: &Path) -> Result<Key, KeyFileError> {
    check_private(path)?;
    Key::read(path).map_err(|error| match error {
        KeyError::Io(error) => KeyFileError::Read(reason(&error)),
        error @ KeyError::Length(_) => KeyFileError::Content(error),
    })
}

fn check_owner(owner: u32, user: u32) -> Result<(), KeyFileError> {
    if owner != 0 && owner != user {
        return Err(KeyFileError::Foreign(owner));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_private_key_is_read() {
        for mode in [0o600, 0o400] {
            let (_dir, path) = file(&[7; 32], mode);
            assert!(read_key(&path).is_ok());
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o644, 0o604, 0o620] {
            let (_dir, path) = file(&[7; 32], mode);
            let text = read_key(&path).unwrap_err().to_string();
            let remedy = format!("run `chmod 600 {}`", path.display());
            assert!(
                text.contains(&format!("mode {mode:o}")) && text.contains(&remedy),
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused_unless_that_is_root() {
        assert!(check_owner(0, 1000).is_ok());
        assert!(check_owner(1000, 1000).is_ok());
        for user in [0, 1001] {
            let text = check_owner(1000, user).unwrap_err().to_string();
            assert!(text.contains("user 1000"), "{text}");
        }
    }

    #[test]
    fn a_missing_or_short_key_is_refused() {
        let text = |path: &Path| read_key(path).unwrap_err().to_string();
        assert_eq!(text(Path::new("/nonexistent/key")), "there is no such file");
        let (_dir, path) = file(b"short", 0o600);
        assert!(text(&path).contains("has 5"));
        assert_eq!(text(Path::new("/")), "it is a directory, not a file");
    }
}
