//! TLS as libvirt has it: both ends show certificates, and then the server says in one byte whether it takes the
//! client's.
//!
//! GnuTLS checks that certificate only after the handshake. So a handshake that succeeds says nothing, and a server
//! that refuses just closes; this module makes sentences of that.

mod error;
mod files;
#[cfg(test)]
mod tests;
mod verify;

use std::{io, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, InconsistentKeys, client::Resumption,
    crypto::ring, pki_types::ServerName,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub use error::Error;

use super::Deadline;
use crate::{Environment, uri::Uri};

/// What the server says when it takes the client's certificate.
const ACCEPTED: u8 = 1;

/// All that a handshake needs.
#[derive(Debug)]
pub(super) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    host: String,
    /// The file with the trusted authorities. Empty where any certificate is taken, so that none is found wrong.
    authority: PathBuf,
    revoked: Option<PathBuf>,
    /// The file with this client's certificate, or why there is none.
    certificate: Result<PathBuf, String>,
}

impl Client {
    /// Reads certificates and key.
    pub(super) fn new(uri: &Uri, environment: &Environment) -> Result<Self, Error> {
        let settings = uri.settings();
        // GnuTLS's own default is no wish.
        if let Some(priority) = settings
            .tls_priority
            .as_ref()
            .filter(|each| *each != "NORMAL")
        {
            return Err(Error::Priority(priority.clone()));
        }
        let host = uri.host_or_localhost().to_owned();
        let name = server_name(&host).ok_or_else(|| Error::Name(host.clone()))?;
        let places = files::Places::new(settings.pkipath.as_deref(), environment);
        // The process may have another provider as its default, or none.
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Handshake {
                host: host.clone(),
                why: error.to_string(),
            })?;
        let (builder, authority, revoked) = if settings.no_verify {
            let anyone = Arc::new(verify::Anyone(provider));
            let builder = builder.dangerous().with_custom_certificate_verifier(anyone);
            (builder, PathBuf::new(), None)
        } else {
            let trust = places.trust()?;
            let builder = builder.with_webpki_verifier(verify::trusting(&trust, &provider)?);
            (builder, trust.authority, trust.revoked)
        };
        let (mut config, certificate) = match places.client()? {
            files::Client::Absent(why) => (builder.with_no_client_auth(), Err(why)),
            files::Client::Present { path, chain, key } => {
                let config = builder.with_client_auth_cert(chain, key);
                let config = config.map_err(|error| unusable_key(path.clone(), &error))?;
                (config, Ok(path))
            }
        };
        // The server is told its name (SNI), as rustls does unless told otherwise; libvirt's own client never does. libvirtd
        // does not look at it, while a proxy in front of several daemons finds the right one by it, and whoever listens
        // could have seen the name's lookup just as well. An address is never told.
        config.enable_sni = true;
        // Each connection shows its certificates anew: a resumed session would outlive what was revoked since.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name,
            host,
            authority,
            revoked: revoked.map(|(path, _)| path),
            certificate,
        })
    }

    /// The handshake, and the server's verdict.
    pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        deadline: &Deadline,
    ) -> Result<TlsStream<S>, super::Error> {
        let connector = TlsConnector::from(self.config.clone());
        let handshake = connector.connect(self.name.clone(), stream);
        let mut stream = deadline
            .within("in the TLS handshake with", handshake)
            .await?
            .map_err(|error| self.failed(&error))?;
        let verdict = deadline
            .within(
                "waiting for the verdict on this client's certificate of",
                stream.read_u8(),
            )
            .await?;
        match verdict {
            Ok(ACCEPTED) => Ok(stream),
            Ok(byte) => Err(Error::Verdict {
                host: self.host.clone(),
                byte,
            }
            .into()),
            // The handshake is over: what now fails is about this client.
            Err(error) => match of_rustls(&error) {
                Some(error) => Err(self.told(error).into()),
                None => Err(self.refused(String::new()).into()),
            },
        }
    }

    /// Why the handshake failed.
    fn failed(&self, error: &io::Error) -> Error {
        match of_rustls(error) {
            Some(error) => self.told(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.handshake("the server closed the connection in its middle".to_owned())
            }
            None => self.handshake(error.to_string()),
        }
    }

    fn told(&self, error: &rustls::Error) -> Error {
        use AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(error) => self.certificate(error),
            rustls::Error::AlertReceived(
                alert @ (Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied),
            ) => self.refused(format!(" (it says {alert:?})")),
            error => self.handshake(error.to_string()),
        }
    }

    fn handshake(&self, why: String) -> Error {
        let host = self.host.clone();
        Error::Handshake { host, why }
    }

    fn refused(&self, said: String) -> Error {
        let host = self.host.clone();
        match self.certificate.clone() {
            Ok(certificate) => Error::Refused {
                host,
                certificate,
                said,
            },
            Err(why) => Error::NoClientCertificate { host, why },
        }
    }

    /// What is wrong with the server's certificate.
    fn certificate(&self, error: &CertificateError) -> Error {
        use CertificateError as Of;
        let host = self.host.clone();
        match error {
            Of::UnknownIssuer => Error::UnknownAuthority {
                host,
                authority: self.authority.clone(),
            },
            Of::Expired => Error::Expired { host, since: None },
            Of::ExpiredContext { time, not_after } => Error::Expired {
                host,
                since: time
                    .as_secs()
                    .checked_sub(not_after.as_secs())
                    .map(Duration::from_secs),
            },
            Of::NotValidYet | Of::NotValidYetContext { .. } => Error::NotValidYet { host },
            Of::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                Error::NoName { host }
            }
            Of::NotValidForNameContext { presented, .. } => Error::WrongName {
                host,
                names: presented.iter().map(|name| plain_name(name)).collect(),
            },
            Of::Revoked => Error::Revoked {
                host,
                list: self.revoked.clone().unwrap_or_default(),
            },
            Of::BadSignature => Error::Certificate {
                host,
                why: "its signature, or that of one above it, is wrong".to_owned(),
            },
            Of::InvalidPurpose | Of::InvalidPurposeContext { .. } => Error::Certificate {
                host,
                why: "it is not one for servers (extended key usage)".to_owned(),
            },
            error => Error::Certificate {
                host,
                why: error.to_string(),
            },
        }
    }
}

/// The name that the certificate has to hold. A zone says how to reach an address, not whose it is.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let (address, _) = host.split_once('%').unwrap_or((host, ""));
    match address.parse::<IpAddr>() {
        Ok(address) => Some(ServerName::from(address)),
        Err(_) => ServerName::try_from(host.to_owned()).ok(),
    }
}

/// A name of a certificate as rustls describes it, like `DnsName("host")`, without what is around it.
fn plain_name(described: &str) -> String {
    let inner = described
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(described).trim_matches('"').to_owned()
}

fn unusable_key(path: PathBuf, error: &rustls::Error) -> Error {
    let why = match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the key beside it belongs to another certificate; put the right one there".to_owned()
        }
        error => error.to_string(),
    };
    Error::File { path, why }
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
