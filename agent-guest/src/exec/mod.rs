//! Processes that the agent starts for its callers, and finds again for them.
//!
//! ```text
//!   asked for
//!      │ a place, memory for its output, its turn
//!   Starting ─── can't ──▶ the call fails
//!      │ spawned
//!   Running ◀──── calls come (Attach) and go; without keep_running, one that goes ends the process
//!      │    │ its time is over, a call that it depends on has ended, the agent stops
//!      │    ▼
//!      │  Ending: SIGTERM to its group ── kill_grace ──▶ Killed: SIGKILL to its group
//!      │    │                                              │
//!      ▼    ▼                                              ▼
//!   Exited: a zombie, so that its id stays its own; its pipes are read to their end, or for OUTPUT_GRACE
//!      │ waited for
//!   Ended: with its output and how it has ended, for Attach and List
//!      │ MAX_ENDED_PROCESSES later ones, or the memory is needed. One of Run, whose answer has told all: at once
//!   forgotten
//! ```
//!
//! In Ending, the others of the group have the same time when the leader has exited already. A group that was not ended
//! by the agent is left alone: what a command starts in the background goes on when the command has exited, and loses its
//! pipes to the agent after [`OUTPUT_GRACE`](crate::limits::OUTPUT_GRACE).
//!
//! | module | what it is |
//! |---|---|
//! | [`command`] | what a caller may ask for |
//! | [`words`] | texts for the shell that need none |
//! | [`identity`] | whose rights a process gets |
//! | [`spawn`], [`pty`] | its start |
//! | [`ignored`] | signals that it must not inherit as ignored |
//! | [`child`] | who looks after it to its end |
//! | [`process`] | what its calls share |
//! | [`ring`] | its output, kept within a bound |
//! | [`stdin`], [`channel`] | its input; a pipe's end |
//!
//! Nothing here waits for a process on the runtime's thread, and a process whose output nobody takes stops no other.

mod channel;
mod child;
pub(crate) mod command;
mod identity;
mod ignored;
mod process;
mod pty;
pub(crate) mod ring;
mod spawn;
mod stdin;
pub(crate) mod words;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use vbridge_api::guest::v1::{ExecProcess, events_subscribe_response};

pub(crate) use self::process::{Attached, Event, Process};
use self::{
    channel::Channel,
    child::{Child, Outputs, Rules},
    command::{Command, Granted},
    process::{About, End, lock},
    ring::{AttachError, Full, Ring},
    spawn::Spawned,
    stdin::Stdin,
};
use crate::{
    error::{self, Reason},
    events::Bus,
    limits::{
        MAX_ENDED_PROCESSES, MAX_LISTED_ARGUMENTS, MAX_OUTPUT_KEPT, MAX_PROCESSES, MAX_STARTING,
        SHUTDOWN_GRACE,
    },
    services::aside,
    source::clock,
};

/// Bytes of an id. Nobody guesses one, and no two are the same.
const ID_BYTES: usize = 16;

/// What memory for output is counted in.
const KIB: usize = 1024;

/// All processes of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// Places for processes that run.
    places: Arc<Semaphore>,
    /// [`KIB`] of output that may be kept.
    memory: Arc<Semaphore>,
    /// Turns to look for a program and to start it.
    turns: Arc<Semaphore>,
    events: Bus,
    /// Whether the agent stops.
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    processes: BTreeMap<String, Arc<Process>>,
    /// Those that have ended, the first first.
    ended: VecDeque<String>,
    started: u64,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(events: Bus) -> Self {
        Self::with(MAX_PROCESSES, MAX_OUTPUT_KEPT, events)
    }

    fn with(places: usize, memory: usize, events: Bus) -> Self {
        Self {
            shared: Arc::new(Shared {
                known: Mutex::default(),
                places: Arc::new(Semaphore::new(places)),
                memory: Arc::new(Semaphore::new(memory / KIB)),
                turns: Arc::new(Semaphore::new(MAX_STARTING)),
                events,
                stopping: AtomicBool::new(false),
            }),
        }
    }

    /// A turn to do what may block before a start. It must be given back before the start, which takes one of its own.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Status> {
        let turn = Arc::clone(&self.shared.turns).acquire_owned().await;
        turn.map_err(|_| error::agent_stopping())
    }

    /// Starts a command. If the future is dropped, the process is treated as one whose call has ended.
    pub(crate) async fn start(
        &self,
        command: Command,
        granted: Granted,
    ) -> Result<Attached, Status> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned();
        let place = place.map_err(|_| {
            let message = format!(
                "{MAX_PROCESSES} processes run already that this agent has started: end one, or wait for one"
            );
            error::failure(Reason::TooMany, message)
        })?;
        let memory = self.reserve(&command)?;
        let shared = Arc::clone(&self.shared);
        // A task of its own: once the process is there, it must not be lost with the call.
        let started =
            tokio::spawn(async move { shared.start(command, granted, place, memory).await });
        started.await.map_err(|error| {
            error::failure(Reason::Internal, format!("the agent failed: {error}"))
        })?
    }

    /// Goes to a process, for all output from these places on.
    pub(crate) fn attach(
        &self,
        id: &str,
        from: [Option<u64>; 2],
        keep_running: Option<bool>,
    ) -> Result<Attached, Status> {
        let process = self.get(id)?;
        let holds = !keep_running.unwrap_or(process.about.keep_running);
        Attached::new(process, from, holds).map_err(|error| match error {
            AttachError::Lost(output, first) => error::output_lost(output.name(), first),
            AttachError::Ahead(output, written) => {
                let field = format!("{}_offset", output.name());
                error::invalid_field(
                    field,
                    format!("must be at most {written}, which are written"),
                )
            }
        })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, id: &str, signal: i32, process_only: bool) -> Result<(), Status> {
        let number = command::signal("signal", signal)?;
        let process = self.get(id)?;
        send(&process, number, process_only)
    }

    /// All that are known: those that run first, each kind in the order of their starts.
    pub(crate) fn list(&self) -> Vec<ExecProcess> {
        let known: Vec<_> = lock(&self.shared.known)
            .processes
            .values()
            .cloned()
            .collect();
        let mut known: Vec<_> = known
            .into_iter()
            .map(|process| (process.about.number, process.describe()))
            .collect();
        known.sort_by_key(|(number, process)| (process.status.is_some(), *number));
        known.into_iter().map(|(_, process)| process).collect()
    }

    /// Ends all processes that do not go on without the agent, and waits until they have ended; not longer than
    /// [`SHUTDOWN_GRACE`]. The calls of those that go on end.
    pub(crate) async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let known: Vec<_> = lock(&self.shared.known)
            .processes
            .values()
            .cloned()
            .collect();
        for process in &known {
            stop(process);
        }
        let ended = async {
            for process in known.iter().filter(|it| !it.about.keep_running) {
                process.ended().await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_GRACE, ended).await.is_err() {
            tracing::warn!("processes did not end, although they were killed");
        }
    }

    fn get(&self, id: &str) -> Result<Arc<Process>, Status> {
        let process = lock(&self.shared.known).processes.get(id).cloned();
        process.ok_or_else(|| {
            let message = format!("there is no process with the id {id:?} (any more): see List");
            error::failure(Reason::ProcessNotFound, message)
        })
    }

    /// Reserves memory for a command's output, for which others that have ended may be forgotten.
    fn reserve(&self, command: &Command) -> Result<OwnedSemaphorePermit, Status> {
        let streams = &command.streams;
        let outputs = match streams.full {
            Full::DropNewest => 2,
            Full::Hold | Full::DropOldest => 1,
        };
        let needed = (outputs * streams.kept_bytes).div_ceil(KIB);
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        loop {
            let memory = Arc::clone(&self.shared.memory);
            if let Ok(memory) = memory.try_acquire_many_owned(needed) {
                return Ok(memory);
            }
            if !lock(&self.shared.known).forget_oldest() {
                let message = "the processes of this agent keep too much output already: end one, take its output, or \
                    ask for a smaller output_buffer_bytes";
                return Err(error::failure(Reason::TooMany, message));
            }
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn send(process: &Process, signal: Signal, process_only: bool) -> Result<(), Status> {
    use rustix::io::Errno;

    process.signal(signal, process_only).map_err(|error| {
        let reason = match error {
            Errno::SRCH => Reason::ProcessNotFound,
            Errno::PERM => Reason::PermissionDenied,
            _ => Reason::KernelRefused,
        };
        let message = match error {
            Errno::SRCH => format!("the process {} has ended", process.id()),
            _ => format!("can't signal the process {}: {error}", process.id()),
        };
        error::failure(reason, message)
    })
}

fn stop(process: &Process) {
    match process.about.keep_running {
        true => process.abandon(),
        false => process.ask_to_end(End::Stopped),
    }
}

// === impl Shared ===

impl Shared {
    async fn start(
        self: Arc<Self>,
        command: Command,
        granted: Granted,
        place: OwnedSemaphorePermit,
        memory: OwnedSemaphorePermit,
    ) -> Result<Attached, Status> {
        let id = new_id()?;
        // It is never closed.
        let turn = self.turns.acquire().await;
        if self.stopping.load(Ordering::SeqCst) {
            return Err(error::agent_stopping());
        }
        ignored::catch();
        let Granted { directory, places } = granted;
        let spawning = move || (spawn::spawn(&command, directory.as_ref()), command);
        let (spawned, command) = aside(spawning).await?;
        drop(turn);
        let started = self.adopt(id, spawned?, command, memory);
        let (process, child, rules, outputs) = started.map_err(|error| {
            let message = format!("can't look after a new process: {error}");
            error::failure(Reason::KernelRefused, message)
        })?;
        // A ring without output has all bytes from 0 on.
        let holds = !process.about.keep_running;
        let attached = Attached::new(Arc::clone(&process), [None, None], holds);
        let attached = attached.map_err(|_| error::failure(Reason::Internal, "no output"))?;
        lock(&self.known).add(Arc::clone(&process));
        tracing::debug!(
            id = process.id(),
            pid = process.pid(),
            "a process was started"
        );
        if self.stopping.load(Ordering::SeqCst) {
            stop(&process);
        }
        tokio::spawn(async move {
            child::attend(&process, child, rules, outputs).await;
            drop((place, places));
            lock(&self.known).ended(&process);
            self.events
                .publish(events_subscribe_response::Event::ProcessEnded(
                    process.describe_end(),
                ));
            tracing::debug!(id = process.id(), "a process has ended");
        });
        Ok(attached)
    }

    /// Puts a process that was started under the agent's care.
    fn adopt(
        &self,
        id: String,
        spawned: Spawned,
        command: Command,
        memory: OwnedSemaphorePermit,
    ) -> io::Result<(Arc<Process>, Child, Rules, Outputs)> {
        let (pid, user) = (spawned.pid, spawned.user.clone());
        let parts = spawned.into_parts().ok_or(io::ErrorKind::NotFound)?;
        let mut child = Child::new(parts.child)?;
        let stdout = Arc::new(Channel::new(parts.stdout)?);
        let stderr = parts.stderr.map(Channel::new).transpose()?;
        let stdin = parts.stdin.map(Channel::new).transpose()?.map(Arc::new);
        let streams = &command.streams;
        let is_terminal = streams.terminal.is_some();
        let rules = Rules {
            timeout: command.timeout,
            kill_grace: command.kill_grace,
        };
        let about = About {
            id,
            number: lock(&self.known).next_number(),
            pid,
            argv: listed(command.argv),
            label: command.label,
            user,
            start_time: clock::now(),
            keep_running: command.keep_running,
            is_kept: command.keep_running || streams.full != Full::DropNewest,
        };
        // From here on there is somebody who looks after it.
        child.may_go_on(command.keep_running);
        let ring = Ring::new(streams.kept_bytes, streams.full);
        let terminal = is_terminal.then(|| Arc::clone(&stdout));
        let process = Process::new(
            about,
            ring,
            Stdin::new(stdin, is_terminal),
            terminal,
            memory,
        );
        Ok((Arc::new(process), child, rules, Outputs { stdout, stderr }))
    }
}

// === impl Known ===

impl Known {
    fn next_number(&mut self) -> u64 {
        self.started += 1;
        self.started
    }

    fn add(&mut self, process: Arc<Process>) {
        self.processes.insert(process.id().to_owned(), process);
    }

    fn ended(&mut self, process: &Process) {
        if !process.about.is_kept {
            self.processes.remove(process.id());
            return;
        }
        self.ended.push_back(process.id().to_owned());
        while self.ended.len() > MAX_ENDED_PROCESSES {
            self.forget_oldest();
        }
    }

    /// Whether there was one to forget.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.ended.pop_front();
        oldest.is_some_and(|id| self.processes.remove(&id).is_some())
    }
}

fn new_id() -> Result<String, Status> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        error::failure(
            Reason::Internal,
            format!("the guest gives no random numbers: {error}"),
        )
    })?;
    let mut id = String::with_capacity(2 * ID_BYTES);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(id, "{byte:02x}");
    }
    Ok(id)
}

/// The first arguments, as many as are listed.
fn listed(argv: Vec<String>) -> Vec<String> {
    let mut room = MAX_LISTED_ARGUMENTS;
    let mut listed = Vec::new();
    for mut argument in argv {
        // Each costs a little, even an empty one.
        let Some(left) = room.checked_sub(1) else {
            break;
        };
        // The start of a text is always a boundary.
        let end = (0..=left.min(argument.len())).rev();
        let mut end = end.filter(|end| argument.is_char_boundary(*end));
        argument.truncate(end.next().unwrap_or_default());
        room = left - argument.len();
        argument.shrink_to_fit();
        listed.push(argument);
    }
    listed
}

#[cfg(test)]
mod tests;
