//! What happens in a domain's life, with the reason.

use std::fmt;

use crate::code::Code;
use crate::raw::api::{
    DomainEventCrashedDetailType, DomainEventDefinedDetailType, DomainEventPmSuspendedDetailType,
    DomainEventResumedDetailType, DomainEventShutdownDetailType, DomainEventStartedDetailType,
    DomainEventStoppedDetailType, DomainEventSuspendedDetailType, DomainEventType,
    DomainEventUndefinedDetailType,
};

/// Defines the events, each with the enumeration of its reasons.
macro_rules! life {
    ($($(#[$doc:meta])* $event:ident($reason:ident),)*) => {
        /// What happened in a domain's life, and why.
        ///
        /// libvirt gives each event reasons of its own.
        ///
        /// ```
        /// use libvirt::events::LifecycleEvent;
        /// use libvirt::raw::api::DomainEventStoppedDetailType;
        ///
        /// fn is_crash(event: LifecycleEvent) -> bool {
        ///     matches!(event, LifecycleEvent::Stopped(why) if why == DomainEventStoppedDetailType::Crashed)
        /// }
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum LifecycleEvent {
            $($(#[$doc])* $event(Code<$reason>),)*
            /// An event that this crate does not know.
            Unknown {
                /// Its number.
                event: i32,
                /// The number of its reason.
                detail: i32,
            },
        }

        impl LifecycleEvent {
            /// What libvirt's two numbers mean.
            pub fn new(event: i32, detail: i32) -> Self {
                match DomainEventType::from_raw(event) {
                    $(Some(DomainEventType::$event) => Self::$event(Code::new(detail)),)*
                    None => Self::Unknown { event, detail },
                }
            }

            /// The event without its reason.
            pub fn event(self) -> Code<DomainEventType> {
                match self {
                    $(Self::$event(_) => DomainEventType::$event.into(),)*
                    Self::Unknown { event, .. } => Code::new(event),
                }
            }

            /// The number of the reason, which means something only together with the event.
            pub fn detail(self) -> i32 {
                match self {
                    $(Self::$event(reason) => reason.raw(),)*
                    Self::Unknown { detail, .. } => detail,
                }
            }
        }

        impl fmt::Display for LifecycleEvent {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let event = self.event();
                match self {
                    $(Self::$event(reason) => write!(f, "{event} ({reason})"),)*
                    Self::Unknown { detail, .. } => write!(f, "{event} ({detail})"),
                }
            }
        }
    };
}

life!(
    /// It was defined, or its definition was changed.
    Defined(DomainEventDefinedDetailType),
    /// Its definition is gone.
    Undefined(DomainEventUndefinedDetailType),
    /// It runs.
    Started(DomainEventStartedDetailType),
    /// It stands still.
    Suspended(DomainEventSuspendedDetailType),
    /// It goes on.
    Resumed(DomainEventResumedDetailType),
    /// It runs no more.
    Stopped(DomainEventStoppedDetailType),
    /// The guest has shut down; the domain is about to stop.
    Shutdown(DomainEventShutdownDetailType),
    /// The guest has put itself to sleep.
    Pmsuspended(DomainEventPmSuspendedDetailType),
    /// The guest has crashed.
    Crashed(DomainEventCrashedDetailType),
);
