//! Names that mean harm, in every field that takes a name: each is refused with one clear sentence, which repeats none of
//! its control characters and not all of its length, and nothing runs with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, pin::Pin};

use agent_guest::SystemdPlaces;
use common::{Running, within};
use tokio_stream::iter;
use tonic::{Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    AccountsAddAuthorizedKeysRequest, AccountsListAuthorizedKeysRequest,
    AccountsRemoveAuthorizedKeysRequest, AccountsSetPasswordRequest, Command, EnvironmentVariable,
    ExecAttach, ExecAttachRequest, ExecRunRequest, ExecSignalRequest, FilesChecksumRequest,
    FilesGetUploadRequest, FilesListRequest, FilesMkdirRequest, FilesPullTreeRequest,
    FilesPushTreeRequest, FilesPushTreeStart, FilesReadRequest, FilesRemoveRequest,
    FilesRenameRequest, FilesSetAttributesRequest, FilesStatRequest, FilesWatchRequest,
    FilesWriteRequest, FilesWriteStart, ServicesLogsRequest, SetHostnameRequest, SocketAddress,
    StorageFreezeRequest, StorageTrimRequest, TunnelAcceptRequest, TunnelAddress,
    TunnelConnectRequest, TunnelListenRequest, accounts_client::AccountsClient,
    exec_attach_request, exec_client::ExecClient, files_client::FilesClient,
    files_push_tree_request, files_write_request, services_client::ServicesClient,
    storage_client::StorageClient, system_client::SystemClient, tunnel_accept_request,
    tunnel_address, tunnel_client::TunnelClient, tunnel_connect_request,
};

/// What a shell, an option parser, a file system, a terminal or a format would take for more than a name.
const HOSTILE: [&str; 14] = [
    "-x",
    "--help",
    "../..",
    "../../etc/passwd",
    "no/../such",
    "nul\0nul",
    "line\nroot:x:0:0",
    "\r\n",
    "\u{1b}[31m\u{7}",
    "\u{9b}31m",
    "$(id)",
    "`id`; id",
    "%n%s",
    "\u{202e}",
];

/// Longer than any name, and than what should be repeated of one.
const LONG: usize = 12 * 1024;

/// Bytes of a message. It travels in a header, beside others.
const MAX_MESSAGE: usize = 2048;

type Outcome = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A call that has a name in one of its fields.
type Call = fn(Channel, String) -> Outcome;

/// The field, and the call.
type Field = (&'static str, Call);

macro_rules! field {
    ($name:literal, $client:ident.$method:ident, |$text:ident| $request:expr) => {
        (
            $name,
            (|channel: Channel, $text: String| -> Outcome {
                Box::pin(async move {
                    let request = $request;
                    let answer = $client::new(channel).$method(request).await?;
                    answer.into_inner().end().await
                })
            }) as Call,
        )
    };
}

/// What comes of a call, to its end.
trait Drain {
    fn end(self) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<T: Send> Drain for tonic::Streaming<T> {
    async fn end(mut self) -> Result<(), Status> {
        self.message().await.map(drop)
    }
}

macro_rules! single {
    ($($message:ident)*) => {$(
        impl Drain for vbridge_api::guest::v1::$message {
            async fn end(self) -> Result<(), Status> {
                Ok(())
            }
        }
    )*};
}

single! {
    SetHostnameResponse AccountsSetPasswordResponse AccountsListAuthorizedKeysResponse
    AccountsAddAuthorizedKeysResponse AccountsRemoveAuthorizedKeysResponse ExecRunResponse
    ExecSignalResponse FilesStatResponse FilesWriteResponse FilesGetUploadResponse FilesMkdirResponse
    FilesRemoveResponse FilesRenameResponse FilesSetAttributesResponse FilesChecksumResponse
    FilesPushTreeResponse StorageFreezeResponse StorageTrimResponse
}

impl Drain for tonic_health::pb::HealthCheckResponse {
    async fn end(self) -> Result<(), Status> {
        Ok(())
    }
}

fn run(command: Command) -> ExecRunRequest {
    ExecRunRequest {
        command: Some(command),
        ..ExecRunRequest::default()
    }
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Something that works, but for what is changed in it.
fn works() -> Command {
    Command {
        argv: argv(&["true"]),
        ..Command::default()
    }
}

/// A host's address whose port is never reached.
fn host(host: String) -> TunnelAddress {
    TunnelAddress {
        address: Some(tunnel_address::Address::Tcp(SocketAddress {
            host,
            port: 9,
        })),
    }
}

fn unix(path: String) -> TunnelAddress {
    TunnelAddress {
        address: Some(tunnel_address::Address::Unix(path)),
    }
}

fn connect(address: TunnelAddress) -> tokio_stream::Iter<std::vec::IntoIter<TunnelConnectRequest>> {
    let message = Some(tunnel_connect_request::Message::Connect(address));
    iter(vec![TunnelConnectRequest { message }])
}

fn accounts() -> Vec<Field> {
    vec![
        field!(
            "SetHostname.hostname",
            SystemClient.set_hostname,
            |hostname| { SetHostnameRequest { hostname } }
        ),
        field!("SetPassword.user", AccountsClient.set_password, |user| {
            let password = b"x".to_vec();
            AccountsSetPasswordRequest {
                user,
                password,
                crypted: false,
            }
        }),
        field!(
            "ListAuthorizedKeys.user",
            AccountsClient.list_authorized_keys,
            |user| { AccountsListAuthorizedKeysRequest { user } }
        ),
        field!(
            "AddAuthorizedKeys.user",
            AccountsClient.add_authorized_keys,
            |user| {
                AccountsAddAuthorizedKeysRequest {
                    user,
                    keys: Vec::new(),
                    reset: true,
                }
            }
        ),
        field!(
            "AddAuthorizedKeys.keys",
            AccountsClient.add_authorized_keys,
            |key| {
                let user = "nobody knows them".to_owned();
                AccountsAddAuthorizedKeysRequest {
                    user,
                    keys: vec![key],
                    reset: true,
                }
            }
        ),
        field!(
            "RemoveAuthorizedKeys.user",
            AccountsClient.remove_authorized_keys,
            |user| {
                AccountsRemoveAuthorizedKeysRequest {
                    user,
                    keys: Vec::new(),
                }
            }
        ),
        field!("Health.service", HealthClient.check, |service| {
            HealthCheckRequest { service }
        }),
        field!("Freeze.mount_points", StorageClient.freeze, |point| {
            StorageFreezeRequest {
                mount_points: vec![point],
                limit: None,
            }
        }),
        field!("Trim.mount_points", StorageClient.trim, |point| {
            StorageTrimRequest {
                mount_points: vec![point],
                minimum_bytes: 0,
            }
        }),
        field!("Logs.units", ServicesClient.logs, |unit| {
            ServicesLogsRequest {
                units: vec![unit],
                ..ServicesLogsRequest::default()
            }
        }),
        field!("Logs.after_cursor", ServicesClient.logs, |after_cursor| {
            ServicesLogsRequest {
                after_cursor: format!("{after_cursor}\n"),
                ..ServicesLogsRequest::default()
            }
        }),
    ]
}

fn commands() -> Vec<Field> {
    vec![
        field!("Run.argv", ExecClient.run, |word| run(Command {
            argv: vec![word],
            ..works()
        })),
        field!("Run.working_directory", ExecClient.run, |directory| {
            run(Command {
                working_directory: directory,
                ..works()
            })
        }),
        field!("Run.user", ExecClient.run, |user| run(Command {
            user,
            ..works()
        })),
        field!("Run.group", ExecClient.run, |group| run(Command {
            group,
            ..works()
        })),
        field!("Run.environment", ExecClient.run, |name| {
            // Any name is one, but for those.
            let name = format!("{name}=\0");
            let variable = EnvironmentVariable {
                name,
                value: Some(String::new()),
            };
            run(Command {
                environment: vec![variable],
                ..works()
            })
        }),
        field!("Signal.id", ExecClient.signal, |id| {
            ExecSignalRequest {
                id,
                signal: 9,
                process_only: false,
            }
        }),
        field!("Attach.id", ExecClient.attach, |id| {
            let attach = ExecAttach {
                id,
                ..ExecAttach::default()
            };
            iter([ExecAttachRequest {
                message: Some(exec_attach_request::Message::Attach(attach)),
            }])
        }),
        field!("Connect.unix", TunnelClient.connect, |path| connect(unix(
            path
        ))),
        field!("Connect.host", TunnelClient.connect, |name| connect(host(
            format!("{name}\n")
        ))),
        field!("Listen.unix", TunnelClient.listen, |path| {
            TunnelListenRequest {
                address: Some(unix(path)),
            }
        }),
        field!("Accept.id", TunnelClient.accept, |id| {
            iter([TunnelAcceptRequest {
                message: Some(tunnel_accept_request::Message::Id(id)),
            }])
        }),
    ]
}

fn files() -> Vec<Field> {
    vec![
        field!("Stat.path", FilesClient.stat, |path| {
            FilesStatRequest {
                path,
                ..FilesStatRequest::default()
            }
        }),
        field!("List.path", FilesClient.list, |path| {
            FilesListRequest {
                path,
                follow_link: false,
            }
        }),
        field!("Read.path", FilesClient.read, |path| {
            FilesReadRequest {
                path,
                ..FilesReadRequest::default()
            }
        }),
        field!("Write.path", FilesClient.write, |path| written(
            path,
            String::new()
        )),
        field!("Write.owner", FilesClient.write, |owner| written(
            "/no/such".to_owned(),
            owner
        )),
        field!("GetUpload.path", FilesClient.get_upload, |path| {
            FilesGetUploadRequest {
                path,
                upload_id: "x".to_owned(),
            }
        }),
        field!("GetUpload.upload_id", FilesClient.get_upload, |upload_id| {
            FilesGetUploadRequest {
                path: "/tmp/x".to_owned(),
                upload_id,
            }
        }),
        field!("Mkdir.path", FilesClient.mkdir, |path| {
            FilesMkdirRequest {
                path,
                ..FilesMkdirRequest::default()
            }
        }),
        field!("Remove.path", FilesClient.remove, |path| {
            FilesRemoveRequest {
                path,
                recursive: true,
                ignore_missing: false,
            }
        }),
        field!("Rename.from", FilesClient.rename, |from| {
            FilesRenameRequest {
                from,
                to: "/no/such".to_owned(),
                no_overwrite: true,
            }
        }),
        field!("Rename.to", FilesClient.rename, |to| {
            FilesRenameRequest {
                from: "/no/such".to_owned(),
                to,
                no_overwrite: true,
            }
        }),
        field!("SetAttributes.path", FilesClient.set_attributes, |path| {
            FilesSetAttributesRequest {
                path,
                ..FilesSetAttributesRequest::default()
            }
        }),
        field!("SetAttributes.group", FilesClient.set_attributes, |group| {
            let path = "/no/such".to_owned();
            FilesSetAttributesRequest {
                path,
                group,
                ..FilesSetAttributesRequest::default()
            }
        }),
        field!("Checksum.path", FilesClient.checksum, |path| {
            FilesChecksumRequest {
                path,
                ..FilesChecksumRequest::default()
            }
        }),
        field!("PullTree.path", FilesClient.pull_tree, |path| {
            FilesPullTreeRequest {
                path,
                one_file_system: true,
            }
        }),
        field!("PushTree.path", FilesClient.push_tree, |path| {
            let start = FilesPushTreeStart {
                path,
                ..FilesPushTreeStart::default()
            };
            let message = files_push_tree_request::Message::Start(start);
            iter([FilesPushTreeRequest {
                message: Some(message),
            }])
        }),
        field!("Watch.path", FilesClient.watch, |path| {
            FilesWatchRequest {
                path,
                ..FilesWatchRequest::default()
            }
        }),
    ]
}

fn written(
    path: String,
    owner: String,
) -> tokio_stream::Iter<std::vec::IntoIter<FilesWriteRequest>> {
    let start = FilesWriteStart {
        path,
        owner,
        ..FilesWriteStart::default()
    };
    let message = Some(files_write_request::Message::Start(start));
    iter(vec![FilesWriteRequest { message }])
}

/// An agent whose `journalctl` leaves a mark if it is ever run.
fn agent(here: &Path) -> Running {
    let journalctl = here.join("journalctl");
    let script = format!("#!/bin/sh\ntouch {}\n", here.join("it-ran").display());
    fs::write(&journalctl, script).unwrap();
    fs::set_permissions(&journalctl, fs::Permissions::from_mode(0o755)).unwrap();
    Running::start_with(|builder| {
        builder.systemd(SystemdPlaces {
            booted: here.to_owned(),
            bus: here.join("no-bus"),
            journalctl,
        })
    })
}

/// Whether a refusal can be shown as it is, and read by a program.
fn is_clear(status: &Status) -> bool {
    let text = status.message();
    !text.is_empty()
        && text.len() <= MAX_MESSAGE
        && !text.chars().any(char::is_control)
        && !text.contains('\u{202e}')
        && status
            .get_error_details()
            .error_info()
            .is_some_and(|info| info.domain == "vbridge" && !info.reason.is_empty())
}

#[tokio::test]
async fn a_hostile_name_is_refused_in_every_field_with_a_clear_sentence() {
    let here = tempfile::tempdir().unwrap();
    let agent = agent(here.path());
    let mut session = agent.host().await;
    let channel = session.channel().await;
    let long = "x".repeat(LONG);
    let mut wrong = Vec::new();
    let fields = [accounts(), commands(), files()].concat();
    for (field, call) in &fields {
        for name in HOSTILE.iter().copied().chain([long.as_str()]) {
            let shown: String = name.chars().take(20).collect();
            match within(call(channel.clone(), name.to_owned())).await {
                Ok(()) => wrong.push(format!("{field} takes {shown:?}")),
                Err(status) if is_clear(&status) => {}
                Err(status) => {
                    let text: String = status.message().chars().take(200).collect();
                    wrong.push(format!(
                        "{field} with {shown:?}: {:?}, {} bytes: {text:?}",
                        status.code(),
                        status.message().len()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!here.path().join("it-ran").exists(), "journalctl has run");
}

/// Below a directory that is there, where no check of the whole path's form helps.
#[tokio::test]
async fn a_hostile_name_below_a_directory_is_no_way_out_of_it() {
    let here = tempfile::tempdir().unwrap();
    let agent = agent(here.path());
    let mut session = agent.host().await;
    let channel = session.channel().await;
    let paths = files().into_iter().filter(|(field, _)| {
        field.ends_with(".path") && !["Write.path", "Mkdir.path"].contains(field)
    });
    let mut wrong = Vec::new();
    for (field, call) in paths {
        for name in HOSTILE {
            let path = format!("{}/sub/{name}", here.path().display());
            match within(call(channel.clone(), path)).await {
                Err(status) if is_clear(&status) => {}
                outcome => wrong.push(format!("{field} with {name:?}: {outcome:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
