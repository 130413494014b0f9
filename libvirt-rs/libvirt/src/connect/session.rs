//! How a connection is opened: transport, authentication, features, and the hypervisor's driver.
//!
//! ```text
//!   transport ─▶ AUTH_LIST ─▶ authenticate ─▶ feature 10? ─▶ CONNECT_OPEN ─▶ CONNECT_GET_URI
//!                             none, SASL,     keepalive      once: a second one
//!                             polkit                         destroys the connection
//! ```

use crate::auth;
use crate::error::Error;
use crate::raw::remote::{
    self, AuthSaslStartArgs, AuthSaslStepArgs, AuthType, ConnectOpenArgs,
    ConnectSupportsFeatureArgs, Remote,
};
use crate::rpc::{Client, KeepaliveConfig};
use crate::transport::{self, Connected, Io};

use super::builder::Settings;

/// `VIR_DRV_FEATURE_PROGRAM_KEEPALIVE`: the daemon answers pings. Who asks must answer them as well.
const FEATURE_KEEPALIVE: i32 = 10;
/// `VIR_CONNECT_RO`.
const READ_ONLY: u32 = 1;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Calls, with keepalive if that was asked for.
    Calls,
    /// One stream, whose reader may take its time.
    Stream,
}

/// An open connection.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) uri: String,
}

/// Opens a connection within the time that the settings give.
pub(super) async fn open(settings: &Settings, purpose: Purpose) -> Result<Session, Error> {
    tokio::time::timeout(settings.opening, attempt(settings, purpose))
        .await
        .unwrap_or(Err(Error::OpeningTooSlow {
            uri: settings.uri.to_string(),
            limit: settings.opening,
        }))
}

async fn attempt(settings: &Settings, purpose: Purpose) -> Result<Session, Error> {
    let connected = transport::connect(&settings.uri, &settings.transport, settings.read_only).await?;
    let encrypted = connected.is_private();
    let client = start(connected, settings.keepalive.unwrap_or_default());
    let remote = Remote::new(client.clone());
    authenticate(&remote, settings, encrypted).await?;
    if settings.keepalive.is_some() && purpose == Purpose::Calls {
        enable_keepalive(&remote, &client).await?;
    }
    let name = settings.uri.name_for_server();
    let probing = name.is_empty();
    remote
        .connect_open(&ConnectOpenArgs {
            name: (!probing).then_some(name),
            flags: if settings.read_only { READ_ONLY } else { 0 },
        })
        .await?;
    let uri = if purpose == Purpose::Calls {
        remote.connect_get_uri().await?.uri
    } else {
        String::new()
    };
    Ok(Session { client, uri })
}

fn start(connected: Connected, keepalive: KeepaliveConfig) -> Client {
    match connected.io {
        Io::Unix(socket) => Client::over_unix(socket, keepalive),
        io => Client::over(io, keepalive),
    }
}

async fn enable_keepalive(remote: &Remote, client: &Client) -> Result<(), Error> {
    let feature = ConnectSupportsFeatureArgs {
        feature: FEATURE_KEEPALIVE,
    };
    if remote.connect_supports_feature(&feature).await?.supported != 0 {
        client.enable_keepalive();
    }
    Ok(())
}

async fn authenticate(remote: &Remote, settings: &Settings, encrypted: bool) -> Result<(), Error> {
    // The daemon offers the one way that it wants.
    match remote.auth_list().await?.types.first() {
        None | Some(AuthType::None) => Ok(()),
        // The daemon asks polkit, which may ask a person.
        Some(AuthType::Polkit) => remote.auth_polkit().await.map(drop),
        Some(AuthType::Sasl) => sasl(remote, settings, encrypted).await,
    }
}
