//! The bridge's service for domains, and `vbridge domain`, on real libvirtds. Most of it is asked of libvirt's test driver, whose
//! domains need no QEMU: the daemon, its protocol and its events are the same.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::host::v1::{
    DestroyDomainRequest, Domain, DomainEvent, DomainEventKind, DomainSelection,
    DomainShutdownMode, DomainState, GetDomainRequest, GetDomainXmlRequest, GuestState,
    ListDomainsRequest, ListDomainsResponse, ResumeDomainRequest, ShutdownDomainRequest,
    StartDomainRequest, SuspendDomainRequest, WatchDomainsRequest, WatchDomainsResponse,
    domains_client::DomainsClient, watch_domains_response::What,
};
use vbridge_tests::{
    fixture::{Bridge, eventually, story},
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        client::virsh,
        daemon::{Auth, Libvirtd},
        domain,
    },
};

/// What is asked for comes within this time, on a machine that is badly overloaded.
const SOON: Duration = Duration::from_secs(20);

/// The domain of the test driver.
const TEST: &str = "test";
const TEST_UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// A bridge that follows these hypervisors, and has asked each for its domains.
async fn following(uris: &[&str]) -> Result<Bridge> {
    let flags = uris.iter().flat_map(|uri| ["--libvirt", uri]);
    let bridge = Bridge::start_with(Vec::new(), flags.map(str::to_owned).collect()).await?;
    let connected = async || {
        Ok(list(&bridge)
            .await?
            .hypervisors
            .iter()
            .all(|it| it.unreachable.is_empty()))
    };
    eventually("an answer from every hypervisor", SOON, connected)
        .await
        .with_context(|| bridge.log())?;
    Ok(bridge)
}

/// A bridge on a daemon's test driver.
async fn on_test_driver(daemon: &Libvirtd) -> Result<(Bridge, DomainsClient<Channel>)> {
    let bridge = following(&[&daemon.uri("test")]).await?;
    let domains = bridge.domains().await?;
    Ok((bridge, domains))
}

async fn list(bridge: &Bridge) -> Result<ListDomainsResponse> {
    let request = ListDomainsRequest::default();
    Ok(bridge
        .domains()
        .await?
        .list_domains(request)
        .await?
        .into_inner())
}

async fn get(bridge: &Bridge, name: &str) -> Result<Domain, Status> {
    let domains = bridge.domains().await;
    let mut domains = domains.map_err(|error| Status::internal(error.to_string()))?;
    let request = GetDomainRequest {
        domain: name.to_owned(),
        ..GetDomainRequest::default()
    };
    let answer = domains.get_domain(request).await?.into_inner();
    answer.domain.ok_or_else(|| Status::data_loss("no domain"))
}

/// The call fails with this reason, and says all the words.
fn fails<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    (code, reason): (Code, &str),
    words: &[&str],
) -> Result<()> {
    let status = answer.err().context("it was answered")?;
    let info = status.get_details_error_info().context("no ErrorInfo")?;
    ensure!(
        (status.code(), info.domain.as_str(), info.reason.as_str()) == (code, "vbridge", reason),
        "{status:?}"
    );
    for word in words {
        ensure!(
            status.message().contains(word),
            "{status} does not say {word}"
        );
    }
    Ok(())
}

/// A domain of the test driver, with the bridge's channel or without, by virsh.
async fn define(daemon: &Libvirtd, name: &str, has_channel: bool) -> Result<()> {
    let channel = match has_channel {
        true => "<channel type='unix'><target type='virtio' name='org.vbridge.agent.0'/></channel>",
        false => "",
    };
    let xml = format!(
        "<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os>\
         <devices>{channel}</devices></domain>"
    );
    let path = daemon.folder().join(format!("test-{name}.xml"));
    std::fs::write(&path, xml)?;
    virsh(
        &daemon.uri("test"),
        &["define", &path.display().to_string()],
    )
    .await?
    .ok()?;
    Ok(())
}

async fn on_test(daemon: &Libvirtd, words: &[&str]) -> Result<String> {
    Ok(virsh(&daemon.uri("test"), words)
        .await?
        .ok()?
        .trim()
        .to_owned())
}

/// What has to do with one domain is named like this.
macro_rules! of {
    ($request:ident $(, $field:ident: $value:expr)?) => {
        $request {
            domain: TEST.to_owned(),
            $($field: $value,)?
            ..$request::default()
        }
    };
}

#[test]
fn every_act_is_done_as_virsh_sees_it_and_answers_with_how_the_domain_is_then() {
    story(Libvirtd::builder().run(async |daemon| {
        let (bridge, mut domains) = on_test_driver(daemon).await?;
        let state = async || on_test(daemon, &["domstate", TEST]).await;
        let is = |domain: Option<Domain>, state: DomainState| {
            let domain = domain.context("the answer has no domain")?;
            ensure!(domain.state() == state && domain.name == TEST, "{domain:?}");
            anyhow::Ok(())
        };
        let answer = domains.suspend_domain(of!(SuspendDomainRequest)).await?;
        is(answer.into_inner().domain, DomainState::Paused)?;
        ensure!(state().await? == "paused");
        let answer = domains.resume_domain(of!(ResumeDomainRequest)).await?;
        is(answer.into_inner().domain, DomainState::Running)?;
        ensure!(state().await? == "running");
        let answer = domains.shutdown_domain(of!(ShutdownDomainRequest)).await?;
        is(answer.into_inner().domain, DomainState::Shutoff)?;
        ensure!(state().await? == "shut off");
        let paused = of!(StartDomainRequest, paused: true);
        // The driver of the tests does not know how to; it says so in its own words.
        let started = domains.start_domain(paused).await;
        if let Err(status) = &started {
            fails(
                Err::<(), _>(status.clone()),
                (Code::FailedPrecondition, "HYPERVISOR_REFUSED"),
                &[TEST],
            )?;
            let answer = domains.start_domain(of!(StartDomainRequest)).await?;
            is(answer.into_inner().domain, DomainState::Running)?;
        }
        let again = domains.start_domain(of!(StartDomainRequest)).await;
        let state_of = (Code::FailedPrecondition, "DOMAIN_STATE");
        fails(
            again,
            state_of,
            &["\"test\"", &daemon.uri("test"), "running"],
        )?;
        let answer = domains.destroy_domain(of!(DestroyDomainRequest)).await?;
        is(answer.into_inner().domain, DomainState::Shutoff)?;
        ensure!(state().await? == "shut off");
        for answer in [
            domains
                .suspend_domain(of!(SuspendDomainRequest))
                .await
                .err(),
            domains.resume_domain(of!(ResumeDomainRequest)).await.err(),
            domains
                .destroy_domain(of!(DestroyDomainRequest))
                .await
                .err(),
            domains
                .shutdown_domain(of!(ShutdownDomainRequest))
                .await
                .err(),
        ] {
            fails(answer.map_or(Ok(()), Err), state_of, &["\"test\""])?;
        }
        // There is no agent in it to be asked.
        domains.start_domain(of!(StartDomainRequest)).await?;
        let agent = of!(ShutdownDomainRequest, mode: DomainShutdownMode::Agent.into());
        let answer = domains.shutdown_domain(agent).await;
        fails(
            answer,
            (Code::FailedPrecondition, "HYPERVISOR_REFUSED"),
            &["\"test\""],
        )?;
        ensure!(get(&bridge, TEST).await?.state() == DomainState::Running);
        Ok(())
    }));
}

#[test]
fn domains_are_listed_and_described_as_libvirt_has_them() {
    story(Libvirtd::builder().run(async |daemon| {
        let uri = daemon.uri("test");
        let (bridge, mut domains) = on_test_driver(daemon).await?;
        define(daemon, "other", false).await?;
        let host = on_test(daemon, &["hostname"]).await?;
        let listed = list(&bridge).await?;
        ensure!(listed.hypervisors.len() == 1, "{listed:?}");
        let hypervisor = &listed.hypervisors[0];
        ensure!(
            (&hypervisor.uri, &hypervisor.host) == (&uri, &host),
            "{hypervisor:?}"
        );
        let names: Vec<_> = listed.domains.iter().map(|it| it.name.as_str()).collect();
        ensure!(names == ["other", TEST], "{names:?}");
        let expected = Domain {
            hypervisor: uri.clone(),
            host: host.clone(),
            name: TEST.to_owned(),
            uuid: TEST_UUID.to_owned(),
            id: Some(1),
            state: DomainState::Running.into(),
            state_reason: listed.domains[1].state_reason.clone(),
            guest: String::new(),
        };
        ensure!(listed.domains[1] == expected, "{listed:?}");
        ensure!(
            listed.domains[0].id.is_none() && listed.domains[0].state() == DomainState::Shutoff
        );
        for (selection, name) in [
            (DomainSelection::Active, TEST),
            (DomainSelection::Inactive, "other"),
        ] {
            let request = ListDomainsRequest {
                hypervisor: uri.clone(),
                selection: selection.into(),
            };
            let listed = domains.list_domains(request).await?.into_inner().domains;
            ensure!(listed.len() == 1 && listed[0].name == name, "{listed:?}");
        }
        for name in [
            TEST,
            TEST_UUID,
            &TEST_UUID.to_uppercase(),
            &format!("{TEST}@{host}"),
        ] {
            ensure!(get(&bridge, name).await? == expected, "{name}");
        }
        let answer = domains
            .get_domain(of!(GetDomainRequest))
            .await?
            .into_inner();
        let details = answer.details.context("no details")?;
        ensure!(details.vcpus == 2 && details.persistent, "{details:?}");
        ensure!(details.memory_bytes == 2 << 30, "{details:?}");
        for (inactive, flags) in [
            (false, &["dumpxml", TEST][..]),
            (true, &["dumpxml", "--inactive", TEST]),
        ] {
            let request = of!(GetDomainXmlRequest, inactive: inactive);
            let xml = domains.get_domain_xml(request).await?.into_inner().xml;
            ensure!(xml.trim() == on_test(daemon, flags).await?, "{xml}");
        }
        let not_found = (Code::NotFound, "DOMAIN_NOT_FOUND");
        fails(
            get(&bridge, "nobody").await,
            not_found,
            &["\"nobody\"", &uri],
        )?;
        fails(
            get(&bridge, "test@elsewhere").await,
            not_found,
            &["\"test@elsewhere\""],
        )?;
        fails(get(&bridge, "").await, not_found, &[])?;
        let request = ListDomainsRequest {
            hypervisor: "qemu:///else".into(),
            ..ListDomainsRequest::default()
        };
        let answer = domains.list_domains(request).await;
        fails(
            answer,
            (Code::NotFound, "HYPERVISOR_NOT_FOUND"),
            &["qemu:///else", &uri],
        )
    }));
}

#[test]
fn a_domain_is_called_by_its_guests_name_and_nothing_is_done_where_two_are_meant() {
    story(Libvirtd::builder().run(async |daemon| {
        let other = Libvirtd::builder().start().await?;
        // A driver of tests forgets its domains with its last connection; these bridges hold it.
        let (first, second) = (daemon.uri("test"), other.uri("test"));
        let bridge = following(&[&first, &second]).await?;
        let host = on_test(daemon, &["hostname"]).await?;
        // Both have one called `test`, and call their host the same.
        for name in [TEST, TEST_UUID, &format!("{TEST}@{host}")] {
            let ambiguous = (Code::InvalidArgument, "DOMAIN_AMBIGUOUS");
            fails(get(&bridge, name).await, ambiguous, &[&first, &second])?;
        }
        let mut domains = bridge.domains().await?;
        let answer = domains.destroy_domain(of!(DestroyDomainRequest)).await;
        ensure!(answer.is_err_and(|status| status.code() == Code::InvalidArgument));
        for daemon in [&*daemon, &other] {
            ensure!(on_test(daemon, &["domstate", TEST]).await? == "running");
        }
        let request = of!(DestroyDomainRequest, hypervisor: second.clone());
        domains.destroy_domain(request).await?;
        ensure!(on_test(daemon, &["domstate", TEST]).await? == "running");
        ensure!(on_test(&other, &["domstate", TEST]).await? == "shut off");
        // Guests have names of their own at the bridge, which say who is meant.
        define(daemon, "web", true).await?;
        let guest = async |name: &str, uri: &str| {
            let is = async || {
                let domain = get(&bridge, name).await.ok();
                Ok(domain
                    .is_some_and(|it| it.guest == name && it.hypervisor == uri && it.name == "web"))
            };
            eventually(&format!("the guest {name}"), SOON, is)
                .await
                .with_context(|| bridge.log())
        };
        guest("web", &first).await?;
        define(&other, "web", true).await?;
        guest(&format!("web@{host}"), &second).await?;
        guest("web", &first).await?;
        drop(bridge);
        other.stop().await
    }));
}

/// What is watched, item by item.
struct Watched(Streaming<WatchDomainsResponse>);

impl Watched {
    async fn next(&mut self) -> Result<What> {
        let next = timeout(SOON, self.0.message())
            .await
            .context("nothing is told")?;
        next?
            .context("the stream has ended")?
            .what
            .context("an empty message")
    }

    /// The next snapshot: its domains' names, and why hypervisors are away.
    async fn snapshot(&mut self) -> Result<(Vec<String>, Vec<String>)> {
        let mut names = Vec::new();
        loop {
            match self.next().await? {
                What::Domain(domain) => names.push(domain.name),
                What::SnapshotEnd(end) => {
                    let away = end.hypervisors.into_iter().map(|it| it.unreachable);
                    return Ok((names, away.collect()));
                }
                What::Event(event) => bail!("in a snapshot: {event:?}"),
            }
        }
    }
}

async fn watch(bridge: &Bridge, domain: &str) -> Result<Watched> {
    let request = WatchDomainsRequest {
        domain: domain.to_owned(),
        ..WatchDomainsRequest::default()
    };
    let watched = bridge.domains().await?.watch_domains(request).await?;
    Ok(Watched(watched.into_inner()))
}

#[test]
fn what_happens_is_told_after_a_snapshot_with_the_domain_as_it_is_then() {
    story(Libvirtd::builder().run(async |daemon| {
        let (bridge, _domains) = on_test_driver(daemon).await?;
        // The bridge has looked at everything once.
        let mut all = watch(&bridge, "").await?;
        ensure!(all.snapshot().await?.0 == [TEST]);
        let mut one = watch(&bridge, TEST_UUID).await?;
        ensure!(one.snapshot().await?.0 == [TEST]);
        define(daemon, "web", true).await?;
        on_test(daemon, &["suspend", TEST]).await?;
        on_test(daemon, &["resume", TEST]).await?;
        on_test(daemon, &["undefine", "web"]).await?;
        let mut events = Vec::new();
        while events.len() < 4 {
            match all.next().await? {
                What::Event(event) => events.push(event),
                // What was there when the bridge began may be told once more.
                What::Domain(_) | What::SnapshotEnd(_) => {}
            }
        }
        let kinds: Vec<_> = events.iter().map(DomainEvent::kind).collect();
        use DomainEventKind::{Defined, Resumed, Suspended, Undefined};
        ensure!(
            kinds == [Defined, Suspended, Resumed, Undefined],
            "{events:?}"
        );
        let domain = |event: &DomainEvent| event.domain.clone().unwrap_or_default();
        ensure!(domain(&events[0]).name == "web", "{events:?}");
        ensure!(
            events[0].detail == "added" && events[0].time.is_some(),
            "{events:?}"
        );
        ensure!(domain(&events[1]).uuid == TEST_UUID, "{events:?}");
        ensure!(
            events[3].removed && domain(&events[3]).name == "web",
            "{events:?}"
        );
        // Who asks for one domain hears of that one.
        let mut kinds = Vec::new();
        while kinds.len() < 2 {
            if let What::Event(event) = one.next().await? {
                kinds.push(event.kind());
            }
        }
        ensure!(kinds == [Suspended, Resumed], "{kinds:?}");
        let request = WatchDomainsRequest {
            domain: "nobody".into(),
            ..WatchDomainsRequest::default()
        };
        let answer = bridge.domains().await?.watch_domains(request).await;
        fails(
            answer.map(drop),
            (Code::NotFound, "DOMAIN_NOT_FOUND"),
            &["nobody"],
        )
    }));
}

#[test]
fn a_daemon_that_dies_is_told_to_who_watches_lists_and_acts_and_so_is_its_coming_back() {
    story(Libvirtd::builder().run(async |daemon| {
        let other = Libvirtd::builder().start().await?;
        let (first, second) = (daemon.uri("test"), other.uri("test"));
        let bridge = following(&[&first, &second]).await?;
        let mut domains = bridge.domains().await?;
        // The connection that writes is there, too.
        let there = SuspendDomainRequest {
            domain: TEST.to_owned(),
            hypervisor: first.clone(),
        };
        domains.suspend_domain(there.clone()).await?;
        let mut watched = watch(&bridge, "").await?;
        let (names, away) = watched.snapshot().await?;
        ensure!(
            names == [TEST, TEST] && away == ["", ""],
            "{names:?} {away:?}"
        );
        daemon.kill9().await?;
        let is_away = async |watched: &mut Watched, expected: bool| -> Result<()> {
            loop {
                let (_, away) = watched.snapshot().await?;
                if away.len() == 1 && away[0].is_empty() != expected {
                    return Ok(());
                }
            }
        };
        is_away(&mut watched, true).await?;
        let listed = list(&bridge).await?;
        ensure!(
            listed.domains.len() == 1 && listed.domains[0].hypervisor == second,
            "{listed:?}"
        );
        let [killed, lives] = &listed.hypervisors[..] else {
            bail!("{listed:?}");
        };
        ensure!(
            !killed.unreachable.is_empty() && lives.unreachable.is_empty(),
            "{listed:?}"
        );
        let unreachable = (Code::Unavailable, "HYPERVISOR_UNREACHABLE");
        fails(
            domains.suspend_domain(there.clone()).await,
            unreachable,
            &[&first],
        )?;
        // A domain that nobody else has may be there.
        fails(get(&bridge, "nobody").await, unreachable, &[&first])?;
        daemon.start_again().await?;
        is_away(&mut watched, false).await?;
        let back = async || {
            Ok(bridge
                .domains()
                .await?
                .suspend_domain(there.clone())
                .await
                .is_ok())
        };
        eventually("the connection that writes", SOON, back)
            .await
            .with_context(|| bridge.log())?;
        other.stop().await
    }));
}

#[test]
fn a_bridge_that_may_only_read_lists_and_is_denied_what_changes_something() {
    story(Libvirtd::builder().run(async |daemon| {
        let socket = daemon.read_only_socket_path();
        let uri = format!("test+unix:///default?socket={}", socket.display());
        let bridge = following(&[&uri]).await?;
        let domain = get(&bridge, TEST).await?;
        ensure!(domain.state() == DomainState::Running, "{domain:?}");
        let answer = bridge
            .domains()
            .await?
            .destroy_domain(of!(DestroyDomainRequest))
            .await;
        fails(
            answer,
            (Code::PermissionDenied, "HYPERVISOR_DENIED"),
            &["\"test\"", "read only"],
        )?;
        ensure!(get(&bridge, TEST).await?.state() == DomainState::Running);
        Ok(())
    }));
}

/// `vbridge domain` with these words fails with status 1 and one sentence that says all of `said`.
async fn fails_at_the_command_line(bridge: &Bridge, words: &[&str], said: &[&str]) -> Result<()> {
    let output = bridge.run(&[&["domain"], words].concat(), b"").await?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{words:?}: {stderr}");
    ensure!(
        stderr.lines().count() == 1 && stderr.starts_with("vbridge: "),
        "{stderr}"
    );
    for word in said {
        ensure!(stderr.contains(word), "{stderr} does not say {word}");
    }
    Ok(())
}

#[test]
fn the_command_line_shows_and_changes_domains_as_users_of_virsh_expect() {
    story(Libvirtd::builder().run(async |daemon| {
        let (bridge, _domains) = on_test_driver(daemon).await?;
        define(daemon, "other", false).await?;
        let good = async |words: &[&str]| bridge.good(&[&["domain"], words].concat()).await;
        let table = good(&["list"]).await?;
        ensure!(table.contains(TEST) && !table.contains("other"), "{table}");
        let table = good(&["list", "--all"]).await?;
        ensure!(
            table.contains("running") && table.contains("shut off"),
            "{table}"
        );
        let table = good(&["list", "--inactive"]).await?;
        ensure!(
            table.contains("other") && !table.contains("running"),
            "{table}"
        );
        let all: Value =
            serde_json::from_str(&good(&["list", "--all", "--output", "json"]).await?)?;
        ensure!(
            all["domains"][1]["uuid"] == TEST_UUID && all["domains"][0]["id"].is_null(),
            "{all}"
        );
        ensure!(
            good(&["suspend", TEST])
                .await?
                .contains("domain test stands still")
        );
        let facts = good(&["info", TEST]).await?;
        ensure!(
            facts.contains("paused (user)") && facts.contains(TEST_UUID),
            "{facts}"
        );
        ensure!(
            good(&["resume", TEST])
                .await?
                .contains("domain test goes on")
        );
        ensure!(
            good(&["shutdown", TEST])
                .await?
                .contains("asked to shut down")
        );
        let started: Value =
            serde_json::from_str(&good(&["start", TEST, "--output", "json"]).await?)?;
        ensure!(started["domain"]["state"] == "running", "{started}");
        fails_at_the_command_line(&bridge, &["start", TEST], &["\"test\"", "running"]).await?;
        let xml = good(&["xml", TEST]).await?;
        ensure!(
            xml.trim() == on_test(daemon, &["dumpxml", TEST]).await?,
            "{xml}"
        );
        ensure!(
            good(&["destroy", TEST])
                .await?
                .contains("domain test was stopped")
        );
        fails_at_the_command_line(&bridge, &["destroy", TEST], &["\"test\""]).await?;
        fails_at_the_command_line(&bridge, &["info", "nobody"], &["\"nobody\""]).await?;
        let info: Value =
            serde_json::from_str(&good(&["info", "other", "--output", "json"]).await?)?;
        ensure!(
            info["domain"]["state"] == "shut off" && info["persistent"] == json!(true),
            "{info}"
        );
        let mistake = bridge.run(&["domain", "stop", TEST], b"").await?;
        ensure!(mistake.status.code() == Some(2), "{mistake:?}");
        Ok(())
    }));
}

#[test]
fn the_command_line_shows_events_as_they_come_and_ends_after_as_many_as_it_is_told() {
    story(Libvirtd::builder().run(async |daemon| {
        use tokio::io::{AsyncBufReadExt as _, BufReader};

        let (bridge, _domains) = on_test_driver(daemon).await?;
        let words = ["domain", "events", TEST, "--count", "2", "--output", "json"];
        let mut child = bridge.command(&words).await?.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut next = async || -> Result<Value> {
            let line = timeout(SOON, lines.next_line())
                .await
                .context("no line")??;
            Ok(serde_json::from_str(&line.context("it has ended")?)?)
        };
        ensure!(next().await?["snapshot"]["name"] == TEST);
        ensure!(next().await?["snapshot_end"].is_array());
        on_test(daemon, &["suspend", TEST]).await?;
        on_test(daemon, &["destroy", TEST]).await?;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            let line = next().await?;
            seen.extend(line["event"].as_str().map(str::to_owned));
        }
        ensure!(seen == ["suspended", "stopped"], "{seen:?}");
        let status = timeout(SOON, child.wait()).await.context("it goes on")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }));
}

#[test]
fn without_a_hypervisor_there_are_no_domains_and_the_command_line_says_why() {
    story(async {
        let bridge = Bridge::start([vbridge_tests::fixture::Seat::new(
            "web",
            "/nowhere/web.sock",
        )])
        .await?;
        let listed = list(&bridge).await?;
        ensure!(listed == ListDomainsResponse::default(), "{listed:?}");
        fails(
            get(&bridge, "web").await,
            (Code::NotFound, "DOMAIN_NOT_FOUND"),
            &["--libvirt URI"],
        )?;
        let output = bridge.run(&["domain", "list"], b"").await?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.success() && stderr.contains("--libvirt URI"),
            "{stderr}"
        );
        Ok(())
    });
}

#[test]
fn a_domain_of_another_host_is_changed_by_tls_and_its_guest_is_a_stream_that_says_why_it_is_closed()
{
    let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
    story(builder.run(async |daemon| {
        let uri = daemon.tls_uri("test", ClientCertificate::Good)?;
        let bridge = following(&[&uri]).await?;
        define(daemon, "far", true).await?;
        let is_known = async || Ok(bridge.guest("far").await.is_ok());
        eventually("the guest", SOON, is_known).await?;
        bridge.reaches("far", GuestState::Off).await?;
        let mut domains = bridge.domains().await?;
        let start = StartDomainRequest {
            domain: "far".to_owned(),
            ..StartDomainRequest::default()
        };
        domains.start_domain(start).await?;
        // The driver of the tests has no channels that can be opened.
        let is_closed =
            async || {
                let guest = bridge.guest("far").await?;
                Ok(guest.state() == GuestState::Unreachable
                    && guest.reason.contains("can't be opened"))
            };
        eventually("the guest's channel", SOON, is_closed)
            .await
            .with_context(|| bridge.log())?;
        let guest = bridge.guest("far").await?;
        ensure!(
            guest.channel == format!("libvirt:{uri}#org.vbridge.agent.0"),
            "{guest:?}"
        );
        ensure!(guest.reason.contains(&uri), "{guest:?}");
        let suspend = SuspendDomainRequest {
            domain: "far".to_owned(),
            hypervisor: uri.clone(),
        };
        domains.suspend_domain(suspend).await?;
        bridge.reaches("far", GuestState::Paused).await?;
        let destroy = DestroyDomainRequest {
            domain: "far".to_owned(),
            ..DestroyDomainRequest::default()
        };
        domains.destroy_domain(destroy).await?;
        bridge.reaches("far", GuestState::Off).await
    }));
}

#[test]
fn a_real_machine_is_started_paused_resumed_and_stopped_and_its_guest_follows() {
    story(Libvirtd::builder().run(async |daemon| {
        let bridge = following(&[&daemon.uri("qemu")]).await?;
        let machine = domain::Domain::builder("web").build().await?;
        machine.define(daemon).await?;
        let mut domains = bridge.domains().await?;
        let is_guest = async || Ok(get(&bridge, "web").await.is_ok_and(|it| it.guest == "web"));
        eventually("the guest", SOON, is_guest).await?;
        let name = || "web".to_owned();
        let request = StartDomainRequest {
            domain: name(),
            paused: true,
            ..StartDomainRequest::default()
        };
        let started = domains.start_domain(request).await?.into_inner().domain;
        let started = started.context("no domain")?;
        ensure!(
            started.state() == DomainState::Paused && started.id.is_some(),
            "{started:?}"
        );
        bridge.reaches("web", GuestState::Paused).await?;
        let request = ResumeDomainRequest {
            domain: name(),
            ..ResumeDomainRequest::default()
        };
        domains.resume_domain(request).await?;
        machine.up(daemon, 1).await?;
        let request = DestroyDomainRequest {
            domain: name(),
            graceful: true,
            ..DestroyDomainRequest::default()
        };
        let stopped = domains.destroy_domain(request).await?.into_inner().domain;
        let stopped = stopped.context("no domain")?;
        ensure!(
            stopped.state() == DomainState::Shutoff && stopped.state_reason == "destroyed",
            "{stopped:?}"
        );
        bridge.reaches("web", GuestState::Off).await
    }));
}
