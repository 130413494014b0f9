//! What happens to networks, storage pools, devices and secrets, in QEMU's monitor, and to the hypervisor itself.

use std::time::Duration;

use super::family::{family, supported};
use super::{About, Events, Topic};
use crate::code::Code;
use crate::connect::Connect;
use crate::domain::Domain;
use crate::error::Error;
use crate::network::Network;
use crate::node_device::NodeDevice;
use crate::raw::api::{
    ConnectCloseReason, NetworkEventLifecycleType, NetworkMetadataType,
    NodeDeviceEventLifecycleType, SecretEventLifecycleType, StoragePoolEventLifecycleType,
};
use crate::raw::{decode, encode, qemu, remote};
use crate::rpc::Message;
use crate::secret::Secret;
use crate::storage::StoragePool;

family!(
    "network", NetworkEvent { object: Network }, NetworkEventKind, NetworkEventId("virNetworkEventID"),
    network_events, supported_network_events,
    CONNECT_NETWORK_EVENT_REGISTER_ANY(ConnectNetworkEventRegisterAnyArgs { net: by uuid }),
    CONNECT_NETWORK_EVENT_DEREGISTER_ANY;
    |event|
    /// It was defined, undefined, started or stopped.
    Lifecycle = 0, NETWORK_EVENT_LIFECYCLE(NetworkEventLifecycleMsg: net) {
        /// What happened.
        event: Code<NetworkEventLifecycleType> = Code::new(event.event),
        /// More about it; libvirt gives it no meaning so far, and says 0.
        detail: i32 = event.detail,
    };
    /// Title, description or metadata were changed. Since libvirt 9.8.
    MetadataChange = 1, NETWORK_EVENT_CALLBACK_METADATA_CHANGE(NetworkEventCallbackMetadataChangeMsg: net) {
        /// Which kind.
        metadata: Code<NetworkMetadataType> = Code::new(event.r#type),
        /// The element's XML namespace.
        namespace: Option<String> = event.nsuri,
    };
);

family!(
    "storage pool", StoragePoolEvent { object: StoragePool }, StoragePoolEventKind,
    StoragePoolEventId("virStoragePoolEventID"),
    storage_pool_events, supported_storage_pool_events,
    CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY(ConnectStoragePoolEventRegisterAnyArgs { pool: by uuid }),
    CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY;
    |event|
    /// It was defined, undefined, started, stopped, created or deleted.
    Lifecycle = 0, STORAGE_POOL_EVENT_LIFECYCLE(StoragePoolEventLifecycleMsg: pool) {
        /// What happened.
        event: Code<StoragePoolEventLifecycleType> = Code::new(event.event),
        /// More about it; libvirt gives it no meaning so far, and says 0.
        detail: i32 = event.detail,
    };
    /// Its volumes were looked at anew.
    Refresh = 1, STORAGE_POOL_EVENT_REFRESH(StoragePoolEventRefreshMsg: pool);
);

family!(
    "node device", NodeDeviceEvent { object: NodeDevice }, NodeDeviceEventKind,
    NodeDeviceEventId("virNodeDeviceEventID"),
    node_device_events, supported_node_device_events,
    CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY(ConnectNodeDeviceEventRegisterAnyArgs { dev: by name }),
    CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY;
    |event|
    /// It came, went, was defined or undefined.
    Lifecycle = 0, NODE_DEVICE_EVENT_LIFECYCLE(NodeDeviceEventLifecycleMsg: dev) {
        /// What happened.
        event: Code<NodeDeviceEventLifecycleType> = Code::new(event.event),
        /// More about it; libvirt gives it no meaning so far, and says 0.
        detail: i32 = event.detail,
    };
    /// Its description changed.
    Update = 1, NODE_DEVICE_EVENT_UPDATE(NodeDeviceEventUpdateMsg: dev);
);

family!(
    "secret", SecretEvent { object: Secret }, SecretEventKind, SecretEventId("virSecretEventID"),
    secret_events, supported_secret_events,
    CONNECT_SECRET_EVENT_REGISTER_ANY(ConnectSecretEventRegisterAnyArgs { secret: by uuid }),
    CONNECT_SECRET_EVENT_DEREGISTER_ANY;
    |event|
    /// It was defined or undefined.
    Lifecycle = 0, SECRET_EVENT_LIFECYCLE(SecretEventLifecycleMsg: secret) {
        /// What happened.
        event: Code<SecretEventLifecycleType> = Code::new(event.event),
        /// More about it; libvirt gives it no meaning so far, and says 0.
        detail: i32 = event.detail,
    };
    /// It has another value.
    ValueChanged = 1, SECRET_EVENT_VALUE_CHANGED(SecretEventValueChangedMsg: secret);
);

/// An event of QEMU's own monitor (QMP), as QEMU says it.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorEvent {
    /// Whose monitor.
    pub domain: Domain,
    /// The event's name, such as `STOP`.
    pub event: String,
    /// When, by the hypervisor's clock, since 1970.
    pub time: Duration,
    /// The event's data in JSON.
    pub details: Option<String>,
}

impl Connect {
    /// What QEMU's monitor tells, of one domain or of all; only one kind of event, or all. libvirt does not support what
    /// comes of this.
    ///
    /// # Errors
    /// [`UnsupportedEvent`](Error::UnsupportedEvent) if the hypervisor is not QEMU; what else the daemon reports, or the end
    /// of the connection.
    pub async fn monitor_events(
        &self,
        of: Option<&Domain>,
        event: Option<&str>,
        capacity: Option<usize>,
    ) -> Result<Events<MonitorEvent>, Error> {
        let arguments = qemu::ConnectDomainMonitorEventRegisterArgs {
            dom: of.map(|domain| domain.raw().clone()),
            event: event.map(ToOwned::to_owned),
            flags: 0,
        };
        let topic = Topic {
            kind: "events of QEMU's monitor",
            register: qemu::CONNECT_DOMAIN_MONITOR_EVENT_REGISTER,
            arguments: encode(&arguments)?,
            about: About {
                object: of.map(|domain| domain.raw().uuid.to_vec()),
                filter: event.map(ToOwned::to_owned),
                ..About::default()
            },
            event: qemu::DOMAIN_MONITOR_EVENT,
            deregister: qemu::CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER,
        };
        Events::subscribe(self, vec![topic], capacity, monitor_event).await
    }
}

fn monitor_event(connect: &Connect, message: &Message) -> Result<MonitorEvent, Error> {
    let event: qemu::DomainMonitorEventMsg = decode(&message.payload)?;
    let seconds = u64::try_from(event.seconds).unwrap_or(0);
    Ok(MonitorEvent {
        domain: Domain::new(connect, event.dom),
        event: event.event,
        time: Duration::from_secs(seconds) + Duration::from_micros(event.micros.into()),
        details: event.details,
    })
}

/// The daemon has lost its hypervisor, or the daemon that it speaks to on our behalf (virtproxyd). The connection to it
/// stays up, but what is asked of the hypervisor fails from then on: open another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseEvent {
    /// How.
    pub reason: Code<ConnectCloseReason>,
}

impl Connect {
    /// The loss of the hypervisor behind the daemon, which the connection's own [`states`](Self::states) do not show. At
    /// most `capacity` events wait (`None`: 16,384).
    ///
    /// # Errors
    /// [`UnsupportedEvent`](Error::UnsupportedEvent) if the daemon is too old for it; what else the daemon reports, or the
    /// end of the connection.
    pub async fn close_events(&self, capacity: Option<usize>) -> Result<Events<CloseEvent>, Error> {
        let topic = Topic {
            kind: "the loss of its hypervisor",
            register: remote::CONNECT_REGISTER_CLOSE_CALLBACK,
            arguments: Vec::new(),
            about: About::default(),
            event: remote::CONNECT_EVENT_CONNECTION_CLOSED,
            deregister: remote::CONNECT_UNREGISTER_CLOSE_CALLBACK,
        };
        Events::subscribe(self, vec![topic], capacity, CloseEvent::read).await
    }
}

// === impl CloseEvent ===

impl CloseEvent {
    pub(super) fn read(_: &Connect, message: &Message) -> Result<Self, Error> {
        let event: remote::ConnectEventConnectionClosedMsg = decode(&message.payload)?;
        Ok(Self {
            reason: Code::new(event.reason),
        })
    }
}
