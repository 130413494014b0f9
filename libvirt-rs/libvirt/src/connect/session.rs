//! How a connection is opened: transport, authentication, features, and the hypervisor's driver.
//!
//! ```text
//!   transport ─▶ AUTH_LIST ─▶ authenticate ─▶ feature 10? ─▶ CONNECT_OPEN ─▶ CONNECT_GET_URI
//!                             none, SASL,     keepalive      once: a second one
//!                             polkit                         destroys the connection
//! ```
//!
//! The connection for a stream asks neither for feature 10 nor for the URI.

use std::time::Duration;

use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

use crate::auth::sasl::Context;
use crate::auth::{self, Credentials, Sasl};
use crate::environment::Environment;
use crate::error::Error;
use crate::files;
use crate::raw::api::ErrorNumber;
use crate::raw::remote::{
    AuthSaslStartArgs, AuthSaslStartRet, AuthSaslStepArgs, AuthSaslStepRet, AuthType,
    CONNECT_CLOSE, ConnectOpenArgs, ConnectSupportsFeatureArgs, DOMAIN_ABORT_JOB,
    DOMAIN_ABORT_JOB_FLAGS, Remote,
};
use crate::rpc::{Client, Config, ConnectionError, Procedure};
use crate::transport::{self, Connected, Ended, Io, Protection};
use crate::uri::{self, Auth, Uri};

use super::builder::Settings;

/// `VIR_DRV_FEATURE_PROGRAM_KEEPALIVE`: the daemon answers pings. Who asks must answer them as well.
const FEATURE_KEEPALIVE: i32 = 10;
/// `VIR_CONNECT_RO`.
const READ_ONLY: u32 = 1;

/// What ends a job that another call waits for, a migration or a save.
static CANCELLING: [Procedure; 2] = [DOMAIN_ABORT_JOB, DOMAIN_ABORT_JOB_FLAGS];

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Calls.
    Calls,
    /// One stream. It is left to the caller to have it watched, for a stream needs a keepalive of its own kind.
    Stream,
}

/// An open connection.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) uri: String,
    /// Whether nobody but the daemon can read what passes.
    pub(super) private: bool,
}

/// What a URI's text means, which may be an alias in a file, and what is left of the time for opening.
pub(crate) async fn resolve(
    text: String,
    environment: Environment,
    limit: Duration,
    how: fn(&str, &Environment) -> Result<Uri, uri::Error>,
) -> Result<(Uri, Duration), Error> {
    // A whole URI needs no file.
    if text.contains(':') {
        return Ok((how(&text, &environment)?, limit));
    }
    let began = Instant::now();
    let resolving = files::aside(move || how(&text, &environment));
    let uri =
        tokio::time::timeout(limit, resolving)
            .await
            .map_err(|_| Error::OpeningTooSlow {
                uri: "the URI that libvirt's configuration names".to_owned(),
                limit,
            })??;
    Ok((uri, limit.saturating_sub(began.elapsed())))
}

/// Finds out what a URI's text means, and opens the first connection, all within the time that the settings give.
pub(super) async fn open_first(uri: String, settings: &mut Settings) -> Result<Session, Error> {
    let environment = settings.transport.environment.clone();
    let (uri, left) = resolve(uri, environment, settings.opening, Uri::resolve).await?;
    settings.uri = uri;
    // The opening as a whole is bounded; the transport gets no less.
    settings.transport.timeout = settings.opening;
    open_within(left, settings, Purpose::Calls).await
}

/// Opens a connection within the time that the settings give.
pub(super) async fn open(settings: &Settings, purpose: Purpose) -> Result<Session, Error> {
    open_within(settings.opening, settings, purpose).await
}

async fn open_within(
    left: Duration,
    settings: &Settings,
    purpose: Purpose,
) -> Result<Session, Error> {
    tokio::time::timeout(left, attempt(settings, purpose))
        .await
        .unwrap_or(Err(Error::OpeningTooSlow {
            uri: settings.uri.to_string(),
            limit: settings.opening,
        }))
        .map_err(of_program)
}

/// A program such as ssh that fails once it has been started ends the connection: what it complained of is why there is
/// none.
fn of_program(error: Error) -> Error {
    let ended = match &error {
        Error::Connection(ConnectionError::Io(io)) => io.get_ref(),
        _ => None,
    };
    match ended.and_then(|inner| inner.downcast_ref::<Ended>()) {
        Some(ended) => transport::Error::Ended(ended.clone()).into(),
        None => error,
    }
}

async fn attempt(settings: &Settings, purpose: Purpose) -> Result<Session, Error> {
    let uri = &settings.uri;
    let connected = transport::connect(uri, &settings.transport, settings.read_only).await?;
    let protection = connected.protection;
    let config = Config {
        keepalive: settings.keepalive.unwrap_or_default(),
        calls_at_once: settings.calls_at_once,
    };
    let client = start(connected, config);
    let remote = Remote::new(client.clone());
    authenticate(&remote, settings, protection).await?;
    // The daemon that was asked pings, and gives up who does not answer; who must wait for a guest to read does not hear it.
    if settings.keepalive.is_some() && purpose == Purpose::Calls {
        enable_keepalive(&remote, &client).await?;
    }
    remote
        .connect_open(&ConnectOpenArgs {
            // An empty one leaves the choice to the daemon; none at all opens nothing, which the next call reveals.
            name: Some(uri.name_for_server()),
            flags: if settings.read_only { READ_ONLY } else { 0 },
        })
        .await?;
    // A daemon to which nobody says good-bye logs an error.
    client.set_farewell(CONNECT_CLOSE);
    client.let_pass(&CANCELLING);
    let uri = match purpose {
        Purpose::Calls => remote.connect_get_uri().await?.uri,
        Purpose::Stream => String::new(),
    };
    Ok(Session {
        client,
        uri,
        private: protection.is_private(),
    })
}

fn start(connected: Connected, config: Config) -> Client {
    match connected.io {
        Io::Unix(socket) => Client::over_unix(socket, config),
        io => Client::over(io, config),
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

async fn authenticate(
    remote: &Remote,
    settings: &Settings,
    protection: Protection,
) -> Result<(), Error> {
    let offered = remote.auth_list().await?.types;
    match way(&settings.uri, &offered)? {
        AuthType::None => Ok(()),
        // The daemon asks polkit, which may ask a person.
        AuthType::Polkit => remote.auth_polkit().await.map(drop),
        AuthType::Sasl => sasl(remote, settings, protection).await,
    }
}

/// The way to authenticate. A daemon offers the one that it wants, and an empty list is one that wants none.
///
/// What `auth=` asks for is taken or nothing: else whoever answers in the daemon's place could do without.
fn way(uri: &Uri, offered: &[AuthType]) -> Result<AuthType, auth::Error> {
    let offered = match offered {
        [] => &[AuthType::None],
        offered => offered,
    };
    let Some(asked) = uri.auth() else {
        return Ok(offered[0]);
    };
    let wanted = match asked {
        Auth::None => AuthType::None,
        Auth::Sasl(_) => AuthType::Sasl,
        Auth::Polkit => AuthType::Polkit,
    };
    if offered.contains(&wanted) {
        return Ok(wanted);
    }
    let names = offered.iter().map(|way| match way {
        AuthType::None => "none",
        AuthType::Sasl => "sasl",
        AuthType::Polkit => "polkit",
    });
    Err(auth::Error::NotOffered {
        host: uri.host_or_localhost().to_owned(),
        asked: asked.to_string(),
        offered: names.collect::<Vec<_>>().join(", "),
    })
}

/// Goes through the steps of a SASL mechanism. None of those that we offer encrypts what follows.
async fn sasl(remote: &Remote, settings: &Settings, protection: Protection) -> Result<(), Error> {
    let offered = remote.auth_sasl_init().await?.mechlist;
    let uri = &settings.uri;
    let credentials = match &settings.credentials {
        Some(credentials) => credentials.clone(),
        None => {
            let (uri, environment) = (uri.clone(), settings.transport.environment.clone());
            files::aside(move || Credentials::for_uri(&uri, &environment)).await?
        }
    };
    let mut context = Context::new(uri.host_or_localhost());
    context.encrypted = protection.encrypted;
    context.verified = protection.verified;
    if let Some(Auth::Sasl(mechanism)) = uri.auth() {
        context.mechanism = mechanism.as_deref();
    }
    let mut sasl = Sasl::new(&offered, &credentials, &context)?;
    let first = sasl.start()?;
    let mut answer: Challenge = remote
        .auth_sasl_start(&Zeroizing::new(AuthSaslStartArgs {
            mech: sasl.mechanism().to_owned(),
            nil: first.is_none().into(),
            data: chars(&first.unwrap_or_default()),
        }))
        .await
        .map_err(|error| rejected(uri.host_or_localhost(), error))?
        .into();
    loop {
        if answer.complete {
            // The last message proves to us that the daemon knows the password.
            sasl.finish(answer.data.as_deref())?;
            return Ok(());
        }
        let next = sasl.step(answer.data.as_deref())?;
        answer = remote
            .auth_sasl_step(&Zeroizing::new(AuthSaslStepArgs {
                nil: next.is_none().into(),
                data: chars(&next.unwrap_or_default()),
            }))
            .await
            .map_err(|error| rejected(uri.host_or_localhost(), error))?
            .into();
    }
}

/// What the daemon says of credentials that it does not accept, be it a mechanism's own words or those of its list of
/// users: always the same, so that nobody learns which of them was wrong.
fn rejected(host: &str, error: Error) -> Error {
    match error.remote() {
        Some(refusal) if refusal.is(ErrorNumber::AuthFailed) => auth::Error::Rejected {
            host: host.to_owned(),
            said: refusal.message.clone(),
        }
        .into(),
        _ => error,
    }
}

/// What the daemon answers to a step.
struct Challenge {
    complete: bool,
    data: Option<Vec<u8>>,
}

impl From<AuthSaslStartRet> for Challenge {
    fn from(raw: AuthSaslStartRet) -> Self {
        Self::new(raw.complete, raw.nil, &raw.data)
    }
}

impl From<AuthSaslStepRet> for Challenge {
    fn from(raw: AuthSaslStepRet) -> Self {
        Self::new(raw.complete, raw.nil, &raw.data)
    }
}

impl Challenge {
    fn new(complete: i32, nil: i32, data: &[i8]) -> Self {
        Self {
            complete: complete != 0,
            data: (nil == 0).then(|| data.iter().map(|char| char.cast_unsigned()).collect()),
        }
    }
}

// PLAIN's message is a password: it is wiped however the call ends. What waits to be sent is not in reach here.
impl Zeroize for AuthSaslStartArgs {
    fn zeroize(&mut self) {
        self.data.zeroize();
    }
}

impl Zeroize for AuthSaslStepArgs {
    fn zeroize(&mut self) {
        self.data.zeroize();
    }
}

/// The protocol sends these bytes as C's `char`, four bytes each.
fn chars(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|byte| byte.cast_signed()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connect, RemoteError, raw::virnet::VirNetMessageError};

    #[test]
    fn credentials_that_are_not_accepted_are_told_from_other_refusals() {
        let refusal = |code: ErrorNumber| {
            let raw = VirNetMessageError {
                code: code.as_raw(),
                message: Some("no".to_owned()),
                ..VirNetMessageError::default()
            };
            Error::Libvirt(Box::new(RemoteError::from(raw)))
        };
        let error = rejected("h", refusal(ErrorNumber::AuthFailed));
        assert!(
            error
                .to_string()
                .starts_with("h does not accept user and password (no)"),
            "{error}"
        );
        let other = rejected("h", refusal(ErrorNumber::Rpc));
        assert!(other.is(ErrorNumber::Rpc), "{other}");
    }

    #[test]
    fn a_message_is_wiped_with_the_arguments_that_hold_it() {
        let mut start = AuthSaslStartArgs {
            mech: "PLAIN".to_owned(),
            nil: 0,
            data: chars(b"\0bob\0secret"),
        };
        start.zeroize();
        assert!(start.data.is_empty());
        let mut step = AuthSaslStepArgs {
            nil: 0,
            data: chars(b"c=biws"),
        };
        step.zeroize();
        assert!(step.data.is_empty());
    }

    #[tokio::test]
    async fn a_program_that_fails_on_its_way_is_named_with_how_it_ended() {
        let error = Connect::open("qemu+ext:///system?command=/bin/false")
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/bin/false ended before the daemon answered (exit status: 1)"),
            "{text}"
        );
        let Error::Transport(inner) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(*inner, transport::Error::Ended(_)), "{inner:?}");
    }
}
