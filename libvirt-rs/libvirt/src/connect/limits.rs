//! What bounds opening and watching a connection, why, and what happens there.

use std::time::Duration;

/// The time in which a connection must be opened, unless the caller says otherwise: it covers the transport, the
/// authentication and the daemon's own opening of the hypervisor. Then the attempt is given up.
pub const OPENING: Duration = Duration::from_secs(30);

/// States that wait for one who watches a connection. An outage takes two or three of them, so at the limit the states
/// of an outage that is ten outages old make room.
pub const STATES: usize = 32;
