//! The emulated channel on tokio: everything moves at once, and whoever waits is woken.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::model::{Behaviour, ClientId, EmulatedChannel, GuestRead, GuestWrite, HostRead};
use crate::port::{Port, PortRead};

struct State {
    channel: EmulatedChannel,
    guest: Option<Waker>,
    hosts: Vec<Waker>,
    /// The guest was told that the host has gone, and has not come back since.
    told_detached: bool,
}

/// Moves everything and wakes everybody; both ends check for themselves what has changed.
fn settle(state: &mut State) {
    state.channel.settle();
    if !state.channel.guest_sees_hangup() {
        state.told_detached = false;
    }
    state.guest.take().into_iter().for_each(Waker::wake);
    state.hosts.drain(..).for_each(Waker::wake);
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel with nobody at either end: a socket for hosts, through which guests open the port as well.
pub fn channel(behaviour: Behaviour) -> EmulatedSocket {
    EmulatedSocket {
        state: Arc::new(Mutex::new(State {
            channel: EmulatedChannel::new(behaviour),
            guest: None,
            hosts: Vec::new(),
            told_detached: false,
        })),
    }
}

/// The emulated channel's hypervisor side.
#[derive(Clone)]
pub struct EmulatedSocket {
    state: Shared,
}

impl EmulatedSocket {
    /// Opens the port in the guest; `None` means that somebody has it open.
    pub fn open(&self) -> Option<EmulatedPort> {
        let mut state = lock(&self.state);
        if !state.channel.guest_open() {
            return None;
        }
        state.told_detached = false;
        settle(&mut state);
        Some(EmulatedPort {
            state: Arc::clone(&self.state),
        })
    }

    /// Connects to the channel on the host.
    pub fn connect(&self) -> EmulatedClient {
        let mut state = lock(&self.state);
        let id = state.channel.host_connect();
        settle(&mut state);
        EmulatedClient {
            state: Arc::clone(&self.state),
            id,
        }
    }

    /// Stops and starts the virtual machine.
    pub fn set_paused(&self, paused: bool) {
        let mut state = lock(&self.state);
        state.channel.set_paused(paused);
        settle(&mut state);
    }
}

/// The open port in the guest. Dropping it closes the port.
pub struct EmulatedPort {
    state: Shared,
}

impl Port for EmulatedPort {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<PortRead>> {
        let mut state = lock(&self.state);
        let mut total = 0;
        loop {
            match state.channel.guest_read(&mut buf[total..]) {
                GuestRead::Data(len) => total += len,
                _ if total > 0 => {
                    settle(&mut state);
                    return Poll::Ready(Ok(PortRead::Data(total)));
                }
                GuestRead::Detached if !state.told_detached => {
                    state.told_detached = true;
                    return Poll::Ready(Ok(PortRead::Detached));
                }
                GuestRead::Detached | GuestRead::WouldBlock => {
                    state.guest = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.state);
        match state.channel.guest_write(buf) {
            GuestWrite::Taken(len) if len > 0 => {
                settle(&mut state);
                Poll::Ready(Ok(len))
            }
            GuestWrite::Taken(_) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            GuestWrite::WouldBlock => {
                state.guest = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for EmulatedPort {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.channel.guest_close();
        settle(&mut state);
    }
}

/// A connection to the channel on the host. Dropping it closes the connection.
pub struct EmulatedClient {
    state: Shared,
    id: ClientId,
}

impl AsyncRead for EmulatedClient {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.state);
        match state.channel.host_read(self.id, buf.initialize_unfilled()) {
            HostRead::Data(len) => {
                buf.advance(len);
                settle(&mut state);
                Poll::Ready(Ok(()))
            }
            HostRead::WouldBlock => {
                state.hosts.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for EmulatedClient {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.state);
        match state.channel.host_write(self.id, buf) {
            0 => {
                state.hosts.push(cx.waker().clone());
                Poll::Pending
            }
            len => {
                settle(&mut state);
                Poll::Ready(Ok(len))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for EmulatedClient {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.channel.host_close(self.id);
        settle(&mut state);
    }
}
