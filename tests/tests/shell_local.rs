//! `vbridge shell` and `top` on a terminal, through a bridge to an agent on a Unix socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use vbridge_tests::{
    fixture::{Bridge, LocalAgent, eventually, story},
    process::PATIENCE,
    programs,
    terminal::Terminal,
};

/// What the test's shell shows when it waits for a line.
const PROMPT: &str = "guest> ";

/// A login shell that looks the same on every machine.
const SHELL: &str = "#!/bin/sh\nunset ENV\nPS1='guest> ' exec /bin/sh -i\n";

/// Says that it is ready and then its terminal's size whenever that changes, until it is interrupted. What is typed is
/// another text than what appears.
const WATCH_SIZE: &str =
    "sh -c 'trap \"stty size\" WINCH; echo re\"\"ady; while :; do sleep 0.05; done'\r";

struct World {
    bridge: Bridge,
    agent: LocalAgent,
    here: TempDir,
}

impl World {
    async fn start() -> Result<Self> {
        let agent = LocalAgent::start().await?;
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        let here = tempfile::tempdir()?;
        let shell = here.path().join("shell");
        fs::write(&shell, SHELL)?;
        fs::set_permissions(&shell, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            bridge,
            agent,
            here,
        })
    }

    /// The program with these words, on a terminal.
    async fn vbridge(&self, words: &[&str], size: (u16, u16)) -> Result<Terminal> {
        let address = self.bridge.address().to_string();
        let words = [words, &["--bridge", &address]].concat();
        Terminal::start(&programs::host().await?.bridge, words, size)
    }

    /// A shell that waits for a line.
    async fn shell(&self, words: &[&str]) -> Result<Terminal> {
        let shell = format!("SHELL={}", self.here.path().join("shell").display());
        let words = [&["shell", "local", "--env", &shell], words].concat();
        let mut terminal = self.vbridge(&words, (24, 80)).await?;
        terminal.shows(PROMPT).await?;
        Ok(terminal)
    }
}

#[test]
fn a_shell_has_the_terminals_size_and_follows_it_and_ctrl_c_is_the_guests() {
    story(async {
        let world = World::start().await?;
        let mut terminal = world.shell(&[]).await?;
        ensure!(terminal.modes()?.is_raw(), "{:?}", terminal.modes()?);
        terminal.types("stty size; echo $TERM\r").await?;
        terminal.shows("24 80\r\n").await?;
        terminal.shows(PROMPT).await?;

        terminal.types(WATCH_SIZE).await?;
        terminal.shows("ready").await?;
        terminal.resize(41, 107)?;
        terminal.shows("41 107").await?;
        // Only that program goes; the shell and ours stay.
        terminal.types("\x03").await?;
        terminal.shows(PROMPT).await?;
        terminal.types("echo al\"\"ive\r").await?;
        terminal.shows("alive").await?;
        terminal.types("exit 7\r").await?;
        ensure!(
            terminal.ended().await?.code() == Some(7),
            "{}",
            terminal.screen()
        );
        Ok(())
    });
}

#[test]
fn the_terminal_is_as_it_was_after_a_shell_that_ends() {
    story(async {
        let world = World::start().await?;
        // Nothing has touched this one.
        let address = world.bridge.address().to_string();
        let ping = ["ping", "local", "--count", "1", "--bridge", &address];
        let untouched =
            Terminal::start(&programs::host().await?.bridge, ping, (24, 80))?.modes()?;
        ensure!(!untouched.is_raw());
        let mut terminal = world.shell(&[]).await?;
        ensure!(terminal.modes()? != untouched);
        // The end of what is typed, as shells have it.
        terminal.types("\x04").await?;
        ensure!(terminal.ended().await?.success(), "{}", terminal.screen());
        ensure!(terminal.modes()? == untouched, "{:?}", terminal.modes()?);

        let mut terminal = world.shell(&[]).await?;
        terminal.types("kill -9 $$\r").await?;
        ensure!(
            terminal.ended().await?.code() == Some(137),
            "{}",
            terminal.screen()
        );
        ensure!(terminal.modes()? == untouched, "{:?}", terminal.modes()?);
        Ok(())
    });
}

#[test]
fn the_terminal_is_given_back_and_a_sentence_said_when_the_bridge_dies_under_a_shell() {
    story(async {
        let mut world = World::start().await?;
        let mut terminal = world.shell(&[]).await?;
        world.bridge.kill9().await?;
        terminal.shows("vbridge: ").await?;
        terminal.shows("the bridge may have been stopped").await?;
        ensure!(
            terminal.ended().await?.code() == Some(255),
            "{}",
            terminal.screen()
        );
        ensure!(!terminal.modes()?.is_raw(), "{:?}", terminal.modes()?);
        Ok(())
    });
}

#[test]
fn a_shell_in_a_guest_that_hangs_is_left_with_the_escape_however_much_was_typed_before() {
    story(async {
        let mut world = World::start().await?;
        let mut terminal = world.shell(&[]).await?;
        let mut other = world.shell(&["--escape", "%"]).await?;
        world.agent.process().signal(Signal::STOP)?;
        for _ in 0..8 {
            terminal.types(&"is anybody there?\r".repeat(100)).await?;
        }
        terminal.types("~.").await?;
        terminal.shows("you have left guest \"local\"").await?;
        ensure!(
            terminal.ended().await?.code() == Some(255),
            "{}",
            terminal.screen()
        );
        ensure!(!terminal.modes()?.is_raw(), "{:?}", terminal.modes()?);
        other.types("~.\r%.").await?;
        other.shows("you have left").await?;
        ensure!(
            other.ended().await?.code() == Some(255),
            "{}",
            other.screen()
        );
        world.agent.process().signal(Signal::CONT)
    });
}

#[test]
fn a_tilde_that_is_none_of_ours_reaches_the_guest() {
    story(async {
        let world = World::start().await?;
        let mut terminal = world.shell(&["--escape", "none"]).await?;
        terminal.types("~.\r").await?;
        terminal.shows("not found").await?;
        terminal.shows(PROMPT).await?;
        terminal.types("exit\r").await?;
        ensure!(
            terminal.ended().await?.code() == Some(127),
            "{}",
            terminal.screen()
        );

        let mut terminal = world.shell(&[]).await?;
        // At the beginning of a line one of two goes on; within a line all do.
        terminal.types("~~.\r").await?;
        terminal.shows("~.: not found").await?;
        terminal.shows(PROMPT).await?;
        terminal.types("echo '<'~.'>'\r").await?;
        terminal.shows("\n<~.>").await?;
        terminal.types("exit 0\r").await?;
        ensure!(terminal.ended().await?.success(), "{}", terminal.screen());
        Ok(())
    });
}

#[test]
fn a_terminal_that_is_closed_takes_the_shell_with_it() {
    story(async {
        let world = World::start().await?;
        let mut terminal = world.shell(&[]).await?;
        terminal.types("echo it\"\" is $$ there\r").await?;
        terminal.shows("it is ").await?;
        let pid = terminal.until(" there").await?;
        let process = Path::new("/proc").join(pid.trim_end_matches(" there"));
        ensure!(process.exists(), "{pid}");
        ensure!(!terminal.hang_up().await?.success());
        eventually("it is gone", PATIENCE, || async { Ok(!process.exists()) }).await
    });
}

#[test]
fn top_draws_in_the_same_place_follows_the_size_and_gives_the_screen_back() {
    const BEGIN: &str = "\x1b[H\x1b[Klocal  ";
    const END: &str = "\x1b[J";
    // There is room left below, however many disks this machine has.
    const LARGE: (u16, u16) = (300, 80);
    story(async {
        let world = World::start().await?;
        let top = ["top", "local", "--interval", "100ms"];
        let mut terminal = world.vbridge(&top, LARGE).await?;
        // Another screen, and there one picture over the other.
        terminal.shows("\x1b[?1049h").await?;
        for _ in 0..3 {
            terminal.shows(BEGIN).await?;
            let picture = terminal.until(END).await?;
            ensure!(picture.contains("memory"), "{picture:?}");
        }
        terminal.types("\x03").await?;
        terminal.shows("\x1b[?1049l").await?;
        ensure!(terminal.ended().await?.success(), "{}", terminal.screen());

        // No second picture would come of itself.
        let top = ["top", "local", "--interval", "1h"];
        let mut terminal = world.vbridge(&top, LARGE).await?;
        terminal.shows(END).await?;
        terminal.resize(1, 12)?;
        terminal.shows(BEGIN).await?;
        terminal.signal(Signal::TERM)?;
        // The cursor is shown again.
        let rest = terminal.until("\x1b[?25h").await?;
        let line = rest.trim_end_matches("\x1b[?25h");
        ensure!(line.len() == 12 - "local  ".len(), "{line:?}");
        terminal.shows("\x1b[?1049l").await?;
        ensure!(
            terminal.ended().await?.code() == Some(143),
            "{}",
            terminal.screen()
        );
        Ok(())
    });
}
