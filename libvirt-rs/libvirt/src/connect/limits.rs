//! What bounds opening and watching a connection, why, and what happens there.

use std::time::Duration;

/// The time in which a connection must be opened, unless the caller says otherwise: it covers the transport, the
/// authentication and the daemon's own opening of the hypervisor. Then the attempt is given up.
pub const OPENING: Duration = Duration::from_secs(30);

/// Threads of this process that may look at certificates, credentials, configuration and sockets at a time. One that looks at
/// a file system that has died (a home on NFS, for one) hangs there until that lives again, and keeps its place. At the
/// limit those who connect wait for a place, within their time. So what hangs never takes all of tokio's threads for
/// blocking work (512).
pub const FILE_READERS: usize = 16;

/// States that wait for one who watches a connection. An outage takes two or three of them, so at the limit the states
/// of an outage that is ten outages old make room.
pub const STATES: usize = 32;
