//! Reads small files whole, and says why one can't be read.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use zeroize::Zeroizing;

/// The bytes of a file of at most `max` bytes; `None` if there is no such file. What is read is wiped when it is
/// dropped, for some of these files hold keys and passwords.
pub(crate) fn read(path: &Path, max: u64) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    // Asked before it is opened: to open a pipe is to wait for its other end.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reason(&error)),
    };
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    // Room for all of it from the start: a buffer that grows leaves copies behind that nobody wipes.
    let room = usize::try_from(metadata.len().min(max) + 1).map_err(|error| error.to_string())?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(|error| reason(&error))?;
    if bytes.len() as u64 > max {
        return Err(format!("it is longer than {max} bytes"));
    }
    Ok(Some(bytes))
}

/// The text of such a file.
pub(crate) fn read_text(path: &Path, max: u64) -> Result<Option<Zeroizing<String>>, String> {
    let Some(bytes) = read(path, max)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "permission denied; let this program's user read it".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert_eq!(read_text(&path, 3), Ok(None));
        fs::write(&path, "abc").unwrap();
        assert_eq!(read_text(&path, 3).unwrap().unwrap().as_str(), "abc");
        assert!(read(&path, 2).unwrap_err().contains("longer than 2 bytes"));
        assert!(
            read(dir.path(), 3)
                .unwrap_err()
                .contains("not a regular file")
        );
        fs::write(&path, [0xff]).unwrap();
        assert!(read_text(&path, 3).unwrap_err().contains("UTF-8"));
    }
}
