//! A session behind a pre-shared key, from the bridge's flag to the agent's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tonic::Code;
use vbridge_api::host::v1::GuestState;
use vbridge_tests::{
    exercise::v1::UnaryRequest,
    fixture::{Bridge, LocalAgent, story},
};

/// A file that its owner alone may read.
fn key(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_bridge_with_the_agents_key_is_served() {
    story(async {
        let directory = tempfile::tempdir()?;
        let key = key(&directory, "key", "correct horse battery staple");
        let agent = LocalAgent::start_with(&["--key-file", &key.display().to_string()]).await?;
        let bridge = Bridge::start([agent.seat("safe").key_file(&key)]).await?;
        bridge.ready("safe").await?;
        bridge
            .place("safe")
            .exercise()
            .await?
            .unary(UnaryRequest::default())
            .await?;
        Ok(())
    });
}

#[test]
fn a_bridge_with_another_key_or_none_is_refused_and_its_callers_learn_why() {
    story(async {
        let directory = tempfile::tempdir()?;
        let agents = key(&directory, "agents", "correct horse battery staple");
        let agents = agents.display().to_string();
        let others = key(&directory, "others", "incorrect horse battery staple");
        for other in [Some(others), None] {
            let agent = LocalAgent::start_with(&["--key-file", &agents]).await?;
            let mut seat = agent.seat("safe");
            seat.key_file = other;
            refused(&Bridge::start([seat]).await?).await?;
        }
        Ok(())
    });
}

async fn refused(bridge: &Bridge) -> Result<()> {
    bridge.reaches("safe", GuestState::Rejected).await?;
    let status = bridge
        .place("safe")
        .exercise()
        .await?
        .unary(UnaryRequest::default())
        .await
        .unwrap_err();
    ensure!(status.code() == Code::Unavailable, "{status:?}");
    let details = String::from_utf8_lossy(status.details()).into_owned();
    ensure!(details.contains("GUEST_REJECTED"), "{status:?}");
    ensure!(
        status.message().contains("key"),
        "it does not speak of the key: {}",
        status.message()
    );
    Ok(())
}
