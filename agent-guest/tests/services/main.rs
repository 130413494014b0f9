//! Units and logs through the whole agent, with a real bus, a systemd that is made up, and a `journalctl` of ours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod control;
mod fake;
mod logs;
mod units;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agent_guest::SystemdPlaces;
use common::{Host, Running, within};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    GetInfoRequest, ServicesControlRequest, ServicesGetRequest, ServicesListRequest,
    ServicesLogsRequest, services_client::ServicesClient, system_client::SystemClient,
};

/// An agent whose systemd is in a directory.
struct Guest {
    agent: Running,
    _host: Host,
    channel: Channel,
    services: ServicesClient<Channel>,
    dir: tempfile::TempDir,
}

impl Guest {
    /// One that has nothing there yet.
    async fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = SystemdPlaces {
            booted: dir.path().join("booted"),
            bus: dir.path().join("bus"),
            journalctl: dir.path().join("journalctl"),
        };
        let agent = Running::start_with(|builder| builder.systemd(places));
        let mut host = agent.host().await;
        let channel = host.channel().await;
        Self {
            agent,
            _host: host,
            services: ServicesClient::new(channel.clone()),
            channel,
            dir,
        }
    }

    /// One that runs systemd, which has no bus and no journal yet.
    async fn booted() -> Self {
        let guest = Self::bare().await;
        std::fs::create_dir(guest.at("booted")).unwrap();
        guest
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The names of methods of Services that are not enabled.
    async fn disabled(&self) -> Vec<String> {
        let mut system = SystemClient::new(self.channel.clone());
        let info = within(system.get_info(GetInfoRequest {})).await.unwrap();
        let methods = info.into_inner().methods.into_iter();
        let disabled = methods.filter(|method| !method.enabled);
        disabled
            .filter_map(|method| {
                let name = method.name.strip_prefix("vbridge.guest.v1.Services/")?;
                assert!(!method.reason.is_empty());
                Some(name.to_owned())
            })
            .collect()
    }
}

/// Puts a program there. Another process writes it: while it is open for writing here, a child that is just being started
/// elsewhere in these tests might have it open, too, and then it can't be run.
fn program(path: &Path, text: &str) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", r#"cat > "$1" && chmod 755 "$1""#, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Code and reason of a failure.
fn why(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default())
}

#[tokio::test]
async fn without_systemd_every_method_says_so_and_the_info_does_too() {
    let mut guest = Guest::bare().await;
    let unsupported = (Code::Unimplemented, "UNSUPPORTED".to_owned());
    let services = &mut guest.services;
    let list = within(services.list(ServicesListRequest::default())).await;
    let get = within(services.get(ServicesGetRequest::default())).await;
    let control = within(services.control(ServicesControlRequest::default())).await;
    let logs = within(services.logs(ServicesLogsRequest::default())).await;
    for status in [
        list.unwrap_err(),
        get.unwrap_err(),
        control.unwrap_err(),
        logs.unwrap_err(),
    ] {
        assert_eq!(why(&status), unsupported);
        assert!(status.message().contains("does not run systemd"));
    }
    assert_eq!(guest.disabled().await.len(), 4);
}

#[tokio::test]
async fn a_guest_may_have_a_journal_and_no_bus() {
    let guest = Guest::booted().await;
    program(&guest.at("journalctl"), "#!/bin/sh\n");
    let mut disabled = guest.disabled().await;
    disabled.sort();
    assert_eq!(disabled, ["Control", "Get", "List"]);
}
