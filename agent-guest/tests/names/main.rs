//! Names that mean harm, in every field that takes a name: each is refused with one clear sentence, which repeats none of
//! its control characters and not all of its length, and nothing runs with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;

mod fields;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use agent_guest::SystemdPlaces;
use common::{Running, within};
use fields::{accounts, commands, files};
use tonic::Status;
use tonic_types::StatusExt as _;

/// What a shell, an option parser, a file system, a terminal or a format would take for more than a name.
const HOSTILE: [&str; 14] = [
    "-x",
    "--help",
    "../..",
    "../../etc/passwd",
    "no/../such",
    "nul\0nul",
    "line\nroot:x:0:0",
    "\r\n",
    "\u{1b}[31m\u{7}",
    "\u{9b}31m",
    "$(id)",
    "`id`; id",
    "%n%s",
    "\u{202e}",
];

/// Longer than any name, and than what should be repeated of one.
const LONG: usize = 12 * 1024;

/// Bytes of a message. It travels in a header, beside others.
const MAX_MESSAGE: usize = 2048;

/// An agent whose `journalctl` leaves a mark if it is ever run.
fn agent(here: &Path) -> Running {
    let journalctl = here.join("journalctl");
    let script = format!("#!/bin/sh\ntouch {}\n", here.join("it-ran").display());
    fs::write(&journalctl, script).unwrap();
    fs::set_permissions(&journalctl, fs::Permissions::from_mode(0o755)).unwrap();
    Running::start_with(|builder| {
        builder.systemd(SystemdPlaces {
            booted: here.to_owned(),
            bus: here.join("no-bus"),
            journalctl,
        })
    })
}

/// Whether a refusal can be shown as it is, and read by a program.
fn is_clear(status: &Status) -> bool {
    let text = status.message();
    !text.is_empty()
        && text.len() <= MAX_MESSAGE
        && !text.chars().any(char::is_control)
        && !text.contains('\u{202e}')
        && status
            .get_error_details()
            .error_info()
            .is_some_and(|info| info.domain == "vbridge" && !info.reason.is_empty())
}

#[tokio::test]
async fn a_hostile_name_is_refused_in_every_field_with_a_clear_sentence() {
    let here = tempfile::tempdir().unwrap();
    let agent = agent(here.path());
    let mut session = agent.host().await;
    let channel = session.channel().await;
    let long = "x".repeat(LONG);
    let mut wrong = Vec::new();
    let fields = [accounts(), commands(), files()].concat();
    for (field, call) in &fields {
        for name in HOSTILE.iter().copied().chain([long.as_str()]) {
            let shown: String = name.chars().take(20).collect();
            match within(call(channel.clone(), name.to_owned())).await {
                Ok(()) => wrong.push(format!("{field} takes {shown:?}")),
                Err(status) if is_clear(&status) => {}
                Err(status) => {
                    let text: String = status.message().chars().take(200).collect();
                    wrong.push(format!(
                        "{field} with {shown:?}: {:?}, {} bytes: {text:?}",
                        status.code(),
                        status.message().len()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!here.path().join("it-ran").exists(), "journalctl has run");
}

/// Below a directory that is there, where no check of the whole path's form helps.
#[tokio::test]
async fn a_hostile_name_below_a_directory_is_no_way_out_of_it() {
    let here = tempfile::tempdir().unwrap();
    let agent = agent(here.path());
    let mut session = agent.host().await;
    let channel = session.channel().await;
    let paths = files().into_iter().filter(|(field, _)| {
        field.ends_with(".path") && !["Write.path", "Mkdir.path"].contains(field)
    });
    let mut wrong = Vec::new();
    for (field, call) in paths {
        for name in HOSTILE {
            let path = format!("{}/sub/{name}", here.path().display());
            match within(call(channel.clone(), path)).await {
                Err(status) if is_clear(&status) => {}
                outcome => wrong.push(format!("{field} with {name:?}: {outcome:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
