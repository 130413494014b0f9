//! TLS 1.3 on sessions, from the bridge to the agent: whoever carries the bytes on the host can't read or change them.
//!
//! ```text
//!   a session ── first byte ──▶ handshake ──▶ HTTP/2
//!                   │               │ a certificate is not taken, by either end
//!                   │               └──▶ Refused: kept until the host lets go of it
//!                   └ no TLS ──▶ closed after a rest, with the reason
//! ```
//!
//! A refused session is not closed at once: whoever closes it has the host greet again, and that would go round and round.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use vbridge_link::Session;
pub use vbridge_settings::TlsError;
use vbridge_settings::{private_key, trusted};

use crate::limits::{PLAIN_REST, TLS_HANDSHAKE, TLS_REFUSED};

/// With what every TLS connection begins (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Where certificates and keys are, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The agent's certificate, for the guest's name, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of bridges' certificates. Without it none is asked for.
    pub host_ca: Option<PathBuf>,
}

/// The certificates that an agent serves with. A clone shares them.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Reads certificates.
    ///
    /// # Errors
    /// A file can't be read, or holds something else.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(configuration(files)?))))
    }

    /// Reads them again, for sessions that come, of all clones. If something is wrong with them, nothing changes.
    ///
    /// # Errors
    /// As [`Tls::read`].
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let configuration = configuration(files)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = configuration;
        Ok(())
    }

    fn now(&self) -> TlsAcceptor {
        let configuration = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&configuration))
    }

    /// The session within TLS. None, if that did not come to be: then all is said and done.
    pub(crate) async fn accept(
        &self,
        session: Session,
    ) -> Option<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        let mut session = BufReader::new(session);
        match timeout(TLS_HANDSHAKE, session.fill_buf()).await {
            Ok(Ok([HANDSHAKE_RECORD, ..])) => {}
            Ok(Ok([]) | Err(_)) => return None,
            Ok(Ok(_)) | Err(_) => {
                tracing::warn!(
                    "refused a host: it does not encrypt, and this agent takes nothing but TLS"
                );
                sleep(PLAIN_REST).await;
                session
                    .into_inner()
                    .close("this agent takes nothing but TLS; give the bridge its certificate's authority, tls_ca");
                return None;
            }
        }
        let accepting = self.now().accept(session).into_fallible();
        match timeout(TLS_HANDSHAKE, accepting).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err((error, session))) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!(
                        "refused a host, or it refused: {}",
                        error.to_string().escape_debug()
                    );
                    until_gone(session).await;
                }
                None
            }
            Err(_) => {
                tracing::debug!("no TLS within {TLS_HANDSHAKE:?}");
                None
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Until the host lets go of the session; not for ever.
async fn until_gone(mut session: impl AsyncRead + AsyncWrite + Unpin) {
    let mut rest = [0; 256];
    let reading = async {
        // The alert that says why was written, but not flushed. If it can't be, the host has gone.
        let _ = session.flush().await;
        while let Ok(1..) = session.read(&mut rest).await {}
    };
    // Either way it is over.
    let _ = timeout(TLS_REFUSED, reading).await;
}

fn configuration(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::new(&files.certificate, error))?;
    let builder = match &files.host_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(trusted(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| TlsError::new(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (chain, key) = private_key(&files.certificate, &files.key)?;
    let mut configuration = builder.with_single_cert(chain, key).map_err(|error| {
        let why = format!("with {}: {error}", files.key.display());
        TlsError::new(&files.certificate, why)
    })?;
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    // What is taken up again is not checked again.
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    Ok(Arc::new(configuration))
}
