//! The connection to the system bus, and how systemd's errors look to a caller.
//!
//! ```text
//!            the first call                 the bus has gone
//!    none ───────────────────▶ connected ─────────────────────▶ closed
//!                                  ▲          the next call       │
//!                                  └──────────────────────────────┘
//! ```
//!
//! All calls share one connection. A call that was under way when it broke is UNAVAILABLE, and not made again: it may have
//! been carried out.

use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::Mutex, time::timeout};
use tonic::Status;
use zbus::{Connection, DBusError as _, DynamicType, Message, Type, connection};

use super::brief;
use crate::{
    error::{self, Reason},
    limits::{BUS_CONNECT_TIMEOUT, BUS_TIMEOUT},
};

/// systemd on the bus.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";

/// What manages units.
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Where that is.
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// The shared connection.
#[derive(Debug)]
pub(super) struct Bus {
    socket: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Bus {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            connection: Mutex::default(),
        }
    }

    /// The connection: made if there is none, or the last one has broken.
    pub(super) async fn connection(&self) -> Result<Connection, Status> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held.as_ref().filter(|it| !it.is_closed()) {
            return Ok(connection.clone());
        }
        *held = None;
        let connecting = async {
            let stream = UnixStream::connect(&self.socket).await?.into_std()?;
            connection::Builder::unix_stream(stream).build().await
        };
        let connection = match timeout(BUS_CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| unreachable(&error.to_string()))?,
            Err(_) => return Err(unreachable("no answer in time")),
        };
        Ok(held.insert(connection).clone())
    }
}

/// Calls a method of systemd's manager.
pub(super) async fn manage<R: DeserializeOwned + Type>(
    connection: &Connection,
    method: &str,
    arguments: &(impl Serialize + DynamicType),
) -> Result<R, Status> {
    let answer = call(connection, MANAGER_PATH, MANAGER, method, arguments).await?;
    read(&answer)
}

/// Calls a method of an object of systemd's.
pub(super) async fn call(
    connection: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    arguments: &(impl Serialize + DynamicType),
) -> Result<Message, Status> {
    let call = connection.call_method(Some(SYSTEMD), path, Some(interface), method, arguments);
    match timeout(BUS_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| refusal(&error)),
        Err(_) => Err(error::failure(
            Reason::SourceUnavailable,
            format!("the guest's systemd has not answered {method} within {BUS_TIMEOUT:?}"),
        )),
    }
}

/// What an answer or a signal says.
pub(super) fn read<R: DeserializeOwned + Type>(message: &Message) -> Result<R, Status> {
    message.body().deserialize().map_err(|error| {
        let message = format!("the guest's systemd answers in a way that is not known: {error}");
        error::failure(Reason::Internal, message)
    })
}

/// The bus has gone, or does not want us.
pub(super) fn unreachable(why: &str) -> Status {
    error::failure(
        Reason::SourceUnavailable,
        format!("the guest's system bus can't be reached: {}", brief(why)),
    )
}

fn refusal(error: &zbus::Error) -> Status {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            told(name.as_str(), text.as_deref().unwrap_or_default())
        }
        zbus::Error::FDO(error) if !matches!(**error, zbus::fdo::Error::ZBus(_)) => told(
            error.name().as_str(),
            error.description().unwrap_or_default(),
        ),
        error => unreachable(&error.to_string()),
    }
}

/// An error by its name on the bus.
fn told(name: &str, text: &str) -> Status {
    let short = name.strip_prefix("org.freedesktop.").unwrap_or(name);
    let text = match text {
        "" => name.to_owned(),
        text => brief(text),
    };
    let reason = match short {
        "systemd1.NoSuchUnit"
        | "DBus.Error.FileNotFound"
        | "DBus.Error.UnknownObject"
        | "System.Error.ENOENT" => Reason::NotFound,
        "DBus.Error.AccessDenied"
        | "DBus.Error.AuthFailed"
        | "DBus.Error.InteractiveAuthorizationRequired" => Reason::PermissionDenied,
        "DBus.Error.InvalidArgs" => return error::invalid_field("name", text),
        "DBus.Error.UnknownMethod" | "DBus.Error.UnknownInterface" => Reason::Unsupported,
        "DBus.Error.LimitsExceeded" => Reason::TooMany,
        "DBus.Error.ServiceUnknown"
        | "DBus.Error.NameHasNoOwner"
        | "DBus.Error.NoReply"
        | "DBus.Error.Timeout"
        | "DBus.Error.TimedOut"
        | "DBus.Error.Disconnected" => Reason::SourceUnavailable,
        _ => Reason::JobFailed,
    };
    error::failure(reason, format!("the guest's systemd says: {text}"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn an_error_of_the_bus_gets_the_code_that_belongs_to_it() {
        for (name, code) in [
            ("org.freedesktop.systemd1.NoSuchUnit", Code::NotFound),
            ("System.Error.ENOENT", Code::NotFound),
            (
                "org.freedesktop.DBus.Error.AccessDenied",
                Code::PermissionDenied,
            ),
            (
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
                Code::PermissionDenied,
            ),
            (
                "org.freedesktop.DBus.Error.InvalidArgs",
                Code::InvalidArgument,
            ),
            (
                "org.freedesktop.DBus.Error.UnknownMethod",
                Code::Unimplemented,
            ),
            (
                "org.freedesktop.DBus.Error.ServiceUnknown",
                Code::Unavailable,
            ),
            (
                "org.freedesktop.systemd1.UnitMasked",
                Code::FailedPrecondition,
            ),
        ] {
            let status = told(name, "Unit x is odd.");
            assert_eq!(status.code(), code, "{name}");
            assert!(status.message().ends_with("Unit x is odd."), "{status}");
        }
        assert!(told("a.b", "").message().ends_with("a.b"));
        assert!(told("a.b", &"ü".repeat(9999)).message().len() < 2000);
    }
}
