//! The test guest on a real QEMU: what the end-to-end tests rely on.
//!
//! No agent is needed; a shell script stands in for it.

// Outside `#[test]` functions clippy does not know that these are tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use xtask::image::Image;
use xtask::qemu::{Accelerator, Vm, VmBuilder};

const SOON: Duration = Duration::from_secs(20);

fn guest() -> VmBuilder {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent.sh");
    let image = Image::builder()
        .binary("/bin/placeholder", script)
        .build()
        .unwrap();
    Vm::builder().image(&image).agent("/bin/placeholder")
}

async fn ok(vm: &Vm, line: &str) -> String {
    vm.exec_ok(line, SOON).await.unwrap().trim().to_owned()
}

/// Runs a line until it succeeds.
async fn eventually(vm: &Vm, line: &str) {
    ok(vm, &format!("until {line}; do usleep 20000; done")).await;
}

#[tokio::test]
async fn a_command_returns_its_status_and_exactly_its_output() {
    let vm = guest().cpus(2).boot().await.unwrap();
    println!(
        "booted in {:?} with {}",
        vm.boot_time(),
        vm.accelerator().name()
    );
    assert_eq!(ok(&vm, "nproc").await, "2");

    let output = vm
        .exec("echo out; echo err >&2; exit 3", SOON)
        .await
        .unwrap();
    assert_eq!(
        (output.status.0, output.stdout_lossy().as_str()),
        (3, "out\nerr\n")
    );

    let quoted = r#"printf '%s|' "a  b" '$HOME' \\ "ä	tab" 'vbx 0 0 0'; echo"#;
    assert_eq!(ok(&vm, quoted).await, "a  b|$HOME|\\|ä\ttab|vbx 0 0 0|");

    // All byte values survive the serial port.
    let all = vm.exec(
        "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done",
        SOON,
    );
    assert_eq!(all.await.unwrap().stdout, (0..=255).collect::<Vec<u8>>());

    let long = "x".repeat(20_000);
    assert_eq!(ok(&vm, &format!("echo {long} | wc -c")).await, "20001");
    let began = Instant::now();
    let mebibyte = vm.exec("head -c 1048576 /dev/zero", SOON).await.unwrap();
    println!("1 MiB of output took {:?}", began.elapsed());
    assert_eq!(
        (mebibyte.stdout.len(), mebibyte.truncated),
        (1_048_576, false)
    );
    let more = vm.exec("head -c 1048577 /dev/zero", SOON).await.unwrap();
    assert_eq!((more.stdout.len(), more.truncated), (1_048_576, true));

    // Commands of concurrent callers do not mix.
    let lines: Vec<String> = (0..8).map(|n| format!("echo {n}; echo {n}")).collect();
    let (a, b, c) = tokio::join!(ok(&vm, &lines[1]), ok(&vm, &lines[2]), ok(&vm, &lines[3]));
    assert_eq!([a, b, c], ["1\n1", "2\n2", "3\n3"]);
    vm.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let vm = guest().boot().await.unwrap();
    let began = Instant::now();
    let late = vm.exec(
        "echo partly; tail -f /dev/null | cat; echo more",
        Duration::from_millis(500),
    );
    let error = late.await.unwrap_err().to_string();
    assert!(
        error.contains("did not end within 500ms") && error.contains("partly"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(ok(&vm, "pidof tail | wc -w").await, "0");

    // What is left in the background lives on, and its output disturbs nobody.
    ok(
        &vm,
        "(while :; do echo noise; usleep 10000; done) & echo $! >/run/noise",
    )
    .await;
    for _ in 0..5 {
        assert_eq!(ok(&vm, "usleep 30000; echo quiet").await, "quiet");
    }
    ok(&vm, "kill $(cat /run/noise)").await;

    // A paused guest is an error in time, and its late answer is not taken for another one.
    vm.pause().await.unwrap();
    assert_eq!(
        vm.qmp(json!({"execute": "query-status"})).await.unwrap()["status"],
        "paused"
    );
    let error = vm
        .exec("echo stale", Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("paused"), "{error:#}");
    vm.resume().await.unwrap();
    assert_eq!(ok(&vm, "echo fresh").await, "fresh");
    assert!(vm.qmp(json!({"execute": "no-such-command"})).await.is_err());
}

#[tokio::test]
async fn a_guest_restarts_by_reset_and_by_reboot_and_powers_off() {
    let vm = guest().boot().await.unwrap();
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    let first = ok(&vm, boot_id).await;
    let began = Instant::now();
    vm.reboot().await.unwrap();
    vm.wait_boot().await.unwrap();
    println!("reboot took {:?}", began.elapsed());
    let second = ok(&vm, boot_id).await;
    let began = Instant::now();
    vm.reset().await.unwrap();
    vm.wait_boot().await.unwrap();
    println!("reset took {:?}", began.elapsed());
    let third = ok(&vm, boot_id).await;
    assert!(
        first != second && second != third,
        "{first} {second} {third}"
    );
    assert_eq!(vm.boots(), 3);

    // A command that the restart ends is an error at once.
    let began = Instant::now();
    let error = vm
        .exec("reboot -f; sleep 60", Duration::from_secs(60))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("restarted"), "{error:#}");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );

    assert!(vm.is_running());
    let error = vm.exec("poweroff -f", SOON).await.unwrap_err();
    assert!(format!("{error:#}").contains("ended"), "{error:#}");
    vm.wait_end(SOON).await.unwrap();
    assert!(!vm.is_running());
    vm.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_raw_port_carries_bytes_both_ways() {
    let vm = guest().boot().await.unwrap();
    // Reading the port while the host is not connected is the end of the file.
    let echo = r#"
        exec <>/dev/virtio-ports/org.vbridge.raw.0 >&0
        while :; do
            while read -r line; do echo "got $line"; done
            usleep 10000
        done"#;
    ok(&vm, &format!("({echo}) & :")).await;
    let mut raw = BufReader::new(UnixStream::connect(vm.raw_channel()).await.unwrap());
    for n in 0..20 {
        raw.get_mut()
            .write_all(format!("{n}\n").as_bytes())
            .await
            .unwrap();
        let mut line = String::new();
        tokio::time::timeout(SOON, raw.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(line, format!("got {n}\n"));
    }
    // The agent's port is there as well, each on a device of its own, and the free monitor greets.
    assert_eq!(
        ok(&vm, "cat /sys/class/virtio-ports/vport?p1/name | sort").await,
        "org.vbridge.agent.0\norg.vbridge.raw.0"
    );
    UnixStream::connect(vm.channel()).await.unwrap();
    let mut greeting = [0; 8];
    UnixStream::connect(vm.monitor())
        .await
        .unwrap()
        .read_exact(&mut greeting)
        .await
        .unwrap();
    assert_eq!(&greeting, b"{\"QMP\": ");
}

#[tokio::test]
async fn the_agent_gets_its_arguments_and_is_started_again() {
    let vm = guest()
        .agent_arg("--flag")
        .agent_arg("two words")
        .agent_env("GREETING", "hello \"you\"")
        .file("/etc/vbridge/agent.toml", "key = 1\n")
        .boot()
        .await
        .unwrap();
    assert_eq!(ok(&vm, "cat /etc/vbridge/agent.toml").await, "key = 1");
    let said = "placeholder started: 2 --flag two words hello \"you\"";
    eventually(&vm, "grep -q placeholder /tmp/agent.log").await;
    assert_eq!(ok(&vm, "cat /tmp/agent.log").await, said);
    assert!(
        vm.console_tail().contains(&format!("agent: {said}")),
        "{}",
        vm.console_tail()
    );
    for starts in 2..6 {
        ok(&vm, "kill -9 $(cat /run/agent.pid)").await;
        eventually(&vm, &format!("[ $(wc -l </run/starts) = {starts} ]")).await;
    }
    ok(
        &vm,
        "touch /run/agent.hold; kill -9 $(cat /run/agent.pid); usleep 600000; rm /run/agent.hold",
    )
    .await;
    eventually(&vm, "[ $(wc -l </run/starts) = 6 ]").await;
    assert!(
        vm.console_tail()
            .contains("the agent ended with status 137"),
        "{}",
        vm.console_tail()
    );
}

#[tokio::test]
async fn a_boot_that_fails_says_why() {
    // The kernel takes two seconds to come so far; on a machine that is busy with other tests, ten.
    let failed = guest()
        .append("rdinit=/no/such/init")
        .boot_deadline(Duration::from_secs(20))
        .boot();
    let error = failed.await.unwrap_err().to_string();
    assert!(
        error.contains("not up within") && error.contains("init"),
        "{error}"
    );

    let error = format!(
        "{:#}",
        guest()
            .qemu_arg("-no-such-option")
            .boot()
            .await
            .unwrap_err()
    );
    assert!(error.contains("no-such-option"), "{error}");
}

/// Runs this test's own program again, which boots a guest and waits to be killed.
#[tokio::test]
async fn no_qemu_outlives_a_killed_test_runner() {
    const CHILD: &str = "VBRIDGE_TEST_BOOT_AND_WAIT";
    if std::env::var_os(CHILD).is_some() {
        let vm = guest().boot().await.unwrap();
        println!("\nqemu {}", vm.pid());
        tokio::time::sleep(Duration::from_secs(120)).await;
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "no_qemu_outlives_a_killed_test_runner",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let pid = std::io::BufRead::lines(output)
        .find_map(|line| line.unwrap().strip_prefix("qemu ").map(str::to_owned))
        .expect("the child says its QEMU's id");
    let alive =
        || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/"));
    assert!(alive());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive() {
        assert!(Instant::now() < deadline, "QEMU {pid} lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn an_accelerator_is_chosen() {
    assert!(["kvm", "tcg"].contains(&Accelerator::detect().name()));
}
