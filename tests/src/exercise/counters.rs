//! What became of the calls, by the name that their callers gave them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Names that are kept; the one that was used first is forgotten. A test run uses some thousands.
const MAX_NAMES: usize = 16_384;

/// Codes of resets that are kept for one name; further ones are not.
const MAX_RESETS: usize = 1024;

/// All counters of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<Names>,
    calls: AtomicU64,
}

#[derive(Debug, Default)]
struct Names {
    /// With the number of the name's first use.
    by_name: BTreeMap<String, (u64, Count)>,
    used: u64,
}

/// What became of the calls with one name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Count {
    pub(crate) started: u64,
    pub(crate) cancelled: u64,
    pub(crate) active: u64,
    pub(crate) bulk_bytes: u64,
    pub(crate) resets: Vec<u32>,
}

impl Counters {
    /// A call has begun. It is cancelled if what is returned is dropped without [`Counted::done`].
    pub(crate) fn begin(&self, name: &str) -> Counted {
        self.change(name, |count| {
            count.started += 1;
            count.active += 1;
        });
        Counted {
            counters: self.clone(),
            name: name.to_owned(),
            done: false,
        }
    }

    pub(crate) fn read(&self, name: &str) -> Count {
        self.names()
            .by_name
            .get(name)
            .map(|(_, count)| count.clone())
            .unwrap_or_default()
    }

    /// The caller has reset a call.
    pub(crate) fn reset(&self, name: &str, code: u32) {
        self.change(name, |count| {
            if count.resets.len() < MAX_RESETS {
                count.resets.push(code);
            }
        });
    }

    /// A call of any method, until what is returned is dropped.
    pub(crate) fn call(&self) -> Call {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        Call(self.clone())
    }

    pub(crate) fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Count)) {
        if name.is_empty() {
            return;
        }
        let mut names = self.names();
        if !names.by_name.contains_key(name) {
            if names.by_name.len() >= MAX_NAMES {
                let oldest = names
                    .by_name
                    .iter()
                    .min_by_key(|(_, (used, _))| *used)
                    .map(|(name, _)| name.clone());
                names.by_name.remove(&oldest.unwrap_or_default());
            }
            names.used += 1;
            let used = names.used;
            names
                .by_name
                .insert(name.to_owned(), (used, Count::default()));
        }
        if let Some((_, count)) = names.by_name.get_mut(name) {
            change(count);
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.shared
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is counted by name.
#[derive(Debug)]
pub(crate) struct Counted {
    counters: Counters,
    name: String,
    done: bool,
}

impl Counted {
    /// Bytes of bulk content have come or gone.
    pub(crate) fn bulk(&self, len: usize) {
        self.counters
            .change(&self.name, |count| count.bulk_bytes += len as u64);
    }

    /// The call has ended by itself.
    pub(crate) fn done(&mut self) {
        self.done = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.change(&self.name, |count| {
            count.active = count.active.saturating_sub(1);
            count.cancelled += u64::from(!self.done);
        });
    }
}

/// A call of any method.
#[derive(Debug)]
pub(crate) struct Call(Counters);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.shared.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
