//! What a protocol is to whoever uses it, and what one's own has to say.

use std::path::Path;

use libvirt::Domain;
use tonic::async_trait;

use super::ProtocolError;

/// A conversation with one agent: connected, asked, disconnected.
///
/// Its methods take `&mut self`, so that one question is answered before the next is asked. Every future may be dropped.
#[async_trait]
pub trait Protocol: Send + Sync {
    /// The name of what is spoken, as [`ProtocolHandler::name`].
    fn name(&self) -> &str;

    /// Connects to the domain's channel. A connection that there is ends.
    ///
    /// # Errors
    /// The domain has no such channel, or it can't be connected.
    async fn connect(&mut self, domain: &Domain) -> Result<(), ProtocolError>;

    /// Connects to the channel with this socket. A connection that there is ends.
    ///
    /// # Errors
    /// It can't be connected.
    async fn connect_path(&mut self, path: &Path) -> Result<(), ProtocolError>;

    /// Whether it is connected, as far as this end knows.
    fn is_connected(&self) -> bool;

    /// Sends one message.
    ///
    /// # Errors
    /// It is too large, can't be encoded, or does not leave in time.
    async fn send(&mut self, data: &[u8]) -> Result<(), ProtocolError>;

    /// Waits for one message.
    ///
    /// # Errors
    /// None comes in time, or it can't be decoded; the next one can be received all the same unless the connection has ended.
    async fn receive(&mut self) -> Result<Vec<u8>, ProtocolError>;

    /// Sends a message and waits for the one that answers it.
    ///
    /// # Errors
    /// As [`Protocol::send`] and [`Protocol::receive`].
    async fn request(&mut self, data: &[u8]) -> Result<Vec<u8>, ProtocolError>;

    /// Ends the connection, if there is one.
    ///
    /// # Errors
    /// None of the protocols here has any.
    async fn disconnect(&mut self) -> Result<(), ProtocolError>;
}

/// How one's own protocol puts a message into bytes, and finds and reads the answer.
#[async_trait]
pub trait ProtocolHandler: Send + Sync {
    /// What it is called.
    fn name(&self) -> &str;

    /// The bytes that carry a message, with whatever ends it.
    ///
    /// # Errors
    /// The message can't be carried: [`ProtocolError::InvalidRequest`].
    async fn encode_request(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError>;

    /// The message in the bytes of one response, which come without the [`delimiter`](Self::delimiter).
    ///
    /// # Errors
    /// They make no sense: [`ProtocolError::ParseError`]. The response is dropped and the next one is read.
    async fn decode_response(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError>;

    /// The byte that ends a response. Default: a line's end. `None` if [`frame`](Self::frame) finds it.
    fn delimiter(&self) -> Option<u8> {
        Some(b'\n')
    }

    /// Without a delimiter: the length of the first response in what was received, as soon as it can be told, even if not all of
    /// it is there. `None`: more has to come first. Default: whatever is there is a response.
    ///
    /// It is called again, with all that was received, each time that more has come.
    ///
    /// # Errors
    /// No response can begin like that. Nobody knows where the next one does, so the connection is closed.
    fn frame(&self, received: &[u8]) -> Result<Option<usize>, ProtocolError> {
        Ok(Some(received.len()))
    }
}
