//! What a connection may be told when it begins.

use super::keepalive::KeepaliveConfig;
use super::limits::CALLS_AT_ONCE;

/// How a connection behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How an idle connection is watched, once the daemon has agreed to it.
    pub keepalive: KeepaliveConfig,
    /// How many calls the daemon has at a time; further ones wait here, in order. At least 1, by default 4. A call that
    /// aborts a job waits for none but its like, and so the daemon may have one more.
    ///
    /// A daemon serves so many requests of one client (`max_client_requests` of its configuration, 5 by default) and
    /// reads nothing more until one of them is done, not even the answers to its own pings. So it takes a client
    /// with five slow calls for dead, and so does the client the daemon. One less than the daemon's limit is safe.
    pub calls_at_once: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keepalive: KeepaliveConfig::default(),
            calls_at_once: CALLS_AT_ONCE,
        }
    }
}

impl From<KeepaliveConfig> for Config {
    fn from(keepalive: KeepaliveConfig) -> Self {
        Self {
            keepalive,
            ..Self::default()
        }
    }
}
