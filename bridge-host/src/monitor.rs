//! Asks a QEMU monitor (QMP) whether the virtual machine runs.
//!
//! A paused guest and a dead one look the same from the channel: silence. Where the operator gives a monitor socket,
//! the bridge knows at once, and also when the guest opens the port.

use std::{io, path::Path};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};
use tracing::debug;

use crate::{
    guest::Guest,
    limits::{MAX_MONITOR_LINE, MONITOR_RETRY},
};

/// Follows the monitor for ever, and tells the guest what it says.
pub(crate) async fn follow(path: &Path, guest: &Guest) {
    loop {
        let Err(error) = session(path, guest).await;
        debug!(monitor = %path.display(), %error, "monitor lost");
        // Without a monitor nothing is known, and silence decides.
        guest.pauses(false);
        tokio::time::sleep(MONITOR_RETRY).await;
    }
}

async fn session(path: &Path, guest: &Guest) -> io::Result<std::convert::Infallible> {
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
            guest.pauses(!running);
        }
        match message.get("event").and_then(Value::as_str) {
            Some("STOP") => guest.pauses(true),
            Some("RESUME") => guest.pauses(false),
            Some("VSERPORT_CHANGE") => guest.hurry(),
            _ => {}
        }
    }
}
