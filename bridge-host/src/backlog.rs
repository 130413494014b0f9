//! Which sockets of this host have clients that wait for their turn.
//!
//! QEMU serves one client at a time, and a second `connect` succeeds all the same. In `/proc/net/unix`, a connection that was not
//! accepted has no inode (net/unix/af_unix.c).
//!
//! ```text
//!   guest ─┐                           ┌── a look that is young enough ──▶ answer
//!   guest ─┼── has a client waited? ───┤
//!   guest ─┘   one after another       └── none ──▶ the kernel's table, on another thread ──▶ the next look
//! ```
//!
//! The kernel writes all sockets of the host for each look: 0.2 ms for those of 200 guests, 20 ms for those of 4096. So guests
//! share the looks, or as many guests that do not answer would keep the bridge from everything else.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use tokio::{sync::Mutex, task::spawn_blocking, time::Instant};

use crate::limits::{MAX_SOCKET_TABLE, SOCKET_TABLE_SHARED};

/// The last look.
static LOOK: Mutex<Option<Look>> = Mutex::const_new(None);

#[derive(Debug)]
struct Look {
    begun: Instant,
    /// The paths of the sockets at which clients wait.
    waited_for: HashSet<String>,
}

/// Whether a connection to this socket that was there at that time waits to be accepted.
pub(crate) async fn is_waited_for(socket: &Path, since: Instant) -> bool {
    let Some(socket) = socket.to_str() else {
        return false;
    };
    let mut last = LOOK.lock().await;
    let is_fresh = |look: &Look| look.begun >= since && look.begun.elapsed() < SOCKET_TABLE_SHARED;
    if !last.as_ref().is_some_and(is_fresh) {
        let begun = Instant::now();
        // What can't be read tells of nobody.
        let looked = spawn_blocking(|| table().map(|table| waited_for(&table))).await;
        let waited_for = looked.ok().and_then(Result::ok).unwrap_or_default();
        *last = Some(Look { begun, waited_for });
    }
    last.as_ref()
        .is_some_and(|look| look.waited_for.contains(socket))
}

fn table() -> io::Result<String> {
    let mut table = Vec::new();
    let file = File::open("/proc/net/unix")?;
    file.take(MAX_SOCKET_TABLE).read_to_end(&mut table)?;
    // A path of other bytes than UTF-8 is no channel's, and a limit may cut one.
    Ok(String::from_utf8_lossy(&table).into_owned())
}

fn waited_for(table: &str) -> HashSet<String> {
    let paths = table.lines().filter_map(|line| {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut fields = line.split_whitespace();
        let is_waiting = fields.nth(6) == Some("0");
        fields.next().filter(|_| is_waiting).map(ToOwned::to_owned)
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_connection_without_an_inode_waits() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 16001 /run/a.sock\n\
             0000000000000000: 00000002 00000000 00000000 0001 02     0 /run/b.sock\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 16003 /run/a.sock\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 16004\n";
        assert_eq!(waited_for(table), HashSet::from(["/run/b.sock".to_owned()]));
    }

    #[tokio::test]
    async fn a_client_waits_until_it_is_accepted_and_no_look_is_older_than_its_connection() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!is_waited_for(&path, Instant::now()).await);
        let _client = UnixStream::connect(&path).unwrap();
        let connected = Instant::now();
        // Within the time in which looks are shared.
        assert!(is_waited_for(&path, connected).await);
        let _accepted = listener.accept().unwrap();
        assert!(!is_waited_for(&path, Instant::now()).await);
    }
}
