//! Saves a guest's state and sets the guest back to it, as `virsh snapshot-create` and `snapshot-revert` do.
//!
//! QEMU keeps the states in a qcow2 image, which it makes itself: no further program is needed, and the guest sees no disk.

use std::{fs::File, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::fixture::Guest;

/// What the image may hold besides states: no disk, so next to nothing.
const IMAGE_BYTES: u64 = 1024 * 1024;

/// For QEMU to write or read a state: the memory that the guest has used.
const LIMIT: Duration = Duration::from_secs(60);

/// A guest with room for its states.
#[derive(Debug)]
pub struct Snapshots<'a> {
    guest: &'a Guest,
    _directory: TempDir,
}

impl<'a> Snapshots<'a> {
    /// Gives the guest room for states.
    ///
    /// # Errors
    /// QEMU refuses.
    pub async fn of(guest: &'a Guest) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("states.qcow2");
        File::create(&path)?;
        let this = Self {
            guest,
            _directory: directory,
        };
        this.execute(
            "blockdev-add",
            json!({"driver": "file", "node-name": "states-file", "filename": path}),
        )
        .await?;
        let options = json!({"driver": "qcow2", "file": "states-file", "size": IMAGE_BYTES});
        this.job("blockdev-create", json!({"options": options}))
            .await?;
        this.execute(
            "blockdev-add",
            json!({"driver": "qcow2", "node-name": "states", "file": "states-file"}),
        )
        .await?;
        Ok(this)
    }

    /// Saves the state under a name. The guest goes on.
    ///
    /// # Errors
    /// QEMU can't.
    pub async fn save(&self, name: &str) -> Result<()> {
        self.job(
            "snapshot-save",
            json!({"tag": name, "vmstate": "states", "devices": ["states"]}),
        )
        .await
    }

    /// Sets the guest back to a state. It goes on from there.
    ///
    /// # Errors
    /// QEMU can't.
    pub async fn set_back(&self, name: &str) -> Result<()> {
        self.job(
            "snapshot-load",
            json!({"tag": name, "vmstate": "states", "devices": ["states"]}),
        )
        .await
    }

    async fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        self.guest
            .vm()
            .qmp(json!({"execute": command, "arguments": arguments}))
            .await
    }

    /// Starts a job and waits for its end.
    async fn job(&self, command: &str, mut arguments: Value) -> Result<()> {
        arguments["job-id"] = json!("states");
        self.execute(command, arguments).await?;
        let started = Instant::now();
        loop {
            let jobs = self.execute("query-jobs", json!({})).await?;
            let job = jobs
                .as_array()
                .and_then(|jobs| jobs.iter().find(|job| job["id"] == "states"))
                .with_context(|| format!("{command} has no job"))?;
            if job["status"] == "concluded" {
                self.execute("job-dismiss", json!({"id": "states"})).await?;
                return match job["error"].as_str() {
                    None => Ok(()),
                    Some(error) => bail!("{command}: {error}"),
                };
            }
            if started.elapsed() > LIMIT {
                bail!("{command} has not ended within {LIMIT:?}: {job}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
