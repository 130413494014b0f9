//! Reads small files whole, says why one can't be read, and keeps who looks at files off the runtime's threads.

use std::{
    fs::{self, File},
    future,
    io::{self, Read as _},
    panic,
    path::Path,
};

use tokio::{sync::Semaphore, task};
use zeroize::Zeroizing;

use crate::connect::limits::FILE_READERS;

/// Those who look at files now.
static READERS: Semaphore = Semaphore::const_new(FILE_READERS);

/// Looks at files on a thread where it may block: on a file system that has died nothing waits but this future, and it can
/// be dropped.
pub(crate) async fn aside<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    aside_among(&READERS, look).await
}

async fn aside_among<T: Send + 'static>(
    readers: &'static Semaphore,
    look: impl FnOnce() -> T + Send + 'static,
) -> T {
    // It is never closed. The place is free when the thread is, which may be long after this future is gone.
    let place = readers.acquire().await.ok();
    let looked = task::spawn_blocking(move || {
        let found = look();
        drop(place);
        found
    });
    match looked.await.map_err(task::JoinError::try_into_panic) {
        Ok(found) => found,
        Err(Ok(panicked)) => panic::resume_unwind(panicked),
        // The runtime ends, and this future with it.
        Err(Err(_)) => future::pending().await,
    }
}

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
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_file_system_that_has_died_does_not_stop_the_runtime() {
        static READERS: Semaphore = Semaphore::const_new(2);
        let (answer, dead) = mpsc::channel::<()>();
        // The runtime has this one thread.
        let mut waiting = std::pin::pin!(aside_among(&READERS, move || dead.recv()));
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(aside_among(&READERS, || 7).await, 7);
        answer.send(()).unwrap();
        assert_eq!(waiting.await, Ok(()));
    }

    #[tokio::test]
    async fn a_thread_that_hangs_keeps_its_place_when_nobody_waits_for_it_any_more() {
        static READERS: Semaphore = Semaphore::const_new(1);
        let (answer, dead) = mpsc::channel::<()>();
        let given_up = aside_among(&READERS, move || dead.recv()).now_or_never();
        assert!(given_up.is_none());
        let mut next = std::pin::pin!(aside_among(&READERS, || 7));
        assert!((&mut next).now_or_never().is_none());
        assert_eq!(READERS.available_permits(), 0);
        answer.send(()).unwrap();
        assert_eq!(next.await, 7);
    }

    #[tokio::test]
    #[should_panic(expected = "of the one who looks")]
    async fn a_panic_is_passed_on() {
        aside(|| -> () { panic!("of the one who looks") }).await;
    }

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
