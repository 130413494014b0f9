//! Our programs as processes: started, killed, counted.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// Lines of a program's output that are kept for failures to quote.
const KEPT_LINES: usize = 2000;

/// What a program may take to say something or to end, on a machine that is badly overloaded.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    output: Arc<Output>,
}

/// What a program has written to its standard output and error.
#[derive(Debug)]
struct Output {
    lines: Mutex<VecDeque<String>>,
    written: watch::Sender<u64>,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let name = Path::new(command.as_std().get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "can't start {}",
                    command.as_std().get_program().to_string_lossy()
                )
            })?;
        let pid = child.id().context("it has ended already")?;
        let output = Arc::new(Output {
            lines: Mutex::default(),
            written: watch::Sender::new(0),
        });
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(collect(stdout, Arc::clone(&output)));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(collect(stderr, Arc::clone(&output)));
        }
        Ok(Self {
            name,
            child,
            pid,
            output,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it as a crash would: it can't do anything about it. Returns when it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.ended().await?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(
                "{} (process {}) has not ended within {PATIENCE:?}\n{}",
                self.name,
                self.pid,
                self.log()
            ),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for a line of its output from which `find` makes something, earlier lines included.
    ///
    /// # Errors
    /// It ends, or has not written such a line within [`PATIENCE`].
    pub async fn line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let mut written = self.output.written.subscribe();
        let found = async {
            loop {
                written.borrow_and_update();
                if let Some(found) = self.output.lines().iter().find_map(|line| find(line)) {
                    return Some(found);
                }
                tokio::select! {
                    // Both ends of the output closed would be an error; the sender is ours, so it is not seen.
                    changed = written.changed() => changed.ok()?,
                    _ = self.child.wait() => {
                        // What it wrote last is still being collected.
                        let _ = timeout(Duration::from_millis(200), written.changed()).await;
                        return self.output.lines().iter().find_map(|line| find(line));
                    }
                }
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("{} ended before it said {what}\n{}", self.name, self.log()),
            Err(_) => bail!(
                "{} has not said {what} within {PATIENCE:?}\n{}",
                self.name,
                self.log()
            ),
        }
    }

    /// What it has written so far, the last lines of it.
    pub fn log(&self) -> String {
        let lines = self.output.lines();
        lines
            .iter()
            .map(|line| format!("  {}: {line}\n", self.name))
            .collect()
    }

    /// Its open descriptors.
    ///
    /// # Errors
    /// It is gone.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }

    /// Memory that it holds resident, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it has held resident since its start or since [`Self::forget_peak`], in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Lets the peak begin anew with what it holds now (proc_pid_clear_refs(5)).
    ///
    /// # Errors
    /// It is gone, or not ours.
    pub fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(self.proc("clear_refs"), "5")?)
    }

    /// Processes that it has started, and that are still there.
    ///
    /// # Errors
    /// It is gone.
    pub fn children(&self) -> Result<usize> {
        let mut children = 0;
        for task in fs::read_dir(self.proc("task"))? {
            // A thread may end meanwhile.
            let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            children += list.split_whitespace().count();
        }
        Ok(children)
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .with_context(|| format!("there is no {field}"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// CPU time that it has used, user and system.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.pid())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("no process id")?;
        rustix::process::kill_process(pid, signal).with_context(|| {
            format!(
                "can't send {signal:?} to {} (process {})",
                self.name, self.pid
            )
        })
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }
}

impl Output {
    fn lines(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn collect(output: impl AsyncRead + Unpin, into: Arc<Output>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = into.lines();
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
        drop(kept);
        into.written.send_modify(|written| *written += 1);
    }
}

/// CPU time that a process has used, user and system.
///
/// # Errors
/// It is gone.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which is in brackets and may contain anything (proc_pid_stat(5)): utime and stime are the
    // fields 14 and 15, the state is 3.
    let (_, fields) = stat.rsplit_once(')').context("there is no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let user = times.next().context("there is no utime")??;
    let system = times.next().context("there is no stime")??;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(
        (user + system) * 1000 / ticks_per_second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_heard_counted_and_killed() {
        let mut shell =
            Process::start(Path::new("/bin/sh"), ["-c", "echo ready >&2; sleep 60"]).unwrap();
        shell
            .line("ready", |line| (line == "ready").then_some(()))
            .await
            .unwrap();
        assert!(shell.descriptors().unwrap() >= 3);
        assert!(shell.resident_bytes().unwrap() > 0);
        assert!(shell.cpu_time().unwrap() < Duration::from_secs(10));
        assert!(shell.is_running());
        shell.kill9().await.unwrap();
        assert!(!shell.is_running());
    }

    #[tokio::test]
    async fn a_program_that_ends_without_a_word_is_reported_with_its_output() {
        let mut shell =
            Process::start(Path::new("/bin/sh"), ["-c", "echo wrong flag >&2; exit 2"]).unwrap();
        let error = shell
            .line("ready", |line| (line == "ready").then_some(()))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("wrong flag"), "{error}");
    }
}
