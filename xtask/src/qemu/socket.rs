//! Connects to a Unix socket that QEMU is about to create.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, anyhow};
use tokio::net::UnixStream;
use tokio::time::{self, Instant};

use crate::limits::{QMP_DEADLINE, SOCKET_POLL};

/// Connects as soon as QEMU listens.
pub(super) async fn connect(path: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + QMP_DEADLINE;
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            // Not created yet, or created and not listening yet.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) && Instant::now() < deadline =>
            {
                time::sleep(SOCKET_POLL).await;
            }
            Err(error) => {
                return Err(anyhow!(error).context(format!("cannot connect to {}", path.display())));
            }
        }
    }
}
