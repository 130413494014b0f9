//! The bridge as a whole: its guests, its listeners, its start and its end.

use std::{fmt, future::Future, os::unix::fs::FileTypeExt as _, path::PathBuf, sync::Arc, thread};

use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tracing::{info, warn};
use vbridge_api::host::v1::{bridge_server::BridgeServer, domains_server::DomainsServer};
use vbridge_link::Key;

use crate::{
    access::{Acceptor, Access, AccessSpec, TlsFiles},
    address::ListenAddress,
    audit::{Audit, Rotation},
    connections::Connections,
    discovery::Source,
    domains::Domains,
    error::BridgeError,
    front::Front,
    guest::{Guest, GuestSpec, LinkTls, LinkTlsFiles},
    guests::{Guests, LinkDefaults, Refusal},
    hypervisor::Hypervisors,
    json,
    limits::{AUDIT_END, DRAIN},
    listener::{Listener, Serving, Socket},
    metrics::{Calls, Exporter},
    routing::BRIDGE_NAME,
    service::Service,
};

/// The longest name of a guest: that of a DNS name.
pub(crate) const MAX_NAME: usize = 253;

/// Describes a [`Bridge`].
#[derive(Debug, Default)]
pub struct BridgeBuilder {
    guests: Vec<GuestSpec>,
    sources: Vec<Source>,
    listen: Vec<ListenAddress>,
    sockets: Vec<Socket>,
    access: AccessSpec,
    tls: Option<TlsFiles>,
    audit: Option<PathBuf>,
    link: LinkDefaults,
}

impl BridgeBuilder {
    /// Adds a guest. Its channel need not exist yet.
    #[must_use]
    pub fn guest(mut self, guest: GuestSpec) -> Self {
        self.guests.push(guest);
        self
    }

    /// Adds a place where guests are found, and come and go.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// Adds an address on which all guests are offered.
    #[must_use]
    pub fn listen(mut self, address: ListenAddress) -> Self {
        self.listen.push(address);
        self
    }

    /// Offers all guests on a socket that somebody else has opened; then the addresses of [`listen`](Self::listen) are not opened.
    #[must_use]
    pub fn socket(mut self, socket: Socket) -> Self {
        self.sockets.push(socket);
        self
    }

    /// Says who may call what. Without it everybody may call everything, and the bridge listens on this machine only.
    #[must_use]
    pub fn access(mut self, access: AccessSpec) -> Self {
        self.access = access;
        self
    }

    /// Encrypts all TCP connections.
    #[must_use]
    pub fn tls(mut self, tls: TlsFiles) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Takes only agents that prove this pre-shared key, from guests that have no key of their own.
    #[must_use]
    pub fn link_key(mut self, key: Key) -> Self {
        self.link.key = Some(key);
        self
    }

    /// Encrypts the links to all guests that have no TLS of their own.
    #[must_use]
    pub fn link_tls(mut self, tls: LinkTls) -> Self {
        self.link.tls = Some(tls);
        self
    }

    /// Writes every call to this file, a line of JSON for each.
    #[must_use]
    pub fn audit(mut self, path: impl Into<PathBuf>) -> Self {
        self.audit = Some(path.into());
        self
    }

    /// Checks everything that can be checked without touching the network.
    ///
    /// # Errors
    /// No address, two guests of one name, a name that can't be used, a channel that is no socket; an address that other
    /// machines reach without callers, rules and TLS; rules or certificates that can't be used.
    pub fn build(mut self) -> Result<Bridge, BridgeError> {
        let mut sockets = Vec::new();
        for socket in std::mem::take(&mut self.sockets) {
            let address = socket.address().map_err(BridgeError::Socket)?;
            self.check_exposed(&address)?;
            sockets.push((socket, address));
        }
        if !sockets.is_empty() {
            self.listen.clear();
        } else if self.listen.is_empty() && self.guests.iter().all(|guest| guest.listen.is_none()) {
            return Err(BridgeError::NoAddress);
        }
        let own = self.guests.iter().filter_map(|guest| guest.listen.as_ref());
        for address in self.listen.iter().chain(own) {
            self.check_exposed(address)?;
        }
        let access = Access::new(&self.access)?;
        let tls = self.tls.as_ref().map(Acceptor::new).transpose()?;
        let link_tls = self.link.tls.clone();
        let guests = Guests::with_link(self.link);
        for spec in self.guests {
            check_name(&spec.name)?;
            check_channel(&spec)?;
            let (name, channel) = (spec.name.clone(), spec.channel.clone());
            guests.add(spec).map_err(|refusal| match refusal {
                Refusal::Taken => BridgeError::DuplicateGuest(name),
                Refusal::SameChannel => BridgeError::DuplicateChannel(channel),
                Refusal::Full => BridgeError::TooManyGuests,
            })?;
        }
        Ok(Bridge {
            guests,
            sources: self.sources,
            listen: self.listen,
            sockets,
            access,
            tls,
            link_tls,
            audit: self.audit,
        })
    }

    /// What other machines reach asks who they are, and lets nobody listen.
    fn check_exposed(&self, address: &ListenAddress) -> Result<(), BridgeError> {
        match address {
            ListenAddress::Tcp(socket) if !socket.ip().to_canonical().is_loopback() => {
                if self.access.is_open() {
                    return Err(BridgeError::Exposed(address.clone()));
                }
                if self.tls.is_none() {
                    return Err(BridgeError::Plain(address.clone()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Checks that a text can be a guest's name.
///
/// # Errors
/// It can't; the error says why.
pub fn check_name(name: &str) -> Result<(), BridgeError> {
    let bad = |why| Err(BridgeError::BadName(name.escape_debug().to_string(), why));
    if name.is_empty() || name.len() > MAX_NAME {
        return bad("it must have 1 to 253 characters");
    }
    if name.eq_ignore_ascii_case(BRIDGE_NAME) {
        return bad("that name is the bridge's own");
    }
    if name.starts_with(['-', '.']) {
        return bad("it must not begin with a dash or a dot");
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
    if !name.chars().all(is_allowed) {
        return bad("only letters, digits, dots, dashes, underscores and @ are allowed");
    }
    Ok(())
}

fn check_channel(spec: &GuestSpec) -> Result<(), BridgeError> {
    let Ok(metadata) = std::fs::metadata(&spec.channel) else {
        // It may come later, or be readable later.
        return Ok(());
    };
    let kind = metadata.file_type();
    let what = if kind.is_socket() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a device or pipe"
    };
    Err(BridgeError::NotASocket {
        guest: spec.name.clone(),
        path: spec.channel.clone(),
        what,
    })
}

/// Offers the gRPC services of guests on local addresses.
///
/// ```no_run
/// # async fn example() -> Result<(), bridge_host::BridgeError> {
/// use bridge_host::{Bridge, GuestSpec};
///
/// let bridge = Bridge::builder()
///     .guest(GuestSpec::new("web", "/run/vms/web.sock"))
///     .listen(bridge_host::ListenAddress::Tcp(([127, 0, 0, 1], 7411).into()))
///     .build()?;
/// let bound = bridge.bind().await?;
/// println!("listening on {}", bound.addresses()[0]);
/// bound.serve(std::future::pending()).await;
/// # Ok(())
/// # }
/// ```
pub struct Bridge {
    guests: Guests,
    sources: Vec<Source>,
    listen: Vec<ListenAddress>,
    sockets: Vec<(Socket, ListenAddress)>,
    access: Access,
    tls: Option<Acceptor>,
    link_tls: Option<LinkTls>,
    audit: Option<PathBuf>,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl Bridge {
    /// Describes a bridge.
    pub fn builder() -> BridgeBuilder {
        BridgeBuilder::default()
    }

    /// Opens every address.
    ///
    /// # Errors
    /// One of them, or the audit log, can't be opened.
    pub async fn bind(self) -> Result<BoundBridge, BridgeError> {
        let is_open = self.access.now().is_open();
        let audit = self.audit.as_deref().map(Audit::open).transpose()?;
        let (audit, audit_thread) = audit.unzip();
        let mut bound = BoundBridge {
            addresses: Vec::new(),
            guest_addresses: Vec::new(),
            listeners: Vec::new(),
            guests: self.guests.clone(),
            sources: self.sources,
            control: Control {
                access: self.access,
                tls: self.tls,
                link_tls: self.link_tls,
                rotation: audit.as_ref().map(Audit::rotation),
            },
            audit,
            audit_thread,
        };
        for (socket, address) in self.sockets {
            let listener = Listener::take(socket).map_err(BridgeError::Socket)?;
            bound.addresses.push(address);
            bound.listeners.push((listener, None));
        }
        for address in &self.listen {
            let (listener, address) = Listener::bind(address, is_open).await?;
            bound.addresses.push(address);
            bound.listeners.push((listener, None));
        }
        for guest in &self.guests.all() {
            if let Some(address) = &guest.spec.listen {
                let (listener, address) = Listener::bind(address, is_open).await?;
                bound
                    .guest_addresses
                    .push((guest.name().to_owned(), address));
                bound.listeners.push((listener, Some(Arc::clone(guest))));
            }
        }
        Ok(bound)
    }
}

/// A bridge with its addresses open.
pub struct BoundBridge {
    guests: Guests,
    sources: Vec<Source>,
    addresses: Vec<ListenAddress>,
    guest_addresses: Vec<(String, ListenAddress)>,
    listeners: Vec<(Listener, Option<Arc<Guest>>)>,
    control: Control,
    audit: Option<Audit>,
    audit_thread: Option<thread::JoinHandle<usize>>,
}

/// What can be changed while a bridge serves.
#[derive(Debug, Clone)]
pub struct Control {
    access: Access,
    tls: Option<Acceptor>,
    link_tls: Option<LinkTls>,
    rotation: Option<Rotation>,
}

impl Control {
    /// Has these callers, rules and certificates from now on, for calls and connections that come; opens the audit log anew.
    /// What is there goes on as it is. If something is wrong, nothing changes.
    ///
    /// # Errors
    /// Rules or certificates can't be used, or they would come or go altogether, which needs a restart: what is listened on
    /// depends on it.
    pub fn reload(&self, access: &AccessSpec, tls: Option<&TlsFiles>) -> Result<(), BridgeError> {
        if access.is_open() != self.access.now().is_open() {
            return Err(BridgeError::NeedsRestart("callers and rules"));
        }
        match (&self.tls, tls) {
            (Some(acceptor), Some(files)) => {
                // Checked first: after it, the certificates are changed.
                Access::new(access)?;
                acceptor.reload(files)?;
            }
            (None, None) => {}
            _ => return Err(BridgeError::NeedsRestart("TLS")),
        }
        self.access.replace(access)?;
        if let Some(rotation) = &self.rotation {
            rotation.reopen();
        }
        Ok(())
    }
}

impl Control {
    /// Reads the certificates of the links again, for sessions that come. If something is wrong with them, nothing changes.
    ///
    /// # Errors
    /// They can't be used, or TLS would come or go altogether, which needs a restart.
    pub fn reload_link(&self, files: Option<&LinkTlsFiles>) -> Result<(), BridgeError> {
        match (&self.link_tls, files) {
            (Some(tls), Some(files)) => Ok(tls.reload(files)?),
            (None, None) => Ok(()),
            _ => Err(BridgeError::NeedsRestart("TLS on the links")),
        }
    }
}

impl fmt::Debug for BoundBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundBridge")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl BoundBridge {
    /// Where all guests are offered, with real ports.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Where single guests are offered: name and address.
    pub fn guest_addresses(&self) -> &[(String, ListenAddress)] {
        &self.guest_addresses
    }

    /// What can be changed while it serves.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves until `shutdown` is done; then calls under way have a few seconds to end.
    ///
    /// # Errors
    /// The bridge's own services can't be set up.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
        let mut hypervisors = Hypervisors::new();
        let sources = self.sources.into_iter();
        let sources: Vec<_> = sources
            .map(|source| source.follow(self.guests.clone(), &mut hypervisors))
            .collect();
        let routes = own_services(self.guests.clone(), hypervisors).await?;
        self.guests.start();
        let mut discovery: JoinSet<()> = sources.into_iter().collect();
        let calls = Calls::new();
        let exporter = Exporter::new(self.guests.clone(), calls.clone());
        let json = json::Api::new(self.guests.clone());
        let drain = CancellationToken::new();
        // Whoever drops this future has no more use for the connections either.
        let cut = CancellationToken::new();
        let cutting = cut.clone().drop_guard();
        let tasks = TaskTracker::new();
        let mut listeners = JoinSet::new();
        for (listener, fixed) in self.listeners {
            let front = Front {
                guests: self.guests.clone(),
                routes: routes.clone(),
                calls: calls.clone(),
                exporter: exporter.clone(),
                access: self.control.access.clone(),
                audit: self.audit.clone(),
                json: json.clone(),
                fixed,
            };
            listeners.spawn(listener.run(Serving {
                front,
                connections: Connections::default(),
                tls: self.control.tls.clone(),
                drain: drain.clone(),
                cut: cut.clone(),
                tasks: tasks.clone(),
            }));
        }
        info!(guests = self.guests.len(), "bridge up");
        shutdown.await;
        info!("bridge stops");
        self.guests.stop();
        discovery.shutdown().await;
        // No more clients; those that are there may finish.
        listeners.shutdown().await;
        drain.cancel();
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            info!("calls were still under way and are cut off");
        }
        drop(cutting);
        self.guests.leave().await;
        // They end as soon as they run.
        tasks.wait().await;
        drop(self.audit);
        if let Some(thread) = self.audit_thread {
            await_end(thread).await;
        }
        Ok(())
    }
}

/// Waits until the audit log's last lines are written.
async fn await_end(thread: thread::JoinHandle<usize>) {
    let ended = tokio::task::spawn_blocking(|| thread.join());
    let lost = match tokio::time::timeout(AUDIT_END, ended).await {
        Ok(Ok(Ok(0))) => return,
        Ok(Ok(Ok(lost))) => format!("{lost} lines"),
        _ => "the last lines".to_owned(),
    };
    warn!("the audit log ends without {lost}, which could not be written");
}

async fn own_services(guests: Guests, hypervisors: Hypervisors) -> Result<Routes, BridgeError> {
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<BridgeServer<Service>>().await;
    health.set_serving::<DomainsServer<Domains>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(vbridge_api::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("vbridge.host.v1.Bridge")
            .with_service_name("vbridge.host.v1.Domains")
            .with_service_name("grpc.health.v1.Health")
    };
    let failed = |error: tonic_reflection::server::Error| BridgeError::Services(error.to_string());
    let domains = Domains {
        guests: guests.clone(),
        hypervisors,
    };
    Ok(Routes::new(BridgeServer::new(Service { guests }))
        .add_service(DomainsServer::new(domains))
        .add_service(health_server)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?))
}
