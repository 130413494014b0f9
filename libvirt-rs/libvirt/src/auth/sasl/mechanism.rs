//! The mechanisms, and which of them is taken.

use super::Context;
use crate::auth::{
    Credentials, Error,
    limits::{MAX_NAME, MAX_OFFERED},
};

/// One that this client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    ScramSha512,
    ScramSha256,
    ScramSha1,
    Plain,
    External,
}

impl Mechanism {
    /// The best first.
    ///
    /// Those with -PLUS bind the exchange to a TLS connection, for which libvirt's daemon offers no way. DIGEST-MD5 is
    /// historic (RFC 6331), and GSSAPI needs a library for Kerberos.
    const ALL: [Self; 5] = [
        Self::ScramSha512,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
        Self::External,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::Plain => "PLAIN",
            Self::External => "EXTERNAL",
        }
    }

    pub(super) fn is_scram(self) -> bool {
        !matches!(self, Self::Plain | Self::External)
    }

    pub(super) fn choose(
        offered: &str,
        credentials: &Credentials,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let host = || context.host.to_owned();
        let offered = Offer::new(offered);
        let known = Self::ALL
            .into_iter()
            .filter(|each| offered.has(each.name()));
        let mut candidates: Vec<_> = match context.mechanism {
            None => known.collect(),
            Some(wanted) => vec![asked_for(wanted, &offered, context)?],
        };
        if candidates.is_empty() {
            return Err(Error::NoMechanism {
                host: host(),
                offered: offered.to_string(),
            });
        }
        if !(context.encrypted && context.verified) {
            candidates.retain(|each| *each != Self::Plain);
        }
        let Some(&best) = candidates.first() else {
            return Err(if context.encrypted {
                Error::NotVerified { host: host() }
            } else {
                Error::NotEncrypted { host: host() }
            });
        };
        // An empty one is none: no server keeps such, and SCRAM would hash it to a valid proof.
        let given = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        let missing = if !given(credentials.username.as_deref()) {
            "user name"
        } else if !given(
            credentials
                .password
                .as_ref()
                .map(|password| password.as_str()),
        ) {
            "password"
        } else {
            return Ok(best);
        };
        // What the connection itself says needs neither.
        if candidates.contains(&Self::External) {
            return Ok(Self::External);
        }
        Err(Error::NoCredentials {
            mechanism: best.name(),
            service: context.service.to_owned(),
            host: host(),
            missing,
        })
    }
}

fn asked_for(wanted: &str, offered: &Offer<'_>, context: &Context<'_>) -> Result<Mechanism, Error> {
    let refused = |why| Error::Mechanism {
        host: context.host.to_owned(),
        mechanism: wanted.to_owned(),
        offered: offered.to_string(),
        why,
    };
    let known = |each: &Mechanism| each.name().eq_ignore_ascii_case(wanted);
    let mechanism = Mechanism::ALL.into_iter().find(known);
    let mechanism = mechanism.ok_or_else(|| refused("this client does not know it"))?;
    if !offered.has(mechanism.name()) {
        return Err(refused("the server does not offer it"));
    }
    Ok(mechanism)
}

/// A server's list of names.
struct Offer<'a>(Vec<&'a str>);

impl<'a> Offer<'a> {
    fn new(text: &'a str) -> Self {
        let names = text.split([',', ' ']).filter(|name| is_name(name));
        Self(names.take(MAX_OFFERED).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|offered| offered.eq_ignore_ascii_case(name))
    }
}

/// The characters of a name (RFC 4422, section 3.1): the list also goes into errors.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(allowed)
}

impl std::fmt::Display for Offer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none at all");
        }
        f.write_str(&self.0.join(", "))
    }
}
