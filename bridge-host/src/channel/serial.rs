//! A protocol on a virtio-serial channel: requests and their answers, as a handler puts them into bytes.
//!
//! **A late answer is never taken for another's.** A request that is given up leaves its response to come, and so the next request
//! drops one response before its own. That takes an agent that answers every request once, and in order. One that was
//! restarted meanwhile will not answer: then all further requests wait for one response too many, and it has to be connected
//! again.

use std::{
    fmt::{self, Formatter},
    path::{Path, PathBuf},
    sync::Arc,
};

use libvirt::Domain;
use tonic::async_trait;

use super::{
    ChannelSettings, JsonProtocolHandler, Protocol, ProtocolError, ProtocolHandler,
    RawProtocolHandler, VirtioChannel, virtio::discover,
};

/// What is to be spoken on which channel.
#[derive(Clone)]
pub struct VirtioSerialBuilder {
    channel: String,
    path: Option<PathBuf>,
    handler: Arc<dyn ProtocolHandler>,
    settings: ChannelSettings,
}

/// A conversation on a virtio-serial channel.
#[derive(Debug)]
pub struct VirtioSerialProtocol {
    builder: VirtioSerialBuilder,
    channel: Option<VirtioChannel>,
}

// === impl VirtioSerialBuilder ===

impl VirtioSerialBuilder {
    /// The channel of this name, with [`RawProtocolHandler`] unless another is given.
    pub fn new(channel: impl Into<String>) -> Self {
        Self {
            channel: channel.into(),
            path: None,
            handler: Arc::new(RawProtocolHandler),
            settings: ChannelSettings::default(),
        }
    }

    /// The channel's socket. Default: the one that the domain's XML has.
    #[must_use]
    pub fn with_socket_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Bytes as they are.
    #[must_use]
    pub fn with_raw_handler(self) -> Self {
        self.with_handler(Arc::new(RawProtocolHandler))
    }

    /// `{"data":"TEXT"}` in lines.
    #[must_use]
    pub fn with_json_handler(self) -> Self {
        self.with_handler(Arc::new(JsonProtocolHandler::default()))
    }

    /// The same with other fields.
    #[must_use]
    pub fn with_custom_json_handler(
        self,
        request: impl Into<String>,
        response: impl Into<String>,
    ) -> Self {
        self.with_handler(Arc::new(JsonProtocolHandler::with_fields(
            request, response,
        )))
    }

    /// One's own protocol.
    #[must_use]
    pub fn with_handler(mut self, handler: Arc<dyn ProtocolHandler>) -> Self {
        self.handler = handler;
        self
    }

    /// Time-outs and limits.
    #[must_use]
    pub fn with_settings(mut self, settings: ChannelSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The protocol, which is not connected yet.
    pub fn build(self) -> VirtioSerialProtocol {
        VirtioSerialProtocol {
            builder: self,
            channel: None,
        }
    }
}

impl fmt::Debug for VirtioSerialBuilder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioSerialBuilder")
            .field("channel", &self.channel)
            .field("path", &self.path)
            .field("handler", &self.handler.name())
            .field("settings", &self.settings)
            .finish()
    }
}

// === impl VirtioSerialProtocol ===

impl VirtioSerialProtocol {
    /// Connects to the socket that the builder was given. A connection that there is ends.
    ///
    /// # Errors
    /// It was given none, or it can't be connected.
    pub async fn open(&mut self) -> Result<(), ProtocolError> {
        match self.builder.path.clone() {
            Some(path) => self.connect_path(&path).await,
            None => Err(ProtocolError::NoPath(self.name().to_owned())),
        }
    }

    /// Connects again to the socket that it was connected to last, as often as
    /// [`connect_with_retry`](VirtioChannel::connect_with_retry) tries.
    ///
    /// # Errors
    /// It never was connected, or the last try has failed.
    pub async fn reconnect(&mut self) -> Result<(), ProtocolError> {
        let channel = self.connected()?;
        channel.disconnect();
        channel.connect_with_retry().await
    }

    /// The channel, if it was connected.
    pub fn channel(&self) -> Option<&VirtioChannel> {
        self.channel.as_ref()
    }

    fn connected(&self) -> Result<&VirtioChannel, ProtocolError> {
        let channel = self.channel.as_ref();
        channel.ok_or_else(|| ProtocolError::NoPath(self.name().to_owned()))
    }

    async fn encoded(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        self.builder.handler.encode_request(data).await
    }
}

#[async_trait]
impl Protocol for VirtioSerialProtocol {
    fn name(&self) -> &str {
        self.builder.handler.name()
    }

    async fn connect(&mut self, domain: &Domain) -> Result<(), ProtocolError> {
        let path = match &self.builder.path {
            Some(path) => path.clone(),
            None => discover(domain, &self.builder.channel).await?,
        };
        self.connect_path(&path).await
    }

    async fn connect_path(&mut self, path: &Path) -> Result<(), ProtocolError> {
        // QEMU takes one client at a time.
        self.disconnect().await?;
        let VirtioSerialBuilder {
            channel, settings, ..
        } = self.builder.clone();
        let channel = VirtioChannel::with_settings(channel, path, settings);
        let channel = self.channel.insert(channel);
        channel.connect().await
    }

    fn is_connected(&self) -> bool {
        let channel = self.channel.as_ref();
        channel.is_some_and(VirtioChannel::is_connected)
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), ProtocolError> {
        let message = self.encoded(data).await?;
        self.connected()?.send(&message).await
    }

    async fn receive(&mut self) -> Result<Vec<u8>, ProtocolError> {
        self.connected()?.response(&*self.builder.handler).await
    }

    async fn request(&mut self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let message = self.encoded(data).await?;
        let handler = &*self.builder.handler;
        self.connected()?.request(handler, &message).await
    }

    async fn disconnect(&mut self) -> Result<(), ProtocolError> {
        if let Some(channel) = &self.channel {
            channel.disconnect();
        }
        Ok(())
    }
}
