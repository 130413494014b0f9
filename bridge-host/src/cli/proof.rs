//! How a command proves to a bridge who it is, and checks that the bridge is the one that is meant.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bridge_host::{
    access::{private_key, trusted},
    limits::MAX_TOKEN,
};
use clap::Args;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::metadata::{Ascii, MetadataValue};
use vbridge_link::Key;
use vbridge_settings::read_key;

use super::failure::Failure;

/// What a bridge may want to see, and a guest.
#[derive(Debug, Clone, Args)]
pub(super) struct Proof {
    /// The authority that the bridge's certificate must be from, in PEM form; needed with https://
    #[arg(long, value_name = "FILE", env = "VBRIDGE_CA")]
    pub(super) ca: Option<PathBuf>,
    /// Your certificate, in PEM form
    #[arg(long, value_name = "FILE", env = "VBRIDGE_CERTIFICATE")]
    pub(super) certificate: Option<PathBuf>,
    /// The key of your certificate
    #[arg(long, value_name = "FILE", env = "VBRIDGE_KEY")]
    pub(super) key: Option<PathBuf>,
    /// A file with your token
    #[arg(long, value_name = "FILE", env = "VBRIDGE_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// A file with the key that guests want calls to be signed with
    #[arg(long, value_name = "FILE", env = "VBRIDGE_CALL_KEY_FILE")]
    pub(super) call_key_file: Option<PathBuf>,
}

impl Proof {
    /// What is said here, and else what is said there. A certificate and its key are from one place.
    pub(super) fn or(&self, other: Self) -> Result<Self, Failure> {
        let own = self.clone();
        let (certificate, key) = match (own.certificate, own.key) {
            (None, None) => (other.certificate, other.key),
            both => both,
        };
        if certificate.is_some() != key.is_some() {
            return Err(Failure::new(
                "a certificate and its key belong together: give both --certificate FILE and --key FILE",
            ));
        }
        Ok(Self {
            ca: own.ca.or(other.ca),
            certificate,
            key,
            token_file: own.token_file.or(other.token_file),
            call_key_file: own.call_key_file.or(other.call_key_file),
        })
    }

    /// The key that calls are signed with.
    pub(super) fn call_key(&self) -> Result<Option<Arc<Key>>, Failure> {
        let Some(path) = &self.call_key_file else {
            return Ok(None);
        };
        let key = read_key(path).map_err(|why| {
            let path = path.display();
            Failure::new(format!("can't use the key for calls {path}: {why}"))
        })?;
        Ok(Some(Arc::new(key)))
    }

    /// The metadata with the token.
    pub(super) fn token(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let failed =
            |why: String| Failure::new(format!("can't use the token {}: {why}", path.display()));
        let token = read(path).map_err(|error| failed(error.to_string()))?;
        let value = format!("Bearer {}", token.trim());
        let mut value: MetadataValue<Ascii> = value
            .parse()
            .map_err(|_| failed("it is not one line of letters, digits and signs".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// How connections are encrypted.
    pub(super) fn tls(&self) -> Result<TlsConnector, Failure> {
        let Some(ca) = &self.ca else {
            return Err(Failure::new(
                "https:// needs to know whom to trust: give the authority's certificate with --ca FILE",
            ));
        };
        let failed = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let roots = trusted(ca).map_err(|error| failed(&error))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_root_certificates(roots);
        let mut configuration = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let (chain, key) = private_key(certificate, key).map_err(|error| failed(&error))?;
                let with = builder.with_client_auth_cert(chain, key);
                with.map_err(|error| {
                    let path = certificate.display();
                    Failure::new(format!("can't use the certificate {path}: {error}"))
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        configuration.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(configuration)))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_TOKEN + 1)
        .read_to_string(&mut text)?;
    match text.trim().is_empty() || text.len() as u64 > MAX_TOKEN {
        true => Err(io::Error::other(format!(
            "it must hold one line of at most {MAX_TOKEN} bytes"
        ))),
        false => Ok(text),
    }
}

/// The host of `HOST:PORT`.
pub(super) fn host_of(authority: &str) -> &str {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A connection to `HOST:PORT`, encrypted.
pub(super) async fn encrypted(
    authority: &str,
    tls: Option<TlsConnector>,
) -> io::Result<TlsStream<TcpStream>> {
    let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
    let name = ServerName::try_from(host_of(authority).to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    tls.connect(name, stream).await
}
