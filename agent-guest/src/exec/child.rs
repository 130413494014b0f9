//! The one who looks after a process: from its start until it was waited for and its output is complete.
//!
//! A process that has exited stays a zombie until all is done, so that its process id, which is its group's, can't become
//! another's while signals may be sent to it.

use std::{
    future::pending,
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    pin::pin,
    process,
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use vbridge_api::guest::v1::{ExitStatus, exit_status::How};
use wait4::Wait4 as _;

use super::{
    channel::Channel,
    process::{End, Process},
    ring::Output,
};
use crate::{
    limits::{GROUP_POLL, OUTPUT_GRACE, STOP_KILL_GRACE},
    port::async_fd,
    source,
};

/// How long a process may run, and how it is ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) timeout: Option<Duration>,
    pub(super) kill_grace: Duration,
}

/// The agent's ends of the outputs.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) stdout: Arc<Channel>,
    pub(super) stderr: Option<Channel>,
}

/// A process as the kernel's child. Dropped before it was waited for, which happens when the runtime ends, it is killed,
/// unless it may go on.
#[derive(Debug)]
pub(super) struct Child {
    child: process::Child,
    pid: Pid,
    news: News,
    started: Instant,
    keep_running: bool,
    is_reaped: bool,
}

/// What tells that a child may have exited.
#[derive(Debug)]
enum News {
    /// The process's own descriptor (Linux 5.3).
    PidFd(AsyncFd<OwnedFd>),
    /// SIGCHLD, which may be for another child.
    Signals(tokio::signal::unix::Signal),
}

/// How a process has come to its end.
struct Lived {
    exited: Instant,
    timed_out: bool,
}

/// An end that the agent makes.
struct Ending {
    why: End,
    /// When SIGKILL is due; none after it was sent.
    kill_at: Option<Instant>,
}

/// Looks after a process to its end.
pub(super) async fn attend(process: &Process, mut child: Child, rules: Rules, outputs: Outputs) {
    let (over, is_over) = watch::channel(false);
    let told = || {
        let mut over = is_over.clone();
        async move {
            // The sender is in this function.
            let _ = over.wait_for(|over| *over).await;
        }
    };
    let stderr = async {
        if let Some(channel) = &outputs.stderr {
            process.pump(channel, Output::Stderr, told()).await;
        }
    };
    let stdout = process.pump(&outputs.stdout, Output::Stdout, told());
    let mut pumps = pin!(async { tokio::join!(stdout, stderr) });
    let mut are_pumped = false;
    let lived = {
        let mut life = pin!(live(process, &mut child, rules));
        loop {
            tokio::select! {
                lived = &mut life => break lived,
                _ = &mut pumps, if !are_pumped => are_pumped = true,
            }
        }
    };
    if !are_pumped && timeout(OUTPUT_GRACE, &mut pumps).await.is_err() {
        // Others hold the pipes open.
        over.send_replace(true);
        pumps.await;
    }
    let status = process.let_go(|| child.reap(&lived));
    process.finish(status);
    process.stdin.close().await;
}

/// Waits until the process has exited, and ends it if it has to be ended.
async fn live(process: &Process, child: &mut Child, rules: Rules) -> Lived {
    let mut timeout = rules.timeout.map(|timeout| child.started + timeout);
    let mut ending: Option<Ending> = None;
    let mut asked = None;
    loop {
        let kill_at = ending.as_ref().and_then(|ending| ending.kill_at);
        let why = tokio::select! {
            () = child.exited() => break,
            () = at(kill_at) => {
                ending = ending.map(|ending| ending.kill(process));
                continue;
            }
            () = at(timeout) => End::TimedOut,
            why = process.asked_to_end(asked) => {
                asked = Some(why);
                why
            }
        };
        timeout = None;
        ending = Some(match ending {
            Some(ending) => ending.also(why),
            None => Ending::begin(process, why, rules.kill_grace),
        });
    }
    let exited = Instant::now();
    let timed_out = ending.as_ref().is_some_and(|it| it.why == End::TimedOut);
    if let Some(ending) = ending
        && let Some(kill_at) = ending.kill_at
    {
        // The others of the group have the same time as their leader.
        let _ = tokio::time::timeout_at(kill_at, alone(child.pid)).await;
        ending.kill(process);
    }
    Lived { exited, timed_out }
}

/// Waits for a moment, if there is one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Waits until nobody lives in a group whose leader has exited.
async fn alone(group: Pid) {
    let group = group.as_raw_pid();
    loop {
        let look = move || source::process::is_group_alive(&mut source::Reader::new(), group);
        // Where that can't be seen, the group gets all of its time.
        if let Ok(Some(false)) = tokio::task::spawn_blocking(look).await {
            return;
        }
        sleep(GROUP_POLL).await;
    }
}

// === impl Ending ===

impl Ending {
    fn begin(process: &Process, why: End, grace: Duration) -> Self {
        let grace = match why {
            End::TimedOut | End::CallEnded => grace,
            End::Stopped => grace.min(STOP_KILL_GRACE),
        };
        // A shell in a terminal ignores SIGTERM, and ends when its terminal does. A process that was stopped must go on
        // to see either.
        let hangup = process.is_terminal().then_some(Signal::HUP);
        for signal in [Some(Signal::TERM), hangup, Some(Signal::CONT)] {
            send(process, signal);
        }
        Self {
            why,
            kill_at: Some(Instant::now() + grace),
        }
    }

    /// There is another reason. What has ended it first is what is told, but an agent that stops has less time.
    fn also(self, why: End) -> Self {
        let latest = match why {
            End::TimedOut | End::CallEnded => None,
            End::Stopped => Some(Instant::now() + STOP_KILL_GRACE),
        };
        let kill_at = self
            .kill_at
            .map(|it| latest.map_or(it, |latest| it.min(latest)));
        Self { kill_at, ..self }
    }

    fn kill(self, process: &Process) -> Self {
        send(process, Some(Signal::KILL));
        let kill_at = None;
        Self { kill_at, ..self }
    }
}

fn send(process: &Process, signal: Option<Signal>) {
    if let Some(signal) = signal
        && let Err(error) = process.signal(signal, false)
    {
        tracing::debug!(id = process.id(), %error, "can't signal a process");
    }
}

// === impl News ===

impl News {
    fn of(pid: Pid) -> io::Result<Self> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => Ok(Self::PidFd(async_fd(descriptor, Interest::READABLE)?)),
            // Linux before 5.3, or a sandbox that does not know it.
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self::Signals(signal(SignalKind::child())?)),
            Err(error) => Err(error.into()),
        }
    }
}

// === impl Child ===

impl Child {
    /// Must be called within a runtime with I/O enabled.
    pub(super) fn new(child: process::Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        match News::of(pid) {
            Ok(news) => Ok(Self {
                child,
                pid,
                news,
                started: Instant::now(),
                keep_running: false,
                is_reaped: false,
            }),
            Err(error) => {
                let _ = kill_process_group(pid, Signal::KILL);
                Err(error)
            }
        }
    }

    /// Whether it goes on if nobody looks after it any more.
    pub(super) fn may_go_on(&mut self, keep_running: bool) {
        self.keep_running = keep_running;
    }

    /// Waits until it has exited, and leaves it a zombie.
    async fn exited(&mut self) {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(self.pid), options) {
                Ok(None) | Err(Errno::INTR) => {}
                Ok(Some(_)) => return,
                // Somebody else has waited for it: an embedding program that ignores SIGCHLD.
                Err(_) => return,
            }
            match &mut self.news {
                News::PidFd(descriptor) => match descriptor.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime ends.
                    Err(_) => pending().await,
                },
                News::Signals(signals) => match signals.recv().await {
                    Some(()) => {}
                    None => pending().await,
                },
            }
        }
    }

    /// Waits for it at last, which takes no time once it has exited.
    fn reap(&mut self, lived: &Lived) -> ExitStatus {
        self.is_reaped = true;
        let duration = lived.exited.saturating_duration_since(self.started);
        let mut status = ExitStatus {
            timed_out: lived.timed_out,
            duration: Some(message(duration)),
            ..ExitStatus::default()
        };
        match self.child.wait4() {
            Ok(used) => {
                status.how = match used.status.signal() {
                    Some(signal) => Some(How::Signal(signal)),
                    None => used.status.code().map(How::Code),
                };
                status.core_dumped = used.status.core_dumped();
                status.user_time = Some(message(used.rusage.utime));
                status.system_time = Some(message(used.rusage.stime));
                status.max_resident_bytes = used.rusage.maxrss;
            }
            Err(error) => tracing::warn!(%error, "can't learn how a process has ended"),
        }
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped && !self.keep_running {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

fn message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below 10^9.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    fn lived() -> Lived {
        Lived {
            exited: Instant::now(),
            timed_out: false,
        }
    }

    fn spawn(line: &str) -> process::Child {
        process::Command::new("/bin/sh")
            .args(["-c", line])
            .process_group(0)
            .spawn()
            .unwrap()
    }

    #[tokio::test]
    async fn an_exit_is_seen_with_and_without_a_descriptor_of_the_process() {
        for has_descriptor in [true, false] {
            let mut child = Child::new(spawn("exit 7")).unwrap();
            if !has_descriptor {
                child.news = News::Signals(signal(SignalKind::child()).unwrap());
            }
            timeout(Duration::from_secs(20), child.exited())
                .await
                .unwrap();
            // It is a zombie: that can be seen again.
            timeout(Duration::from_secs(20), child.exited())
                .await
                .unwrap();
            let status = child.reap(&lived());
            assert_eq!(status.how, Some(How::Code(7)));
            assert!(status.max_resident_bytes > 0);
        }
    }

    #[tokio::test]
    async fn a_child_that_nobody_looks_after_any_more_is_killed() {
        let mut other = spawn("exec sleep 1000");
        let pid = Pid::from_child(&other);
        let child = Child {
            child: spawn("true"),
            pid,
            news: News::Signals(signal(SignalKind::child()).unwrap()),
            started: Instant::now(),
            keep_running: false,
            is_reaped: false,
        };
        drop(child);
        assert_eq!(other.wait().unwrap().signal(), Some(9));
    }
}
