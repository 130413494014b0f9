//! Where a guest's channel is, and how it is connected.
//!
//! | place | how its bytes get here | whose guests |
//! |---|---|---|
//! | [`Channel::Socket`] | QEMU's own Unix socket | of this host |
//! | [`Channel::Stream`] | a stream of libvirt's, over whatever its URI says: TLS, ssh, TCP | of other hosts |
//! | [`Channel::QemuAgent`] | no bytes: qemu-guest-agent is asked, through libvirt or on its socket | those without vbridge-agent |
//!
//! The first two are a stream of bytes to QEMU, which takes one client at a time, and the link on it does not know which it is.
//!
//! **Each stream has a connection of its own to the daemon**, as the libvirt client makes it unless it is told otherwise. libvirt's
//! protocol can't slow down one stream alone: a guest that stands still while something is sent to it would have the daemon stop
//! reading from the whole connection, other guests' bytes, calls and the answers to its own pings with it, and after half a
//! minute both ends would give it up. On its own connection nobody else waits. What is held for one stream is bounded: 1 MiB each
//! way ([`STREAM_RECEIVED`](libvirt::rpc::limits::STREAM_RECEIVED), [`STREAM_SENDING`](libvirt::rpc::limits::STREAM_SENDING)), and
//! the rest waits in the sockets. The price is a TLS session or an ssh for each remote guest.
//!
//! A stream lives and dies with its daemon: where a session on a socket outlives libvirt's restart, one on a stream ends, and a new
//! one follows when the daemon is back.
//!
//! `VIR_DOMAIN_CHANNEL_FORCE` is never given: it would take the channel from another bridge that is in the midst of calls, which
//! would take it back. Who dies without a word loses the channel when its daemon misses the answers to its pings.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use libvirt::{
    Error,
    raw::api::{DomainChannelFlags, ErrorNumber},
    rpc::RawStream,
};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout},
};
use tokio_util::either::Either;
use uuid::Uuid;

use crate::{
    backlog,
    channel::{ChannelSettings, GuestAgent, QGA_CHANNEL, VirtioChannel},
    error::{Reason, harmless},
    hypervisor::Hypervisor,
    limits::{
        AGENT_MESSAGE, CONNECT_TIMEOUT, DEAF_FACTOR, DEAF_FIRST, DEAF_MAX, RECONNECT_FIRST,
        RECONNECT_MAX, STREAM_DEAF_FIRST, STREAM_OPEN, STREAM_RECONNECT_FIRST,
        STREAM_RECONNECT_MAX,
    },
    qemu::Commands,
};

/// The place of a channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Channel {
    /// A Unix socket of this host, on which QEMU listens.
    Socket(PathBuf),
    /// A stream through a hypervisor's daemon.
    Stream(StreamPlace),
    /// qemu-guest-agent, which has no link.
    QemuAgent(AgentPlace),
}

/// Where qemu-guest-agent is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AgentPlace {
    /// On its own channel, which nobody else has: a Unix socket on which QEMU listens.
    Socket(PathBuf),
    /// Through libvirt, which has the channel.
    Domain(StreamPlace),
}

/// A channel of a domain that runs at a hypervisor.
#[derive(Debug, Clone)]
pub(crate) struct StreamPlace {
    pub(crate) hypervisor: Arc<Hypervisor>,
    /// The domain.
    pub(crate) uuid: Uuid,
    /// Its number, another one each time that it is started: so each running has a channel of its own.
    pub(crate) run: i32,
    /// The channel's name.
    pub(crate) name: String,
}

/// A channel that is connected.
pub(crate) type Connected = Either<UnixStream, RawStream>;

/// Why a channel can't be connected, in a sentence's second half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unconnected {
    pub(crate) reason: Reason,
    pub(crate) why: String,
}

/// How often a channel is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The shortest wait before it is tried again.
    pub(crate) first: Duration,
    /// The longest.
    most: Duration,
    /// How long it may be without a sign of life at first.
    patience: Duration,
    /// Before a channel is connected that this side has just left.
    pub(crate) rest: Duration,
}

// === impl Channel ===

impl Channel {
    /// Connects it.
    pub(crate) async fn connect(&self) -> Result<Connected, Unconnected> {
        match self {
            Self::Socket(path) => match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
            .map(Either::Left)
            .map_err(|error| Unconnected {
                reason: Reason::GuestUnreachable,
                why: socket_error(path, &error),
            }),
            Self::Stream(place) => {
                let opened = place.open().await.map(Either::Right);
                opened.map_err(|error| place.explain(&error))
            }
            // Whoever tends the guest asks it instead.
            Self::QemuAgent(place) => Err(place.unanswered("there is no link to it")),
        }
    }

    /// Whether a connection that was there at that time waits behind another client's. Who opens a stream is told.
    pub(crate) async fn is_busy(&self, since: Instant) -> bool {
        match self {
            Self::Socket(path) => backlog::is_waited_for(path, since).await,
            Self::Stream(_) | Self::QemuAgent(_) => false,
        }
    }

    /// What else there may be where nobody answers: that libvirt itself waits behind another client is not told.
    pub(crate) fn doubt(&self) -> &'static str {
        match self {
            Self::Socket(_) | Self::QemuAgent(_) => "",
            Self::Stream(_) => ", or a client on its host holds the channel's socket",
        }
    }

    /// How often it is tried.
    pub(crate) fn pace(&self) -> Pace {
        match self {
            Self::Socket(_) => Pace {
                first: RECONNECT_FIRST,
                most: RECONNECT_MAX,
                patience: DEAF_FIRST,
                rest: Duration::ZERO,
            },
            Self::Stream(_) | Self::QemuAgent(_) => Pace {
                first: STREAM_RECONNECT_FIRST,
                most: STREAM_RECONNECT_MAX,
                patience: STREAM_DEAF_FIRST,
                // The daemon has to notice that the stream before is over.
                rest: STREAM_RECONNECT_FIRST,
            },
        }
    }

    /// As the host API writes it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Socket(path) | Self::QemuAgent(AgentPlace::Socket(path)) => {
                format!("unix:{}", shown(path))
            }
            Self::Stream(place) | Self::QemuAgent(AgentPlace::Domain(place)) => {
                let uri = place.hypervisor.uri().escape_debug();
                format!("libvirt:{uri}#{}", place.name.escape_debug())
            }
        }
    }
}

/// As sentences name it.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => f.write_str(&shown(path)),
            Self::Stream(place) => place.fmt(f),
            Self::QemuAgent(place) => place.fmt(f),
        }
    }
}

// === impl AgentPlace ===

impl AgentPlace {
    /// Whoever has its commands carried out.
    pub(crate) async fn commands(&self) -> Result<Commands, Unconnected> {
        match self {
            Self::Socket(path) => {
                let settings = ChannelSettings {
                    max_message: AGENT_MESSAGE,
                    ..ChannelSettings::default()
                };
                let channel = VirtioChannel::with_settings(QGA_CHANNEL, path, settings);
                let agent = GuestAgent::new(channel);
                let connected = agent.connect().await;
                connected.map_err(|error| self.unanswered(&error.to_string()))?;
                Ok(Commands::Channel(Arc::new(agent)))
            }
            Self::Domain(place) => {
                let found = async {
                    let connect = place.hypervisor.writing().await?;
                    let _turn = place.hypervisor.turn().await;
                    connect.domain_by_uuid(place.uuid).await
                };
                let found = timeout(STREAM_OPEN, found).await;
                let found = found.unwrap_or_else(|_| Err(place.hypervisor.too_slow(STREAM_OPEN)));
                found
                    .map(Commands::Domain)
                    .map_err(|error| self.unanswered(&error.to_string()))
            }
        }
    }

    /// Why it can't be asked.
    pub(crate) fn unanswered(&self, why: &str) -> Unconnected {
        Unconnected {
            reason: Reason::GuestNotAnswering,
            why: format!("{self} does not answer: {}", harmless(why)),
        }
    }
}

impl fmt::Display for AgentPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its qemu-guest-agent ")?;
        match self {
            Self::Socket(path) => write!(f, "on {}", shown(path)),
            Self::Domain(place) => write!(f, "at {}", place.hypervisor.uri().escape_debug()),
        }
    }
}

// === impl StreamPlace ===

impl StreamPlace {
    async fn open(&self) -> Result<RawStream, Error> {
        let connect = self.hypervisor.writing().await?;
        let _turn = self.hypervisor.turn().await;
        let opening = async {
            let domain = connect.domain_by_uuid(self.uuid).await?;
            let flags = DomainChannelFlags::empty();
            domain.open_channel(Some(&self.name), flags).await
        };
        let opened = timeout(STREAM_OPEN, opening).await;
        opened.unwrap_or_else(|_| Err(self.hypervisor.too_slow(STREAM_OPEN)))
    }

    fn explain(&self, error: &Error) -> Unconnected {
        match error.kind() {
            // What libvirt says for a channel that another of its clients has open (`qemuDomainOpenChannel`).
            Some(ErrorNumber::OperationFailed) => Unconnected {
                reason: Reason::ChannelBusy,
                why: format!(
                    "another client holds {self}, which takes one at a time; end that client"
                ),
            },
            Some(ErrorNumber::OperationDenied | ErrorNumber::AccessDenied) => self.unconnected(
                &format!(
                    "libvirt does not allow it to the bridge's user, who must be one that may change domains there: {error}"
                ),
            ),
            _ => self.unconnected(&error.to_string()),
        }
    }

    fn unconnected(&self, why: &str) -> Unconnected {
        Unconnected {
            reason: Reason::GuestUnreachable,
            why: format!("{self} can't be opened: {}", harmless(why)),
        }
    }
}

/// The same channel of the same running.
impl PartialEq for StreamPlace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hypervisor, &other.hypervisor)
            && (self.uuid, self.run) == (other.uuid, other.run)
            && self.name == other.name
    }
}

impl fmt::Display for StreamPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, uri) = (self.name.escape_debug(), self.hypervisor.uri());
        write!(f, "its channel {name} at {}", uri.escape_debug())
    }
}

// === impl Pace ===

impl Pace {
    /// The wait after so many failures in a row.
    pub(crate) fn wait(self, failed: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }

    /// How long it may be without a sign of life after so many connections in a row that were.
    pub(crate) fn patience(self, deaf: u32) -> Duration {
        let factor = DEAF_FACTOR.saturating_pow(deaf);
        self.patience.saturating_mul(factor).min(DEAF_MAX)
    }
}

/// A path may come from a domain's XML.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn socket_error(path: &Path, error: &io::Error) -> String {
    let path = shown(path);
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "there is no socket {path}; the virtual machine may be off, or has no such channel"
            )
        }
        io::ErrorKind::ConnectionRefused => {
            format!("nobody listens on {path}; the virtual machine may have been shut down")
        }
        io::ErrorKind::PermissionDenied => {
            format!("the bridge may not open {path}; give its user the right to")
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("{path} takes no more connections; other clients wait there already")
        }
        _ => format!("{path} can't be connected: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::Hypervisors;

    fn place(hypervisors: &mut Hypervisors, run: i32) -> StreamPlace {
        StreamPlace {
            hypervisor: hypervisors.add("qemu+tls://far/system"),
            uuid: Uuid::from_u128(7),
            run,
            name: "org.vbridge.agent.0".to_owned(),
        }
    }

    #[test]
    fn each_running_of_a_domain_has_a_channel_of_its_own() {
        let one = place(&mut Hypervisors::new(), 1);
        let again = StreamPlace {
            run: 2,
            ..one.clone()
        };
        assert_eq!(one, one.clone());
        assert_ne!(one, again);
        // The same number at another hypervisor.
        assert_ne!(one, place(&mut Hypervisors::new(), 1));
        let channel = Channel::Stream(one);
        assert_eq!(
            channel.address(),
            "libvirt:qemu+tls://far/system#org.vbridge.agent.0"
        );
        assert_eq!(Channel::Socket("/a".into()).address(), "unix:/a");
    }

    #[tokio::test]
    async fn a_channel_that_can_not_be_connected_says_why() {
        let none = Channel::Socket("/nowhere/web.sock".into());
        let error = none.connect().await.map(drop).unwrap_err();
        assert_eq!(error.reason, Reason::GuestUnreachable);
        assert!(
            error.why.contains("no socket /nowhere/web.sock"),
            "{error:?}"
        );
        let mut hypervisors = Hypervisors::new();
        let far = StreamPlace {
            hypervisor: hypervisors.add("qemu+unix:///system?socket=/nowhere/libvirt-sock"),
            ..place(&mut Hypervisors::new(), 1)
        };
        let error = Channel::Stream(far).connect().await.map(drop).unwrap_err();
        assert_eq!(error.reason, Reason::GuestUnreachable);
        for word in [
            "org.vbridge.agent.0",
            "/nowhere/libvirt-sock",
            "no libvirt daemon",
        ] {
            assert!(error.why.contains(word), "{error:?}");
        }
    }

    #[test]
    fn waits_grow_up_to_a_limit_and_a_stream_is_tried_less_often() {
        let socket = Channel::Socket("/a".into()).pace();
        assert_eq!(socket.wait(0), RECONNECT_FIRST);
        assert_eq!(socket.wait(1), 2 * RECONNECT_FIRST);
        assert_eq!(socket.wait(1000), RECONNECT_MAX);
        assert_eq!(socket.patience(0), DEAF_FIRST);
        assert_eq!(socket.patience(1000), DEAF_MAX);
        let stream = Channel::Stream(place(&mut Hypervisors::new(), 1)).pace();
        assert!(stream.wait(0) > socket.wait(0) && stream.wait(99) > socket.wait(99));
    }
}
