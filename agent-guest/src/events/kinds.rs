//! Kinds of events, and sets of them.

use tonic::Status;
use vbridge_api::guest::v1::{EventKind, events_subscribe_response::Event};

use crate::error;

/// The kinds there are, that which is none included.
pub(super) const KINDS: usize = EventKind::PolicyLoaded as usize + 1;

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds([bool; KINDS]);

impl Kinds {
    /// These.
    pub(crate) fn new(kinds: impl IntoIterator<Item = EventKind>) -> Self {
        let mut set = [false; KINDS];
        for kind in kinds {
            set[index(kind)] = true;
        }
        Self(set)
    }

    /// Those of a request, in which none stands for all.
    pub(crate) fn from_request(kinds: &[i32]) -> Result<Self, Status> {
        if kinds.is_empty() {
            return Ok(Self([true; KINDS]));
        }
        let kinds = kinds
            .iter()
            .enumerate()
            .map(|(at, kind)| match EventKind::try_from(*kind) {
                Ok(kind) if kind != EventKind::Unspecified => Ok(kind),
                _ => Err(error::invalid_field(
                    format!("kinds[{at}]"),
                    format!("{kind} is no kind of event"),
                )),
            });
        kinds.collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    pub(crate) fn contains(&self, kind: EventKind) -> bool {
        self.contains_index(index(kind))
    }

    pub(super) fn contains_index(&self, index: usize) -> bool {
        self.0[index]
    }
}

/// Where a kind stands: below [`KINDS`], for these are numbered from 0 on.
pub(super) fn index(kind: EventKind) -> usize {
    kind as usize
}

/// What kind an event is of.
pub(super) fn kind_of(event: &Event) -> EventKind {
    match event {
        Event::AgentStarted(_) => EventKind::AgentStarted,
        Event::AgentStopping(_) => EventKind::AgentStopping,
        Event::ListeningPort(_) => EventKind::ListeningPort,
        Event::OomKill(_) => EventKind::OomKill,
        Event::Freeze(_) => EventKind::Freeze,
        Event::ClockSet(_) => EventKind::ClockSet,
        Event::ProcessEnded(_) => EventKind::ProcessEnded,
        Event::Power(_) => EventKind::Power,
        Event::PolicyLoaded(_) => EventKind::PolicyLoaded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kinds_are_all_and_unknown_ones_are_named() {
        let all = Kinds::from_request(&[]).unwrap();
        assert!(all.contains(EventKind::OomKill) && all.contains(EventKind::AgentStarted));
        let one = Kinds::from_request(&[EventKind::OomKill.into()]).unwrap();
        assert!(one.contains(EventKind::OomKill) && !one.contains(EventKind::Power));
        for wrong in [0, -1, 10, i32::MAX] {
            let status = Kinds::from_request(&[1, wrong]).unwrap_err();
            assert!(status.message().starts_with("kinds[1]"), "{status}");
        }
    }
}
