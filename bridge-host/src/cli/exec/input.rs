//! What goes to the command: standard input, signals, the terminal's size.

use rustix::process::Signal as Number;
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::Sender,
};
use vbridge_api::guest::v1::{ProcessInput, process_input::Input};

use super::{super::failure::Failure, escape::Escape, terminal};

/// Bytes of standard input in one message.
const PIECE: usize = 32 * 1024;

/// Bytes that are read of what is typed while the guest takes none of it: so long the operator can leave.
const AHEAD: usize = 64 * 1024;

/// Messages that may wait on their way to the guest: when the command does not read, neither do we.
pub(super) const QUEUE: usize = 4;

/// Passes standard input on, to its end.
pub(super) async fn stdin(to: Sender<ProcessInput>) {
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; PIECE];
    // Room first: what is read can be passed on at once.
    while let Ok(room) = to.reserve().await {
        // A standard input that can't be read has no more to give.
        let read = stdin.read(&mut piece).await.unwrap_or(0);
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            room.send(input(Input::StdinClosed(true)));
            return;
        };
        room.send(input(Input::Stdin(bytes.to_vec())));
    }
}

/// Passes on what is typed, to its end, and looks for the escape. If the operator leaves, says so.
pub(super) async fn keyboard(to: Sender<ProcessInput>, mut escape: Escape, leave: Sender<()>) {
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; PIECE];
    let mut typed = Vec::new();
    let mut is_over = false;
    while !is_over || !typed.is_empty() {
        tokio::select! {
            // Also while nothing of it can be passed on: a guest that hangs is what the escape is for.
            read = stdin.read(&mut piece), if !is_over && typed.len() < AHEAD => {
                let read = piece.get(..read.unwrap_or(0)).unwrap_or_default();
                is_over = read.is_empty();
                if escape.pass(read, &mut typed) {
                    // If nobody listens, the command has ended.
                    let _ = leave.send(()).await;
                    return;
                }
            }
            room = to.reserve(), if !typed.is_empty() => {
                let Ok(room) = room else { return };
                let rest = typed.split_off(typed.len().min(PIECE));
                room.send(input(Input::Stdin(std::mem::replace(&mut typed, rest))));
            }
        }
    }
    let _ = to.send(input(Input::StdinClosed(true))).await;
}

/// The signals that are the command's as much as ours.
pub(super) struct Signals {
    listening: Vec<(Number, Signal)>,
    resized: Signal,
    terminal: bool,
    /// One has been passed on: the next one is for us.
    passed: bool,
}

/// What a signal is for.
#[derive(Debug)]
pub(super) enum Heard {
    /// The command is to know.
    Pass(ProcessInput),
    /// The operator insists.
    End(Number),
}

impl Signals {
    pub(super) fn new(terminal: bool) -> Result<Self, Failure> {
        let listen = |number: Number| {
            signal(SignalKind::from_raw(number.as_raw()))
                .map(|signal| (number, signal))
                .map_err(|error| Failure::new(format!("can't listen to signals: {error}")))
        };
        let (_, resized) = listen(Number::WINCH)?;
        Ok(Self {
            listening: [Number::INT, Number::TERM, Number::HUP, Number::QUIT]
                .map(listen)
                .into_iter()
                .collect::<Result<_, _>>()?,
            resized,
            terminal,
            passed: false,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Heard {
        let Some(number) = self.heard().await else {
            return Heard::Pass(ProcessInput {
                input: terminal::size().map(Input::Resize),
            });
        };
        if std::mem::replace(&mut self.passed, true) {
            return Heard::End(number);
        }
        Heard::Pass(input(Input::Signal(number.as_raw())))
    }

    /// The next signal that would end a program, while there is no command for which it could be.
    pub(super) async fn end(&mut self) -> Number {
        loop {
            if let Some(number) = self.heard().await {
                return number;
            }
        }
    }

    /// A signal's number; none for a terminal of another size.
    async fn heard(&mut self) -> Option<Number> {
        let signals = self.listening.iter_mut();
        let each = signals.map(|(number, signal)| {
            Box::pin(async move {
                match signal.recv().await {
                    Some(()) => *number,
                    None => std::future::pending().await,
                }
            })
        });
        let any = futures_util::future::select_all(each);
        tokio::select! {
            (number, _, _) = any => Some(number),
            Some(()) = self.resized.recv(), if self.terminal => None,
        }
    }
}

fn input(input: Input) -> ProcessInput {
    ProcessInput { input: Some(input) }
}
