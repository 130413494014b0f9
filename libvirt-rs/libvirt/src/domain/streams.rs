//! What flows in and out of a running domain.

use super::Domain;
use crate::error::Error;
use crate::raw::api::{DomainChannelFlags, DomainConsoleFlags};
use crate::raw::remote;
use crate::rpc::RawStream;

impl Domain {
    /// Opens the host's end of a channel, such as a virtio-serial port: by its target's name or its device's alias;
    /// without a name: the first.
    ///
    /// libvirt reads the channel for us, which must be of type `unix` or `pty`.
    ///
    /// # Errors
    /// There is none, or another client has it (unless the flags force it); the daemon or the connection.
    pub async fn open_channel(
        &self,
        name: Option<&str>,
        flags: DomainChannelFlags,
    ) -> Result<RawStream, Error> {
        let args = remote::DomainOpenChannelArgs {
            dom: self.raw.clone(),
            name: name.map(ToOwned::to_owned),
            flags: flags.bits(),
        };
        let remote = self.connect.for_stream().await?;
        remote.domain_open_channel(&args).await
    }

    /// Opens a serial or paravirtual console, by its device's alias; without one: the first.
    ///
    /// # Errors
    /// There is none, or another client has it (unless the flags force it); the daemon or the connection.
    pub async fn open_console(
        &self,
        device: Option<&str>,
        flags: DomainConsoleFlags,
    ) -> Result<RawStream, Error> {
        let args = remote::DomainOpenConsoleArgs {
            dom: self.raw.clone(),
            dev_name: device.map(ToOwned::to_owned),
            flags: flags.bits(),
        };
        let remote = self.connect.for_stream().await?;
        remote.domain_open_console(&args).await
    }

    /// Takes a picture of a screen, by its number: the picture's MIME type, and the picture.
    ///
    /// # Errors
    /// It has no display; the daemon or the connection.
    pub async fn screenshot(&self, screen: u32) -> Result<(Option<String>, RawStream), Error> {
        let args = remote::DomainScreenshotArgs {
            dom: self.raw.clone(),
            screen,
            flags: 0,
        };
        let remote = self.connect.for_stream().await?;
        let (picture, stream) = remote.domain_screenshot(&args).await?;
        Ok((picture.mime, stream))
    }
}
