//! What can go wrong with a channel and its protocol: each error says what, where, why, and what to do.

use std::{io, time::Duration};

use crate::limits::{CHANNEL_ERROR_TEXT, MAX_PROTOCOLS};

/// Why a channel, or the protocol on it, failed. `channel` is always its name and its socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The domain has no such channel.
    #[error("domain \"{domain}\" has no virtio channel \"{channel}\"; add it to its XML, or correct the name", domain = .domain.escape_debug(), channel = .channel.escape_debug())]
    NoChannel {
        /// The domain.
        domain: String,
        /// The channel's name.
        channel: String,
    },
    /// The channel has no socket yet.
    #[error("channel \"{channel}\" of domain \"{domain}\" has no socket yet; start the domain", domain = .domain.escape_debug(), channel = .channel.escape_debug())]
    NoSocket {
        /// The domain.
        domain: String,
        /// The channel's name.
        channel: String,
    },
    /// The channel is there, and is not one that can be connected.
    #[error("channel \"{channel}\" of domain \"{domain}\" is of the type \"{kind}\" and has no socket; it must be of the type \"unix\", mode bind", domain = .domain.escape_debug(), channel = .channel.escape_debug(), kind = .kind.escape_debug())]
    OtherKind {
        /// The domain.
        domain: String,
        /// The channel's name.
        channel: String,
        /// Its type.
        kind: String,
    },
    /// The domain's XML makes no sense.
    #[error("the XML of domain \"{domain}\" can't be read: {source}", domain = .domain.escape_debug())]
    Xml {
        /// The domain.
        domain: String,
        /// Why.
        source: roxmltree::Error,
    },
    /// libvirt does not answer.
    #[error("libvirt has not told the XML of domain \"{domain}\" within {after:?}; see whether its daemon is well", domain = .domain.escape_debug())]
    NoXml {
        /// The domain.
        domain: String,
        /// How long was waited.
        after: Duration,
    },
    /// libvirt refused, or can't be reached.
    #[error(transparent)]
    Libvirt(#[from] libvirt::Error),
    /// No socket was given.
    #[error("the protocol \"{0}\" was given no socket; connect it to a domain or a path")]
    NoPath(String),
    /// The socket can't be connected.
    #[error("channel {channel} can't be connected: {why}", why = connect_text(.source))]
    Connect {
        /// The channel.
        channel: String,
        /// Why.
        source: io::Error,
    },
    /// The channel is not connected, or was disconnected meanwhile.
    #[error("channel {channel} is not connected; connect it first")]
    NotConnected {
        /// The channel.
        channel: String,
    },
    /// The other end has closed the connection.
    #[error(
        "channel {channel} was closed by its other end, with {dropped} bytes of a message that is not whole; the virtual machine may have stopped: connect again"
    )]
    Closed {
        /// The channel.
        channel: String,
        /// Bytes of a half message, which are lost.
        dropped: usize,
    },
    /// The system refused to read or write.
    #[error("channel {channel} failed: {source}; connect again")]
    Io {
        /// The channel.
        channel: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long. Nothing is lost: what comes later is still received, and nothing was sent in part.
    #[error(
        "channel {channel}: {what} within {after:?}; the guest may be paused, its agent may not run or be busy, or another client may hold the channel"
    )]
    Timeout {
        /// The channel.
        channel: String,
        /// What has not happened, as a sentence.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The beginning of a message has left, and its rest has to wait. It leaves before the next message.
    #[error(
        "channel {channel}: a message has not left as a whole within {after:?}; its rest leaves before the next one, so don't send it again"
    )]
    HalfSent {
        /// The channel.
        channel: String,
        /// How long was waited.
        after: Duration,
    },
    /// A message has more bytes than the limit allows. One that was received is dropped, to its end if that can be found.
    #[error(
        "channel {channel}: {what} has more than {limit} bytes, which is the limit; split it, or raise max_message at this end"
    )]
    TooLarge {
        /// The channel.
        channel: String,
        /// Which one.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// What was received is no text.
    #[error("channel {channel}: what came is not UTF-8; receive it as bytes")]
    NotText {
        /// The channel.
        channel: String,
    },
    /// What is to be sent can't be encoded.
    #[error("the request can't be encoded: {0}")]
    InvalidRequest(String),
    /// What was received can't be decoded.
    #[error("the response can't be decoded: {0}; see whether the agent speaks this protocol")]
    ParseError(String),
    /// The agent has answered that it failed.
    #[error("the agent answers with an error{class}: {description}", class = shown_class(.class))]
    AgentError {
        /// The error's class, such as `CommandNotFound`; empty if the agent tells none.
        class: String,
        /// The agent's own words, in which control characters are escaped, and of which no more than
        /// [`CHANNEL_ERROR_TEXT`] characters are kept.
        description: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers, and the agent's answers can't be told apart: {0}")]
    NoRandom(getrandom::Error),
    /// The registry has no such protocol.
    #[error("there is no protocol \"{name}\"; registered are: {known}", name = .name.escape_debug())]
    NoProtocol {
        /// The name.
        name: String,
        /// All that are registered.
        known: String,
    },
    /// The registry has a protocol of that name.
    #[error("there is a protocol \"{name}\" already; choose another name", name = .0.escape_debug())]
    DuplicateProtocol(String),
    /// The registry is full.
    #[error("there are {MAX_PROTOCOLS} protocols, which is the limit of one registry; remove one")]
    TooManyProtocols,
}

// === impl ProtocolError ===

impl ProtocolError {
    /// What an agent says of its own failure, made fit to be shown.
    pub(super) fn agent(class: &str, description: &str) -> Self {
        let shown = |text: &str| {
            let text = text.chars().take(CHANNEL_ERROR_TEXT);
            text.flat_map(char::escape_debug).collect::<String>()
        };
        Self::AgentError {
            class: shown(class),
            description: shown(description),
        }
    }
}

fn shown_class(class: &str) -> String {
    match class {
        "" => String::new(),
        class => format!(" ({class})"),
    }
}

/// An `io::Error` of connecting in words that say what to do.
fn connect_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; start the virtual machine, or correct the path".into()
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there; start the virtual machine".into()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; give this program's user the right to read and write it".into()
        }
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            "it takes no more connections; end the other clients that wait there".into()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_words_are_cut_off_and_can_not_write_on_a_terminal() {
        let error = ProtocolError::agent("Generic\u{1b}", &"é\n".repeat(CHANNEL_ERROR_TEXT));
        let shown = error.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown}");
        assert_eq!(shown.matches('é').count(), CHANNEL_ERROR_TEXT / 2);
        assert!(shown.contains("error (Generic"), "{shown}");
        let bare = ProtocolError::agent("", "no").to_string();
        assert_eq!(bare, "the agent answers with an error: no");
    }

    #[test]
    fn what_keeps_a_socket_from_being_connected_says_what_to_do() {
        for (kind, words) in [
            (io::ErrorKind::NotFound, "start the virtual machine"),
            (
                io::ErrorKind::ConnectionRefused,
                "start the virtual machine",
            ),
            (io::ErrorKind::PermissionDenied, "the right to"),
            (io::ErrorKind::TimedOut, "end the other clients"),
        ] {
            let channel = "\"a\" at /a".to_owned();
            let source = kind.into();
            let error = ProtocolError::Connect { channel, source }.to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
