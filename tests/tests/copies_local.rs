//! `vbridge cp` through a bridge to an agent on a Unix socket: what is broken off and goes on, trees with what belongs to
//! them, and what is said meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use vbridge_tests::{
    between::Between,
    content,
    fixture::{Bridge, LocalAgent, eventually, story},
    process::PATIENCE,
    programs,
    terminal::Terminal,
};

const MIB: u64 = 1024 * 1024;

/// A file that is copied in several goes.
const SIZE: u64 = 32 * MIB;

/// How much of it passes at first, and how much of that has to be there before the bridge dies: the rest fits into the
/// buffers on the way.
const FIRST: u64 = 12 * MIB;
const ARRIVED: u64 = 6 * MIB;

struct World {
    bridge: Bridge,
    _agent: LocalAgent,
    here: TempDir,
}

impl World {
    async fn start() -> Result<Self> {
        let agent = LocalAgent::start().await?;
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        Ok(Self {
            bridge,
            _agent: agent,
            here: tempfile::tempdir()?,
        })
    }

    /// The program with these words, on its way to the bridge through `address`.
    async fn vbridge(&self, words: &[&str], address: SocketAddr) -> Result<Command> {
        let mut command = Command::new(&programs::host().await?.bridge);
        command
            .args(words)
            .env("VBRIDGE_ADDRESS", address.to_string())
            // What fails is to be seen at once, and nobody's settings count here.
            .env("VBRIDGE_RETRIES", "0")
            .env("VBRIDGE_CLIENT_CONFIG", "")
            .kill_on_drop(true);
        Ok(command)
    }

    async fn run_through(&self, words: &[&str], address: SocketAddr) -> Result<Output> {
        let mut command = self.vbridge(words, address).await?;
        let ended = timeout(4 * PATIENCE, command.output()).await;
        Ok(ended.context("it takes for ever")??)
    }

    async fn run(&self, words: &[&str]) -> Result<Output> {
        self.run_through(words, self.bridge.address()).await
    }

    /// Runs what has to succeed and say nothing.
    async fn good(&self, words: &[&str]) -> Result<()> {
        let output = self.run(words).await?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        ensure!(output.stderr.is_empty(), "{words:?}: {output:?}");
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }
}

/// The agent runs on this machine: its files are ours.
fn there(path: &Path) -> String {
    format!("local:{}", path.display())
}

/// The file in a folder whose name has this in it, and its length.
fn part(folder: &Path, word: &str) -> Result<Option<(PathBuf, u64)>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(word) {
            return Ok(Some((entry.path(), entry.metadata()?.len())));
        }
    }
    Ok(None)
}

/// Copies, kills the bridge when some of it has arrived, copies again, and sees that only the rest was sent.
async fn goes_on(world: &mut World, from: &str, to: &str, folder: &Path, word: &str) -> Result<()> {
    let words = ["cp", from, to];
    let between = Between::start(world.bridge.address(), FIRST).await?;
    let mut first = world.vbridge(&words, between.address()).await?;
    let first = tokio::spawn(async move { first.output().await });
    between.is_full().await?;
    eventually("some of it is there", PATIENCE, || async {
        Ok(part(folder, word)?.is_some_and(|(_, size)| size >= ARRIVED))
    })
    .await?;
    world.bridge.kill9().await?;
    between.open();
    let output = timeout(PATIENCE, first)
        .await
        .context("it takes for ever")???;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said.contains("the same command goes on"), "{said}");
    ensure!(said.lines().count() == 1, "{said}");
    world.bridge.start_again().await?;
    world.bridge.ready("local").await?;

    let between = Between::start(world.bridge.address(), u64::MAX).await?;
    let output = world.run_through(&words, between.address()).await?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let sent = between.passed();
    ensure!(
        sent < SIZE - ARRIVED + MIB && sent > MIB,
        "{sent} bytes passed at the second time"
    );
    ensure!(part(folder, word)?.is_none(), "a part is left behind");
    Ok(())
}

fn bulk(path: &Path) -> Result<()> {
    Ok(fs::write(
        path,
        content::bytes(3, 0, usize::try_from(SIZE)?),
    )?)
}

#[test]
fn an_upload_that_the_bridges_death_broke_off_goes_on_where_it_was() {
    story(async {
        let mut world = World::start().await?;
        let (from, folder) = (world.path("up"), world.path("guest"));
        bulk(&from)?;
        fs::create_dir(&folder)?;
        let to = folder.join("new");
        let from_text = from.display().to_string();
        goes_on(&mut world, &from_text, &there(&to), &folder, "upload").await?;
        ensure!(
            fs::read(&to)? == fs::read(&from)?,
            "other bytes have arrived"
        );
        Ok(())
    });
}

#[test]
fn a_download_that_the_bridges_death_broke_off_goes_on_where_it_was() {
    story(async {
        let mut world = World::start().await?;
        let (from, folder) = (world.path("guest"), world.path("down"));
        bulk(&from)?;
        fs::create_dir(&folder)?;
        let to = folder.join("new");
        let to_text = to.display().to_string();
        goes_on(&mut world, &there(&from), &to_text, &folder, ".part").await?;
        ensure!(
            fs::read(&to)? == fs::read(&from)?,
            "other bytes have arrived"
        );
        Ok(())
    });
}

#[test]
fn a_bar_is_drawn_on_a_terminal_and_wiped_away_unless_it_is_not_wanted() {
    story(async {
        let world = World::start().await?;
        let from = world.path("bulk");
        bulk(&from)?;
        let bridge = &programs::host().await?.bridge;
        for to_guest in [true, false] {
            let between = Between::start(world.bridge.address(), FIRST).await?;
            let address = between.address().to_string();
            let (here, guest) = (from.display().to_string(), there(&from));
            let copy = world.path("copy");
            let (from, to) = match to_guest {
                true => (here, there(&copy)),
                false => (guest, copy.display().to_string()),
            };
            let words = ["cp", &from, &to, "--bridge", &address];
            let mut terminal = Terminal::start(bridge, words, (24, 120))?;
            between.is_full().await?;
            terminal.shows(" % ").await?;
            between.open();
            ensure!(terminal.ended().await?.success(), "{}", terminal.screen());
            ensure!(
                terminal.screen().ends_with(r"\u{1b}[2K"),
                "{}",
                terminal.screen()
            );
        }

        let (from, to) = (from.display().to_string(), there(&world.path("quiet")));
        let address = world.bridge.address().to_string();
        let words = ["cp", "--quiet", &from, &to, "--bridge", &address];
        let mut terminal = Terminal::start(bridge, words, (24, 120))?;
        ensure!(terminal.ended().await?.success(), "{}", terminal.screen());
        ensure!(terminal.screen().is_empty(), "{}", terminal.screen());
        // And where errors go to no terminal.
        world.good(&["cp", &from, &to]).await
    });
}

#[test]
fn a_bar_is_gone_before_a_failure_is_told() {
    story(async {
        let mut world = World::start().await?;
        let from = world.path("bulk");
        bulk(&from)?;
        let between = Between::start(world.bridge.address(), FIRST).await?;
        let (address, to) = (between.address().to_string(), world.path("down"));
        let words = [
            "cp",
            &there(&from),
            to.to_str().unwrap(),
            "--bridge",
            &address,
        ];
        let mut terminal = Terminal::start(&programs::host().await?.bridge, words, (24, 120))?;
        terminal.shows(" % ").await?;
        between.is_full().await?;
        world.bridge.kill9().await?;
        between.open();
        terminal.shows("\x1b[2Kvbridge: ").await?;
        ensure!(
            terminal.ended().await?.code() == Some(1),
            "{}",
            terminal.screen()
        );
        let screen = terminal.screen();
        let (_, end) = screen.rsplit_once("vbridge: ").context("it is there")?;
        ensure!(
            !end.contains(" % "),
            "a bar is drawn behind the sentence: {screen}"
        );
        Ok(())
    });
}

/// What has to be the same of a file at both ends: its kind and mode, its owners, its time, its content or target.
#[derive(Debug, PartialEq, Eq)]
struct Kept(PathBuf, u32, (u32, u32), Option<i64>, Vec<u8>);

/// Everything in a tree, in order.
fn kept(root: &Path) -> Result<Vec<Kept>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let whole = root.join(&path);
        let metadata = whole.symlink_metadata()?;
        let mut content = Vec::new();
        if metadata.is_dir() {
            for entry in fs::read_dir(&whole)? {
                left.push(path.join(entry?.file_name()));
            }
        } else if metadata.is_symlink() {
            content = fs::read_link(&whole)?.into_os_string().into_encoded_bytes();
        } else {
            content = fs::read(&whole)?;
        }
        let owners = (metadata.uid(), metadata.gid());
        // Nobody sets a link's.
        let time = (!metadata.is_symlink()).then_some(metadata.mtime());
        found.push(Kept(path, metadata.mode(), owners, time, content));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A tree in which nothing is as a new file would be; files are given away where that is allowed.
fn tree(root: &Path) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    fs::create_dir_all(root.join("deep/er"))?;
    fs::create_dir(root.join("empty"))?;
    fs::write(root.join("deep/er/file"), "content")?;
    fs::write(root.join("deep/tool"), "#!/bin/sh\n")?;
    fs::write(root.join("with a space, ü and \u{1b}[2J"), "")?;
    symlink("deep/er/file", root.join("link"))?;
    symlink("/nowhere", root.join("dangling"))?;
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    // A directory's time is set when nothing is put into it any more.
    for (at, (name, mode)) in [
        ("deep/er/file", 0o640),
        ("deep/tool", 0o4755),
        ("with a space, ü and \u{1b}[2J", 0o600),
        ("deep/er", 0o2750),
        ("deep", 0o755),
        ("empty", 0o1777),
        ("", 0o700),
    ]
    .into_iter()
    .enumerate()
    {
        let path = root.join(name);
        let number = u32::try_from(at)?;
        if is_root {
            chown(&path, Some(3000 + number), Some(4000 + number))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let time = old + Duration::from_secs(at as u64 * 1000);
        fs::File::open(&path)?.set_times(fs::FileTimes::new().set_modified(time))?;
    }
    Ok(())
}

#[test]
fn trees_keep_owners_modes_and_times_both_ways_if_they_are_to() {
    story(async {
        let world = World::start().await?;
        let from = world.path("tree");
        tree(&from)?;
        let expected = kept(&from)?;
        ensure!(expected.len() == 9);
        fs::create_dir(world.path("guest"))?;
        let up = there(&world.path("guest"));
        let from_text = from.display().to_string();
        world.good(&["cp", "-rp", &from_text, &up]).await?;
        let arrived = kept(&world.path("guest/tree"))?;
        ensure!(arrived == expected, "{arrived:#?}\n{expected:#?}");
        let back = world.path("back").display().to_string();
        world
            .good(&["cp", "-rp", &format!("{up}/tree"), &back])
            .await?;
        let returned = kept(&world.path("back"))?;
        ensure!(returned == expected, "{returned:#?}\n{expected:#?}");

        // Else files are their new owner's, and new.
        let plain = world.path("plain").display().to_string();
        world
            .good(&["cp", "-r", &format!("{up}/tree"), &plain])
            .await?;
        let mine = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        for Kept(path, mode, owners, time, _) in kept(&world.path("plain"))? {
            ensure!(owners == mine, "{path:?} belongs to {owners:?}");
            ensure!(mode & 0o4000 == 0, "{path:?} has the mode {mode:o}");
            ensure!(
                time.is_none_or(|time| time > 1_100_000_000),
                "{path:?} is of {time:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn names_can_not_control_the_terminal_in_what_is_said_of_them() {
    story(async {
        let world = World::start().await?;
        let evil = "evil\u{1b}[2J\n\u{202e}";
        let (here, guest) = (world.path("here"), world.path("guest"));
        for folder in [&here, &guest] {
            fs::create_dir_all(folder.join(evil).join("in"))?;
            fs::write(folder.join("plain"), "")?;
        }
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (here_evil, guest_evil) = (text(here.join(evil)), there(&guest.join(evil)));
        let (here_plain, guest_plain) = (text(here.join("plain")), there(&guest.join("plain")));
        let (absent_here, absent_there) = (format!("{here_evil}x"), format!("{guest_evil}x"));
        // Where a directory has to become a file.
        fs::write(guest.join(evil).join("file"), "")?;
        fs::create_dir(here.join(evil).join("file"))?;
        let (file, here_dir) = (format!("{guest_evil}/file"), text(here.clone()));
        for words in [
            &["cp", &here_evil, &guest_plain][..],
            &["cp", &guest_evil, &here_plain],
            &["cp", &absent_here, &guest_plain],
            &["cp", &absent_there, &here_plain],
            &["cp", &here_plain, &format!("{absent_there}/y/z")],
            &["cp", &guest_plain, &format!("{absent_here}/y/z")],
            &["cp", "-r", "--no-overwrite", &guest_evil, &here_dir],
            &["cp", &file, &here_evil],
            &["ls", &absent_there],
            &["stat", &absent_there],
        ] {
            let output = world.run(words).await?;
            let said = String::from_utf8(output.stderr)?;
            ensure!(output.status.code() == Some(1), "{words:?}: {said}");
            ensure!(
                said.ends_with('\n') && said.lines().count() == 1,
                "{words:?}: {said:?}"
            );
            ensure!(
                said.contains("\\u{1b}[2J\\n\\u{202e}") && !said.contains(['\u{1b}', '\u{202e}']),
                "{words:?}: {said:?}"
            );
        }
        Ok(())
    });
}
