//! Asks a QEMU monitor (QMP) whether the virtual machine runs.
//!
//! A paused guest and a dead one look the same from the channel: silence. Where the operator gives a monitor socket,
//! the bridge knows at once, and also when the guest opens the port.

use std::{io, path::Path, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{Notify, watch},
};
use tracing::debug;

use crate::limits::{MAX_MONITOR_LINE, MONITOR_RETRY};

/// Follows the monitor for ever; `paused` says what it says, and `opened` is told when a guest opens a port.
pub(crate) async fn follow(path: &Path, paused: watch::Sender<bool>, opened: Arc<Notify>) {
    loop {
        let Err(error) = session(path, &paused, &opened).await;
        debug!(monitor = %path.display(), %error, "monitor lost");
        // Without a monitor nothing is known, and silence decides.
        paused.send_if_modified(|paused| std::mem::replace(paused, false));
        tokio::time::sleep(MONITOR_RETRY).await;
    }
}

async fn session(
    path: &Path,
    paused: &watch::Sender<bool>,
    opened: &Notify,
) -> io::Result<std::convert::Infallible> {
    let mut stream = BufReader::new(UnixStream::connect(path).await?);
    stream
        .write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n")
        .await?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = (&mut stream)
            .take(MAX_MONITOR_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if len == 0 || line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message: Value = serde_json::from_slice(&line)?;
        if let Some(running) = message.pointer("/return/running").and_then(Value::as_bool) {
            set(paused, !running);
        }
        match message.get("event").and_then(Value::as_str) {
            Some("STOP") => set(paused, true),
            Some("RESUME") => set(paused, false),
            Some("VSERPORT_CHANGE") => opened.notify_one(),
            _ => {}
        }
    }
}

fn set(paused: &watch::Sender<bool>, now: bool) {
    paused.send_if_modified(|paused| std::mem::replace(paused, now) != now);
}
