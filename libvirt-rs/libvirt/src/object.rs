//! What all handles on the daemon's objects have in common.

/// Defines a handle: a connection, and what names an object on it.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident($raw:ident)) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            connect: crate::connect::Connect,
            raw: crate::raw::remote::$raw,
        }

        impl $name {
            pub(crate) fn new(
                connect: &crate::connect::Connect,
                raw: crate::raw::remote::$raw,
            ) -> Self {
                Self {
                    connect: connect.clone(),
                    raw,
                }
            }

            /// The connection that it was found on.
            pub fn connect(&self) -> &crate::connect::Connect {
                &self.connect
            }

            /// How the protocol names it.
            pub fn raw(&self) -> &crate::raw::remote::$raw {
                &self.raw
            }

            pub(crate) fn remote(&self) -> Result<crate::raw::remote::Remote, crate::error::Error> {
                self.connect.raw()
            }
        }

        /// Handles are equal when they name the same object; the connections may differ.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.raw == other.raw
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.raw).finish()
            }
        }
    };
}

/// Defines methods that are one call each.
///
/// `NAME(ARGUMENTS) -> RESULT = PROCEDURE(ARGS { FIELD: VALUE … }) |REPLY, CONNECT| VALUE` encodes the arguments, calls, and
/// makes the result of the reply and the connection. With `[FIELD]` behind the type, that field of all arguments is what
/// names the object. With `in PROGRAM` before that, the procedures are another program's than the main one's.
macro_rules! calls {
    ($type:ident $([$key:ident])? { $($calls:tt)* }) => {
        calls!(@all remote $type [$($key)?] $($calls)*);
    };
    ($type:ident in $program:ident $([$key:ident])? { $($calls:tt)* }) => {
        calls!(@all $program $type [$($key)?] $($calls)*);
    };
    (
        @all $program:ident $type:ident $key:tt
        $(
            $(#[$doc:meta])*
            $name:ident($($parameter:ident: $kind:ty),* $(,)?) $(-> $result:ty)?
                = $procedure:ident($($args:ident { $($field:ident $(: $value:expr)?),* $(,)? })?)
                $(|$reply:ident $(, $connect:ident)?| $made:expr)?;
        )*
    ) => {
        impl $type {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// What the daemon reports, or the end of the connection.
                pub async fn $name(
                    &self,
                    $($parameter: $kind),*
                ) -> Result<calls!(@result $($result)?), crate::error::Error> {
                    let remote = self.remote()?;
                    calls!(@call self $key remote $program $procedure
                        $($args { $($field $(: $value)?),* })? => reply);
                    calls!(@made reply, self.connect() $(, |$reply $(, $connect)?| $made)?)
                }
            )*
        }
    };
    (@result) => { () };
    (@result $result:ty) => { $result };
    (@call $self:ident [] $remote:ident $program:ident $procedure:ident => $reply:ident) => {
        let $reply = $remote.$procedure().await?;
    };
    (@call $self:ident [] $remote:ident $program:ident $procedure:ident $args:ident { $($fields:tt)* }
        => $reply:ident) => {
        let $reply = $remote.$procedure(&crate::raw::$program::$args { $($fields)* }).await?;
    };
    (@call $self:ident [$key:ident] $remote:ident $program:ident $procedure:ident $args:ident { $($fields:tt)* }
        => $reply:ident) => {
        let $reply = $remote
            .$procedure(&crate::raw::$program::$args { $key: $self.raw.clone().into(), $($fields)* })
            .await?;
    };
    (@made $from:ident, $of:expr) => {{
        let () = $from;
        Ok(())
    }};
    (@made $from:ident, $of:expr, |$reply:ident| $made:expr) => {{
        let $reply = $from;
        Ok($made)
    }};
    (@made $from:ident, $of:expr, |$reply:ident, $connect:ident| $made:expr) => {{
        let $reply = $from;
        let $connect = $of;
        Ok($made)
    }};
}

/// Texts as the protocol wants them: owned.
pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// A text that may be missing.
pub(crate) fn text(text: Option<&str>) -> Option<String> {
    text.map(ToOwned::to_owned)
}

pub(crate) use {calls, object};
