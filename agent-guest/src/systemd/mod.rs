//! The guest's systemd: its units over D-Bus, its journal through `journalctl`.
//!
//! ```text
//!    services/units ──▶ units, control ──▶ bus ──▶ org.freedesktop.systemd1
//!                  └──▶ journal ─▶ lines ─▶ entry ◀── a child that ends with its call
//! ```
//!
//! Where there is no systemd, or no bus, nothing of it works, and everybody is told why.

mod bus;
mod control;
mod entry;
mod journal;
mod lines;
mod name;
mod units;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use crate::{
    error::{self, Reason},
    limits::{MAX_LOG_CALLS, MAX_UNIT_CALLS},
};
use bus::Bus;

pub(crate) use journal::Query;
pub(crate) use name::{Pattern, UnitName};

/// Where the guest's systemd is. The default is where every system has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdPlaces {
    /// What exists only where systemd is the first process. Default: `/run/systemd/system` (sd_booted(3)).
    pub booted: PathBuf,
    /// The socket of the system bus. Default: `/run/dbus/system_bus_socket`.
    pub bus: PathBuf,
    /// The program that reads the journal. Default: `/usr/bin/journalctl`, or `/bin/journalctl` where only that exists.
    pub journalctl: PathBuf,
}

/// What is asked for, and so what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Units.
    Bus,
    /// Entries of the journal.
    Journal,
}

/// The guest's systemd. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Systemd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: SystemdPlaces,
    bus: Bus,
    unit_calls: Arc<Semaphore>,
    log_calls: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

// === impl SystemdPlaces ===

impl Default for SystemdPlaces {
    fn default() -> Self {
        // Where /usr is not merged, the program is in /bin.
        let [usual, other] = ["/usr/bin/journalctl", "/bin/journalctl"].map(PathBuf::from);
        let journalctl = match !usual.exists() && other.exists() {
            true => other,
            false => usual,
        };
        Self {
            booted: "/run/systemd/system".into(),
            bus: "/run/dbus/system_bus_socket".into(),
            journalctl,
        }
    }
}

impl SystemdPlaces {
    /// Why something can't work here; none if it can.
    fn missing(&self, need: Need) -> Option<String> {
        if !self.booted.exists() {
            let path = self.booted.display();
            return Some(format!(
                "the guest does not run systemd: there is no {path}"
            ));
        }
        let (path, what) = match need {
            Need::Bus => (&self.bus, "system bus"),
            Need::Journal => (&self.journalctl, "journalctl"),
        };
        let missing = || format!("the guest has no {what}: there is no {}", path.display());
        (!path.exists()).then(missing)
    }
}

// === impl Systemd ===

impl Systemd {
    pub(crate) fn new(places: SystemdPlaces) -> Self {
        Self(Arc::new(Shared {
            bus: Bus::new(places.bus.clone()),
            places,
            unit_calls: Arc::new(Semaphore::new(MAX_UNIT_CALLS)),
            log_calls: Arc::new(Semaphore::new(MAX_LOG_CALLS)),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Why something can't work in this guest; none if it can.
    pub(crate) fn missing(&self, need: Need) -> Option<String> {
        self.0.places.missing(need)
    }

    /// A place for a call, if what it needs is there. It is free again when it is dropped.
    pub(crate) fn enter(&self, need: Need) -> Result<OwnedSemaphorePermit, Status> {
        if let Some(why) = self.missing(need) {
            return Err(error::failure(Reason::Unsupported, why));
        }
        let (places, limit, what) = match need {
            Need::Bus => (&self.0.unit_calls, MAX_UNIT_CALLS, "for units"),
            Need::Journal => (&self.0.log_calls, MAX_LOG_CALLS, "for logs"),
        };
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            let message = format!("this guest already has {limit} calls {what}: end one");
            error::failure(Reason::TooMany, message)
        })
    }

    /// Ends what would go on: jobs that are waited for, logs that are followed.
    pub(crate) fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Waits until the agent stops.
    pub(crate) async fn stopping(&self) -> Status {
        let mut stopping = self.0.stopping.subscribe();
        // The sender is in here.
        let _ = stopping.wait_for(|stopping| *stopping).await;
        error::agent_stopping()
    }
}

/// Cuts a text off at so many bytes, or before the character that lies there.
fn cut(mut text: String, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        // 0 is a boundary.
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A text of systemd's or of a program's for a message, not longer than anybody reads.
fn brief(text: &str) -> String {
    const MAX: usize = 512;
    let text = text.trim();
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = SystemdPlaces {
            booted: at("booted"),
            bus: at("bus"),
            journalctl: at("journalctl"),
        };
        let missing = |need| places.missing(need).unwrap_or_default();
        assert!(missing(Need::Bus).contains("does not run systemd"));
        assert!(missing(Need::Journal).contains("does not run systemd"));
        fs::create_dir(at("booted")).unwrap();
        assert!(missing(Need::Bus).contains("no system bus"));
        assert!(missing(Need::Journal).contains("no journalctl"));
        fs::write(at("journalctl"), "").unwrap();
        assert_eq!(missing(Need::Journal), "");
        assert!(missing(Need::Bus).contains("no system bus"));
    }

    #[tokio::test]
    async fn calls_have_places_and_the_agents_end_ends_them() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().to_owned();
        let systemd = Systemd::new(SystemdPlaces {
            booted: there.clone(),
            bus: there.clone(),
            journalctl: there,
        });
        let places: Vec<_> = (0..MAX_LOG_CALLS)
            .map(|_| systemd.enter(Need::Journal).unwrap())
            .collect();
        let status = systemd.enter(Need::Journal).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(systemd.enter(Need::Bus).is_ok());
        drop(places);
        assert!(systemd.enter(Need::Journal).is_ok());
        systemd.stop();
        let status = systemd.stopping().await;
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}
