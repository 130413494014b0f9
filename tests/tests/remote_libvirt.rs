//! Guests of hypervisors on other hosts: their channels are streams of libvirt's. The bridge stands outside of the daemons'
//! namespaces here and does not see their files, as on another host.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libvirt::{Connect, raw::api::DomainChannelFlags};
use tonic::Status;
use tonic_types::StatusExt as _;
use vbridge_api::host::v1::GuestState;
use vbridge_tests::{
    exercise::v1::UnaryRequest,
    fixture::{Bridge, eventually, story},
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        daemon::{Auth, Libvirtd},
        domain::Domain,
        sshd::Sshd,
    },
};

/// The bridge knows within this time what libvirt has told, on a machine that is badly overloaded.
const KNOWN: Duration = Duration::from_secs(20);

/// A guest has booted, or has gone, within this time.
const BOOTED: Duration = Duration::from_secs(120);

/// The channel that makes a domain a guest.
const CHANNEL: &str = "org.vbridge.agent.0";

/// A bridge that is on another host, for all that it sees.
async fn far_from(uri: &str) -> Result<Bridge> {
    Bridge::start_with(Vec::new(), vec!["--libvirt".to_owned(), uri.to_owned()]).await
}

fn by_tls(daemon: &Libvirtd) -> Result<String> {
    daemon.tls_uri("qemu", ClientCertificate::Good)
}

async fn is(bridge: &Bridge, name: &str, state: GuestState, limit: Duration) -> Result<()> {
    let there = async || Ok(bridge.guest(name).await.is_ok_and(|it| it.state() == state));
    eventually(&format!("{name} being {state:?}"), limit, there)
        .await
        .with_context(|| format!("{:?}", bridge.log()))
}

/// A call that goes the whole way.
async fn call(bridge: &Bridge, guest: &str) -> Result<(), Status> {
    let client = bridge.place(guest).exercise().await;
    let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
    let request = UnaryRequest {
        payload: b"hello".to_vec().into(),
        answer: None,
    };
    let answer = client.unary(request).await?.into_inner();
    match answer.payload == "hello" {
        true => Ok(()),
        false => Err(Status::data_loss("another answer")),
    }
}

/// The call fails with this reason, and its sentence says all the words.
async fn fails(bridge: &Bridge, guest: &str, reason: &str, words: &[&str]) -> Result<()> {
    let status = call(bridge, guest).await.err().context("it was answered")?;
    let info = status.get_details_error_info().map(|info| info.reason);
    ensure!(info.as_deref() == Some(reason), "not {reason}: {status:?}");
    for word in words {
        ensure!(
            status.message().contains(word),
            "{status} does not say {word}"
        );
    }
    Ok(())
}

#[test]
fn a_guest_of_another_host_starts_pauses_restarts_and_stops_as_a_local_one_does() {
    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let uri = by_tls(daemon)?;
        let bridge = far_from(&uri).await?;
        let domain = Domain::builder("far").build().await?;
        domain.define(daemon).await?;
        is(&bridge, "far", GuestState::Off, KNOWN).await?;
        fails(&bridge, "far", "GUEST_OFF", &[]).await?;
        daemon.virsh(&["start", "far"]).await?;
        is(&bridge, "far", GuestState::Ready, BOOTED).await?;
        for name in ["far", domain.uuid()] {
            call(&bridge, name).await?;
        }
        let guest = bridge.guest("far").await?;
        ensure!(
            guest.channel == format!("libvirt:{uri}#{CHANNEL}"),
            "{guest:?}"
        );
        daemon.virsh(&["suspend", "far"]).await?;
        is(&bridge, "far", GuestState::Paused, KNOWN).await?;
        fails(&bridge, "far", "GUEST_PAUSED", &[]).await?;
        daemon.virsh(&["resume", "far"]).await?;
        is(&bridge, "far", GuestState::Ready, KNOWN).await?;
        call(&bridge, "far").await?;
        let sessions = bridge.guest("far").await?.sessions;
        ensure!(
            sessions == guest.sessions,
            "the pause cost the session: {sessions}"
        );
        daemon.virsh(&["destroy", "far"]).await?;
        is(&bridge, "far", GuestState::Off, KNOWN).await?;
        // Another running has another channel.
        daemon.virsh(&["start", "far"]).await?;
        is(&bridge, "far", GuestState::Ready, BOOTED).await?;
        call(&bridge, "far").await?;
        daemon.virsh(&["destroy", "far"]).await?;
        daemon.virsh(&["undefine", "far"]).await?;
        let is_gone = async || Ok(bridge.guest("far").await.is_err());
        eventually("its end", KNOWN, is_gone).await
    }));
}

#[test]
fn a_daemon_that_dies_costs_a_session_which_comes_back_with_it() {
    let builder = Libvirtd::builder().tcp(Auth::None);
    story(builder.run(async |daemon| {
        let bridge = far_from(&daemon.tcp_uri("qemu")?).await?;
        let domain = Domain::builder("stays").build().await?;
        domain.create(daemon).await?;
        is(&bridge, "stays", GuestState::Ready, BOOTED).await?;
        call(&bridge, "stays").await?;
        let before = bridge.guest("stays").await?.sessions;
        daemon.kill9().await?;
        is(&bridge, "stays", GuestState::Unreachable, KNOWN).await?;
        fails(&bridge, "stays", "GUEST_UNREACHABLE", &[CHANNEL]).await?;
        daemon.start_again().await?;
        is(&bridge, "stays", GuestState::Ready, BOOTED).await?;
        call(&bridge, "stays").await?;
        let after = bridge.guest("stays").await?.sessions;
        ensure!(after > before, "{before} sessions, then {after}");
        Ok(())
    }));
}

#[test]
fn a_channel_that_another_client_of_libvirt_holds_is_busy_until_that_leaves() {
    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let domain = Domain::builder("held").build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let handle = connect.domain_by_name("held").await?;
        let flags = DomainChannelFlags::empty();
        let held = handle.open_channel(Some(CHANNEL), flags).await?;
        let bridge = far_from(&by_tls(daemon)?).await?;
        let is_known = async || {
            Ok(bridge
                .guest("held")
                .await
                .is_ok_and(|it| it.reason.contains("another client")))
        };
        eventually("the other client", KNOWN, is_known)
            .await
            .with_context(|| bridge.log())?;
        fails(&bridge, "held", "CHANNEL_BUSY", &["one at a time"]).await?;
        drop(held);
        is(&bridge, "held", GuestState::Ready, BOOTED).await?;
        call(&bridge, "held").await?;
        // And the bridge holds it now.
        let refused = handle.open_channel(Some(CHANNEL), flags).await;
        ensure!(refused.is_err_and(|error| error.remote().is_some()));
        call(&bridge, "held").await?;
        Ok(())
    }));
}

#[test]
fn a_guest_is_reached_over_ssh() {
    story(Libvirtd::builder().run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        let domain = Domain::builder("shy").build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let uri = sshd.uri("client", "known");
        let uri = uri
            .replacen("test+ssh", "qemu+ssh", 1)
            .replacen("/default?", "/system?", 1);
        let bridge = far_from(&uri).await?;
        let reached = async {
            is(&bridge, "shy", GuestState::Ready, BOOTED).await?;
            call(&bridge, "shy").await?;
            anyhow::Ok(())
        };
        reached.await.with_context(|| sshd.log())?;
        drop(bridge);
        sshd.stop().await;
        Ok(())
    }));
}

#[test]
fn domains_of_one_name_here_and_far_away_are_name_and_name_at_host() {
    let far = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(far.run(async |far| {
        let mut near = Libvirtd::builder().start().await?;
        let told = both(&mut near, far).await;
        told.map_err(|error| near.explain(error))?;
        near.stop().await
    }));
}

async fn both(near: &mut Libvirtd, far: &mut Libvirtd) -> Result<()> {
    let uri = by_tls(far)?;
    // This bridge sees the files of the one that is near.
    let bridge = near
        .bridge(&["--libvirt", "qemu:///system", "--libvirt", &uri])
        .await?;
    let domain = Domain::builder("web").build().await?;
    domain.define(near).await?;
    is(&bridge, "web", GuestState::Off, KNOWN).await?;
    domain.define(far).await?;
    let host = far.virsh(&["hostname"]).await?;
    let there = format!("web@{}", host.trim());
    is(&bridge, &there, GuestState::Off, KNOWN).await?;
    // It has to be there, and need not run.
    for daemon in [&*near, &*far] {
        daemon.virsh(&["start", "web", "--paused"]).await?;
    }
    is(&bridge, "web", GuestState::Paused, KNOWN).await?;
    is(&bridge, &there, GuestState::Paused, KNOWN).await?;
    let channel = bridge.guest("web").await?.channel;
    ensure!(channel.starts_with("unix:/"), "{channel}");
    let channel = bridge.guest(&there).await?.channel;
    ensure!(channel == format!("libvirt:{uri}#{CHANNEL}"), "{channel}");
    // One goes, and the other keeps its name.
    near.virsh(&["destroy", "web"]).await?;
    near.virsh(&["undefine", "web"]).await?;
    let is_gone = async || Ok(bridge.guest("web").await.is_err());
    eventually("the end of the one that was near", KNOWN, is_gone).await?;
    is(&bridge, &there, GuestState::Paused, KNOWN).await
}
