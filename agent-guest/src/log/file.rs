//! A log file that is rotated by its size, and never holds the agent up.
//!
//! ```text
//!   line ──▶ queue ──▶ a thread ──▶ FILE ── it would have more than max_size ──▶ FILE.1, what that was FILE.2, … the last is removed
//!              │ full             └─ it can't be written ──▶ stderr, and FILE again after LOG_RETRY
//!              ▼
//!            counted
//! ```
//!
//! A disk that does not answer, or a network's, stops the thread and nothing else. That FILE can't be written is said once, and
//! once that it can again. It must be a regular file and no link: whoever may write to its folder must not choose what is written.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Stderr, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::limits::{LOG_END, LOG_RETRY, MAX_LOG_LINES};

/// Who may read the log: its owner and a group, as for the system's own.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// Where a log file is, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file; its folder must be there.
    pub path: PathBuf,
    /// Bytes after which it is rotated.
    pub max_size: u64,
    /// Earlier ones that are kept, as `FILE.1` to `FILE.N`. Without any the file begins anew.
    pub backups: u64,
}

/// The way to the thread that writes a log file.
#[derive(Debug)]
pub struct Lines {
    orders: SyncSender<Order>,
    /// Lines that there was no room for.
    dropped: usize,
}

#[derive(Debug)]
enum Order {
    Line(Vec<u8>),
    /// Tells when all before it is done.
    Tell(SyncSender<()>),
}

/// What the thread works with; `E` is what it writes to meanwhile.
struct Writer<E> {
    file: LogFile,
    /// With the bytes that it has.
    open: Option<(File, u64)>,
    /// When to try again, once it could not be written.
    again: Option<Instant>,
    stderr: E,
}

// === impl LogFile ===

impl LogFile {
    /// Begins to write it. The file is opened with the first line.
    ///
    /// # Errors
    /// There can be no thread more.
    pub fn begin(self) -> io::Result<Lines> {
        let (orders, taken) = sync_channel(MAX_LOG_LINES);
        let writer = Writer::new(self, io::stderr());
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&taken))?;
        Ok(Lines { orders, dropped: 0 })
    }

    /// The name of the `n`th earlier file.
    fn backup(&self, n: u64) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{n}"));
        name.into()
    }
}

// === impl Lines ===

impl Lines {
    fn send(&mut self, line: Vec<u8>) -> Result<(), ()> {
        // It ends only with the program.
        self.orders.try_send(Order::Line(line)).map_err(|_| ())
    }
}

impl Write for Lines {
    /// Takes a whole line. It never fails: there would be nobody to tell.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let told = format!("… {} lines more than could be written\n", self.dropped);
            if self.send(told.into_bytes()).is_ok() {
                self.dropped = 0;
            }
        }
        if self.dropped > 0 || self.send(line.to_vec()).is_err() {
            self.dropped += 1;
        }
        Ok(line.len())
    }

    /// Waits until all lines are written, but not for long.
    fn flush(&mut self) -> io::Result<()> {
        let (told, done) = sync_channel(1);
        match self.orders.try_send(Order::Tell(told)) {
            // Either way nobody waits any longer.
            Ok(()) => drop(done.recv_timeout(LOG_END)),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        Ok(())
    }
}

// === impl Writer ===

impl<E: Write> Writer<E> {
    fn new(file: LogFile, stderr: E) -> Self {
        Self {
            file,
            open: None,
            again: None,
            stderr,
        }
    }

    fn put(&mut self, line: &[u8], now: Instant) {
        let is_waiting = self.again.is_some_and(|again| now < again);
        if !is_waiting {
            match self.try_put(line) {
                Ok(()) if self.again.take().is_some() => {
                    self.say("can be written again, and has the log from here on");
                    return;
                }
                Ok(()) => return,
                Err(error) => {
                    self.open = None;
                    if self.again.replace(now + LOG_RETRY).is_none() {
                        let why = reason(&error);
                        self.say(&format!(
                            "can't be written ({why}): stderr has the log instead"
                        ));
                    }
                }
            }
        }
        // Without stderr there is nobody to tell.
        let _ = self.stderr.write_all(line);
    }

    fn say(&mut self, what: &str) {
        let path = self.file.path.display();
        let _ = writeln!(self.stderr, "the log file {path} {what}");
    }

    fn try_put(&mut self, line: &[u8]) -> io::Result<()> {
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let (mut file, mut size) = match self.open.take() {
            Some(open) => open,
            None => open(&self.file.path)?,
        };
        if size > 0 && size.saturating_add(len) > self.file.max_size {
            (file, size) = self.rotate(file)?;
        }
        file.write_all(line)?;
        self.open = Some((file, size.saturating_add(len)));
        Ok(())
    }

    /// Makes the file the first of the earlier ones, and begins anew.
    fn rotate(&self, file: File) -> io::Result<(File, u64)> {
        let path = &self.file.path;
        if self.file.backups == 0 {
            file.set_len(0)?;
            return Ok((file, 0));
        }
        for n in (1..self.file.backups).rev() {
            match fs::rename(self.file.backup(n), self.file.backup(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(path, self.file.backup(1))?;
        open(path)
    }
}

impl Writer<Stderr> {
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Line(line) => self.put(&line, Instant::now()),
                // Whoever waits may have gone.
                Order::Tell(told) => drop(told.try_send(())),
            }
        }
    }
}

/// Opens a file to append to it; with the bytes that it has.
fn open(path: &Path) -> io::Result<(File, u64)> {
    // A pipe would make it wait for a reader.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, MODE)?);
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(io::Error::other("it is no regular file")),
    }
}

fn reason(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::LOOP) => "it is a symbolic link, or there are too many on the way".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(dir: &Path, max_size: u64, backups: u64) -> Writer<Vec<u8>> {
        let path = dir.join("agent.log");
        let file = LogFile {
            path,
            max_size,
            backups,
        };
        Writer::new(file, Vec::new())
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|it| name(it).into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_full_file_becomes_the_first_of_as_many_as_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        fs::write(dir.path().join("agent.log"), "before\n").unwrap();
        let mut writer = writer(dir.path(), 12, 2);
        for line in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "five-is-longer-than-all\n",
            "six\n",
        ] {
            writer.put(line.as_bytes(), Instant::now());
        }
        assert_eq!(
            names(dir.path()),
            ["agent.log", "agent.log.1", "agent.log.2"]
        );
        assert_eq!(read("agent.log"), "six\n");
        assert_eq!(read("agent.log.1"), "five-is-longer-than-all\n");
        assert_eq!(read("agent.log.2"), "four\n");
        assert_eq!(writer.stderr, b"");
    }

    #[test]
    fn without_earlier_files_it_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 8, 0);
        for line in ["one\n", "two\n", "three\n"] {
            writer.put(line.as_bytes(), Instant::now());
        }
        assert_eq!(names(dir.path()), ["agent.log"]);
        let text = fs::read_to_string(&writer.file.path).unwrap();
        assert_eq!(text, "three\n");
    }

    #[test]
    fn what_can_not_be_written_goes_to_stderr_and_that_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("missing");
        let mut writer = writer(&place, 1000, 1);
        let start = Instant::now();
        writer.put(b"one\n", start);
        writer.put(b"two\n", start);
        fs::create_dir(&place).unwrap();
        writer.put(b"three\n", start);
        let later = start + LOG_RETRY;
        writer.put(b"four\n", later);
        writer.put(b"five\n", later);
        let stderr = String::from_utf8(writer.stderr).unwrap();
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines[1..4], ["one", "two", "three"], "{stderr}");
        assert!(
            lines[0].contains("No such file") && lines[0].contains("stderr"),
            "{stderr}"
        );
        assert!(lines[4].contains("again") && lines.len() == 5, "{stderr}");
        let text = fs::read_to_string(&writer.file.path).unwrap();
        assert_eq!(text, "four\nfive\n");
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), 1000, 1);
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, &writer.file.path).unwrap();
        writer.put(b"one\n", Instant::now());
        assert_eq!(fs::read(&other).unwrap(), b"");
        fs::remove_file(&writer.file.path).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &writer.file.path, fifo, MODE, 0).unwrap();
        writer.put(b"two\n", Instant::now() + LOG_RETRY);
        let stderr = String::from_utf8(writer.stderr).unwrap();
        assert!(
            stderr.contains("link") && stderr.ends_with("one\ntwo\n"),
            "{stderr}"
        );
    }

    #[test]
    fn lines_arrive_in_their_order_and_the_end_waits_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let file = LogFile {
            path: path.clone(),
            max_size: 1000,
            backups: 1,
        };
        let mut lines = file.begin().unwrap();
        for n in 0..100 {
            lines.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        lines.flush().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 100, "{text}");
        assert!(
            text.starts_with("0\n1\n") && text.ends_with("\n99\n"),
            "{text}"
        );
    }

    #[test]
    fn lines_that_there_is_no_room_for_are_counted_and_nobody_waits() {
        let (orders, taken) = sync_channel(2);
        let mut lines = Lines { orders, dropped: 0 };
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        let next = || match taken.try_recv() {
            Ok(Order::Line(line)) => String::from_utf8(line).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!([next(), next()], ["one\n", "two\n"]);
        lines.write_all(b"five\n").unwrap();
        assert_eq!(
            [next(), next()],
            ["… 2 lines more than could be written\n", "five\n"]
        );
    }
}
