//! Every field that takes a name, as a call that has one in it.

use std::pin::Pin;

use tokio_stream::iter;
use tonic::{Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
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

/// How it ends.
pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A call that has a name in one of its fields.
pub(crate) type Call = fn(Channel, String) -> Outcome;

/// The field, and the call.
pub(crate) type Field = (&'static str, Call);

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

/// Of everything that is neither a command nor a file.
pub(crate) fn accounts() -> Vec<Field> {
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

/// Of commands and connections.
pub(crate) fn commands() -> Vec<Field> {
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

/// Of files.
pub(crate) fn files() -> Vec<Field> {
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
