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
mod tests {
    use std::collections::BTreeSet;

    use http::header::CONTENT_TYPE;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;
    use tower_service::Service as _;

    use super::*;
    use crate::qemu::script::{ALL, Script, info};

    /// All methods of the guest's API.
    fn described() -> BTreeSet<String> {
        let set = FileDescriptorSet::decode(vbridge_api::DESCRIPTOR_SET).unwrap();
        let files = set.file.iter();
        let files = files.filter(|file| file.package() == "vbridge.guest.v1");
        files
            .flat_map(|file| &file.service)
            .flat_map(|service| {
                let methods = service.method.iter();
                methods.map(move |method| format!("{}/{}", service.name(), method.name()))
            })
            .collect()
    }

    async fn status(script: &Arc<Script>, enabled: &[&str], path: &str) -> Status {
        let mut services = script.serve_with(&info(enabled, &[]));
        // An empty message, as far as it is wanted.
        let body = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
        let request = Request::post(path)
            .header(CONTENT_TYPE, "application/grpc")
            .body(body)
            .unwrap();
        let response = services.call(request).await.unwrap();
        Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
    }

    fn reason(status: &Status) -> String {
        let info = status.get_error_details().error_info().cloned();
        info.map(|info| info.reason).unwrap_or_default()
    }

    #[test]
    fn every_method_of_the_api_stands_in_the_table_once() {
        let names: Vec<_> = METHODS
            .iter()
            .map(|method| method.name.to_owned())
            .collect();
        let set: BTreeSet<_> = names.iter().cloned().collect();
        assert_eq!(set, described());
        assert_eq!(names.len(), set.len());
        let served = METHODS.iter().filter(|method| method.call.is_some());
        let served: BTreeSet<_> = served
            .map(|method| format!("{PACKAGE}{}", method.name.split_once('/').unwrap().0))
            .collect();
        assert!(served.iter().map(String::as_str).eq(services()));
        for method in METHODS {
            assert_eq!(method.call.is_none(), !method.why.is_empty());
            assert!(method.needs.iter().all(|command| ALL.contains(command)));
        }
    }

    #[tokio::test]
    async fn what_nobody_serves_says_why_and_what_helps() {
        let script = Script::fixed([]);
        for method in METHODS.iter().filter(|method| method.call.is_none()) {
            let path = format!("/{}", method.full_name());
            let status = status(&script, &ALL, &path).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
            assert_eq!(reason(&status), "AGENT_CANNOT");
            assert!(
                status.message().contains("install vbridge-agent"),
                "{status}"
            );
        }
        for path in [
            "/",
            "/x",
            "/vbridge.guest.v1.System/Nothing",
            "/a.B/C",
            "/vbridge.guest.v2.System/Ping",
        ] {
            let status = status(&script, &ALL, path).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
        }
        assert!(script.commands().is_empty());
    }

    #[tokio::test]
    async fn without_its_commands_no_method_is_served_and_none_is_asked() {
        let script = Script::fixed([]);
        let served = METHODS.iter().filter(|method| method.call.is_some());
        for method in served.filter(|method| !method.needs.is_empty()) {
            let path = format!("/{}", method.full_name());
            let status = status(&script, &[], &path).await;
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
            let needed = method
                .needs
                .iter()
                .any(|command| status.message().contains(command));
            assert!(needed, "{status}");
        }
        assert!(script.commands().is_empty());
    }

    #[tokio::test]
    async fn no_method_panics_or_is_lost_when_the_agent_answers_nonsense() {
        use serde_json::json;
        for nonsense in [
            json!(null),
            json!("\u{1b}[2J\u{0}"),
            json!(-1),
            json!(1e308),
            json!({ "keys": 1, "paths": [1], "size": [] }),
            json!([[[[]]]]),
            json!([{ "name": "\u{202e}", "user": {}, "logical-id": 1e99 }]),
            json!({ "exited": 1, "pid": "x" }),
        ] {
            let script = Script::new(move |_, _| Ok(nonsense.clone()));
            for method in METHODS.iter().filter(|method| method.call.is_some()) {
                let path = format!("/{}", method.full_name());
                let status = status(&script, &ALL, &path).await;
                assert!(
                    !matches!(status.code(), Code::Unknown | Code::Unimplemented),
                    "{path}: {status}"
                );
                assert!(!status.message().chars().any(char::is_control), "{status}");
            }
        }
    }

    #[tokio::test]
    async fn reflection_lists_what_is_served() {
        use futures_util::{StreamExt as _, stream};
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let mut client = ServerReflectionClient::new(Script::fixed([]).serve());
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let requests = stream::once(std::future::ready(request));
        let answers = client.server_reflection_info(requests).await.unwrap();
        let answer = answers.into_inner().next().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
            panic!("a list was asked for");
        };
        let names: BTreeSet<_> = listed.service.into_iter().map(|of| of.name).collect();
        assert!(
            services().all(|service| names.contains(service)),
            "{names:?}"
        );
        assert!(!names.contains("vbridge.guest.v1.Tunnel"));
    }
}
