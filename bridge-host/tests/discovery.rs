//! Guests that are found in a folder of sockets, and that come and go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bridge_host::discovery::Source;
use support::{GuestProcess, LIMIT, Running, good_guest};
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use vbridge_api::host::v1::{
    GuestState, ListGuestsRequest, WatchGuestsRequest, WatchGuestsResponse,
    bridge_client::BridgeClient,
};

/// A bridge that finds `vm-NAME.sock` in a folder of its own temporary one.
async fn bridge() -> Running {
    support::bridge_of(|builder, dir| {
        let pattern = format!("{}/vms/vm-*.sock", dir.display());
        builder.source(Source::Sockets(pattern.parse().unwrap()))
    })
    .await
}

fn folder(bridge: &Running) -> PathBuf {
    bridge.dir.path().join("vms")
}

fn socket(bridge: &Running, name: &str) -> PathBuf {
    folder(bridge).join(format!("vm-{name}.sock"))
}

async fn names(bridge: &Running) -> Vec<String> {
    let mut client = BridgeClient::new(bridge.channel("bridge"));
    let guests = client.list_guests(ListGuestsRequest::default()).await;
    let guests = guests.unwrap().into_inner().guests;
    guests.into_iter().map(|guest| guest.name).collect()
}

/// Waits until the bridge has these guests and no others.
async fn until(bridge: &Running, expected: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = names(bridge).await;
        if now == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{now:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn watch(bridge: &Running) -> Streaming<WatchGuestsResponse> {
    let mut client = BridgeClient::new(bridge.channel("bridge"));
    let stream = client.watch_guests(WatchGuestsRequest::default()).await;
    stream.unwrap().into_inner()
}

#[tokio::test]
async fn a_socket_that_appears_is_a_guest_and_one_that_goes_is_none() {
    let bridge = bridge().await;
    until(&bridge, &[]).await;
    // The folder may come later, too.
    std::fs::create_dir(folder(&bridge)).unwrap();
    let web = good_guest(&socket(&bridge, "web"));
    let _db = good_guest(&socket(&bridge, "db"));
    std::fs::write(folder(&bridge).join("vm-notes.sock"), "no socket").unwrap();
    std::fs::write(folder(&bridge).join("readme"), "no guest").unwrap();
    until(&bridge, &["db", "web"]).await;
    bridge.until_up("web").await;
    bridge.until_up("db").await;
    let mut changes = watch(&bridge).await;
    drop(web);
    std::fs::remove_file(socket(&bridge, "web")).unwrap();
    let removed = async {
        loop {
            let change = changes.message().await.unwrap().unwrap();
            if change.removed {
                return change.guest.unwrap();
            }
        }
    };
    let removed = timeout(LIMIT, removed).await.unwrap();
    assert_eq!(
        (removed.name.as_str(), removed.state()),
        ("web", GuestState::Off)
    );
    let status = bridge.health("web").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    bridge.health("db").await.unwrap();
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_back_is_followed_again() {
    let bridge = bridge().await;
    std::fs::create_dir(folder(&bridge)).unwrap();
    let first = good_guest(&socket(&bridge, "web"));
    bridge.until_up("web").await;
    drop(first);
    std::fs::remove_dir_all(folder(&bridge)).unwrap();
    until(&bridge, &[]).await;
    std::fs::create_dir(folder(&bridge)).unwrap();
    let _second = good_guest(&socket(&bridge, "web"));
    bridge.until_up("web").await;
}

#[tokio::test]
async fn a_name_that_is_taken_or_can_not_be_one_is_left_out() {
    let bridge = support::bridge_of(|builder, dir| {
        std::fs::create_dir(dir.join("vms")).unwrap();
        let pattern = format!("{}/vms/vm-*.sock", dir.display());
        builder
            .guest(bridge_host::GuestSpec::new("web", dir.join("web.sock")))
            .source(Source::Sockets(pattern.parse().unwrap()))
    })
    .await;
    let _named = good_guest(&bridge.socket("web"));
    let _found = good_guest(&socket(&bridge, "WEB"));
    let _own = good_guest(&socket(&bridge, "bridge"));
    let _other = good_guest(&socket(&bridge, "db"));
    bridge.until_up("db").await;
    bridge.until_up("web").await;
    assert_eq!(names(&bridge).await, ["db", "web"]);
}

#[tokio::test]
async fn among_guests_that_come_and_go_none_is_missed_and_the_quiet_ones_are_served() {
    const QUIET: usize = 20;
    const TURNS: usize = 60;
    let bridge = bridge().await;
    std::fs::create_dir(folder(&bridge)).unwrap();
    let quiet: Vec<_> = (0..QUIET)
        .map(|i| socket(&bridge, &format!("quiet{i}")))
        .collect();
    let _quiet = support::crowd(quiet);
    for i in 0..QUIET {
        bridge.until_up(&format!("quiet{i}")).await;
    }
    let mut changes = watch(&bridge).await;
    let mut running: BTreeMap<String, GuestProcess> = BTreeMap::new();
    for turn in 0..TURNS {
        let name = format!("busy{turn}");
        let guest = good_guest(&socket(&bridge, &name));
        let begin = Instant::now();
        while let Err(status) = bridge.health(&name).await {
            assert!(begin.elapsed() < LIMIT, "{name} was not found: {status}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.insert(name, guest);
        bridge
            .health(&format!("quiet{}", turn % QUIET))
            .await
            .unwrap();
        if running.len() > 10 {
            let (name, guest) = running.pop_first().unwrap();
            std::fs::remove_file(socket(&bridge, &name)).unwrap();
            drop(guest);
        }
    }
    let mut expected: Vec<String> = running.keys().cloned().collect();
    expected.extend((0..QUIET).map(|i| format!("quiet{i}")));
    expected.sort();
    let names: Vec<&str> = expected.iter().map(String::as_str).collect();
    until(&bridge, &names).await;
    // Who watched from the beginning has been told the same.
    let mut told = std::collections::BTreeSet::new();
    while told.iter().ne(&expected) {
        let change = timeout(LIMIT, changes.message()).await;
        let change = change.unwrap_or_else(|_| panic!("{told:?}, not {expected:?}"));
        let change = change.unwrap().unwrap();
        let name = change.guest.unwrap().name;
        match change.removed {
            true => told.remove(&name),
            false => told.insert(name),
        };
    }
}

#[tokio::test]
async fn a_call_that_waits_for_a_guest_is_told_when_that_is_none_any_more() {
    let bridge = bridge().await;
    std::fs::create_dir(folder(&bridge)).unwrap();
    let silent = support::fake_channel(&socket(&bridge, "web"), |stream| async move {
        let mut stream = stream;
        // The channel's end is the bridge's.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    until(&bridge, &["web"]).await;
    let channel = bridge.channel("web");
    let call = tokio::spawn(async move {
        let mut request = Request::new(HealthCheckRequest::default());
        let wait = "300s".parse().unwrap();
        request.metadata_mut().insert("x-vbridge-wait", wait);
        HealthClient::new(channel).check(request).await.unwrap_err()
    });
    // It waits when the bridge has it.
    bridge.until_calls(1).await;
    std::fs::remove_file(socket(&bridge, "web")).unwrap();
    let status = timeout(LIMIT, call).await.unwrap().unwrap();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(
        status.message().contains("no guest of this bridge"),
        "{status}"
    );
    drop(silent);
}
