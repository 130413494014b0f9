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

impl EndReason {
    /// The causes that [`cause`](Self::cause) names.
    pub const CAUSES: [&'static str; 11] = [
        "closed",
        "bye",
        "detached",
        "superseded",
        "agent_restarted",
        "foreign_session",
        "silent",
        "channel_closed",
        "bad_record",
        "bad_stream",
        "wrong_direction",
    ];

    /// Its name where ends are counted, as in a metric's label: one of [`CAUSES`](Self::CAUSES).
    pub fn cause(&self) -> &'static str {
        Self::CAUSES[self.index()]
    }

    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Closed => 0,
            Self::Bye(_) => 1,
            Self::Detached => 2,
            Self::Superseded => 3,
            Self::AgentRestarted => 4,
            Self::ForeignSession => 5,
            Self::Silent => 6,
            Self::ChannelClosed => 7,
            Self::BadRecord(_) => 8,
            Self::Stream(_) => 9,
            Self::WrongDirection => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_name_of_its_own() {
        let reasons = [
            EndReason::Closed,
            EndReason::Bye(Some("why".to_owned())),
            EndReason::Detached,
            EndReason::Superseded,
            EndReason::AgentRestarted,
            EndReason::ForeignSession,
            EndReason::Silent,
            EndReason::ChannelClosed,
            EndReason::WrongDirection,
        ];
        let mut names: Vec<_> = reasons.iter().map(EndReason::cause).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), reasons.len());
        assert_eq!(EndReason::Bye(None).cause(), "bye");
    }
}
