//! The guest's API, method by method: which commands of the agent it needs, and who serves it; or why nobody can.
//!
//! One table says what is called, what is refused, and what `System.GetInfo` lists.

use std::sync::Arc;

use http::Request;
use tonic::body::Body;
use vbridge_api::guest::v1 as api;

use super::{
    accounts,
    agent::Agent,
    exec, files, hardware, network, power,
    serve::{CallFuture, noted, streaming, unary, upload},
    storage, system, time,
};

/// The API's package.
const PACKAGE: &str = "vbridge.guest.v1.";

/// Commands that the agent carries out while file systems are frozen (those without effect on files).
const FREE: [&str; 4] = [
    "guest-ping",
    "guest-info",
    "guest-fsfreeze-status",
    "guest-fsfreeze-thaw",
];

/// Serves a call.
pub(super) type Call = fn(Arc<Agent>, Request<Body>) -> CallFuture;

/// A method of the API.
#[derive(Debug)]
pub(super) struct Method {
    /// Its name without package: `System/Ping`.
    pub(super) name: &'static str,
    /// The commands without which it can't be served.
    pub(super) needs: &'static [&'static str],
    /// Who serves it.
    pub(super) call: Option<Call>,
    /// Why nobody does.
    pub(super) why: &'static str,
}

const fn served(name: &'static str, needs: &'static [&'static str], call: Call) -> Method {
    Method {
        name,
        needs,
        call: Some(call),
        why: "",
    }
}

const fn not(name: &'static str, why: &'static str) -> Method {
    Method {
        name,
        needs: &[],
        call: None,
        why,
    }
}

const NO_COMMAND: &str = "qemu-guest-agent has no command for this";
const NO_STREAMS: &str = "qemu-guest-agent tells what a command has written only when it has ended, and gives it input only at its start: use Exec.Run";
const NO_SIGNALS: &str = "qemu-guest-agent can't send signals to commands";
const NO_TREES: &str =
    "qemu-guest-agent knows files by their paths alone, and can't list directories";
const PARTLY: &str = "qemu-guest-agent tells only a part of it, and neither memory nor processes";

const FILES: &[&str] = &[
    "guest-file-open",
    "guest-file-read",
    "guest-file-seek",
    "guest-file-close",
];

/// All methods, in the order of their services.
pub(super) static METHODS: &[Method] = &[
    served(
        "Accounts/SetPassword",
        &["guest-set-user-password"],
        |agent, request| unary(agent, request, accounts::set_password),
    ),
    served(
        "Accounts/ListAuthorizedKeys",
        &["guest-ssh-get-authorized-keys"],
        |agent, request| unary(agent, request, accounts::list_keys),
    ),
    served(
        "Accounts/AddAuthorizedKeys",
        &[
            "guest-ssh-add-authorized-keys",
            "guest-ssh-get-authorized-keys",
        ],
        |agent, request| unary(agent, request, accounts::add_keys),
    ),
    served(
        "Accounts/RemoveAuthorizedKeys",
        &[
            "guest-ssh-remove-authorized-keys",
            "guest-ssh-get-authorized-keys",
        ],
        |agent, request| unary(agent, request, accounts::remove_keys),
    ),
    not(
        "Events/Subscribe",
        "qemu-guest-agent tells nothing unless it is asked",
    ),
    served(
        "Exec/Run",
        &["guest-exec", "guest-exec-status"],
        |agent, request| noted(agent, request, exec::run),
    ),
    not("Exec/Start", NO_STREAMS),
    not("Exec/List", NO_COMMAND),
    not("Exec/Attach", NO_STREAMS),
    not("Exec/Signal", NO_SIGNALS),
    not("Files/Stat", NO_COMMAND),
    not("Files/List", NO_TREES),
    served("Files/Read", FILES, |agent, request| {
        streaming(agent, request, files::read)
    }),
    served(
        "Files/Write",
        &[
            "guest-file-open",
            "guest-file-write",
            "guest-file-seek",
            "guest-file-flush",
            "guest-file-close",
        ],
        |agent, request| upload(agent, request, files::write),
    ),
    not("Files/GetUpload", "qemu-guest-agent can't resume an upload"),
    not("Files/Mkdir", NO_COMMAND),
    not("Files/Remove", NO_COMMAND),
    not("Files/Rename", NO_COMMAND),
    not("Files/SetAttributes", NO_COMMAND),
    served("Files/Checksum", FILES, |agent, request| {
        unary(agent, request, files::checksum)
    }),
    not("Files/PullTree", NO_TREES),
    not("Files/PushTree", NO_TREES),
    not("Files/Watch", NO_COMMAND),
    served(
        "Hardware/ListCpus",
        &["guest-get-vcpus"],
        |agent, request| unary(agent, request, hardware::list_cpus),
    ),
    served(
        "Hardware/SetCpus",
        &["guest-set-vcpus", "guest-get-vcpus"],
        |agent, request| unary(agent, request, hardware::set_cpus),
    ),
    served(
        "Hardware/ListMemoryBlocks",
        &["guest-get-memory-blocks", "guest-get-memory-block-info"],
        |agent, request| unary(agent, request, hardware::list_blocks),
    ),
    served(
        "Hardware/SetMemoryBlocks",
        &["guest-set-memory-blocks"],
        |agent, request| unary(agent, request, hardware::set_blocks),
    ),
    not("Metrics/Get", PARTLY),
    not("Metrics/Watch", PARTLY),
    served(
        "Network/ListInterfaces",
        &["guest-network-get-interfaces"],
        |agent, request| unary(agent, request, network::list_interfaces),
    ),
    served(
        "Network/ListRoutes",
        &["guest-network-get-route"],
        |agent, request| unary(agent, request, network::list_routes),
    ),
    served("Power/Shutdown", &["guest-shutdown"], |agent, request| {
        unary(agent, request, power::shutdown)
    }),
    served("Power/Suspend", &[], |agent, request| {
        unary(agent, request, power::suspend)
    }),
    not("Services/List", NO_COMMAND),
    not("Services/Get", NO_COMMAND),
    not("Services/Control", NO_COMMAND),
    not("Services/Logs", NO_COMMAND),
    served(
        "Storage/ListFilesystems",
        &["guest-get-fsinfo"],
        |agent, request| unary(agent, request, storage::list_filesystems),
    ),
    served(
        "Storage/ListDisks",
        &["guest-get-disks"],
        |agent, request| unary(agent, request, storage::list_disks),
    ),
    served(
        "Storage/Freeze",
        &["guest-fsfreeze-thaw", "guest-fsfreeze-status"],
        |agent, request| unary(agent, request, storage::freeze),
    ),
    served(
        "Storage/Thaw",
        &["guest-fsfreeze-thaw"],
        |agent, request| unary(agent, request, storage::thaw),
    ),
    served(
        "Storage/FreezeStatus",
        &["guest-fsfreeze-status"],
        |agent, request| unary(agent, request, storage::freeze_status),
    ),
    served("Storage/Trim", &["guest-fstrim"], |agent, request| {
        unary(agent, request, storage::trim)
    }),
    served("System/Ping", &["guest-ping"], |agent, request| {
        unary(agent, request, system::ping)
    }),
    served("System/GetInfo", &["guest-info"], |agent, request| {
        unary(agent, request, system::get_info)
    }),
    not("System/GetStatus", PARTLY),
    served(
        "System/ListUsers",
        &["guest-get-users"],
        |agent, request| unary(agent, request, system::list_users),
    ),
    served(
        "System/GetTimezone",
        &["guest-get-timezone"],
        |agent, request| unary(agent, request, system::get_timezone),
    ),
    not("System/SetHostname", NO_COMMAND),
    served("Time/Get", &["guest-get-time"], |agent, request| {
        unary(agent, request, time::get)
    }),
    served(
        "Time/Set",
        &["guest-set-time", "guest-get-time"],
        |agent, request| unary(agent, request, time::set),
    ),
    served("Time/GetOffset", &["guest-get-time"], |agent, request| {
        unary(agent, request, time::get_offset)
    }),
    not("Tunnel/Connect", NO_COMMAND),
    not("Tunnel/Listen", NO_COMMAND),
    not("Tunnel/Accept", NO_COMMAND),
];

// === impl Method ===

impl Method {
    /// Its full name: `vbridge.guest.v1.System/Ping`.
    pub(super) fn full_name(&self) -> String {
        format!("{PACKAGE}{}", self.name)
    }

    /// Whether the agent serves it while file systems are frozen; those that say so themselves are let through.
    pub(super) fn is_served_while_frozen(&self) -> bool {
        self.name == "Storage/Freeze"
            || !self.needs.is_empty() && self.needs.iter().all(|command| FREE.contains(command))
    }

    /// It as `System.GetInfo` lists it.
    pub(super) fn told(&self, agent: &Agent) -> api::Method {
        let reason = match self.call {
            None => self.why.to_owned(),
            Some(_) => agent.obstacle(self.needs).unwrap_or_default(),
        };
        api::Method {
            name: self.full_name(),
            enabled: reason.is_empty(),
            reason,
        }
    }
}

/// The method of this path, `/vbridge.guest.v1.System/Ping`.
pub(super) fn find(path: &str) -> Option<&'static Method> {
    let name = path.strip_prefix('/')?.strip_prefix(PACKAGE)?;
    METHODS.iter().find(|method| method.name == name)
}

/// Full names of the services that have a method that is served.
pub(super) fn services() -> impl Iterator<Item = &'static str> {
    SERVED.into_iter()
}

/// A test holds it against the table.
const SERVED: [&str; 9] = [
    "vbridge.guest.v1.Accounts",
    "vbridge.guest.v1.Exec",
    "vbridge.guest.v1.Files",
    "vbridge.guest.v1.Hardware",
    "vbridge.guest.v1.Network",
    "vbridge.guest.v1.Power",
    "vbridge.guest.v1.Storage",
    "vbridge.guest.v1.System",
    "vbridge.guest.v1.Time",
];

#[cfg(test)]
mod tests;
