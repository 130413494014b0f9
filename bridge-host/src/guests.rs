//! The guests of a bridge: those that the operator has named, and those that were found and may go again.
//!
//! ```text
//!   builder ──┐                      ┌──▶ routing: a name, in any letter case, or a UUID
//!             ├─ add ──▶ table ──────┼──▶ service: the list, and every change
//!   discovery ┴─ remove ─┘   │       └──▶ bridge: the end of all
//!                            └─ a task for each guest, from `start` or its being added on to its removal
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::{broadcast, watch};
use tokio_util::task::TaskTracker;
use vbridge_api::host::v1::Guest as GuestMessage;
use vbridge_link::Key;

use crate::{
    guest::{AgentKind, Guest, GuestSpec, LinkTls},
    limits::{MAX_GUESTS, WATCH_BACKLOG},
    machine::Machine,
    place::{AgentPlace, Channel},
    routing::{Names, name_key},
};

/// The guests of a bridge by name.
#[derive(Clone)]
pub(crate) struct Guests(Arc<Shared>);

/// What holds for the links to guests that have nothing of their own.
#[derive(Debug, Default)]
pub(crate) struct LinkDefaults {
    pub(crate) key: Option<Key>,
    pub(crate) tls: Option<LinkTls>,
}

struct Shared {
    table: RwLock<Table>,
    machine: String,
    link: LinkDefaults,
    changes: broadcast::Sender<Change>,
    /// Those that look after the guests, also after guests that have just left.
    tasks: TaskTracker,
    /// Whether the bridge is about to end.
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    by_name: BTreeMap<String, Entry>,
    /// Keys of `by_name`. A machine that migrates is at two hypervisors for a while.
    by_uuid: HashMap<String, Vec<String>>,
    has_started: bool,
}

struct Entry {
    guest: Arc<Guest>,
    leave: watch::Sender<bool>,
}

/// What happens to a guest.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// It has come, or is in another state.
    State(String),
    /// It is no guest any more; this is how it was last.
    Removed(Arc<GuestMessage>),
}

/// Why a guest can't be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another one has that name.
    Taken,
    /// Another one has that channel, which takes one client at a time.
    SameChannel,
    /// There are [`MAX_GUESTS`].
    Full,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("another guest has that name"),
            Self::SameChannel => f.write_str("another guest has that channel"),
            Self::Full => write!(
                f,
                "there are {MAX_GUESTS} guests, which is the limit of one bridge; run several bridges"
            ),
        }
    }
}

impl Guests {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::with_link(LinkDefaults::default())
    }

    pub(crate) fn with_link(link: LinkDefaults) -> Self {
        let machine = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let (changes, _) = broadcast::channel(WATCH_BACKLOG);
        Self(Arc::new(Shared {
            table: RwLock::default(),
            machine,
            link,
            changes,
            tasks: TaskTracker::new(),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Adds a guest of which nothing more is known.
    pub(crate) fn add(&self, spec: GuestSpec) -> Result<Arc<Guest>, Refusal> {
        let channel = spec.channel.clone();
        let machine = Machine::Runs(match spec.agent {
            AgentKind::Vbridge => Channel::Socket(channel),
            AgentKind::Qemu => Channel::QemuAgent(AgentPlace::Socket(channel)),
        });
        self.add_with(spec, machine)
    }

    /// Adds a guest, which is looked after from now on if the bridge runs already.
    pub(crate) fn add_with(
        &self,
        mut spec: GuestSpec,
        machine: Machine,
    ) -> Result<Arc<Guest>, Refusal> {
        let LinkDefaults { key, tls } = &self.0.link;
        spec.key = spec.key.or_else(|| key.clone());
        spec.tls = spec.tls.or_else(|| tls.clone());
        let mut table = self.write();
        let key = name_key(&spec.name);
        if table.by_name.contains_key(&key) {
            return Err(Refusal::Taken);
        }
        if table.by_name.len() >= MAX_GUESTS {
            return Err(Refusal::Full);
        }
        if table.has_channel(machine.channel(), None) {
            return Err(Refusal::SameChannel);
        }
        let guest = Guest::new(spec, machine, self.0.changes.clone());
        let entry = Entry {
            guest: Arc::clone(&guest),
            leave: watch::Sender::new(false),
        };
        if table.has_started {
            self.look_after(&entry);
        }
        if let Some(uuid) = &guest.spec.uuid {
            let names = table.by_uuid.entry(name_key(uuid)).or_default();
            names.push(key.clone());
        }
        table.by_name.insert(key, entry);
        // As long as the table is locked nothing else can be told of that name.
        guest.changed();
        Ok(guest)
    }

    /// Lets a guest go: calls under way end as they do when a session ends.
    pub(crate) fn remove(&self, guest: &Arc<Guest>) {
        let mut table = self.write();
        let key = name_key(guest.name());
        let is_it = |entry: &Entry| Arc::ptr_eq(&entry.guest, guest);
        if !table.by_name.get(&key).is_some_and(is_it) {
            return;
        }
        if let Some(entry) = table.by_name.remove(&key) {
            entry.leave.send_replace(true);
        }
        if let Some(uuid) = guest.spec.uuid.as_deref().map(name_key)
            && let Some(names) = table.by_uuid.get_mut(&uuid)
        {
            names.retain(|name| *name != key);
            if names.is_empty() {
                table.by_uuid.remove(&uuid);
            }
        }
        guest.removed();
        // Nobody may be watching.
        let _ = self
            .0
            .changes
            .send(Change::Removed(Arc::new(guest.message())));
    }

    /// Whether a guest may have that channel: no other one has it now.
    pub(crate) fn is_free(&self, channel: &Channel, guest: &Arc<Guest>) -> bool {
        !self.read().has_channel(Some(channel), Some(guest))
    }

    /// From now on the guests are looked after.
    pub(crate) fn start(&self) {
        let mut table = self.write();
        table.has_started = true;
        for entry in table.by_name.values() {
            self.look_after(entry);
        }
    }

    fn look_after(&self, entry: &Entry) {
        let guest = Arc::clone(&entry.guest);
        self.0
            .tasks
            .spawn(guest.look_after(entry.leave.subscribe()));
    }

    /// Leaves all guests in order, those too that have gone before.
    pub(crate) async fn leave(&self) {
        let entries = std::mem::take(&mut self.write().by_name);
        for entry in entries.into_values() {
            entry.leave.send_replace(true);
        }
        self.0.tasks.close();
        // Each of them is bounded.
        self.0.tasks.wait().await;
    }

    /// All of them, ordered by name.
    pub(crate) fn all(&self) -> Vec<Arc<Guest>> {
        let table = self.read();
        let guests = table.by_name.values().map(|entry| Arc::clone(&entry.guest));
        guests.collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().by_name.len()
    }

    /// The bridge is about to end.
    pub(crate) fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Done when the bridge is about to end.
    pub(crate) async fn stopping(&self) {
        let mut stopping = self.0.stopping.subscribe();
        // The sender is a part of this.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// What happens from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }

    // What is done under the lock can't panic half-way.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn has_channel(&self, channel: Option<&Channel>, except: Option<&Arc<Guest>>) -> bool {
        let Some(channel) = channel else {
            return false;
        };
        let is_another = |guest: &Arc<Guest>| except.is_none_or(|it| !Arc::ptr_eq(it, guest));
        let mut entries = self.by_name.values();
        entries.any(|entry| entry.guest.has_channel(channel) && is_another(&entry.guest))
    }

    /// The key of a name, or of a UUID: of the machine that runs, if there are two.
    fn key(&self, name: &str) -> Option<String> {
        let key = name_key(name);
        if self.by_name.contains_key(&key) {
            return Some(key);
        }
        let names = self.by_uuid.get(&key)?;
        let runs = |key: &&String| {
            let entry = self.by_name.get(*key);
            entry.is_some_and(|entry| entry.guest.runs())
        };
        names.iter().find(runs).or(names.first()).cloned()
    }
}

impl Names for Guests {
    type Guest = Arc<Guest>;

    fn find(&self, name: &str) -> Option<Arc<Guest>> {
        let table = self.read();
        let entry = table.by_name.get(&table.key(name)?)?;
        Some(Arc::clone(&entry.guest))
    }

    fn only(&self) -> Option<Arc<Guest>> {
        let table = self.read();
        let mut entries = table.by_name.values();
        let entry = entries.next()?;
        let is_only = entries.next().is_none();
        is_only.then(|| Arc::clone(&entry.guest))
    }

    fn all(&self) -> Vec<String> {
        let guests = self.all();
        guests.iter().map(|guest| guest.name().to_owned()).collect()
    }

    fn machine(&self) -> &str {
        &self.0.machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> GuestSpec {
        GuestSpec::new(name, format!("/nowhere/{name}"))
    }

    #[tokio::test]
    async fn a_guest_is_found_by_its_name_in_any_case_and_by_its_uuid_until_it_leaves() {
        let guests = Guests::new();
        let mut changes = guests.changes();
        let uuid = "b1b2c3d4-0000-4000-8000-00000000000a";
        let guest = GuestSpec {
            uuid: Some(uuid.to_owned()),
            ..spec("Web")
        };
        let guest = guests.add(guest).unwrap();
        assert!(matches!(changes.try_recv(), Ok(Change::State(name)) if name == "Web"));
        for name in ["Web", "WEB", uuid, &uuid.to_uppercase()] {
            assert!(guests.find(name).is_some(), "{name}");
        }
        assert_eq!(guests.add(spec("wEB")).err(), Some(Refusal::Taken));
        guests.remove(&guest);
        for name in ["web", uuid] {
            assert!(guests.find(name).is_none(), "{name}");
        }
        assert!(matches!(changes.try_recv(), Ok(Change::Removed(was)) if was.name == "Web"));
        // Another of that name stays when the first is removed again.
        guests.add(spec("web")).unwrap();
        guests.remove(&guest);
        assert_eq!(Names::all(&guests), ["web"]);
    }

    #[tokio::test]
    async fn one_channel_is_one_guest_and_of_two_with_one_uuid_the_running_one_is_meant() {
        let guests = Guests::new();
        let uuid = "b1b2c3d4-0000-4000-8000-00000000000a";
        let with_uuid = |name: &str| GuestSpec {
            uuid: Some(uuid.to_owned()),
            ..spec(name)
        };
        let off = Machine::Off("it is off".to_owned());
        let old = guests.add_with(with_uuid("web@old"), off).unwrap();
        let new = guests.add(with_uuid("web")).unwrap();
        assert!(Arc::ptr_eq(&guests.find(uuid).unwrap(), &new));
        guests.remove(&new);
        assert!(Arc::ptr_eq(&guests.find(uuid).unwrap(), &old));
        guests.add(spec("db")).unwrap();
        let same = GuestSpec::new("other", "/nowhere/db");
        assert_eq!(guests.add(same).err(), Some(Refusal::SameChannel));
        assert!(!guests.is_free(&Channel::Socket("/nowhere/db".into()), &old));
    }

    #[test]
    fn there_are_no_more_guests_than_the_limit() {
        let guests = Guests::new();
        for i in 0..MAX_GUESTS {
            guests.add(spec(&format!("g{i}"))).unwrap();
        }
        let refusal = guests.add(spec("one-more")).unwrap_err();
        assert_eq!(refusal, Refusal::Full);
        assert!(refusal.to_string().contains("4096"), "{refusal}");
    }
}
