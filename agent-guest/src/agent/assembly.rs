//! The agent's own services, and what they share.

use std::sync::Arc;

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

use crate::{
    discovery::reflection_names,
    events::{Bus, Hub},
    exec::Registry,
    limits::{
        MAX_ACCOUNTS_REQUEST, MAX_EXEC_REQUEST, MAX_FILES_REQUEST, MAX_HARDWARE_REQUEST,
        MAX_SERVICES_REQUEST, MAX_SMALL_REQUEST, MAX_STORAGE_REQUEST, MAX_SYSTEM_REQUEST,
        MAX_TUNNEL_REQUEST,
    },
    policy::Policy,
    router,
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
    source::{
        self, Reader,
        filesystem::{self, Kernel},
    },
    standstill::Standstill,
    systemd::{Systemd, SystemdPlaces},
    tunnel::{TunnelLimits, Tunnels},
    upstream::Upstreams,
};

/// What several services share, or the agent itself ends at last.
pub(super) struct Shared {
    policy: Policy,
    bus: Bus,
    kernel: Arc<dyn Kernel>,
    pub(super) sampler: Sampler,
    pub(super) systemd: Systemd,
    pub(super) tunnels: Tunnels,
    pub(super) freezer: Freezer,
    pub(super) processes: Registry,
    pub(super) events: Hub,
}

/// What the builder says of the agent's own services.
pub(super) struct Own {
    /// The methods of all that is served.
    pub(super) methods: Vec<String>,
    /// Bytes of the largest request, where a service takes more.
    pub(super) most: usize,
}

/// Adds servers that take requests of so many bytes at most.
macro_rules! serve {
    ($services:ident, $bound:expr, $($server:expr => $most:ident,)*) => {$(
        let most = $most.min($bound);
        $services.add_limited($server.max_decoding_message_size(most), most);
    )*};
}

impl Shared {
    pub(super) fn new(
        policy: Policy,
        systemd: SystemdPlaces,
        tunnel_limits: TunnelLimits,
        standstill: Standstill,
    ) -> Self {
        let bus = Bus::new();
        let kernel: Arc<dyn Kernel> = Arc::new(filesystem::System);
        let frozen = Records::new();
        let freezer = Freezer::new(Arc::clone(&kernel), standstill, bus.clone(), frozen);
        freezer.recover();
        Self {
            sampler: Sampler::new(Proc::new(Reader::new())),
            systemd: Systemd::new(systemd),
            tunnels: Tunnels::new(tunnel_limits),
            freezer,
            processes: Registry::new(bus.clone()),
            events: Hub::new(bus.clone(), policy.clone()),
            kernel,
            bus,
            policy,
        }
    }

    /// Adds the agent's own services, but for reflection.
    pub(super) fn serve(
        &self,
        services: &mut router::Builder,
        own: Own,
        upstreams: &Upstreams,
        health: &Arc<Health>,
    ) {
        let filesystems = Arc::new(Filesystems::new());
        let system = System::new(
            self.sampler.clone(),
            Arc::clone(&filesystems),
            own.methods.into(),
            self.policy.clone(),
            upstreams.clone(),
            self.systemd.clone(),
        );
        let kernel = Arc::clone(&self.kernel);
        let storage = Storage::new(filesystems, kernel, self.freezer.clone());
        let hardware = Hardware::new(source::hardware::Hardware::new());
        let power = Power::new(power::System::new(), self.bus.clone());
        let exec = Exec::new(self.processes.clone(), self.policy.clone());
        let tunnel = Tunnel::new(self.tunnels.clone(), self.policy.clone());
        serve! {
            services, own.most,
            SystemServer::new(system) => MAX_SYSTEM_REQUEST,
            MetricsServer::new(Metrics::new(self.sampler.clone())) => MAX_SMALL_REQUEST,
            EventsServer::new(Events::new(self.events.clone())) => MAX_SMALL_REQUEST,
            ExecServer::new(exec) => MAX_EXEC_REQUEST,
            FilesServer::new(Files::new(self.policy.clone())) => MAX_FILES_REQUEST,
            AccountsServer::new(Accounts::new("/", accounts::System)) => MAX_ACCOUNTS_REQUEST,
            HardwareServer::new(hardware) => MAX_HARDWARE_REQUEST,
            NetworkServer::new(Network) => MAX_SMALL_REQUEST,
            PowerServer::new(power) => MAX_SMALL_REQUEST,
            ServicesServer::new(Units::new(self.systemd.clone())) => MAX_SERVICES_REQUEST,
            StorageServer::new(storage) => MAX_STORAGE_REQUEST,
            TimeServer::new(Time::new(time::System)) => MAX_SMALL_REQUEST,
            TunnelServer::new(tunnel) => MAX_TUNNEL_REQUEST,
            HealthServer::from_arc(Arc::clone(health)) => MAX_SMALL_REQUEST,
        }
    }
}

/// The names of the agent's own services.
pub(super) fn own_services() -> Vec<&'static str> {
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
    names
}
