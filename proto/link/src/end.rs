//! Why a session ended.

use crate::{record::BadRecord, stream::StreamError};

/// Why a session ended, as the end that says so sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// This end closed it.
    #[error("the session was closed here")]
    Closed,
    /// The other end closed it in order.
    #[error("the other end closed the session{}", .0.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Bye(Option<String>),
    /// Guest: nobody is connected to the channel on the host any more.
    #[error("the host has left the channel")]
    Detached,
    /// Guest: a newer greeting took its place.
    #[error("a newer session took its place")]
    Superseded,
    /// Host: the guest says that it has no session, so its agent was restarted or lost it.
    #[error("the agent in the guest has restarted or has lost the session")]
    AgentRestarted,
    /// The other end speaks in another session: it was set back to a snapshot, or its bytes are somebody else's.
    #[error("the other end is in another session")]
    ForeignSession,
    /// Host: the guest has been silent for too long.
    #[error("the guest has not answered for too long")]
    Silent,
    /// Host: the channel's socket was closed; QEMU or the virtual machine has gone, or the connection broke.
    #[error("the channel was closed on the hypervisor's side")]
    ChannelClosed,
    /// A control record can't be read.
    #[error(transparent)]
    BadRecord(#[from] BadRecord),
    /// The peer's bytes contradict its control records.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A control record of the wrong direction: the channel echoes, or both ends think they are the same.
    #[error(
        "the other end sent a record that only this end may send; the channel echoes or is crossed"
    )]
    WrongDirection,
}
