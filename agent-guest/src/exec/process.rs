//! One process, as its calls share it: its output, its input, and how to end it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prost_types::Timestamp;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, kill_process_group},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use vbridge_api::guest::v1::{ExecProcess, ExitStatus, ProcessEnded, exit_status};

use super::{
    channel::{self, Channel},
    command::Size,
    ring::{AttachError, Output, Piece, ReaderId, Ring},
    stdin::Stdin,
};
use crate::limits::{MAX_PIPE_REST, OUTPUT_CHUNK};

/// What a signal's number is added to, as shells do.
const SIGNALLED: i32 = 128;

/// How a process has ended of which that is not known.
const UNKNOWN_END: i32 = -1;

/// Why a process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its time is over.
    TimedOut,
    /// A call that it depends on has ended.
    CallEnded,
    /// The agent stops.
    Stopped,
}

/// A process that runs, or has run.
#[derive(Debug)]
pub(crate) struct Process {
    pub(super) about: About,
    ring: Mutex<Ring>,
    /// There is more output, or the end.
    more: Notify,
    /// There may be room for more output.
    room: Notify,
    pub(crate) stdin: Stdin,
    terminal: Option<Arc<Channel>>,
    /// Its process id, until it may be another's.
    leader: Mutex<Option<Pid>>,
    end: watch::Sender<Option<End>>,
    /// The agent stops, and this process goes on without it.
    abandoned: watch::Sender<bool>,
    status: watch::Sender<Option<ExitStatus>>,
    /// The part of the memory for outputs that it has reserved.
    memory: Mutex<OwnedSemaphorePermit>,
}

/// What does not change.
#[derive(Debug)]
pub(super) struct About {
    pub(super) id: String,
    /// Its number in the order of starts.
    pub(super) number: u64,
    pub(super) pid: Pid,
    /// As many arguments as are listed.
    pub(super) argv: Vec<String>,
    pub(super) label: String,
    pub(super) user: String,
    pub(super) start_time: Timestamp,
    pub(super) keep_running: bool,
    /// Whether it is still known when it has ended.
    pub(super) is_kept: bool,
}

/// What a process has to say to a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// Bytes of its output.
    Output(Piece),
    /// Its end, after all of its output.
    Exit(ExitStatus),
}

/// A call that is with a process. Dropped before the process's end, it ends the process, unless that goes on without it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) process: Arc<Process>,
    reader: ReaderId,
    /// Whether the process depends on this call.
    holds: bool,
    /// The exit was told.
    complete: bool,
}

// === impl Process ===

impl Process {
    pub(super) fn new(
        about: About,
        ring: Ring,
        stdin: Stdin,
        terminal: Option<Arc<Channel>>,
        memory: OwnedSemaphorePermit,
    ) -> Self {
        let leader = Mutex::new(Some(about.pid));
        Self {
            about,
            ring: Mutex::new(ring),
            more: Notify::new(),
            room: Notify::new(),
            stdin,
            terminal,
            leader,
            end: watch::Sender::new(None),
            abandoned: watch::Sender::new(false),
            status: watch::Sender::new(None),
            memory: Mutex::new(memory),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.about.id
    }

    pub(crate) fn pid(&self) -> u32 {
        // A process id is positive.
        u32::try_from(self.about.pid.as_raw_pid()).unwrap_or_default()
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.status.borrow().is_some()
    }

    /// Waits for the end, and for all output to be there.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let mut status = self.status.subscribe();
        // The sender is here.
        let ended = status.wait_for(Option::is_some).await;
        ended.ok().and_then(|it| *it).unwrap_or_default()
    }

    /// The process as it is listed.
    pub(crate) fn describe(&self) -> ExecProcess {
        let about = &self.about;
        let ring = lock(&self.ring);
        ExecProcess {
            id: about.id.clone(),
            pid: self.pid(),
            argv: about.argv.clone(),
            label: about.label.clone(),
            user: about.user.clone(),
            start_time: Some(about.start_time),
            status: *self.status.borrow(),
            stdout_bytes: ring.written(Output::Stdout),
            stderr_bytes: ring.written(Output::Stderr),
            stdout_kept_from: ring.kept_from(Output::Stdout),
            stderr_kept_from: ring.kept_from(Output::Stderr),
            stdin_bytes: self.stdin.given(),
            terminal: self.is_terminal(),
            attached: u32::try_from(ring.readers()).unwrap_or(u32::MAX),
        }
    }

    /// How it has ended, as those who have subscribed to events are told.
    pub(super) fn describe_end(&self) -> ProcessEnded {
        let code = match (*self.status.borrow()).and_then(|status| status.how) {
            Some(exit_status::How::Code(code)) => code,
            Some(exit_status::How::Signal(signal)) => SIGNALLED.saturating_add(signal),
            None => UNKNOWN_END,
        };
        let id = self.about.id.clone();
        ProcessEnded { id, code }
    }

    /// What is kept of an output, and how many bytes behind it were thrown away.
    pub(crate) fn contents(&self, output: Output) -> (Vec<u8>, u64) {
        lock(&self.ring).contents(output)
    }

    /// Sends a signal to the process or to its group; nobody gets it once the process was waited for.
    pub(crate) fn signal(&self, signal: Signal, process_only: bool) -> Result<(), Errno> {
        match (*lock(&self.leader), process_only) {
            (None, _) => Err(Errno::SRCH),
            (Some(pid), true) => kill_process(pid, signal),
            (Some(pid), false) => kill_process_group(pid, signal),
        }
    }

    /// Whether nobody gets a signal any more.
    pub(crate) fn is_waited_for(&self) -> bool {
        lock(&self.leader).is_none()
    }

    /// Gives its terminal another size; whether it has one.
    pub(crate) fn resize(&self, size: Size) -> Option<Result<(), Errno>> {
        let terminal = self.terminal.as_ref()?;
        let size = rustix::termios::Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Some(rustix::termios::tcsetwinsize(terminal.descriptor(), size))
    }

    /// Gives the process bytes, as fast as it takes them, or until it has ended.
    pub(crate) async fn give(&self, bytes: &[u8]) {
        tokio::select! {
            () = self.stdin.write(bytes) => {}
            _ = self.ended() => {}
        }
    }

    /// Ends the process's input.
    pub(crate) async fn end_input(&self) {
        tokio::select! {
            () = self.stdin.end() => {}
            _ = self.ended() => {}
        }
    }

    /// Asks for the process's end. The first reason counts, unless the agent stops.
    pub(super) fn ask_to_end(&self, end: End) {
        self.end.send_if_modified(|asked| {
            let is_news = asked.is_none() || (end == End::Stopped && *asked != Some(end));
            if is_news {
                *asked = Some(end);
            }
            is_news
        });
    }

    /// Waits for such a wish that is not `known` yet.
    pub(super) async fn asked_to_end(&self, known: Option<End>) -> End {
        let mut end = self.end.subscribe();
        let news = end.wait_for(|end| end.is_some() && *end != known).await;
        match news.ok().and_then(|end| *end) {
            Some(end) => end,
            // The sender is here: this is not reached.
            None => std::future::pending().await,
        }
    }

    /// The agent stops, and the process goes on.
    pub(super) fn abandon(&self) {
        self.abandoned.send_replace(true);
    }

    /// Waits for that.
    pub(crate) async fn abandoned(&self) {
        let mut abandoned = self.abandoned.subscribe();
        // The sender is here.
        let _ = abandoned.wait_for(|abandoned| *abandoned).await;
    }

    /// Reads one of the outputs to its end, or until `over`: then what is in it at that moment is read without regard to
    /// the bound.
    pub(super) async fn pump(
        &self,
        channel: &Channel,
        output: Output,
        over: impl Future<Output = ()>,
    ) {
        let mut over = std::pin::pin!(over);
        let mut buffer = vec![0; OUTPUT_CHUNK];
        loop {
            tokio::select! {
                biased;
                () = &mut over => break,
                read = self.fill(channel, output, &mut buffer) => match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                },
            }
            // A process that writes as fast as it is read must not keep the agent from anything else.
            tokio::task::yield_now().await;
        }
        let mut rest = channel.waiting().min(MAX_PIPE_REST);
        while rest > 0 {
            let part = rest.min(buffer.len());
            let buffer = buffer.get_mut(..part).unwrap_or_default();
            match channel::read(channel.descriptor(), buffer) {
                Ok(read @ 1..) => {
                    rest = rest.saturating_sub(read);
                    lock(&self.ring).push(output, buffer.get(..read).unwrap_or_default());
                }
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Moves some bytes of an output to the ring, once they are there and have room. None are lost if it is dropped.
    async fn fill(
        &self,
        channel: &Channel,
        output: Output,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            self.until_room().await;
            let read = channel.read(|descriptor| {
                let mut ring = lock(&self.ring);
                let room = ring.room().min(buffer.len());
                if room == 0 {
                    // The other output was faster.
                    return Ok(None);
                }
                let buffer = buffer.get_mut(..room).unwrap_or_default();
                let read = channel::read(descriptor, buffer)?;
                ring.push(output, buffer.get(..read).unwrap_or_default());
                Ok(Some(read))
            });
            if let Some(read) = read.await? {
                self.more.notify_waiters();
                return Ok(read);
            }
        }
    }

    async fn until_room(&self) {
        loop {
            let room = self.room.notified();
            if lock(&self.ring).room() > 0 {
                return;
            }
            room.await;
        }
    }

    /// From here on its process id may be another's.
    pub(super) fn let_go<R>(&self, reap: impl FnOnce() -> R) -> R {
        let mut leader = lock(&self.leader);
        let reaped = reap();
        *leader = None;
        reaped
    }

    /// All output is there: tells the end to those who wait for it.
    pub(super) fn finish(&self, status: ExitStatus) {
        let mut ring = lock(&self.ring);
        ring.shrink();
        let mut memory = lock(&self.memory);
        let spare = memory
            .num_permits()
            .saturating_sub(ring.len().div_ceil(1024));
        drop(memory.split(spare));
        drop((memory, ring));
        self.status.send_replace(Some(status));
        self.more.notify_waiters();
    }
}

// === impl Attached ===

impl Attached {
    /// Goes to a process, for all output from these places on.
    pub(super) fn new(
        process: Arc<Process>,
        from: [Option<u64>; 2],
        holds: bool,
    ) -> Result<Self, AttachError> {
        let reader = lock(&process.ring).attach(from)?;
        Ok(Self {
            process,
            reader,
            holds,
            complete: false,
        })
    }

    /// The next output, or the end. No byte is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let process = Arc::clone(&self.process);
            let more = process.more.notified();
            if let Some(event) = self.event() {
                return event;
            }
            more.await;
        }
    }

    /// What there is to tell now.
    fn event(&mut self) -> Option<Event> {
        // Before the output is looked at: after the end there is no more of it.
        let status = *self.process.status.borrow();
        let mut ring = lock(&self.process.ring);
        if let Some(piece) = ring.next(self.reader, OUTPUT_CHUNK) {
            drop(ring);
            self.process.room.notify_waiters();
            return Some(Event::Output(piece));
        }
        let status = status?;
        if let Some(cut) = ring.next_cut(self.reader) {
            return Some(Event::Output(cut));
        }
        self.complete = true;
        Some(Event::Exit(status))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        lock(&self.process.ring).detach(self.reader, self.complete);
        self.process.room.notify_waiters();
        if self.holds && !self.process.is_ended() {
            self.process.ask_to_end(End::CallEnded);
        }
    }
}

/// A panic while such a lock is held leaves nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
