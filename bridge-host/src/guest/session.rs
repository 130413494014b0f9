//! HTTP/2 on a session, as client; within TLS, if the operator wants that.
//!
//! ```text
//!               no TLS wanted
//!   a session ─────────────────────────────────────────────────▶ HTTP/2 ──▶ Opened
//!       │ TLS wanted                                               ▲
//!       └──▶ handshake ── its certificate holds ──▶ first byte ────┘
//!                │                                     │ the agent refuses this end's certificate
//!                └── it does not, or there is no TLS ──┴──▶ Unopened::Refused, with the session, which is kept for a while
//! ```
//!
//! The first byte is waited for because TLS 1.3 lets a client send before the server has looked at its certificate: an agent that
//! refuses it says so where its HTTP/2 would begin.
//!
//! A session that was refused stays open until the next try: whoever closes it is greeted again at once, and refuses again.

use std::{
    any::Any,
    fmt, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, client::Resumption, crypto::ring, pki_types::ServerName, version::TLS13,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::debug;
use vbridge_link::Session;

use crate::{
    access::{TlsError, private_key, trusted},
    error::harmless,
    forward::RequestBody,
    limits::{
        CONNECTION_WINDOW, LINK_TLS, MAX_FRAME, MAX_HEADER_LIST, MAX_LATE_FRAMES, MAX_RESETS_KNOWN,
        RESET_KNOWN, SEND_BUFFER, STREAM_WINDOW,
    },
};

/// Where the certificates are that a link is encrypted with, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTlsFiles {
    /// The authorities of the agents' certificates.
    pub ca: PathBuf,
    /// The bridge's own certificate, and its key, for agents that ask for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// TLS 1.3 on the link itself, from the bridge to the agent: neither QEMU nor a libvirt daemon on the way reads what goes over it.
///
/// The agent's certificate must be from one of the authorities, and for the guest's name: that up to an `@`, or another one of
/// [`with_name`](Self::with_name). A clone shares the certificates.
#[derive(Clone)]
pub struct LinkTls {
    config: Arc<RwLock<Arc<ClientConfig>>>,
    name: Option<String>,
}

impl LinkTls {
    /// Reads certificates.
    ///
    /// # Errors
    /// A file can't be read, or holds something else.
    pub fn read(files: &LinkTlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            config: Arc::new(RwLock::new(configuration(files)?)),
            name: None,
        })
    }

    /// The same for a guest whose certificate has another name than the guest.
    #[must_use]
    pub fn with_name(&self, name: impl Into<String>) -> Self {
        Self {
            config: Arc::clone(&self.config),
            name: Some(name.into()),
        }
    }

    /// Reads certificates again, for sessions that come, of all clones. If something is wrong with them, nothing changes.
    ///
    /// # Errors
    /// As [`LinkTls::read`].
    pub fn reload(&self, files: &LinkTlsFiles) -> Result<(), TlsError> {
        let config = configuration(files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn now(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose certificate the agent of this guest must have.
    fn server_name(&self, guest: &str) -> Result<ServerName<'static>, String> {
        let domain = guest.split('@').next().unwrap_or(guest);
        let name = self.name.as_deref().unwrap_or(domain);
        ServerName::try_from(name.to_owned()).map_err(|_| {
            format!(
                "no certificate can be for the name \"{}\": give the guest a tls_name",
                name.escape_debug()
            )
        })
    }
}

impl fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkTls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn configuration(files: &LinkTlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::new(&files.ca, error))?
        .with_root_certificates(trusted(&files.ca)?);
    let mut config = match &files.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let (chain, private) = private_key(certificate, key)?;
            let with = builder.with_client_auth_cert(chain, private);
            with.map_err(|error| TlsError::new(certificate, error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // What is taken up again is not checked again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A session that takes calls.
pub(super) struct Opened {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: JoinHandle<()>,
    /// What the agent says of itself.
    pub(super) agent: String,
}

/// Why one does not.
pub(super) enum Unopened {
    /// It is over, or the other end speaks something else.
    Failed(String),
    /// One end refuses the other; what to keep until the next try.
    Refused(String, Box<dyn Any + Send>),
}

/// Opens HTTP/2 on the session with a guest.
pub(super) async fn open(
    session: Session,
    tls: Option<LinkTls>,
    guest: String,
) -> Result<Opened, Unopened> {
    let agent = session.peer_software().to_owned();
    let (sender, connection) = match tls {
        None => handshake(session).await,
        Some(tls) => match timeout(LINK_TLS, encrypt(session, &tls, &guest)).await {
            Ok(encrypted) => handshake(encrypted?).await,
            Err(_) => {
                let why = format!("no TLS within {LINK_TLS:?}");
                return Err(Unopened::Failed(why));
            }
        },
    }
    .map_err(|error| Unopened::Failed(format!("HTTP/2 did not come up: {error}")))?;
    Ok(Opened {
        sender,
        connection,
        agent,
    })
}

/// The session within TLS, when the agent has taken this end's certificate as well.
async fn encrypt(
    session: Session,
    tls: &LinkTls,
    guest: &str,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Unopened> {
    let name = match tls.server_name(guest) {
        Ok(name) => name,
        Err(why) => return Err(Unopened::Refused(why, Box::new(session))),
    };
    let connector = TlsConnector::from(tls.now());
    let stream = match connector.connect(name, session).into_fallible().await {
        Ok(stream) => stream,
        Err((error, session)) => return Err(unencrypted(&error, session).await),
    };
    let mut stream = BufReader::new(stream);
    match stream.fill_buf().await {
        Ok([]) => Err(Unopened::Failed("the session ended".to_owned())),
        Ok(_) => Ok(stream),
        Err(error) => Err(unencrypted(&error, stream).await),
    }
}

/// What an error of TLS comes to. It has its own kind; any other is that of the session, which is over.
async fn unencrypted(
    error: &io::Error,
    mut kept: impl AsyncWrite + Unpin + Send + 'static,
) -> Unopened {
    // The alert that says why was written, but not flushed. If it can't be, the session is over.
    let _ = kept.flush().await;
    let why = harmless(&error.to_string());
    match error.kind() {
        io::ErrorKind::InvalidData => {
            let why = match error.get_ref().and_then(|error| error.downcast_ref()) {
                // What plain HTTP/2 is taken for.
                Some(rustls::Error::InvalidMessage(_)) => {
                    format!("its agent does not encrypt, or not with TLS 1.3 ({why})")
                }
                Some(rustls::Error::AlertReceived(_)) => {
                    format!("its agent does not take the bridge's certificate ({why})")
                }
                _ => format!("its agent's certificate is not taken ({why})"),
            };
            Unopened::Refused(why, Box::new(kept))
        }
        _ => Unopened::Failed(why),
    }
}

/// Every window is generous: the link bounds what is in flight.
pub(super) async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<(SendRequest<RequestBody>, JoinHandle<()>)> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESETS_KNOWN)
        .reset_stream_duration(RESET_KNOWN)
        .max_local_error_reset_streams(MAX_LATE_FRAMES)
        .handshake(TokioIo::new(stream))
        .await?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "HTTP/2 to a guest ended");
        }
    });
    Ok((sender, task))
}
