//! What the bridge weighs: memory for guests that are connected and idle, and how often it wakes up when nothing happens.
//!
//! The bridge is the real program in a process of its own; the guests are played by this one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use support::{crowd, good_guest};
use tempfile::TempDir;
use tonic::transport::Endpoint;
use vbridge_api::host::v1::{GuestState, ListGuestsRequest, bridge_client::BridgeClient};

const GUESTS: usize = 1000;
/// What one connected idle guest may cost.
const BYTES_A_GUEST: u64 = 64 * 1024;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(30);
/// How often its threads may wake up then: ten times a second, where a keepalive, or a `connect` and the wait behind it, takes
/// three or four. What spins or polls wakes up a hundred times as often. How long each takes is the machine's, and with its clock
/// ticks of 10 ms the kernel can't tell it: it is printed.
const IDLE_WAKE_UPS: u64 = 300;

struct BridgeProcess {
    child: Child,
    address: String,
    dir: TempDir,
}

impl Drop for BridgeProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BridgeProcess {
    fn start(guests: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vbridge"));
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        for guest in 0..guests {
            let socket = support::socket(dir.path(), &format!("g{guest}"));
            command.arg("--guest");
            command.arg(format!("g{guest}=unix:{}", socket.display()));
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines
                .next()
                .expect("the bridge says where it listens")
                .unwrap();
            if let Some(address) = line.strip_prefix("vbridge: listening on ") {
                break address.to_owned();
            }
        };
        // Its log goes on; nobody must block it.
        std::thread::spawn(move || lines.count());
        Self {
            child,
            address,
            dir,
        }
    }

    async fn ready(&self) -> usize {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let list = BridgeClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .list_guests(ListGuestsRequest {})
            .await
            .unwrap();
        let guests = list.into_inner().guests;
        guests
            .iter()
            .filter(|guest| guest.state() == GuestState::Ready)
            .count()
    }

    async fn until_ready(&self, guests: usize) {
        while self.ready().await < guests {
            tokio::task::yield_now().await;
        }
    }

    fn resident(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    /// Of each thread: processor time in nanoseconds, and how often it got a processor (`/proc/PID/task/TID/schedstat`).
    fn schedule(&self) -> HashMap<OsString, [u64; 2]> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let threads = threads.filter_map(|thread| {
            let thread = thread.unwrap();
            // It may end while it is looked at.
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let mut fields = text.split_whitespace().map(|it| it.parse().unwrap());
            let (time, turns) = (fields.next()?, fields.nth(1)?);
            Some((thread.file_name(), [time, turns]))
        });
        threads.collect()
    }

    /// Wake-ups while nothing happens: it is the wait that is measured, no event is missed by it.
    async fn idle_wake_ups(&self) -> u64 {
        let before = self.schedule();
        tokio::time::sleep(IDLE).await;
        let [mut time, mut turns] = [0, 0];
        for (thread, after) in self.schedule() {
            let before = before.get(&thread).copied().unwrap_or_default();
            time += after[0] - before[0];
            turns += after[1] - before[1];
        }
        eprintln!("{} us in {turns} turns", time / 1000);
        turns
    }
}

#[tokio::test]
async fn a_thousand_connected_idle_guests_cost_at_most_64_kib_each() {
    let bridge = BridgeProcess::start(GUESTS);
    bridge.ready().await;
    let before = bridge.resident();
    let _guests =
        crowd((0..GUESTS).map(|guest| support::socket(bridge.dir.path(), &format!("g{guest}"))));
    bridge.until_ready(GUESTS).await;
    let each = (bridge.resident() - before) / GUESTS as u64;
    eprintln!("{each} bytes a guest");
    assert!(each <= BYTES_A_GUEST, "{each} bytes a guest");
}

#[tokio::test]
async fn a_bridge_with_an_attached_idle_guest_hardly_ever_wakes_up() {
    let bridge = BridgeProcess::start(1);
    let _guest = good_guest(&support::socket(bridge.dir.path(), "g0"));
    bridge.until_ready(1).await;
    let turns = bridge.idle_wake_ups().await;
    assert!(turns <= IDLE_WAKE_UPS, "{turns} wake-ups in {IDLE:?}");
}

#[tokio::test]
async fn a_bridge_without_its_guest_hardly_ever_wakes_up() {
    let bridge = BridgeProcess::start(1);
    bridge.ready().await;
    let turns = bridge.idle_wake_ups().await;
    assert!(turns <= IDLE_WAKE_UPS, "{turns} wake-ups in {IDLE:?}");
}
