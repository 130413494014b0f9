//! The libvirt client's examples, run as programs on a real daemon: on its test driver, and on QEMU where an example
//! needs a guest or a pool.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use vbridge_tests::{
    fixture::{eventually, story},
    libvirt::{daemon::Libvirtd, domain::Domain, limits::CLIENT},
    process::Process,
};
use xtask::build;

const MIB: u64 = 1 << 20;

/// Ctrl-], with which the console is left.
const LEAVE: &[u8] = b"\x1d";

/// An example's program.
async fn program(example: &str) -> Result<PathBuf> {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    let folder = FOLDER
        .get_or_try_init(|| async {
            tokio::task::spawn_blocking(|| build::examples("libvirt")).await?
        })
        .await?;
    Ok(folder.join(example))
}

async fn run(example: &str, arguments: &[&str], input: &[u8]) -> Result<Output> {
    let mut child = Command::new(program(example).await?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    stdin.write_all(input).await?;
    drop(stdin);
    let ended = timeout(CLIENT, child.wait_with_output()).await;
    Ok(ended.with_context(|| format!("{example} has not ended within {CLIENT:?}"))??)
}

/// What an example writes, which must succeed.
async fn says(example: &str, arguments: &[&str]) -> Result<String> {
    let output = run(example, arguments, b"").await?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{example}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// The example that goes on for ever.
struct Watch(Process);

impl Watch {
    async fn says(&mut self, words: &str) -> Result<()> {
        let found = |line: &str| line.contains(words).then_some(());
        self.0.line(words, found).await
    }
}

#[test]
fn domains_are_listed_and_their_use_is_shown() {
    story(Libvirtd::builder().run(async |daemon| {
        let uri = daemon.uri("test");
        let list = says("list_domains", &[&uri]).await?;
        let row = list.lines().find(|line| line.contains(" test "));
        ensure!(row.is_some_and(|row| row.contains("2 CPUs")), "{list}");
        let table = says("stats", &[&uri, "--over", "0.1"]).await?;
        ensure!(table.lines().any(|row| row.contains("test")), "{table}");
        Ok(())
    }));
}

#[test]
fn a_domain_is_taken_through_its_life_on_either_driver() {
    story(Libvirtd::builder().run(async |daemon| {
        for driver in ["test", "qemu"] {
            let uri = daemon.uri(driver);
            let told = says("life_cycle", &[&uri, "--patience", "1"]).await?;
            for part in ["defined", "Started", "Suspended", "Resumed", "Undefined"] {
                ensure!(told.contains(part), "{driver}: no {part} in {told}");
            }
            let left = says("list_domains", &[&uri]).await?;
            ensure!(!left.contains("life-cycle"), "{driver}: {left}");
        }
        Ok(())
    }));
}

#[test]
fn events_are_told_across_a_restart_of_the_daemon() {
    story(Libvirtd::builder().run(async |daemon| {
        let uri = daemon.uri("qemu");
        let mut watch = Watch(Process::start(&program("watch_events").await?, [&uri])?);
        watch.says("watching").await?;
        // Its first state is told by a task of its own.
        watch.says("-- connected").await?;
        daemon.pool("before").await?;
        watch.says("storage pool before: ").await?;
        daemon.kill9().await?;
        watch.says("-- not connected: ").await?;
        daemon.start_again().await?;
        watch
            .says("storage pool: what happened meanwhile is not known")
            .await?;
        daemon.pool("after").await?;
        watch.says("storage pool after: ").await?;
        watch.0.signal(Signal::INT)?;
        let status = watch.0.ended().await?;
        ensure!(status.success(), "{status}");
        Ok(())
    }));
}

#[test]
fn a_daemons_servers_and_clients_are_shown() {
    story(Libvirtd::builder().run(async |daemon| {
        let shown = says("admin", &[&daemon.admin_uri()]).await?;
        ensure!(shown.starts_with("libvirt 9."), "{shown}");
        ensure!(shown.contains("server libvirtd: "), "{shown}");
        Ok(())
    }));
}

#[test]
fn a_file_with_holes_goes_into_a_volume_and_comes_back() {
    story(Libvirtd::builder().run(async |daemon| {
        daemon.pool("pool").await?;
        let [sent, received] = ["sent", "received"].map(|name| daemon.folder().join(name));
        let mut file = File::create(&sent)?;
        file.write_all(&[1; 70_000])?;
        file.seek(SeekFrom::Start(200 * MIB))?;
        file.write_all(b"the end")?;
        for (direction, path) in [("upload", &sent), ("download", &received)] {
            let path = path.to_str().context("it is no text")?;
            let uri = daemon.uri("qemu");
            says("volume", &[&uri, "pool", "disk.img", direction, path]).await?;
        }
        ensure!(fs::read(&sent)? == fs::read(&received)?, "it is another");
        let taken = fs::metadata(&received)?.blocks() * 512;
        ensure!(taken < 4 * MIB, "its holes take {taken} bytes");
        Ok(())
    }));
}

#[test]
fn a_guest_is_talked_to_on_its_channel_and_on_its_console() {
    story(Libvirtd::builder().run(async |daemon| {
        let domain = Domain::builder("talk").build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let uri = daemon.uri("qemu");
        let question: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let answer = run("channel", &[&uri, "talk", xtask::qemu::RAW_PORT], &question).await?;
        ensure!(answer.status.success(), "{answer:?}");
        ensure!(
            answer.stdout == question,
            "the guest returned something else"
        );

        // `script` gives it a terminal.
        let command = format!("'{}' '{uri}' talk", program("console").await?.display());
        let mut console = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--flush",
                "--command",
                &command,
                "/dev/null",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't run script, which Debian's bsdutils has")?;
        let mut keys = console.stdin.take().context("it has no input")?;
        let mut lines = BufReader::new(console.stdout.take().context("it has no output")?).lines();
        let talk = async {
            let first = lines.next_line().await?.context("it has ended")?;
            ensure!(first.contains("connected to talk"), "{first}");
            keys.write_all(LEAVE).await?;
            while let Some(line) = lines.next_line().await? {
                if line.contains("left the console") {
                    return anyhow::Ok(());
                }
            }
            anyhow::bail!("it has ended without a word")
        };
        timeout(CLIENT, talk).await.context("the console hangs")??;
        let status = timeout(CLIENT, console.wait()).await??;
        ensure!(status.success(), "{status}");
        // Both have let go of what they held.
        eventually("the console's release", CLIENT, async || {
            Ok(daemon.clients().await?.is_empty())
        })
        .await
    }));
}

#[test]
fn an_example_that_finds_no_daemon_says_so_in_one_sentence() {
    story(async {
        let output = run(
            "list_domains",
            &["test:///default?socket=/nowhere/sock"],
            b"",
        )
        .await?;
        ensure!(!output.status.success());
        let complaint = String::from_utf8(output.stderr)?;
        ensure!(
            complaint.starts_with("Error: no libvirt daemon is running here"),
            "{complaint}"
        );
        Ok(())
    });
}
