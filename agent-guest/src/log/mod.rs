//! The log, on stderr or in a file ([`LogFile`]), but for the time in which file systems are frozen.
//!
//! What stderr leads to may lie on one of them: a file, or the journal, which takes nothing when it can't write. A line
//! would block the agent until the standstill's limit then. So lines are kept meanwhile, as far as there is room, and
//! written when it is over.
//!
//! It is a writer for `tracing_subscriber::fmt`; the program uses it, and an embedding program may.

mod file;

use std::{
    fmt,
    future::Future,
    io::{self, Stderr, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

pub use self::file::{Lines, LogFile};
use crate::{limits::MAX_HELD_LOG, standstill::Standstill};

/// Where the log goes. Clones are the same log.
pub struct Log<W = Stderr> {
    standstill: Standstill,
    out: Arc<Mutex<Out<W>>>,
}

struct Out<W> {
    /// Whole lines.
    kept: Vec<u8>,
    /// Lines that there was no room for.
    dropped: usize,
    to: W,
}

impl Log {
    /// A log on stderr that observes a standstill.
    pub fn new(standstill: Standstill) -> Self {
        Self::to(standstill, io::stderr())
    }
}

impl<W: Write> Log<W> {
    /// A log that goes somewhere else: `to` is given whole lines.
    pub fn to(standstill: Standstill, to: W) -> Self {
        let (kept, dropped) = (Vec::new(), 0);
        Self {
            standstill,
            out: Arc::new(Mutex::new(Out { kept, dropped, to })),
        }
    }

    /// Writes what was kept as soon as a standstill is over, and not only with the next line. Never ends.
    pub fn catch_up(&self) -> impl Future<Output = ()> + use<W> {
        let log = self.clone();
        let mut changes = log.standstill.changes();
        async move {
            // It can't fail: `log` has a sender.
            while changes.changed().await.is_ok() {
                let mut out = log.lock();
                if !log.standstill.is_frozen() {
                    // There is nobody to tell that the log can't be written.
                    let _ = out.write_kept();
                }
            }
        }
    }

    /// Waits until what was logged is where it goes to, as far as that can be had.
    pub fn finish(&self) {
        let mut out = self.lock();
        if !self.standstill.is_frozen() {
            // There is nobody to tell that the log can't be written.
            let _ = out.write_kept();
            let _ = out.to.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Out<W>> {
        // Nothing that holds the lock can panic half-way.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Clone for Log<W> {
    fn clone(&self) -> Self {
        Self {
            standstill: self.standstill.clone(),
            out: Arc::clone(&self.out),
        }
    }
}

impl<W> fmt::Debug for Log<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl<W: Write> Out<W> {
    fn keep(&mut self, line: &[u8]) {
        // Once one is missing, all after it are: a log with holes is worse than one that is cut off.
        if self.dropped > 0 || self.kept.len() + line.len() > MAX_HELD_LOG {
            self.dropped += 1;
        } else {
            self.kept.extend_from_slice(line);
        }
    }

    fn write_kept(&mut self) -> io::Result<()> {
        let kept = std::mem::take(&mut self.kept);
        let dropped = std::mem::take(&mut self.dropped);
        if !kept.is_empty() {
            self.to.write_all(&kept)?;
        }
        if dropped > 0 {
            writeln!(
                self.to,
                "… {dropped} lines more while file systems were frozen"
            )?;
        }
        Ok(())
    }
}

impl<W: Write> Write for &Log<W> {
    /// Takes a whole line, as the subscriber gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = self.lock();
        if self.standstill.is_frozen() {
            out.keep(line);
        } else {
            out.write_kept()?;
            out.to.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Lines are never held back without a reason.
        Ok(())
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for Log<W> {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::standstill::Frozen;

    /// A writer whose content others see.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log() -> (Log<Seen>, Standstill, Seen) {
        let (standstill, seen) = (Standstill::default(), Seen::default());
        let log = Log::to(standstill.clone(), seen.clone());
        (log, standstill, seen)
    }

    fn freeze(standstill: &Standstill) {
        standstill.set(Some(Frozen {
            mount_points: Vec::new(),
            until: Instant::now(),
        }));
    }

    #[test]
    fn lines_of_a_standstill_are_written_before_the_next_one() {
        let (log, standstill, seen) = log();
        let put = |line: &str| log.make_writer().write_all(line.as_bytes()).unwrap();
        put("one\n");
        freeze(&standstill);
        put("two\n");
        put("three\n");
        assert_eq!(seen.text(), "one\n");
        standstill.set(None);
        put("four\n");
        assert_eq!(seen.text(), "one\ntwo\nthree\nfour\n");
    }

    #[tokio::test]
    async fn the_end_of_a_standstill_is_enough() {
        let (log, standstill, seen) = log();
        tokio::spawn(log.catch_up());
        freeze(&standstill);
        log.make_writer().write_all(b"kept\n").unwrap();
        standstill.set(None);
        while seen.text().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(seen.text(), "kept\n");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let (log, standstill, seen) = log();
        freeze(&standstill);
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..MAX_HELD_LOG / line.len() + 3 {
            log.make_writer().write_all(line.as_bytes()).unwrap();
        }
        log.make_writer().write_all(b"short\n").unwrap();
        standstill.set(None);
        log.make_writer().write_all(b"next\n").unwrap();
        let text = seen.text();
        assert!(text.starts_with(&line) && text.len() < MAX_HELD_LOG + 100);
        assert!(
            text.ends_with("\n… 4 lines more while file systems were frozen\nnext\n"),
            "{}",
            &text[MAX_HELD_LOG..]
        );
    }
}
