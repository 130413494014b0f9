//! libvirt's states and events as the host API has them.

use std::{fmt::Display, time::SystemTime};

use libvirt::{domain::StateAndReason, events::LifecycleEvent, raw::api::DomainState};
use vbridge_api::host::v1::{
    Domain as DomainMessage, DomainEvent as EventMessage, DomainEventKind as Kind,
    DomainState as State,
};

/// How a domain is.
pub(super) fn state(state: Option<StateAndReason>) -> State {
    match state.and_then(|state| state.state.known()) {
        Some(DomainState::Running) => State::Running,
        Some(DomainState::Blocked) => State::Blocked,
        Some(DomainState::Paused) => State::Paused,
        Some(DomainState::Shutdown) => State::Shutdown,
        Some(DomainState::Shutoff) => State::Shutoff,
        Some(DomainState::Crashed) => State::Crashed,
        Some(DomainState::Pmsuspended) => State::Pmsuspended,
        _ => State::Unspecified,
    }
}

/// Why it is so.
pub(super) fn reason(state: StateAndReason) -> String {
    words(&state.reason)
}

/// What has happened, now.
pub(super) fn event(event: LifecycleEvent, domain: DomainMessage, removed: bool) -> EventMessage {
    let (kind, detail) = match event {
        LifecycleEvent::Defined(detail) => (Kind::Defined, words(&detail)),
        LifecycleEvent::Undefined(detail) => (Kind::Undefined, words(&detail)),
        LifecycleEvent::Started(detail) => (Kind::Started, words(&detail)),
        LifecycleEvent::Suspended(detail) => (Kind::Suspended, words(&detail)),
        LifecycleEvent::Resumed(detail) => (Kind::Resumed, words(&detail)),
        LifecycleEvent::Stopped(detail) => (Kind::Stopped, words(&detail)),
        LifecycleEvent::Shutdown(detail) => (Kind::Shutdown, words(&detail)),
        LifecycleEvent::Pmsuspended(detail) => (Kind::Pmsuspended, words(&detail)),
        LifecycleEvent::Crashed(detail) => (Kind::Crashed, words(&detail)),
        other => (Kind::Unspecified, words(&other)),
    };
    EventMessage {
        domain: Some(domain),
        kind: kind.into(),
        detail,
        time: Some(SystemTime::now().into()),
        removed,
    }
}

/// `FromSnapshot` as people write it: `from snapshot`.
fn words(name: &impl Display) -> String {
    let mut words = String::new();
    for c in name.to_string().chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use libvirt::{
        Code,
        raw::api::{DomainEventStoppedDetailType, DomainShutoffReason},
    };

    use super::*;

    #[test]
    fn a_reason_is_written_in_words_and_one_that_is_not_known_keeps_its_number() {
        let shut_off = |reason: Code<DomainShutoffReason>| StateAndReason {
            state: DomainState::Shutoff.into(),
            reason: libvirt::domain::StateReason::Shutoff(reason),
        };
        let known = shut_off(DomainShutoffReason::FromSnapshot.into());
        assert_eq!(reason(known), "from snapshot");
        assert_eq!(state(Some(known)), State::Shutoff);
        assert_eq!(reason(shut_off(Code::new(99))), "unknown (99)");
        assert_eq!(state(None), State::Unspecified);
    }

    #[test]
    fn an_event_has_its_kind_and_the_reason_in_words() {
        let crashed = LifecycleEvent::Stopped(DomainEventStoppedDetailType::Crashed.into());
        let told = event(crashed, DomainMessage::default(), true);
        assert_eq!(
            (told.kind(), told.detail.as_str()),
            (Kind::Stopped, "crashed")
        );
        let newer = LifecycleEvent::new(99, 7);
        let told = event(newer, DomainMessage::default(), false);
        assert_eq!(told.kind(), Kind::Unspecified);
        assert!(
            told.detail.contains("99") && told.detail.contains('7'),
            "{told:?}"
        );
    }
}
