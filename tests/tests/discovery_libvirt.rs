//! The bridge finds its guests through a real libvirtd, and follows what becomes of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bridge_host::channel::QGA_CHANNEL;
use tonic::Status;
use tonic_types::StatusExt as _;
use vbridge_api::host::v1::{GuestState, ListGuestsRequest};
use vbridge_tests::{
    exercise::v1::UnaryRequest,
    fixture::{Bridge, eventually, story},
    libvirt::{
        daemon::Libvirtd,
        domain::{Domain, DomainBuilder},
    },
};

/// The bridge knows within this time what libvirt has told: the promise is a second, the rest is the machine's.
const KNOWN: Duration = Duration::from_secs(3);

/// A guest has booted, or has gone, within this time.
const BOOTED: Duration = Duration::from_secs(120);

/// Domains that run at once, unless `VBRIDGE_DOMAINS` says otherwise, for time.
const DOMAINS: usize = 10;

/// A call to a guest that can't be reached fails within this time.
const FAILS: Duration = Duration::from_millis(1500);

/// Where the daemon is for a bridge that sees its files.
const LIBVIRT: [&str; 2] = ["--libvirt", "qemu:///system"];

/// A call that goes the whole way.
async fn call(bridge: &Bridge, guest: &str) -> Result<(), Status> {
    let request = UnaryRequest {
        payload: b"hello".to_vec().into(),
        answer: None,
    };
    let client = bridge.place(guest).exercise().await;
    let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
    let answer = client.unary(request).await?.into_inner();
    match answer.payload == "hello" {
        true => Ok(()),
        false => Err(Status::data_loss("another answer")),
    }
}

/// The call fails soon, with this reason.
async fn fails(bridge: &Bridge, guest: &str, reason: &str) -> Result<()> {
    let begin = Instant::now();
    let status = call(bridge, guest).await.err().context("it was answered")?;
    let took = begin.elapsed();
    let info = status.get_details_error_info().map(|info| info.reason);
    ensure!(info.as_deref() == Some(reason), "not {reason}: {status:?}");
    ensure!(took < FAILS, "it took {took:?}");
    Ok(())
}

async fn names(bridge: &Bridge) -> Result<Vec<String>> {
    let mut control = bridge.control().await?;
    let guests = control.list_guests(ListGuestsRequest::default()).await?;
    let guests = guests.into_inner().guests;
    Ok(guests.into_iter().map(|guest| guest.name).collect())
}

/// The bridge has these guests, soon.
async fn has(bridge: &Bridge, expected: &[&str]) -> Result<()> {
    let what = format!("the guests {expected:?}");
    eventually(&what, KNOWN, async || Ok(names(bridge).await? == expected))
        .await
        .with_context(|| bridge.log())
}

/// The guest is in that state, soon.
async fn is(bridge: &Bridge, name: &str, state: GuestState, limit: Duration) -> Result<()> {
    let what = format!("{name} being {state:?}");
    let there = async || Ok(bridge.guest(name).await.is_ok_and(|it| it.state() == state));
    eventually(&what, limit, there)
        .await
        .with_context(|| bridge.log())
}

/// A bridge that has asked the daemon for its domains.
async fn connected(daemon: &Libvirtd, arguments: &[&str]) -> Result<Bridge> {
    let mut bridge = daemon.bridge(arguments).await?;
    let up = |line: &str| line.contains("hypervisor connected").then_some(());
    bridge.process().line("that it is connected", up).await?;
    Ok(bridge)
}

/// A domain whose channel is another one, with room for ours.
fn without_channel(name: &str) -> DomainBuilder {
    Domain::builder(name)
        .agent_port("org.example.other.0")
        .device("<controller type='virtio-serial' index='2' ports='2'/>")
}

#[test]
fn a_domain_is_a_guest_from_its_definition_to_its_end_by_name_and_by_uuid() {
    story(Libvirtd::builder().run(async |daemon| {
        let bridge = connected(daemon, &LIBVIRT).await?;
        has(&bridge, &[]).await?;
        let domain = Domain::builder("web").build().await?;
        domain.define(daemon).await?;
        is(&bridge, "web", GuestState::Off, KNOWN).await?;
        fails(&bridge, "web", "GUEST_OFF").await?;
        daemon.virsh(&["start", "web"]).await?;
        is(&bridge, "web", GuestState::Ready, BOOTED).await?;
        for name in ["web", "WEB", domain.uuid()] {
            call(&bridge, name).await?;
        }
        let guest = bridge.guest("web").await?;
        ensure!(guest.uuid == domain.uuid(), "{guest:?}");
        daemon.virsh(&["suspend", "web"]).await?;
        is(&bridge, "web", GuestState::Paused, KNOWN).await?;
        fails(&bridge, "web", "GUEST_PAUSED").await?;
        daemon.virsh(&["resume", "web"]).await?;
        is(&bridge, "web", GuestState::Ready, KNOWN).await?;
        call(&bridge, "web").await?;
        let sessions = bridge.guest("web").await?.sessions;
        ensure!(sessions == 1, "the pause cost the session: {sessions}");
        daemon.virsh(&["reset", "web"]).await?;
        let again = async || Ok(bridge.guest("web").await?.sessions > 1);
        eventually("another session", BOOTED, again).await?;
        call(&bridge, "web").await?;
        daemon.virsh(&["destroy", "web"]).await?;
        is(&bridge, "web", GuestState::Off, KNOWN).await?;
        fails(&bridge, "web", "GUEST_OFF").await?;
        // Another running has another channel.
        daemon.virsh(&["start", "web"]).await?;
        is(&bridge, "web", GuestState::Ready, BOOTED).await?;
        call(&bridge, "web").await?;
        daemon.virsh(&["undefine", "web"]).await?;
        // It runs on, and is forgotten when it stops. The bridge knows of it when it knows what came behind.
        daemon.virsh(&["suspend", "web"]).await?;
        is(&bridge, "web", GuestState::Paused, KNOWN).await?;
        daemon.virsh(&["resume", "web"]).await?;
        is(&bridge, "web", GuestState::Ready, KNOWN).await?;
        call(&bridge, "web").await?;
        daemon.virsh(&["destroy", "web"]).await?;
        has(&bridge, &[]).await?;
        fails(&bridge, "web", "GUEST_NOT_FOUND").await
    }));
}

#[test]
fn a_domain_with_only_the_channel_of_qemu_guest_agent_is_a_guest_unless_that_is_not_wanted() {
    story(Libvirtd::builder().run(async |daemon| {
        let bridge = connected(daemon, &LIBVIRT).await?;
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("bridge.toml");
        std::fs::write(&config, "qemu_agent = false\n")?;
        let config = config.display().to_string();
        let without = connected(daemon, &[LIBVIRT[0], LIBVIRT[1], "--config", &config]).await?;
        let domain = Domain::builder("only-qga").agent_port(QGA_CHANNEL);
        let domain = domain.build().await?;
        domain.define(daemon).await?;
        is(&bridge, "only-qga", GuestState::Off, KNOWN).await?;
        daemon.virsh(&["start", "only-qga"]).await?;
        // The test guest has no such agent, which libvirt knows at once.
        is(&bridge, "only-qga", GuestState::Unreachable, BOOTED).await?;
        let told = bridge.guest("only-qga").await?;
        for word in ["qemu-guest-agent", "qemu:///system"] {
            ensure!(told.reason.contains(word), "no {word}: {told:?}");
        }
        ensure!(told.channel.ends_with(QGA_CHANNEL), "{told:?}");
        let status = call(&bridge, "only-qga").await.err();
        let status = status.context("it was answered")?;
        let reason = status.get_details_error_info().map(|info| info.reason);
        ensure!(
            reason.as_deref() == Some("GUEST_NOT_ANSWERING"),
            "{status:?}"
        );
        daemon.virsh(&["suspend", "only-qga"]).await?;
        is(&bridge, "only-qga", GuestState::Paused, KNOWN).await?;
        daemon.virsh(&["destroy", "only-qga"]).await?;
        is(&bridge, "only-qga", GuestState::Off, KNOWN).await?;
        ensure!(names(&without).await?.is_empty(), "{}", without.log());
        daemon.virsh(&["undefine", "only-qga"]).await?;
        has(&bridge, &[]).await
    }));
}

#[test]
fn a_daemon_that_is_killed_costs_no_session_and_is_followed_again() {
    story(Libvirtd::builder().run(async |daemon| {
        let domain = Domain::builder("stays").build().await?;
        domain.create(daemon).await?;
        let bridge = daemon.bridge(&LIBVIRT).await?;
        is(&bridge, "stays", GuestState::Ready, BOOTED).await?;
        daemon.kill9().await?;
        call(&bridge, "stays").await?;
        daemon.start_again().await?;
        call(&bridge, "stays").await?;
        let sessions = bridge.guest("stays").await?.sessions;
        ensure!(sessions == 1, "{sessions} sessions");
        // What it tells is heard again.
        daemon.virsh(&["suspend", "stays"]).await?;
        is(&bridge, "stays", GuestState::Paused, 2 * KNOWN).await?;
        daemon.virsh(&["destroy", "stays"]).await?;
        has(&bridge, &[]).await
    }));
}

/// All of them are in that state.
async fn all_are(
    bridge: &Bridge,
    names: &[String],
    state: GuestState,
    limit: Duration,
) -> Result<()> {
    for name in names {
        is(bridge, name, state, limit).await?;
    }
    Ok(())
}

#[test]
fn domains_are_found_called_paused_resumed_rebooted_destroyed_and_forgotten_together() {
    story(Libvirtd::builder().run(async |daemon| {
        let bridge = connected(daemon, &LIBVIRT).await?;
        let many = std::env::var("VBRIDGE_DOMAINS").ok();
        let many = many.and_then(|many| many.parse().ok()).unwrap_or(DOMAINS);
        let names: Vec<String> = (0..many).map(|index| format!("of-many{index}")).collect();
        // A domain that is not kept is removed.
        let mut domains = Vec::new();
        for name in &names {
            let domain = Domain::builder(name).build().await?;
            domain.define(daemon).await?;
            daemon.virsh(&["start", name]).await?;
            domains.push(domain);
        }
        all_are(&bridge, &names, GuestState::Ready, 2 * BOOTED).await?;
        for name in &names {
            call(&bridge, name).await?;
        }
        // The daemon dies under all of them.
        daemon.kill9().await?;
        for name in &names {
            call(&bridge, name).await?;
        }
        daemon.start_again().await?;
        for name in &names {
            daemon.virsh(&["suspend", name]).await?;
        }
        all_are(&bridge, &names, GuestState::Paused, 2 * KNOWN).await?;
        for name in &names {
            fails(&bridge, name, "GUEST_PAUSED").await?;
            let sessions = bridge.guest(name).await?.sessions;
            ensure!(sessions == 1, "{name} has had {sessions} sessions");
        }
        for name in &names {
            daemon.virsh(&["resume", name]).await?;
        }
        all_are(&bridge, &names, GuestState::Ready, KNOWN).await?;
        for name in &names {
            call(&bridge, name).await?;
            daemon.virsh(&["reset", name]).await?;
        }
        for name in &names {
            let again = async || Ok(bridge.guest(name).await?.sessions > 1);
            eventually("another session", 2 * BOOTED, again).await?;
            call(&bridge, name).await?;
        }
        for name in &names {
            daemon.virsh(&["destroy", name]).await?;
            is(&bridge, name, GuestState::Off, KNOWN).await?;
            fails(&bridge, name, "GUEST_OFF").await?;
        }
        for name in &names {
            daemon.virsh(&["undefine", name]).await?;
        }
        has(&bridge, &[]).await
    }));
}

#[test]
fn a_bridge_that_starts_before_its_daemon_finds_the_guests_when_that_is_there() {
    story(Libvirtd::builder().run(async |daemon| {
        daemon.terminate().await?;
        let bridge = daemon.bridge(&LIBVIRT).await?;
        has(&bridge, &[]).await?;
        daemon.start_again().await?;
        let domain = Domain::builder("late").build().await?;
        domain.define(daemon).await?;
        is(&bridge, "late", GuestState::Off, BOOTED).await
    }));
}

#[test]
fn a_channel_makes_a_domain_a_guest_and_a_new_name_is_known_at_once() {
    story(Libvirtd::builder().run(async |daemon| {
        let bridge = connected(daemon, &LIBVIRT).await?;
        let other = connected(
            daemon,
            &[
                "--libvirt",
                "qemu:///system",
                "--channel",
                "org.example.other.0",
            ],
        )
        .await?;
        let domain = without_channel("quiet").build().await?;
        domain.define(daemon).await?;
        Domain::builder("old").build().await?.define(daemon).await?;
        has(&bridge, &["old"]).await?;
        has(&other, &["quiet"]).await?;
        daemon.virsh(&["domrename", "old", "new"]).await?;
        has(&bridge, &["new"]).await?;
        // Names that no authority can carry give way to the UUID.
        let odd = Domain::builder("two words").build().await?;
        odd.define(daemon).await?;
        let mut expected = ["new", odd.uuid()];
        expected.sort_unstable();
        has(&bridge, &expected).await?;
        // One that gets the channel while it runs.
        daemon.virsh(&["start", "quiet", "--paused"]).await?;
        let said = attach(&bridge, daemon, "quiet").await?;
        ensure!(
            said.contains("has the channel org.vbridge.agent.0 now"),
            "{said}"
        );
        let mut expected = ["new", "quiet", odd.uuid()];
        expected.sort_unstable();
        has(&bridge, &expected).await?;
        is(&bridge, "quiet", GuestState::Paused, KNOWN).await?;
        let said = attach(&bridge, daemon, domain.uuid()).await?;
        ensure!(said.contains("already"), "{said}");
        // That was its last port.
        let uri = daemon.uri("qemu");
        let words = [
            "attach",
            "quiet",
            "--channel",
            "org.example.third.0",
            "--libvirt",
            &uri,
        ];
        let said = bridge.good(&words).await?;
        ensure!(
            said.contains("no free port") && said.contains("next start"),
            "{said}"
        );
        let words = ["attach", "nobody", "--libvirt", &daemon.uri("qemu")];
        let refused = bridge.run(&words, b"").await?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(
            !refused.status.success() && said.contains("no domain \"nobody\""),
            "{said}"
        );
        Ok(())
    }));
}

/// `vbridge attach`, and what it says.
async fn attach(bridge: &Bridge, daemon: &Libvirtd, domain: &str) -> Result<String> {
    bridge
        .good(&["attach", domain, "--libvirt", &daemon.uri("qemu")])
        .await
}
