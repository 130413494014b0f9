//! The agent as a whole: what it serves, and where.

use std::{fmt, future::Future, path::PathBuf, sync::Arc};

use tonic_health::pb::health_server::{self, HealthServer};
use vbridge_api::guest::v1::{
    accounts_server::{self, AccountsServer},
    events_server::{self, EventsServer},
    exec_server::{self, ExecServer},
    files_server::{self, FilesServer},
    hardware_server::{self, HardwareServer},
    metrics_server::{self, MetricsServer},
    network_server::{self, NetworkServer},
    power_server::{self, PowerServer},
    services_server::{self, ServicesServer},
    storage_server::{self, StorageServer},
    system_server::{self, SystemServer},
    time_server::{self, TimeServer},
    tunnel_server::{self, TunnelServer},
};
use vbridge_link::Key;

use crate::{
    discovery::{DescriptorError, Descriptors, reflection_names},
    events::{Bus, Hub},
    exec::Registry,
    gate::Gate,
    limits::{
        MAX_ACCOUNTS_REQUEST, MAX_EXEC_REQUEST, MAX_FILES_REQUEST, MAX_HARDWARE_REQUEST,
        MAX_SERVICES_REQUEST, MAX_SMALL_REQUEST, MAX_STORAGE_REQUEST, MAX_SYSTEM_REQUEST,
        MAX_TUNNEL_REQUEST,
    },
    policy::Policy,
    port::{FindError, Finder, ListenError, Rebind},
    router::{self, GrpcService},
    serve::{Place, Serving},
    services::{
        accounts::{self, Accounts},
        events::Events,
        exec::Exec,
        files::Files,
        filesystems::Filesystems,
        hardware::Hardware,
        health::Health,
        metrics::Metrics,
        network::Network,
        power::{self, Power},
        sampler::Sampler,
        snapshot::Proc,
        storage::{Freezer, Records, Storage},
        system::System,
        time::{self, Time},
        tunnel::Tunnel,
        units::Units,
    },
    sessions::Sessions,
    source::{
        self, Reader,
        filesystem::{self, Kernel},
    },
    standstill::Standstill,
    systemd::{Systemd, SystemdPlaces},
    tunnel::{TunnelLimits, Tunnels},
    upstream::{Upstream, Upstreams},
};

/// The name of the channel that the agent serves on unless told otherwise.
pub const DEFAULT_CHANNEL: &str = "org.vbridge.agent.0";

/// What the agent calls itself.
pub(crate) const NAME: &str = "vbridge-agent";

/// Its version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A guest agent, ready to run.
pub struct Agent {
    place: Place,
    key: Option<Key>,
    rebind: Rebind,
    router: router::Router,
    sampler: Sampler,
    systemd: Systemd,
    tunnels: Tunnels,
    freezer: Freezer,
    health: Arc<Health>,
    processes: Registry,
    events: Hub,
}

/// Puts an [`Agent`] together.
pub struct AgentBuilder {
    channel: String,
    port: Option<PathBuf>,
    wait: Option<bool>,
    listen: Option<PathBuf>,
    key: Option<Key>,
    rebind: Rebind,
    policy: Policy,
    systemd: SystemdPlaces,
    tunnel_limits: TunnelLimits,
    standstill: Standstill,
    services: router::Builder,
    upstreams: Vec<Upstream>,
    names: Vec<&'static str>,
    descriptor_sets: Vec<Vec<u8>>,
}

/// Why an agent can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A service's name is taken.
    #[error("the service {0} was added twice, or is one of the agent's own")]
    Duplicate(&'static str),
    /// An upstream that can't be, beside the others or beside the agent's own services.
    #[error("{0}")]
    Upstream(String),
    /// A descriptor set can't be used.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Two places to serve on.
    #[error("a port's path and a socket to listen on exclude each other: choose one")]
    TwoPlaces,
    /// A name that can't be a channel's.
    #[error("a channel's name must not be empty or contain a slash, and this is {0:?}")]
    Channel(String),
}

/// Why a running agent gave up.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no port.
    #[error(transparent)]
    Port(#[from] FindError),
    /// The socket can't be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl Agent {
    /// Starts with an agent that serves its own services on the default channel.
    pub fn builder() -> AgentBuilder {
        AgentBuilder {
            channel: DEFAULT_CHANNEL.to_owned(),
            port: None,
            wait: None,
            listen: None,
            key: None,
            rebind: Rebind::default(),
            policy: Policy::default(),
            systemd: SystemdPlaces::default(),
            tunnel_limits: TunnelLimits::default(),
            standstill: Standstill::default(),
            services: router::Builder::default(),
            upstreams: Vec::new(),
            names: Vec::new(),
            descriptor_sets: Vec::new(),
        }
    }

    /// Serves until `shutdown` completes, then ends calls and session in order, within a few seconds.
    ///
    /// Must run within a tokio runtime with I/O and time enabled; a single-threaded one serves best. Processes that the
    /// agent has started for its callers are killed at the end, unless they were to go on. The program must not ignore
    /// SIGCHLD, nor wait for children that are not its own.
    ///
    /// # Errors
    /// There is no port and it is not to be waited for, or the socket can't be listened on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let serving = Serving {
            place: self.place,
            key: self.key,
            rebind: self.rebind,
            sessions: Sessions::new(self.router),
            sampler: self.sampler,
            systemd: self.systemd,
            tunnels: self.tunnels,
            freezer: self.freezer,
            health: self.health,
            processes: self.processes.clone(),
            events: self.events,
        };
        let result = serving.run(shutdown).await;
        // A port that had gone must not save them.
        self.processes.stop().await;
        result
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("place", &self.place)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl AgentBuilder {
    /// The name of the virtio-serial channel. Default: [`DEFAULT_CHANNEL`].
    #[must_use]
    pub fn channel_name(mut self, name: impl Into<String>) -> Self {
        self.channel = name.into();
        self
    }

    /// The port's device, instead of the one that the channel's name leads to. Default: none.
    #[must_use]
    pub fn port_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.port = Some(path.into());
        self
    }

    /// Whether to wait for a port that is not there, may not be opened, or is busy. Default: yes for a channel's name, no
    /// for a path. A path that leads to something else, such as a directory, is always an error, and a port that
    /// was open once is always waited for.
    #[must_use]
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Listens on a Unix socket, as QEMU would, instead of opening a port: for machines without a VM. Default: none.
    #[must_use]
    pub fn listen(mut self, path: impl Into<PathBuf>) -> Self {
        self.listen = Some(path.into());
        self
    }

    /// Serves only hosts that prove this pre-shared key. Default: none, anyone who can open the channel's socket on the
    /// host is served.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// When a port that is stuck for good may be freed by rebinding its driver. Default: if its device has no other port.
    #[must_use]
    pub fn rebind(mut self, rebind: Rebind) -> Self {
        self.rebind = rebind;
        self
    }

    /// What callers may do. Default: everything. The policy's clones replace its rules while the agent runs.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Where the guest's systemd is. Default: where every system has it.
    #[must_use]
    pub fn systemd(mut self, places: SystemdPlaces) -> Self {
        self.systemd = places;
        self
    }

    /// How many connections into the guest and out of it there may be, and how long they may take. Default: those of
    /// [`limits`](crate::limits).
    #[must_use]
    pub fn tunnel_limits(mut self, limits: TunnelLimits) -> Self {
        self.tunnel_limits = limits;
        self
    }

    /// Where the agent tells that file systems are frozen, for a log or a service that writes to them. Default: nobody is
    /// told.
    #[must_use]
    pub fn standstill(mut self, standstill: Standstill) -> Self {
        self.standstill = standstill;
        self
    }

    /// Serves another gRPC service beside the agent's own. Default: none.
    ///
    /// While file systems are frozen it is called nevertheless, since the agent can't know what it writes to: it can ask
    /// [`standstill`](Self::standstill). Its own limits apply: tonic decodes messages up to 4 MiB unless `max_decoding_message_size` says otherwise, and
    /// [`limits::MAX_MESSAGE`](crate::limits::MAX_MESSAGE) is what the bridge is tested with.
    #[must_use]
    pub fn add_service<S: GrpcService>(mut self, service: S) -> Self {
        self.names.push(S::NAME);
        self.services.add(service);
        self
    }

    /// Passes calls of services that nobody here serves on to a gRPC server in the guest. Default: none.
    ///
    /// They are subject to the policy as all others, and are not held back while file systems are frozen.
    #[must_use]
    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.upstreams.push(upstream);
        self
    }

    /// Describes added services: an encoded `FileDescriptorSet`, for reflection and for the list of methods in
    /// `System.GetInfo`. Default: none; an added service that is not described is listed by name.
    #[must_use]
    pub fn descriptor_set(mut self, set: impl Into<Vec<u8>>) -> Self {
        self.descriptor_sets.push(set.into());
        self
    }

    /// Puts the agent together.
    ///
    /// # Errors
    /// A name is served twice, an upstream has one that is, a descriptor set is none, or two places to serve on are set.
    pub fn build(mut self) -> Result<Agent, BuildError> {
        let mut descriptors = Descriptors::built_in()?;
        for set in &self.descriptor_sets {
            descriptors.add(set)?;
        }
        let place = self.place()?;
        let sampler = Sampler::new(Proc::new(Reader::new()));
        let bus = Bus::new();
        let processes = Registry::new(bus.clone());
        let mut names = vec![
            events_server::SERVICE_NAME,
            exec_server::SERVICE_NAME,
            files_server::SERVICE_NAME,
            accounts_server::SERVICE_NAME,
            hardware_server::SERVICE_NAME,
            metrics_server::SERVICE_NAME,
            network_server::SERVICE_NAME,
            power_server::SERVICE_NAME,
            services_server::SERVICE_NAME,
            storage_server::SERVICE_NAME,
            system_server::SERVICE_NAME,
            time_server::SERVICE_NAME,
            tunnel_server::SERVICE_NAME,
            health_server::SERVICE_NAME,
        ];
        names.extend(reflection_names());
        for name in self.names {
            if names.contains(&name) {
                return Err(BuildError::Duplicate(name));
            }
            names.push(name);
        }
        names.sort_unstable();
        let upstreams = Upstreams::new(self.upstreams, &names).map_err(BuildError::Upstream)?;
        let health = Health::new(names.iter().copied(), upstreams.clone());
        let methods = descriptors.methods(names);
        let filesystems = Arc::new(Filesystems::new());
        let systemd = Systemd::new(self.systemd);
        let system = SystemServer::new(System::new(
            sampler.clone(),
            Arc::clone(&filesystems),
            methods.into(),
            self.policy.clone(),
            upstreams.clone(),
            systemd.clone(),
        ));
        let metrics = MetricsServer::new(Metrics::new(sampler.clone()));
        self.services.add_limited(
            system.max_decoding_message_size(MAX_SYSTEM_REQUEST),
            MAX_SYSTEM_REQUEST,
        );
        self.services.add_limited(
            metrics.max_decoding_message_size(MAX_SMALL_REQUEST),
            MAX_SMALL_REQUEST,
        );
        let events = Hub::new(bus.clone(), self.policy.clone());
        let server = EventsServer::new(Events::new(events.clone()));
        self.services.add_limited(
            server.max_decoding_message_size(MAX_SMALL_REQUEST),
            MAX_SMALL_REQUEST,
        );
        let exec = ExecServer::new(Exec::new(processes.clone(), self.policy.clone()));
        self.services.add_limited(
            exec.max_decoding_message_size(MAX_EXEC_REQUEST),
            MAX_EXEC_REQUEST,
        );
        let files = FilesServer::new(Files::new(self.policy.clone()));
        self.services.add_limited(
            files.max_decoding_message_size(MAX_FILES_REQUEST),
            MAX_FILES_REQUEST,
        );
        let accounts = AccountsServer::new(Accounts::new("/", accounts::System));
        self.services.add_limited(
            accounts.max_decoding_message_size(MAX_ACCOUNTS_REQUEST),
            MAX_ACCOUNTS_REQUEST,
        );
        let hardware = HardwareServer::new(Hardware::new(source::hardware::Hardware::new()));
        self.services.add_limited(
            hardware.max_decoding_message_size(MAX_HARDWARE_REQUEST),
            MAX_HARDWARE_REQUEST,
        );
        let network = NetworkServer::new(Network);
        self.services.add_limited(
            network.max_decoding_message_size(MAX_SMALL_REQUEST),
            MAX_SMALL_REQUEST,
        );
        let power = PowerServer::new(Power::new(power::System::new(), bus.clone()));
        self.services.add_limited(
            power.max_decoding_message_size(MAX_SMALL_REQUEST),
            MAX_SMALL_REQUEST,
        );
        let services = ServicesServer::new(Units::new(systemd.clone()));
        self.services.add_limited(
            services.max_decoding_message_size(MAX_SERVICES_REQUEST),
            MAX_SERVICES_REQUEST,
        );
        let kernel: Arc<dyn Kernel> = Arc::new(filesystem::System);
        let standstill = self.standstill.clone();
        let freezer = Freezer::new(Arc::clone(&kernel), standstill, bus, Records::new());
        freezer.recover();
        let storage = StorageServer::new(Storage::new(filesystems, kernel, freezer.clone()));
        self.services.add_limited(
            storage.max_decoding_message_size(MAX_STORAGE_REQUEST),
            MAX_STORAGE_REQUEST,
        );
        let time = TimeServer::new(Time::new(time::System));
        self.services.add_limited(
            time.max_decoding_message_size(MAX_SMALL_REQUEST),
            MAX_SMALL_REQUEST,
        );
        let tunnels = Tunnels::new(self.tunnel_limits);
        let tunnel = TunnelServer::new(Tunnel::new(tunnels.clone(), self.policy.clone()));
        self.services.add_limited(
            tunnel.max_decoding_message_size(MAX_TUNNEL_REQUEST),
            MAX_TUNNEL_REQUEST,
        );
        let health_server = HealthServer::from_arc(Arc::clone(&health));
        self.services.add_limited(
            health_server.max_decoding_message_size(MAX_SMALL_REQUEST),
            MAX_SMALL_REQUEST,
        );
        descriptors.serve(&mut self.services, &upstreams)?;
        Ok(Agent {
            place,
            key: self.key,
            rebind: self.rebind,
            router: self
                .services
                .build(upstreams, Gate::new(self.policy, self.standstill)),
            sampler,
            systemd,
            tunnels,
            freezer,
            health,
            processes,
            events,
        })
    }

    fn place(&self) -> Result<Place, BuildError> {
        if self.channel.is_empty() || self.channel.contains('/') {
            return Err(BuildError::Channel(self.channel.clone()));
        }
        match (&self.port, &self.listen) {
            (Some(_), Some(_)) => Err(BuildError::TwoPlaces),
            (None, Some(path)) => Ok(Place::Socket(path.clone())),
            (port, None) => {
                let mut finder = Finder::new(&self.channel);
                if let Some(path) = port {
                    finder = finder.path(path);
                }
                if let Some(wait) = self.wait {
                    finder = finder.wait(wait);
                }
                Ok(Place::Device(finder))
            }
        }
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder")
            .field("channel", &self.channel)
            .field("port", &self.port)
            .field("listen", &self.listen)
            .field("services", &self.names)
            .finish_non_exhaustive()
    }
}
