//! The file with the pre-shared key.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_guest::{Key, KeyError};

/// Why a key file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It can't be read, or holds no key.
    #[error("can't use the key file {path}: {error}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: KeyError,
    },
    /// Others may read it.
    #[error(
        "others may read or change the key file {path} (mode {mode:03o}): run chmod 600 {path}"
    )]
    Open {
        /// Where.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is somebody else's.
    #[error(
        "the key file {path} belongs to user {owner}, neither to root nor to the agent's own user"
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

/// Reads a key that is nobody else's business.
pub(super) fn read(path: &Path) -> Result<Key, SecretError> {
    let unusable = |error: KeyError| SecretError::Unusable {
        path: path.to_owned(),
        error,
    };
    let metadata = fs::metadata(path).map_err(|error| unusable(error.into()))?;
    if !metadata.is_file() {
        return Err(unusable(io::Error::other("it is no regular file").into()));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(SecretError::Foreign {
            path: path.to_owned(),
            owner,
        });
    }
    Key::read(path).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
        let (_dir, path) = file(&[7; 32], 0o600);
        assert!(read(&path).is_ok());
        let (_dir, path) = file(&[7; 32], 0o400);
        assert!(read(&path).is_ok());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let (_dir, path) = file(&[7; 32], 0o640);
        let text = read(&path).unwrap_err().to_string();
        assert!(
            text.contains("mode 640") && text.contains("chmod 600"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_or_short_key_is_refused() {
        let text = read(Path::new("/nonexistent/key")).unwrap_err().to_string();
        assert!(
            text.starts_with("can't use the key file /nonexistent/key: No such file"),
            "{text}"
        );
        let (_dir, path) = file(b"short", 0o600);
        assert!(read(&path).unwrap_err().to_string().contains("5"));
        let text = read(Path::new("/")).unwrap_err().to_string();
        assert!(text.contains("no regular file"), "{text}");
    }
}
