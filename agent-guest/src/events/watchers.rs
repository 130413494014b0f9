//! Those who look at what nobody tells: one task for each source that somebody has subscribed to.
//!
//! ```text
//!             the first who wants it            it has seen how things are
//!    Absent ──────────────────────▶ Starting ──────────────────────────────▶ Watching
//!       ▲                              │                                        │
//!       └──────────── the last has gone: the task is ended ─────────────────────┘
//! ```

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};
use vbridge_api::guest::v1::{ClockSet, EventKind, events_subscribe_response::Event};

use super::{Bus, Kinds};
use crate::{
    limits::EVENT_INTERVAL,
    policy::Policy,
    services::aside,
    source::{clock_set, listening::Listening, oom::OomKills},
};

/// What is watched.
#[derive(Debug, Clone, Copy)]
enum Source {
    Ports,
    OomKills,
    Clock,
    Policy,
}

/// All sources, and the kind of event that each brings.
const SOURCES: [(Source, EventKind); 4] = [
    (Source::Ports, EventKind::ListeningPort),
    (Source::OomKills, EventKind::OomKill),
    (Source::Clock, EventKind::ClockSet),
    (Source::Policy, EventKind::PolicyLoaded),
];

/// Where the sources are, and where their events go.
#[derive(Clone)]
pub(super) struct Sources {
    bus: Bus,
    policy: Policy,
    root: PathBuf,
}

/// The watchers, and how many want each. Clones are the same.
#[derive(Clone)]
pub(super) struct Watchers(Arc<Shared>);

struct Shared {
    sources: Sources,
    running: Mutex<[Running; SOURCES.len()]>,
}

#[derive(Default)]
struct Running {
    users: usize,
    task: Option<(AbortHandle, watch::Receiver<bool>)>,
}

/// Keeps the watchers of some sources while it lives.
pub(super) struct Watched {
    shared: Arc<Shared>,
    sources: Vec<usize>,
}

// === impl Watchers ===

impl Watchers {
    pub(super) fn new(sources: Sources) -> Self {
        Self(Arc::new(Shared {
            sources,
            running: Mutex::default(),
        }))
    }

    /// Has everything watched that brings events of these kinds; when it is done, what happens is seen.
    pub(super) async fn watch(&self, kinds: Kinds) -> Watched {
        let mut watched = Watched {
            shared: Arc::clone(&self.0),
            sources: Vec::new(),
        };
        let mut ready = Vec::new();
        {
            let mut all = self.0.lock();
            let all = all.iter_mut().zip(SOURCES).enumerate();
            for (at, (running, (source, _))) in
                all.filter(|(_, (_, (_, kind)))| kinds.contains(*kind))
            {
                running.users += 1;
                watched.sources.push(at);
                let (_, is_ready) = running
                    .task
                    .get_or_insert_with(|| self.0.sources.spawn(source));
                ready.push(is_ready.clone());
            }
        }
        for mut is_ready in ready {
            // A watcher that has ended sees nothing, and has said so.
            let _ = is_ready.wait_for(|is_ready| *is_ready).await;
        }
        watched
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, [Running; SOURCES.len()]> {
        // Nothing that holds it can panic half-way.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.shared.lock();
        for at in &self.sources {
            let running = &mut all[*at];
            running.users -= 1;
            if running.users == 0
                && let Some((task, _)) = running.task.take()
            {
                task.abort();
            }
        }
    }
}

// === impl Sources ===

impl Sources {
    pub(super) fn new(bus: Bus, policy: Policy, root: impl Into<PathBuf>) -> Self {
        Self {
            bus,
            policy,
            root: root.into(),
        }
    }

    fn spawn(&self, source: Source) -> (AbortHandle, watch::Receiver<bool>) {
        let (ready, is_ready) = watch::channel(false);
        let Self { bus, policy, root } = self.clone();
        let task = match source {
            Source::Ports => tokio::spawn(ports(Listening::below(root), bus, ready)),
            Source::OomKills => tokio::spawn(oom_kills(OomKills::below(root), bus, ready)),
            Source::Clock => tokio::spawn(clock(bus, ready)),
            Source::Policy => tokio::spawn(loaded(policy, bus, ready)),
        };
        (task.abort_handle(), is_ready)
    }
}

async fn ports(mut listening: Listening, bus: Bus, ready: watch::Sender<bool>) {
    let mut ticks = interval(EVENT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = aside(move || {
            let changes = listening.changes();
            (listening, changes)
        });
        let Ok((same, changes)) = look.await else {
            return;
        };
        listening = same;
        for change in changes {
            bus.publish(Event::ListeningPort(change));
        }
        ready.send_replace(true);
    }
}

async fn oom_kills(mut kills: OomKills, bus: Bus, ready: watch::Sender<bool>) {
    let mut ticks = interval(EVENT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = aside(move || {
            let new = kills.new_ones();
            (kills, new)
        });
        let Ok((same, new)) = look.await else {
            return;
        };
        kills = same;
        for kill in new {
            bus.publish(Event::OomKill(kill));
        }
        ready.send_replace(true);
    }
}

async fn clock(bus: Bus, ready: watch::Sender<bool>) {
    let watched = async {
        let mut clock = clock_set::Watch::new()?;
        ready.send_replace(true);
        loop {
            let nanoseconds = clock.set().await?;
            bus.publish(Event::ClockSet(ClockSet { nanoseconds }));
        }
    };
    let error: std::io::Error = match watched.await {
        Ok::<std::convert::Infallible, _>(never) => match never {},
        Err(error) => error,
    };
    tracing::warn!("can't see whether the clock is set: {error}");
}

async fn loaded(policy: Policy, bus: Bus, ready: watch::Sender<bool>) {
    let mut changes = policy.changes();
    ready.send_replace(true);
    while changes.changed().await.is_ok() {
        let profile = changes.borrow_and_update().profile().as_str().to_owned();
        bus.publish(Event::PolicyLoaded(profile));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::{Profile, Rules};

    fn watchers(policy: &Policy) -> (tempfile::TempDir, Bus, Watchers) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        let bus = Bus::new();
        let sources = Sources::new(bus.clone(), policy.clone(), dir.path());
        (dir, bus, Watchers::new(sources))
    }

    fn running(watchers: &Watchers) -> usize {
        let all = watchers.0.lock();
        all.iter().filter(|running| running.task.is_some()).count()
    }

    #[tokio::test]
    async fn a_source_has_one_watcher_while_somebody_wants_it() {
        let (_dir, _, watchers) = watchers(&Policy::default());
        assert_eq!(running(&watchers), 0);
        let one = watchers.watch(Kinds::new([EventKind::OomKill])).await;
        let two = watchers
            .watch(Kinds::new([EventKind::OomKill, EventKind::Power]))
            .await;
        assert_eq!(running(&watchers), 1);
        let all = watchers.watch(Kinds::from_request(&[]).unwrap()).await;
        assert_eq!(running(&watchers), SOURCES.len());
        drop((all, one));
        assert_eq!(running(&watchers), 1);
        drop(two);
        assert_eq!(running(&watchers), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_after_the_first_look_is_told() {
        let policy = Policy::default();
        let (dir, bus, watchers) = watchers(&policy);
        let vmstat = dir.path().join("proc/vmstat");
        fs::write(&vmstat, "oom_kill 4\n").unwrap();
        let kinds = Kinds::from_request(&[]).unwrap();
        let mut events = bus.subscribe(kinds);
        let _watched = watchers.watch(kinds).await;
        fs::write(&vmstat, "oom_kill 5\n").unwrap();
        let Some(Event::OomKill(kill)) = events.next().await.unwrap().event else {
            panic!("another event");
        };
        assert_eq!((kill.total, kill.pid), (5, 0));
        policy.replace(Rules::new(Profile::Observe));
        let event = events.next().await.unwrap().event;
        assert_eq!(event, Some(Event::PolicyLoaded("observe".to_owned())));
    }
}
