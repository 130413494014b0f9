//! How commands reach the bridge, and through it a guest.

use std::{fmt, future::Future, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use bridge_host::{
    GUEST_HEADER, WAIT_HEADER, check_name,
    config::DEFAULT_LISTEN,
    limits::{CONNECTION_WINDOW, STREAM_WINDOW},
};
use clap::Args;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};
use vbridge_api::host::v1::{ListGuestsRequest, bridge_client::BridgeClient};

use super::{
    duration,
    failure::{Call, Failure},
    output::{Output, printable},
    proof::{Proof, encrypted, host_of},
};

/// Guests that an error names at most.
const MAX_NAMES: usize = 20;

/// What `:authority` says: no guest's name, so that the metadata alone decides.
const ORIGIN: &str = "http://localhost";

/// Metadata with the caller's token.
const AUTHORIZATION: &str = "authorization";

/// How a command reaches a bridge.
#[derive(Debug, Args)]
struct BridgeOptions {
    /// The running bridge: HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", env = "VBRIDGE_ADDRESS", default_value = DEFAULT_LISTEN)]
    bridge: BridgeAddress,
    #[command(flatten)]
    proof: Proof,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

/// What every command takes that shows an answer.
#[derive(Debug, Args)]
pub(super) struct ClientOptions {
    #[command(flatten)]
    bridge: BridgeOptions,
    /// How to write the answer: for people, or as an object (streams: one on each line) for programs
    #[arg(long, value_enum, default_value = "table")]
    pub(super) output: Output,
}

/// Which guest is meant.
#[derive(Debug, Args)]
pub(super) struct GuestOptions {
    /// The guest; needed only if the bridge has several
    #[arg(value_name = "NAME", value_parser = guest_name)]
    name: Option<String>,
    /// How long to wait for a guest that is not there yet, before the answer's time begins
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    pub(super) client: ClientOptions,
}

/// Which guest is meant, where other words follow its name.
#[derive(Debug, Args)]
pub(super) struct NamedGuestOptions {
    /// The guest
    #[arg(value_name = "NAME", value_parser = guest_name)]
    name: String,
    /// How long to wait for a guest that is not there yet, before the answer's time begins
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    bridge: BridgeOptions,
}

fn guest_name(text: &str) -> Result<String, String> {
    check_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Where a bridge is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum BridgeAddress {
    Tcp(String),
    /// With TLS.
    Https(String),
    Unix(PathBuf),
}

impl BridgeAddress {
    /// Whether nobody but the bridge's machine sees what is sent there.
    fn keeps_secrets(&self) -> bool {
        let Self::Tcp(authority) = self else {
            return true;
        };
        let host = host_of(authority);
        let is_loopback = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        host == "localhost" || is_loopback(host)
    }
}

impl FromStr for BridgeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "\"{}\" is not a bridge's address; write HOST:PORT like {DEFAULT_LISTEN}, https://HOST:PORT, or unix:PATH",
                text.escape_debug()
            )
        };
        if let Some(rest) = text.strip_prefix("https://") {
            return match rest.trim_end_matches('/').parse()? {
                Self::Tcp(authority) => Ok(Self::Https(authority)),
                _ => Err(error()),
            };
        }
        match text.strip_prefix("unix:") {
            Some("") => Err(error()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                let is_authority = text.parse::<http::uri::Authority>().is_ok_and(|authority| {
                    !authority.host().is_empty()
                        && authority.port_u16().is_some_and(|port| port != 0)
                        && !text.contains('@')
                });
                is_authority
                    .then(|| Self::Tcp(text.to_owned()))
                    .ok_or_else(error)
            }
        }
    }
}

impl fmt::Display for BridgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection to a bridge, with one guest or the bridge itself in mind.
#[derive(Debug)]
pub(super) struct Client {
    channel: Channel,
    bridge: String,
    guest: Option<MetadataValue<Ascii>>,
    wait: Option<MetadataValue<Ascii>>,
    token: Option<MetadataValue<Ascii>>,
    /// The guest's name, or a word for it.
    name: String,
    whom: String,
    limit: Duration,
}

impl Client {
    /// Connects to the bridge.
    pub(super) async fn bridge(options: &ClientOptions) -> Result<Self, Failure> {
        Self::new(&options.bridge).await
    }

    async fn new(options: &BridgeOptions) -> Result<Self, Failure> {
        let bridge = options.bridge.to_string();
        let whom = "the bridge".to_owned();
        let about = Call {
            bridge: &bridge,
            whom: &whom,
            limit: options.timeout,
        };
        let token = options.proof.token()?;
        if token.is_some() && !options.bridge.keeps_secrets() {
            return Err(Failure::new(format!(
                "the token is not sent to {bridge}, for everybody on the way could read it; write https://{bridge}, and --ca FILE"
            )));
        }
        let tls = match &options.bridge {
            BridgeAddress::Https(_) => Some(options.proof.tls()?),
            _ => None,
        };
        let connecting = connect(&options.bridge, tls, options.timeout);
        let channel = match timeout(options.timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| Failure::new(about.connection(&error)))?,
            Err(_) => return Err(Failure::new(about.too_late())),
        };
        Ok(Self {
            channel,
            bridge,
            guest: None,
            wait: None,
            token,
            name: String::new(),
            whom,
            limit: options.timeout,
        })
    }

    /// Connects to the bridge for calls to a guest; without a name, to the only one there is.
    pub(super) async fn guest(options: &GuestOptions) -> Result<Self, Failure> {
        Self::named(&options.client, options.name.as_deref(), options.wait).await
    }

    /// Likewise, where the name is not a word of its own on the command line.
    pub(super) async fn named(
        options: &ClientOptions,
        name: Option<&str>,
        wait: Option<Duration>,
    ) -> Result<Self, Failure> {
        let client = Self::bridge(options).await?;
        let name = match name {
            Some(name) => Some(name.to_owned()),
            None => client.only_guest().await?,
        };
        client.about(name, wait)
    }

    /// Connects to the bridge for calls to the guest that is named.
    pub(super) async fn named_guest(options: &NamedGuestOptions) -> Result<Self, Failure> {
        let client = Self::new(&options.bridge).await?;
        client.about(Some(options.name.clone()), options.wait)
    }

    /// With a guest in mind, and how long to wait for it.
    fn about(mut self, name: Option<String>, wait: Option<Duration>) -> Result<Self, Failure> {
        if let Some(name) = &name {
            self.guest = Some(metadata(name)?);
            self.whom = format!("guest \"{name}\"");
        } else {
            self.whom = "the guest".into();
        }
        self.name = name.unwrap_or_else(|| "guest".into());
        if let Some(wait) = wait {
            self.wait = Some(metadata(&humantime::format_duration(wait).to_string())?);
            self.limit = self.limit.saturating_add(wait);
        }
        Ok(self)
    }

    /// The name of the only guest; none if the address is that of a single guest, who needs no name.
    async fn only_guest(&self) -> Result<Option<String>, Failure> {
        let call = async {
            let request = self.request(ListGuestsRequest {});
            BridgeClient::new(self.channel()).list_guests(request).await
        };
        let guests = match timeout(self.limit, call).await {
            Ok(Ok(answer)) => answer.into_inner().guests,
            Ok(Err(status)) if status.code() == Code::Unimplemented => return Ok(None),
            Ok(Err(status)) => return Err(self.failure(&status)),
            Err(_) => return Err(Failure::new(self.call_details().too_late())),
        };
        let mut names = guests.iter().map(|guest| printable(&guest.name));
        match (names.next(), guests.len()) {
            (Some(name), 1) => Ok(Some(name)),
            (None, _) => Err(Failure::new(format!(
                "the bridge at {} has no guest",
                self.bridge
            ))),
            (Some(first), count) => {
                let mut list = first;
                for name in names.take(MAX_NAMES - 1) {
                    list.push_str(", ");
                    list.push_str(&name);
                }
                if count > MAX_NAMES {
                    list.push_str(", …");
                }
                Err(Failure::new(format!(
                    "the bridge at {} has {count} guests; name one of them: {list}",
                    self.bridge
                )))
            }
        }
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The guest's name, for output.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A request with what says whom it is for.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(guest) = &self.guest {
            metadata.insert(GUEST_HEADER, guest.clone());
        }
        if let Some(wait) = &self.wait {
            metadata.insert(WAIT_HEADER, wait.clone());
        }
        if let Some(token) = &self.token {
            metadata.insert(AUTHORIZATION, token.clone());
        }
        request
    }

    /// A request that the other end need not answer after the time limit.
    pub(super) fn request_in_time<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(self.limit);
        request
    }

    /// Waits for an answer, within the time limit.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match timeout(self.limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(Failure::new(self.call_details().too_late())),
        }
    }

    /// Waits for the next message of a stream: `pause` more than the time limit, if there is one.
    pub(super) async fn next<T>(
        &self,
        stream: &mut Streaming<T>,
        pause: Option<Duration>,
    ) -> Result<Option<T>, Failure> {
        let next = match pause {
            Some(pause) => timeout(self.limit.saturating_add(pause), stream.message()).await,
            None => Ok(stream.message().await),
        };
        match next {
            Ok(message) => message.map_err(|status| self.failure(&status)),
            Err(_) => Err(Failure::new(self.call_details().too_late())),
        }
    }

    /// The sentence for a status.
    pub(super) fn sentence(&self, status: &Status) -> String {
        self.call_details().sentence(status)
    }

    /// How long an answer may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn call_details(&self) -> Call<'_> {
        Call {
            bridge: &self.bridge,
            whom: &self.whom,
            limit: self.limit,
        }
    }

    fn failure(&self, status: &Status) -> Failure {
        Failure::new(self.sentence(status))
    }
}

fn metadata(text: &str) -> Result<MetadataValue<Ascii>, Failure> {
    let error = |_| Failure::new(format!("\"{}\" can't be sent as metadata", printable(text)));
    text.parse().map_err(error)
}

async fn connect(
    address: &BridgeAddress,
    tls: Option<TlsConnector>,
    limit: Duration,
) -> Result<Channel, tonic::transport::Error> {
    match address {
        BridgeAddress::Tcp(authority) => {
            windows(Endpoint::from_shared(format!("http://{authority}"))?)
                .origin(Uri::from_static(ORIGIN))
                .connect_timeout(limit)
                .connect()
                .await
        }
        BridgeAddress::Https(authority) => {
            let authority = authority.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let (authority, tls) = (authority.clone(), tls.clone());
                async move { encrypted(&authority, tls).await.map(TokioIo::new) }
            });
            windows(Endpoint::from_static(ORIGIN))
                .connect_timeout(limit)
                .connect_with_connector(connector)
                .await
        }
        BridgeAddress::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            windows(Endpoint::from_static(ORIGIN))
                .connect_with_connector(connector)
                .await
        }
    }
}

/// Every stream may fill its window without slowing another, as in the bridge.
fn windows(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_where_nobody_reads_along() {
        for (text, keeps) in [
            ("127.0.0.1:7411", true),
            ("[::1]:7411", true),
            ("localhost:7411", true),
            ("unix:/run/vbridge.sock", true),
            ("https://hv1.example:7411", true),
            ("hv1.example:7411", false),
            ("192.0.2.1:7411", false),
        ] {
            let address: BridgeAddress = text.parse().unwrap();
            assert_eq!(address.keeps_secrets(), keeps, "{text}");
        }
    }

    #[test]
    fn a_bridge_is_a_host_with_a_port_or_a_socket() {
        for text in [
            "127.0.0.1:7411",
            "[::1]:7411",
            "localhost:80",
            "https://hv1.example:7411",
            "unix:/run/vbridge.sock",
        ] {
            assert_eq!(text.parse::<BridgeAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "7411",
            ":7411",
            "localhost",
            "localhost:0",
            "http://a:1",
            "https://a",
            "https://unix:/x",
            "a:99999",
            "a@b:1",
            "unix:",
        ] {
            let error = text.parse::<BridgeAddress>().unwrap_err();
            assert!(error.contains("unix:PATH"), "{error}");
        }
    }
}
