//! Certificates: the bridge's own, and whose it takes.
//!
//! The files are read when the bridge starts and when it is told to read them again. Connections that are there keep what they
//! began with; new ones get the new certificates.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use vbridge_settings::{TlsError, private_key, trusted};

use super::callers::FINGERPRINT;
use crate::limits::MAX_CERTIFICATE_NAMES;

/// Where certificates and keys are, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The bridge's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients' certificates. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is sent away; if not, it may have a token.
    pub require_client: bool,
}

/// Takes TLS connections with the certificates that were read last.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<watch::Sender<Arc<ServerConfig>>>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(watch::Sender::new(configuration(files)?))))
    }

    /// Reads the files again. If something is wrong with them, nothing changes.
    pub(crate) fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        self.0.send_replace(configuration(files)?);
        Ok(())
    }

    pub(crate) fn now(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.borrow()))
    }
}

fn configuration(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(&files.certificate, error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(trusted(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match files.require_client {
                true => verifier,
                false => verifier.allow_unauthenticated(),
            };
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::new(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = private_key(&files.certificate, &files.key)?;
    let mut configuration = builder.with_single_cert(chain, key).map_err(|error| {
        TlsError::new(
            &files.certificate,
            format!("with {}: {error}", files.key.display()),
        )
    })?;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session that is taken up again is not checked again: a certificate that has expired would go on for as long as its
    // client likes.
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    Ok(Arc::new(configuration))
}

/// What a certificate, which was checked, says who it is: DNS names, URIs, and its own fingerprint.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let digest = Sha256::digest(certificate);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut names = vec![format!("{FINGERPRINT}{digits}")];
    if let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) {
        let dns = certificate.valid_dns_names().map(str::to_ascii_lowercase);
        // Whatever an authority lets be written there, it is neither a DNS name nor a fingerprint.
        let uris = certificate.valid_uri_names();
        let uris = uris.filter(|uri| uri.contains(':') && !uri.starts_with(FINGERPRINT));
        let uris = uris.map(str::to_owned);
        names.extend(dns.chain(uris).take(MAX_CERTIFICATE_NAMES));
    }
    names
}
