//! What the bridge tells a service manager (systemd's sd_notify, its watchdog), and which sockets it gets from one. Without one
//! it tells nobody.

use std::time::Duration;

use bridge_host::Socket;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tracing::debug;

use super::failure::Failure;

/// The sockets that are handed over.
pub(super) fn sockets() -> Result<Vec<Socket>, Failure> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed.len() {
        let unix = handed.take_unix_listener(index).ok().flatten();
        let socket = match unix {
            Some(listener) => Socket::Unix(listener),
            None => match handed.take_tcp_listener(index) {
                Ok(Some(listener)) => Socket::Tcp(listener),
                Ok(None) => continue,
                Err(error) => {
                    return Err(Failure::new(format!(
                        "socket {index} of those that the service manager hands over can't be used: {error}; give the bridge ListenStream= alone"
                    )));
                }
            },
        };
        sockets.push(socket);
    }
    Ok(sockets)
}

/// It serves.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// It ends, when calls under way have.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// It reads its configuration again, until this is dropped.
pub(super) fn reloading() -> Reloading {
    // systemd wants to know when, to tell a reload from the one before.
    let time = NotifyState::monotonic_usec_now();
    match time {
        Ok(time) => notify(&[NotifyState::Reloading, time]),
        Err(error) => debug!(%error, "no time for the service manager"),
    }
    Reloading
}

/// A configuration is being read.
pub(super) struct Reloading;

impl Drop for Reloading {
    fn drop(&mut self) {
        ready();
    }
}

/// Gives signs of life, twice in the time that it may be without one. A runtime that stands still gives none.
pub(super) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager can't be told");
    }
}
