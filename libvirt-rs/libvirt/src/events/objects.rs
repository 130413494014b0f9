//! What happens to networks, storage pools, devices and secrets, and in QEMU's monitor.

use std::time::Duration;

use super::{Events, Topic};
use crate::code::Code;
use crate::connect::Connect;
use crate::domain::Domain;
use crate::error::Error;
use crate::network::Network;
use crate::node_device::NodeDevice;
use crate::raw::api::{
    NetworkEventLifecycleType, NetworkMetadataType, NodeDeviceEventLifecycleType,
    SecretEventLifecycleType, StoragePoolEventLifecycleType,
};
use crate::raw::{decode, encode, qemu, remote};
use crate::rpc::Message;
use crate::secret::Secret;
use crate::storage::StoragePool;

/// Defines the events of one kind of object.
macro_rules! family {
    (
        $event:ident, $kind:ident, $method:ident of $object:ident,
        $register:ident($arguments:ident { $of:ident }), $deregister:ident;
        $(
            #[doc = $doc:literal]
            $variant:ident $({ $(#[doc = $field_doc:literal] $field:ident: $type:ty = $value:expr),* $(,)? })?
                = $id:literal, $procedure:ident as |$message:ident: $payload:ident|;
        )*
    ) => {
        #[doc = concat!("Something happened to a [`", stringify!($object), "`].")]
        #[derive(Debug, Clone, PartialEq)]
        pub struct $event {
            /// What it happened to.
            pub object: $object,
            /// What happened.
            pub kind: $kind,
        }

        #[doc = concat!("What happened to a [`", stringify!($object), "`].")]
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum $kind {
            $(
                #[doc = $doc]
                $variant $({ $(#[doc = $field_doc] $field: $type),* })?,
            )*
        }

        impl Connect {
            #[doc = concat!("What happens to each [`", stringify!($object), "`], or to one of them, from now on. At most `capacity` events wait (`None`: 16,384).")]
            ///
            /// A kind that the daemon is too old for is left out.
            ///
            /// # Errors
            /// The daemon or the connection.
            pub async fn $method(
                &self,
                of: Option<&$object>,
                capacity: Option<usize>,
            ) -> Result<Events<$event>, Error> {
                let topics = vec![$(
                    Topic {
                        register: remote::$register,
                        arguments: encode(&remote::$arguments {
                            event_id: $id,
                            $of: of.map(|object| object.raw().clone()),
                        })?,
                        event: remote::$procedure,
                        deregister: remote::$deregister,
                        // Later ones are newer than the family.
                        optional: $id > 0,
                    },
                )*];
                Events::subscribe(self, topics, capacity, |connect, message| {
                    match message.procedure {
                        $(
                            n if n == remote::$procedure.number => {
                                let $message: remote::$payload = decode(&message.payload)?;
                                Ok($event {
                                    kind: $kind::$variant $({ $($field: $value),* })?,
                                    object: $object::new(connect, $message.$of),
                                })
                            }
                        )*
                        // Only what was subscribed to is delivered.
                        procedure => Err(Error::UnknownEvent { procedure }),
                    }
                })
                .await
            }
        }
    };
}

family!(
    NetworkEvent, NetworkEventKind, network_events of Network,
    CONNECT_NETWORK_EVENT_REGISTER_ANY(ConnectNetworkEventRegisterAnyArgs { net }), CONNECT_NETWORK_EVENT_DEREGISTER_ANY;
    /// It was defined, undefined, started or stopped.
    Lifecycle {
        /// What happened.
        event: Code<NetworkEventLifecycleType> = Code::new(event.event),
    } = 0, NETWORK_EVENT_LIFECYCLE as |event: NetworkEventLifecycleMsg|;
    /// Title, description or metadata were changed. Since libvirt 9.8.
    MetadataChange {
        /// Which kind.
        metadata: Code<NetworkMetadataType> = Code::new(event.r#type),
        /// The element's XML namespace.
        namespace: Option<String> = event.nsuri,
    } = 1, NETWORK_EVENT_CALLBACK_METADATA_CHANGE as |event: NetworkEventCallbackMetadataChangeMsg|;
);

family!(
    StoragePoolEvent, StoragePoolEventKind, storage_pool_events of StoragePool,
    CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY(ConnectStoragePoolEventRegisterAnyArgs { pool }), CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY;
    /// It was defined, undefined, started, stopped, created or deleted.
    Lifecycle {
        /// What happened.
        event: Code<StoragePoolEventLifecycleType> = Code::new(event.event),
    } = 0, STORAGE_POOL_EVENT_LIFECYCLE as |event: StoragePoolEventLifecycleMsg|;
    /// Its volumes were looked at anew.
    Refresh = 1, STORAGE_POOL_EVENT_REFRESH as |event: StoragePoolEventRefreshMsg|;
);

family!(
    NodeDeviceEvent, NodeDeviceEventKind, node_device_events of NodeDevice,
    CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY(ConnectNodeDeviceEventRegisterAnyArgs { dev }), CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY;
    /// It came, went, was defined or undefined.
    Lifecycle {
        /// What happened.
        event: Code<NodeDeviceEventLifecycleType> = Code::new(event.event),
    } = 0, NODE_DEVICE_EVENT_LIFECYCLE as |event: NodeDeviceEventLifecycleMsg|;
    /// Its description changed.
    Update = 1, NODE_DEVICE_EVENT_UPDATE as |event: NodeDeviceEventUpdateMsg|;
);

family!(
    SecretEvent, SecretEventKind, secret_events of Secret,
    CONNECT_SECRET_EVENT_REGISTER_ANY(ConnectSecretEventRegisterAnyArgs { secret }), CONNECT_SECRET_EVENT_DEREGISTER_ANY;
    /// It was defined or undefined.
    Lifecycle {
        /// What happened.
        event: Code<SecretEventLifecycleType> = Code::new(event.event),
    } = 0, SECRET_EVENT_LIFECYCLE as |event: SecretEventLifecycleMsg|;
    /// It has another value.
    ValueChanged = 1, SECRET_EVENT_VALUE_CHANGED as |event: SecretEventValueChangedMsg|;
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
    /// The daemon or the connection.
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
            register: qemu::CONNECT_DOMAIN_MONITOR_EVENT_REGISTER,
            arguments: encode(&arguments)?,
            event: qemu::DOMAIN_MONITOR_EVENT,
            deregister: qemu::CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER,
            optional: false,
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
