//! Where a service is: directly on a TCP port, or behind a bridge.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tonic::transport::{Channel, Endpoint};

use crate::{
    exercise::{MAX_MESSAGE, v1::exercise_client::ExerciseClient},
    raw,
};

/// A connection to a local port comes about at once; this is for a machine that is badly overloaded.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where a service is.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    address: SocketAddr,
    authority: String,
    is_reference: bool,
}

impl Place {
    /// A service on a TCP port. `name` is what failures call it.
    pub fn tcp(name: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            authority: address.to_string(),
            is_reference: false,
        }
    }

    /// The same port with an `:authority` of its own: a bridge finds the guest by it.
    #[must_use]
    pub fn with_authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = authority.into();
        self
    }

    /// The exercise service directly on a TCP port.
    pub fn reference(address: SocketAddr) -> Self {
        Self {
            is_reference: true,
            ..Self::tcp("the service itself", address)
        }
    }

    /// Whether there is nothing between client and service. tonic's own server deviates from gRPC here and there.
    pub fn is_reference(&self) -> bool {
        self.is_reference
    }

    /// What failures call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients send as `:authority`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A tonic endpoint.
    pub fn endpoint(&self) -> Endpoint {
        let origin = format!("http://{}", self.authority)
            .parse()
            .expect("an authority makes a URI");
        Endpoint::from_shared(format!("http://{}", self.address))
            .expect("a socket's address makes a URI")
            .origin(origin)
            .connect_timeout(CONNECT_LIMIT)
            // What a client that moves much data would choose: the bridge's windows are what is tested.
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
    }

    /// A tonic channel.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn channel(&self) -> Result<Channel> {
        self.endpoint()
            .connect()
            .await
            .with_context(|| format!("can't connect {}", self.name))
    }

    /// A client of the exercise service.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn exercise(&self) -> Result<ExerciseClient<Channel>> {
        Ok(exercise(self.channel().await?))
    }

    /// A bare HTTP/2 connection.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn raw(&self) -> Result<raw::Connection> {
        raw::Connection::open(self, raw::Windows::default()).await
    }
}

/// A client of the exercise service on a channel.
pub fn exercise(channel: Channel) -> ExerciseClient<Channel> {
    ExerciseClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}
