//! The bridge as a whole: its guests, its listeners, its start and its end.

use std::{fmt, future::Future, os::unix::fs::FileTypeExt as _, sync::Arc};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tracing::info;
use vbridge_api::host::v1::bridge_server::BridgeServer;

use crate::{
    address::ListenAddress,
    discovery::Source,
    error::BridgeError,
    front::{Front, Listener},
    guest::{Guest, GuestSpec},
    guests::{Guests, Refusal},
    json,
    limits::DRAIN,
    metrics::{Calls, Exporter},
    routing::BRIDGE_NAME,
    service::Service,
};

/// The longest name of a guest: that of a DNS name.
const MAX_NAME: usize = 253;

/// Describes a [`Bridge`].
#[derive(Debug, Default)]
pub struct BridgeBuilder {
    guests: Vec<GuestSpec>,
    sources: Vec<Source>,
    listen: Vec<ListenAddress>,
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

    /// Checks everything that can be checked without touching the network.
    ///
    /// # Errors
    /// No address, two guests of one name, a name that can't be used, a channel that is no socket.
    pub fn build(self) -> Result<Bridge, BridgeError> {
        if self.listen.is_empty() && self.guests.iter().all(|guest| guest.listen.is_none()) {
            return Err(BridgeError::NoAddress);
        }
        let guests = Guests::new();
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
    sources: Vec<Source>,
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
            sources: self.sources,
        };
        for address in &self.listen {
            let (listener, address) = Listener::bind(address).await?;
            bound.addresses.push(address);
            bound.listeners.push((listener, None));
        }
        for guest in &self.guests.all() {
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
    sources: Vec<Source>,
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
        self.guests.start();
        let mut discovery = JoinSet::new();
        for source in self.sources {
            discovery.spawn(source.follow(self.guests.clone()));
        }
        let calls = Calls::new();
        let exporter = Exporter::new(self.guests.clone(), calls.clone());
        let json = json::Api::new(self.guests.clone(), calls.clone());
        let graceful = Arc::new(GracefulShutdown::new());
        let mut listeners = JoinSet::new();
        for (listener, fixed) in self.listeners {
            let front = Front {
                guests: self.guests.clone(),
                routes: routes.clone(),
                calls: calls.clone(),
                exporter: exporter.clone(),
                json: json.clone(),
                fixed,
            };
            listeners.spawn(listener.run(front, Arc::clone(&graceful)));
        }
        info!(guests = self.guests.len(), "bridge up");
        shutdown.await;
        info!("bridge stops");
        self.guests.stop();
        discovery.shutdown().await;
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
        self.guests.leave().await;
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
