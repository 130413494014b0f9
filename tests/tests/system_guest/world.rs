//! The guest that all tests here share: Debian with systemd, a bridge to its agent, and its QEMU guest agent.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell, RwLock};
use tonic::{Request, Status, metadata::MetadataValue, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    GetInfoRequest, GetInfoResponse, PingRequest, system_client::SystemClient,
};
use vbridge_tests::{
    fixture::{Bridge, Guest, eventually},
    process::PATIENCE,
    qga::Qga,
};

use crate::ssh::Ssh;

/// The guest's name at the bridge.
pub(crate) const NAME: &str = "guest";

/// A user of the guest beside root.
pub(crate) const USER: &str = "ada";

/// What makes the guest worth comparing: a user, a time zone with an offset, and addresses.
const FURNISH: &str = "set -e
useradd --create-home --shell /bin/sh ada
ln -sf /usr/share/zoneinfo/Europe/Berlin /etc/localtime
interface=$(ls /sys/class/net | grep -v '^lo$')
ip link set $interface up
ip address add 192.0.2.7/24 dev $interface
ip address add 2001:db8::7/64 dev $interface nodad
systemctl restart qemu-guest-agent";

pub(crate) struct World {
    /// Written by who kills it.
    pub(crate) bridge: RwLock<Bridge>,
    pub(crate) guest: Guest,
    pub(crate) qga: Mutex<Qga>,
    pub(crate) ssh: OnceCell<Ssh>,
    pub(crate) here: TempDir,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let guest = Guest::boot_system(2).await?;
        println!("the guest was up after {:?}", guest.vm().boot_time());
        let bridge = Bridge::start([guest.seat(NAME)]).await?;
        bridge.ready(NAME).await?;
        guest.exec(FURNISH).await?;
        let qga = Qga::connect(&guest.vm().qga_channel()).await?;
        Ok(Self {
            bridge: RwLock::new(bridge),
            guest,
            qga: Mutex::new(qga),
            ssh: OnceCell::new(),
            here: tempfile::tempdir()?,
        })
    }

    /// The agent's services through the bridge.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        self.bridge.read().await.place(NAME).channel().await
    }

    /// Runs a shell line in the guest by another way than the agent.
    pub(crate) async fn shell(&self, line: &str) -> Result<String> {
        Ok(self.guest.exec(line).await?.trim_end().to_owned())
    }

    pub(crate) async fn vbridge(&self, words: &[&str]) -> Result<Output> {
        self.bridge.read().await.run(words, b"").await
    }

    pub(crate) async fn good(&self, words: &[&str]) -> Result<String> {
        self.bridge.read().await.good(words).await
    }

    pub(crate) async fn info(&self) -> Result<GetInfoResponse> {
        let mut system = SystemClient::new(self.channel().await?);
        Ok(system
            .get_info(patient(GetInfoRequest {}))
            .await?
            .into_inner())
    }

    /// Waits until calls are answered, after the agent has gone. One that was under way then has failed: nobody could know what
    /// has become of it.
    pub(crate) async fn answers(&self) -> Result<()> {
        let system = SystemClient::new(self.channel().await?);
        eventually("calls are answered", PATIENCE, || {
            let mut system = system.clone();
            async move {
                let answer = system.ping(patient(PingRequest::default())).await;
                Ok(answer.is_ok())
            }
        })
        .await
    }

    /// What has to be told where a test fails.
    pub(crate) fn story(&self) -> String {
        let log = self.bridge.try_read().map(|bridge| bridge.log());
        format!(
            "{}{}",
            log.unwrap_or_default(),
            self.guest.vm().console_tail()
        )
    }
}

/// A request that waits for a guest whose agent is just starting.
pub(crate) fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let wait = MetadataValue::from_static("20s");
    request.metadata_mut().insert("x-vbridge-wait", wait);
    request
}

/// Sees that a call was refused for this reason.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, reason: &str) -> Result<()> {
    let status = answer.err().context("it was not refused")?;
    let details = status.get_error_details();
    let told = details.error_info().map(|info| info.reason.as_str());
    ensure!(
        told == Some(reason),
        "refused for another reason: {status:?}"
    );
    Ok(())
}
