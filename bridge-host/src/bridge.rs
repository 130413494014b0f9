//! The bridge as a whole: its guests, its listeners, its start and its end.

use std::{collections::BTreeMap, fmt, future::Future, os::unix::fs::FileTypeExt as _, sync::Arc};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};
use tonic::service::Routes;
use tracing::info;
use vbridge_api::host::v1::bridge_server::BridgeServer;

use crate::{
    address::ListenAddress,
    error::BridgeError,
    front::{Front, Listener},
    guest::{Guest, GuestSpec},
    limits::{DRAIN, WATCH_BACKLOG},
    routing::{BRIDGE_NAME, Names},
    service::Service,
};

/// The longest name of a guest: that of a DNS name.
const MAX_NAME: usize = 253;

/// The guests of a bridge by name.
#[derive(Clone)]
pub(crate) struct Guests {
    by_name: Arc<BTreeMap<String, Arc<Guest>>>,
    machine: Arc<str>,
    changes: broadcast::Sender<String>,
    /// Whether the bridge is about to end.
    stopping: watch::Sender<bool>,
}

impl Guests {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Guest>> {
        self.by_name.values()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Guest>> {
        self.by_name.get(name)
    }

    /// Done when the bridge is about to end.
    pub(crate) async fn stopping(&self) {
        // The sender is a part of this.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }

    /// The names of guests whose state changes.
    pub(crate) fn changes(&self) -> broadcast::Receiver<String> {
        self.changes.subscribe()
    }
}

impl Names for Guests {
    type Guest = Arc<Guest>;

    fn find(&self, name: &str) -> Option<Arc<Guest>> {
        let exact = self.by_name.get(name);
        exact
            .or_else(|| {
                self.iter()
                    .find(|guest| guest.name().eq_ignore_ascii_case(name))
            })
            .cloned()
    }

    fn only(&self) -> Option<Arc<Guest>> {
        match self.by_name.len() {
            1 => self.iter().next().cloned(),
            _ => None,
        }
    }

    fn all(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }

    fn machine(&self) -> &str {
        &self.machine
    }
}

/// Describes a [`Bridge`].
#[derive(Debug, Default)]
pub struct BridgeBuilder {
    guests: Vec<GuestSpec>,
    listen: Vec<ListenAddress>,
}

impl BridgeBuilder {
    /// Adds a guest. Its channel need not exist yet.
    #[must_use]
    pub fn guest(mut self, guest: GuestSpec) -> Self {
        self.guests.push(guest);
        self
    }

    /// Adds an address on which all guests are offered.
    #[must_use]
    pub fn listen(mut self, address: ListenAddress) -> Self {
        self.listen.push(address);
        self
    }

    /// Checks everything that can be checked without touching the network.
    ///
    /// # Errors
    /// No address, two guests of one name, a name that can't be used, a channel that is no socket.
    pub fn build(self) -> Result<Bridge, BridgeError> {
        if self.listen.is_empty() && self.guests.iter().all(|guest| guest.listen.is_none()) {
            return Err(BridgeError::NoAddress);
        }
        let (changes, _) = broadcast::channel(WATCH_BACKLOG);
        let mut by_name = BTreeMap::new();
        for spec in self.guests {
            check_name(&spec.name)?;
            check_channel(&spec)?;
            let clash = by_name
                .keys()
                .any(|name: &String| name.eq_ignore_ascii_case(&spec.name));
            if clash {
                return Err(BridgeError::DuplicateGuest(spec.name));
            }
            by_name.insert(spec.name.clone(), Guest::new(spec, changes.clone()));
        }
        let machine = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let guests = Guests {
            by_name: Arc::new(by_name),
            machine: machine.into(),
            changes,
            stopping: watch::Sender::new(false),
        };
        Ok(Bridge {
            guests,
            listen: self.listen,
        })
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
    listen: Vec<ListenAddress>,
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
    /// One of them can't be opened.
    pub async fn bind(self) -> Result<BoundBridge, BridgeError> {
        let mut bound = BoundBridge {
            addresses: Vec::new(),
            guest_addresses: Vec::new(),
            listeners: Vec::new(),
            guests: self.guests.clone(),
        };
        for address in &self.listen {
            let (listener, address) = Listener::bind(address).await?;
            bound.addresses.push(address);
            bound.listeners.push((listener, None));
        }
        for guest in self.guests.iter() {
            if let Some(address) = &guest.spec.listen {
                let (listener, address) = Listener::bind(address).await?;
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
    addresses: Vec<ListenAddress>,
    guest_addresses: Vec<(String, ListenAddress)>,
    listeners: Vec<(Listener, Option<Arc<Guest>>)>,
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

    /// Serves until `shutdown` is done; then calls under way have a few seconds to end.
    ///
    /// # Errors
    /// The bridge's own services can't be set up.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
        let routes = own_services(self.guests.clone()).await?;
        let mut tasks = JoinSet::new();
        let leave = watch::Sender::new(false);
        for guest in self.guests.iter() {
            tasks.spawn(Arc::clone(guest).look_after(leave.subscribe()));
        }
        let graceful = Arc::new(GracefulShutdown::new());
        let mut listeners = JoinSet::new();
        for (listener, fixed) in self.listeners {
            let front = Front {
                guests: self.guests.clone(),
                routes: routes.clone(),
                fixed,
            };
            listeners.spawn(listener.run(front, Arc::clone(&graceful)));
        }
        info!(guests = self.guests.iter().count(), "bridge up");
        shutdown.await;
        info!("bridge stops");
        self.guests.stopping.send_replace(true);
        // No more clients; those that are there may finish.
        listeners.shutdown().await;
        // The listeners held the only other references.
        if let Some(graceful) = Arc::into_inner(graceful)
            && tokio::time::timeout(DRAIN, graceful.shutdown())
                .await
                .is_err()
        {
            info!("calls were still under way and are cut off");
        }
        leave.send_replace(true);
        // Each of them is bounded.
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

async fn own_services(guests: Guests) -> Result<Routes, BridgeError> {
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<BridgeServer<Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(vbridge_api::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("vbridge.host.v1.Bridge")
            .with_service_name("grpc.health.v1.Health")
    };
    let failed = |error: tonic_reflection::server::Error| BridgeError::Services(error.to_string());
    Ok(Routes::new(BridgeServer::new(Service { guests }))
        .add_service(health_server)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?))
}
