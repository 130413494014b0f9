//! How commands reach the bridge, and through it a guest.
//!
//! | module | what it does |
//! |---|---|
//! | this one | a connection with one guest in mind, and what its calls carry |
//! | `again` | which calls are made again when they fail |
//! | `options` | what the command line says of all this |
//! | `file`, `scalar` | what a file says |
//! | `address`, `connect` | where a bridge is, and how it is connected |
//! | `wire` | signs calls |

mod address;
mod again;
mod connect;
mod file;
mod options;
mod scalar;
mod wire;

use std::{future::Future, time::Duration};

use bridge_host::{
    GUEST_HEADER, WAIT_HEADER,
    retry::{Failed, Policy},
};
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use vbridge_api::host::v1::{ListGuestsRequest, bridge_client::BridgeClient};

use super::{
    failure::{Call, Failure},
    output::{Output, printable},
};
use address::BridgeAddress;
use options::{BridgeOptions, Settings};

pub(super) use again::Twice;
pub(super) use options::{ClientOptions, GuestOptions, NamedGuestOptions};
pub(super) use wire::Wire;

/// Guests that an error names at most.
const MAX_NAMES: usize = 20;

/// Whom a call is for that is for no guest.
const BRIDGE: &str = "the bridge";

/// Metadata with the caller's token.
const AUTHORIZATION: &str = "authorization";

/// A connection to a bridge, with one guest or the bridge itself in mind.
#[derive(Debug)]
pub(super) struct Client {
    wire: Wire,
    bridge: String,
    guest: Option<MetadataValue<Ascii>>,
    wait: Option<MetadataValue<Ascii>>,
    token: Option<MetadataValue<Ascii>>,
    /// The guest's name, or a word for it.
    name: String,
    whom: String,
    limit: Duration,
    policy: Policy,
    /// Whether each new attempt is told: not to programs.
    tells: bool,
}

impl Client {
    /// Connects to the bridge.
    pub(super) async fn bridge(options: &ClientOptions) -> Result<Self, Failure> {
        Self::new(&options.bridge, options.output == Output::Table).await
    }

    async fn new(options: &BridgeOptions, for_people: bool) -> Result<Self, Failure> {
        let settings = options.settings()?;
        let tells = settings.tells && for_people;
        let token = settings.proof.token()?;
        if token.is_some() && !settings.bridge.keeps_secrets() {
            let bridge = &settings.bridge;
            return Err(Failure::new(format!(
                "the token is not sent to {bridge}, for everybody on the way could read it; write https://{bridge}, and --ca FILE"
            )));
        }
        let channel = connected(&settings, tells).await?;
        Ok(Self {
            wire: Wire::new(channel, settings.call_key),
            bridge: settings.bridge.to_string(),
            guest: None,
            wait: None,
            token,
            name: String::new(),
            whom: BRIDGE.to_owned(),
            limit: settings.answer,
            policy: settings.policy,
            tells,
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
        let client = Self::new(&options.bridge, true).await?;
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
        let mut bridge = BridgeClient::new(self.channel());
        let asked = self.asked(ListGuestsRequest {}, async |request| {
            bridge.list_guests(request).await
        });
        let guests = match asked.await {
            Ok(answer) => answer.guests,
            Err(status) if status.code() == Code::Unimplemented => return Ok(None),
            Err(status) => return Err(self.failure(&status)),
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

    pub(super) fn channel(&self) -> Wire {
        self.wire.clone()
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
        let answer = self.in_time(call).await;
        answer.map_err(|status| self.failure(&status))
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

/// A connection to the bridge, for which it is tried again as for any call: nothing has been sent yet.
async fn connected(settings: &Settings, tells: bool) -> Result<Channel, Failure> {
    let bridge = settings.bridge.to_string();
    let about = Call {
        bridge: &bridge,
        whom: BRIDGE,
        limit: settings.answer,
    };
    let tls = match &settings.bridge {
        BridgeAddress::Https(_) => Some(settings.proof.tls()?),
        _ => None,
    };
    let limit = settings.limits.connect;
    let mut attempts = settings.policy.attempts();
    loop {
        let connecting = connect::connect(&settings.bridge, tls.clone(), settings.limits);
        let (failed, sentence) = match timeout(limit, connecting).await {
            Ok(Ok(channel)) => return Ok(channel),
            Ok(Err(error)) if !connect::is_late(&error) => {
                (connect::failed(&error), about.connection(&error))
            }
            // Whichever of both limits was first.
            Ok(Err(_)) | Err(_) => (Failed::Network, about.not_connected(limit)),
        };
        match again::next(&mut attempts, failed, tells, || sentence.clone()) {
            Some(delay) => sleep(delay).await,
            None => return Err(Failure::new(sentence)),
        }
    }
}
