//! What the families of events have in common: kinds with numbers, one registration each.

use super::topics::Topic;
use crate::connect::Connect;
use crate::error::Error;

/// Defines a family: what its events are about, by which field the daemon knows one of these, and for each kind its number, the procedure and struct that bring it, where
/// in that struct the object stands, and what is made of the rest.
macro_rules! family {
    (
        $name:literal, $event:ident { $object:ident: $handle:ident }, $kind:ident, $id:ident($numbers:literal),
        $events:ident, $supported:ident,
        $register:ident($arguments:ident { $key:ident: by $identity:ident }), $deregister:ident;
        |$message:ident|
        $(
            #[doc = $doc:literal]
            $variant:ident = $number:literal, $procedure:ident($payload:ident: $($subject:ident).+)
            $({ $(#[doc = $field_doc:literal] $field:ident: $type:ty = $value:expr),* $(,)? })?;
        )*
    ) => {
        #[doc = concat!("Something happened to a [`", stringify!($handle), "`].")]
        #[derive(Debug, Clone, PartialEq)]
        pub struct $event {
            /// What it happened to, as it was then.
            pub $object: $handle,
            /// What happened.
            pub kind: $kind,
        }

        #[doc = concat!("What happened to a [`", stringify!($handle), "`].")]
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum $kind {
            $(
                #[doc = $doc]
                $variant $({ $(#[doc = $field_doc] $field: $type),* })?,
            )*
        }

        #[doc = concat!("The kinds of ", $name, " events, by libvirt's number (`", $numbers, "`).")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum $id {
            $(
                #[doc = $doc]
                $variant = $number,
            )*
        }

        impl $id {
            #[doc = concat!("Every kind that this crate knows; a daemon may know fewer: [`Connect::", stringify!($supported), "`].")]
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            fn topic(self, of: Option<&$handle>) -> Result<Topic, Error> {
                let (kind, event) = match self {
                    $(
                        Self::$variant => (
                            concat!($name, " events of the kind ", stringify!($variant)),
                            remote::$procedure,
                        ),
                    )*
                };
                Ok(Topic {
                    kind,
                    register: remote::$register,
                    arguments: encode(&remote::$arguments {
                        event_id: self as i32,
                        $key: of.map(|object| object.raw().clone()),
                    })?,
                    about: About {
                        kind: self as i32,
                        object: of.map(|object| AsRef::<[u8]>::as_ref(&object.raw().$identity).to_vec()),
                        filter: None,
                    },
                    event,
                    deregister: remote::$deregister,
                })
            }
        }

        impl $event {
            pub(super) fn read(connect: &Connect, message: &Message) -> Result<Self, Error> {
                let payload = &message.payload;
                match message.procedure {
                    $(
                        n if n == remote::$procedure.number => {
                            let $message: remote::$payload = decode(payload)?;
                            Ok(Self {
                                kind: $kind::$variant $({ $($field: $value),* })?,
                                $object: $handle::new(connect, $message.$($subject).+),
                            })
                        }
                    )*
                    // Only what was subscribed to is delivered.
                    procedure => Err(Error::UnknownEvent { procedure }),
                }
            }
        }

        impl Connect {
            #[doc = concat!(
                "The given kinds of ", $name, " events from now on, of one [`", stringify!($handle),
                "`] or of all, in the order in which they happen. At most `capacity` events wait (`None`: 16,384)."
            )]
            ///
            #[doc = concat!(
                "There is no registration for all kinds: name those that you need, or what [`",
                stringify!($supported), "`](Self::", stringify!($supported), ") gives."
            )]
            ///
            /// # Errors
            /// [`UnsupportedEvent`](Error::UnsupportedEvent) if the daemon does not have one of the kinds; what else the
            /// daemon reports, or the end of the connection.
            pub async fn $events(
                &self,
                kinds: &[$id],
                of: Option<&$handle>,
                capacity: Option<usize>,
            ) -> Result<Events<$event>, Error> {
                let topics = kinds.iter().map(|kind| kind.topic(of));
                let topics = topics.collect::<Result<_, Error>>()?;
                Events::subscribe(self, topics, capacity, $event::read).await
            }

            #[doc = concat!("The kinds of ", $name, " events that the daemon has; none if its hypervisor has no such events.")]
            ///
            /// They are found out by asking for each of them, which takes a call a kind, and one to take it back.
            ///
            /// # Errors
            /// What the daemon reports beside that it does not have a kind, or the end of the connection.
            pub async fn $supported(&self) -> Result<Vec<$id>, Error> {
                supported(self, $id::ALL, |kind| kind.topic(None)).await
            }
        }
    };
}

/// The kinds whose registration the daemon takes.
pub(super) async fn supported<K: Copy>(
    connect: &Connect,
    kinds: &[K],
    topic: impl Fn(K) -> Result<Topic, Error>,
) -> Result<Vec<K>, Error> {
    let topics = connect.topics()?;
    let mut found = Vec::with_capacity(kinds.len());
    // They are taken back together, beside what the caller does next.
    let mut leases = Vec::with_capacity(kinds.len());
    for &kind in kinds {
        match topics.lease(&topic(kind)?).await {
            Ok(lease) => {
                leases.push(lease);
                found.push(kind);
            }
            Err(Error::UnsupportedEvent { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub(super) use family;
