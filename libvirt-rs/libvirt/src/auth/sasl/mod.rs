//! The exchange of messages in which SASL authenticates a client (RFC 4422). It performs no I/O.
//!
//! The mechanisms are rsasl's. What a server sends goes to them only after `scram` has looked at it, for they take it
//! on trust: a short message makes them panic, and a large count keeps them busy for hours.
//!
//! SCRAM proves both ends to each other and shows the password to nobody, so it comes first. None of the mechanisms
//! here encrypts what follows: TLS, ssh or a Unix socket does, and libvirt demands one of those, so that after the
//! exchange packets go on as they are.

mod mechanism;
mod scram;
#[cfg(test)]
mod tests;

use std::fmt;

use rsasl::{
    callback::{Context as Exchange, Request, SessionCallback, SessionData},
    config::SASLConfig,
    mechname::Mechname,
    prelude::{SASLClient, Session, SessionError},
    property::{AuthId, AuthzId, Password},
};
use zeroize::Zeroizing;

use super::{
    Credentials, Error,
    limits::{MAX_MESSAGE, ROOM},
};
use mechanism::Mechanism;

/// What a client authenticates to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The service: `libvirt`.
    pub service: &'a str,
    /// The server, as the URI has it, or `localhost`.
    pub host: &'a str,
    /// Whether nobody who listens on the way can read what passes: so it is over TLS, ssh and Unix sockets.
    pub encrypted: bool,
    /// Whether the server is known to be the one that was meant, by its certificate or key. Only with both is a password
    /// ever sent, for who answers in the server's place would have it. SCRAM needs neither: it shows nobody the password,
    /// and finds out who does not know it. But such a one can try guesses on what it was sent, so a password that is easy
    /// to guess wants both here, too.
    pub verified: bool,
    /// The mechanism that the user asks for, if any (`auth=sasl.scram-sha-256` in the URI).
    pub mechanism: Option<&'a str>,
}

impl<'a> Context<'a> {
    /// libvirt at a host, on a connection that others can read, with nobody knows whom.
    #[must_use]
    pub fn new(host: &'a str) -> Self {
        Self {
            service: "libvirt",
            host,
            encrypted: false,
            verified: false,
            mechanism: None,
        }
    }
}

/// One exchange: a client's side of it.
///
/// ```text
///   AUTH_SASL_INIT ──▶ list of mechanisms ──▶ Sasl::new
///   Sasl::start ────▶ AUTH_SASL_START ──┐
///                  ┌────────────────────┤ the server's reply
///                  │ not complete       │ complete
///   Sasl::step ◀───┘                    └──▶ Sasl::finish
///        └────▶ AUTH_SASL_STEP ──▶ the server's reply, as above
/// ```
///
/// ```
/// use libvirt::auth::{Credentials, Sasl, sasl::Context};
///
/// let credentials = Credentials::new("bob", "secret");
/// let mut context = Context::new("host.example");
/// (context.encrypted, context.verified) = (true, true);
/// let mut sasl = Sasl::new("GSSAPI,PLAIN", &credentials, &context)?;
/// assert_eq!(sasl.mechanism(), "PLAIN");
/// assert_eq!(sasl.start()?.unwrap_or_default().as_slice(), b"\0bob\0secret");
/// sasl.finish(None)?;
/// # Ok::<_, libvirt::auth::Error>(())
/// ```
pub struct Sasl {
    session: Session,
    mechanism: Mechanism,
    host: String,
    state: State,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This client's first message.
    Start,
    /// SCRAM: the server's nonce, salt and count.
    Challenge,
    /// SCRAM: the server's proof.
    Proof,
    /// Nothing but the server's word that it is complete.
    Done,
    /// Nothing at all: something went wrong.
    Over,
}

impl Sasl {
    /// Chooses the best of the mechanisms that a server offers: SCRAM-SHA-512, SCRAM-SHA-256, SCRAM-SHA-1, PLAIN,
    /// EXTERNAL.
    ///
    /// `offered` are their names, between them commas or spaces. EXTERNAL is for credentials without a password.
    ///
    /// # Errors
    /// None of them can be used, or not with these credentials.
    pub fn new(
        offered: &str,
        credentials: &Credentials,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let mechanism = Mechanism::choose(offered, credentials, context)?;
        let secrets = Secrets::new(mechanism, credentials)?;
        let unavailable = || Error::Mechanism {
            host: context.host.to_owned(),
            mechanism: mechanism.name().to_owned(),
            offered: offered.to_owned(),
            why: "this build lacks it",
        };
        let config = SASLConfig::builder().with_defaults().with_callback(secrets);
        let config = config.map_err(|_| unavailable())?;
        let name = Mechname::parse(mechanism.name().as_bytes()).map_err(|_| unavailable())?;
        let session = SASLClient::new(config).start_suggested(&[name]);
        Ok(Self {
            session: session.map_err(|_| unavailable())?,
            mechanism,
            host: context.host.to_owned(),
            state: State::Start,
        })
    }

    /// The name of the mechanism, as the server has to be told.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        self.mechanism.name()
    }

    /// Whether this end has nothing more to send or to check.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The message that goes with the start. `None` is none at all, which is another thing than an empty one.
    ///
    /// With PLAIN the password is in it, so it is wiped when it is dropped.
    ///
    /// # Errors
    /// The exchange has already begun.
    pub fn start(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        if self.state != State::Start {
            return Err(self.broken("the exchange was started twice".to_owned()));
        }
        let message = self.run(None)?;
        self.state = if self.mechanism.is_scram() {
            State::Challenge
        } else {
            State::Done
        };
        Ok(Some(message))
    }

    /// The answer to a message of a server that does not say it is complete. `None` is none at all.
    ///
    /// With SCRAM the first of them hashes the password as often as the server asks for, on the calling thread. That
    /// takes from a millisecond, as is common, to a second or two
    /// ([`MAX_ITERATIONS`](super::limits::MAX_ITERATIONS)).
    ///
    /// # Errors
    /// The server breaks the rules, does not take the password, or does not prove that it knows it. The exchange is
    /// over then.
    pub fn step(&mut self, message: Option<&[u8]>) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let message = self.bounded(message)?;
        match state {
            State::Challenge => {
                scram::check_challenge(message).map_err(|wrong| self.wrong(wrong))?;
                let answer = self.run(Some(message))?;
                self.state = State::Proof;
                Ok(Some(answer))
            }
            State::Proof => {
                scram::check_proof(message).map_err(|wrong| self.wrong(wrong))?;
                self.run(Some(message))?;
                self.state = State::Done;
                // Nothing is left to say, but the server waits for its turn to be complete.
                Ok(None)
            }
            State::Start => {
                Err(self.broken("the server spoke before the exchange began".to_owned()))
            }
            State::Done => {
                Err(self.broken("the server wants more than the mechanism has".to_owned()))
            }
            State::Over => Err(self.broken("the exchange is over".to_owned())),
        }
    }

    /// Ends the exchange: the server says that it is complete, perhaps with a last message.
    ///
    /// The server's word does not suffice: what the mechanism has this client check is checked even so.
    ///
    /// # Errors
    /// The server did not prove that it knows the password, or said that it is complete too early.
    pub fn finish(&mut self, message: Option<&[u8]>) -> Result<(), Error> {
        match self.state {
            State::Proof if message.is_some_and(|message| !message.is_empty()) => {
                self.step(message).map(drop)
            }
            State::Challenge | State::Proof => {
                self.state = State::Over;
                let host = self.host.clone();
                Err(Error::Impostor { host })
            }
            State::Done if message.is_none_or(<[u8]>::is_empty) => Ok(()),
            State::Done => {
                Err(self.broken("the server says more than the mechanism has".to_owned()))
            }
            State::Start | State::Over => {
                Err(self
                    .broken("the server completed an exchange that is not under way".to_owned()))
            }
        }
    }

    fn bounded<'m>(&self, message: Option<&'m [u8]>) -> Result<&'m [u8], Error> {
        let message = message.unwrap_or_default();
        if message.len() > MAX_MESSAGE {
            return Err(Error::TooLong {
                host: self.host.clone(),
                length: message.len(),
            });
        }
        Ok(message)
    }

    /// Lets the mechanism take a message and make its own.
    fn run(&mut self, message: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut answer = Zeroizing::new(Vec::with_capacity(ROOM));
        match self.session.step(message, &mut *answer) {
            Ok(_) => Ok(answer),
            Err(error) => {
                self.state = State::Over;
                Err(match error {
                    SessionError::MutualAuthenticationFailed => Error::Impostor {
                        host: self.host.clone(),
                    },
                    error => self.broken(error.to_string()),
                })
            }
        }
    }

    fn broken(&self, why: String) -> Error {
        Error::Broken {
            host: self.host.clone(),
            mechanism: self.mechanism.name(),
            why,
        }
    }

    fn wrong(&self, wrong: scram::Wrong) -> Error {
        let host = self.host.clone();
        match wrong {
            scram::Wrong::Rejected(said) => Error::Rejected { host, said },
            scram::Wrong::Iterations(asked) => Error::Iterations { host, asked },
            scram::Wrong::Form(why) => self.broken(why.to_owned()),
        }
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism.name())
            .field("host", &self.host)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a mechanism asks for.
struct Secrets {
    username: String,
    password: Zeroizing<String>,
    authzid: Option<String>,
}

impl Secrets {
    fn new(mechanism: Mechanism, credentials: &Credentials) -> Result<Self, Error> {
        let username = credentials.username.as_deref().unwrap_or_default();
        let password = credentials
            .password
            .as_ref()
            .map_or("", |password| password.as_str());
        let authzid = credentials
            .authzid
            .as_deref()
            .filter(|each| !each.is_empty());
        for (what, text) in [
            ("user name", username),
            ("password", password),
            ("name of the user to act as", authzid.unwrap_or_default()),
        ] {
            if text.contains('\0') {
                return Err(Error::Nul(what));
            }
        }
        let prepared = |text: &str| match mechanism.is_scram() {
            true => scram::prepared(text),
            false => text.to_owned(),
        };
        Ok(Self {
            username: prepared(username),
            password: Zeroizing::new(prepared(password)),
            authzid: authzid.map(str::to_owned),
        })
    }
}

impl SessionCallback for Secrets {
    fn callback(
        &self,
        _session: &SessionData,
        _exchange: &Exchange<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request
            .satisfy::<AuthId>(&self.username)?
            .satisfy::<Password>(self.password.as_bytes())?;
        if let Some(authzid) = &self.authzid {
            request.satisfy::<AuthzId>(authzid)?;
        }
        Ok(())
    }
}
