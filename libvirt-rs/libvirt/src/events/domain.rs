//! What happens to domains.

use super::{Events, Topic};
use crate::code::Code;
use crate::connect::Connect;
use crate::domain::Domain;
use crate::error::Error;
use crate::params::Params;
use crate::raw::api::{
    ConnectDomainEventAgentLifecycleReason, ConnectDomainEventAgentLifecycleState,
    ConnectDomainEventBlockJobStatus, ConnectDomainEventDiskChangeReason, DomainBlockJobType,
    DomainEventGraphicsPhase, DomainEventIoErrorAction, DomainEventTrayChangeReason,
    DomainEventType, DomainEventWatchdogAction, DomainMemoryFailureActionType,
    DomainMemoryFailureRecipientType, DomainMetadataType,
};
use crate::raw::remote::{
    self, ConnectDomainEventCallbackRegisterAnyArgs, DomainEventGraphicsAddress,
    DomainEventGraphicsIdentity,
};
use crate::raw::{decode, encode};
use crate::rpc::{Message, Procedure};

/// Something happened to a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainEvent {
    /// The domain, as it was then.
    pub domain: Domain,
    /// What happened.
    pub kind: DomainEventKind,
}

/// Defines each kind of event once: its number, the procedure and struct that bring it (the domain may stand in a struct within
/// that), and what is made of them.
macro_rules! kinds {
    (
        |$event:ident|
        $(
            #[doc = $doc:literal]
            $kind:ident = $id:literal, $procedure:ident($message:ident $(.$inner:ident)?)
            $({ $(#[doc = $field_doc:literal] $field:ident: $type:ty = $value:expr),* $(,)? })?;
        )*
    ) => {
        /// What happened to a domain.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum DomainEventKind {
            $(
                #[doc = $doc]
                $kind $({ $(#[doc = $field_doc] $field: $type),* })?,
            )*
        }

        /// The kinds of events that a subscriber may ask for, by libvirt's number (`virDomainEventID`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum DomainEventId {
            $(
                #[doc = $doc]
                $kind = $id,
            )*
        }

        impl DomainEventId {
            /// Every kind that this crate knows. A daemon refuses those that it does not.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The procedure under which the daemon sends it.
            fn procedure(self) -> Procedure {
                match self {
                    $(Self::$kind => remote::$procedure,)*
                }
            }
        }

        fn read(connect: &Connect, message: &Message) -> Result<DomainEvent, Error> {
            let payload = &message.payload;
            let (dom, kind) = match message.procedure {
                $(
                    n if n == remote::$procedure.number => {
                        let $event: remote::$message = decode(payload)?;
                        $(let $event = $event.$inner;)?
                        let kind = DomainEventKind::$kind $({ $($field: $value),* })?;
                        ($event.dom, kind)
                    }
                )*
                // Only what was subscribed to is delivered.
                procedure => return Err(Error::UnknownEvent { procedure }),
            };
            Ok(DomainEvent {
                domain: Domain::new(connect, dom),
                kind,
            })
        }
    };
}

kinds!(
    |event|
    /// It was defined, started, suspended, resumed, stopped, undefined …
    Lifecycle = 0, DOMAIN_EVENT_CALLBACK_LIFECYCLE(DomainEventCallbackLifecycleMsg.msg) {
        /// What happened.
        event: Code<DomainEventType> = Code::new(event.event),
        /// Why, in the numbers of `virDomainEvent…DetailType` for that event.
        detail: i32 = event.detail,
    };
    /// The guest rebooted.
    Reboot = 1, DOMAIN_EVENT_CALLBACK_REBOOT(DomainEventCallbackRebootMsg.msg);
    /// The guest set its clock.
    RtcChange = 2, DOMAIN_EVENT_CALLBACK_RTC_CHANGE(DomainEventCallbackRtcChangeMsg.msg) {
        /// The new offset from UTC in seconds.
        offset: i64 = event.offset,
    };
    /// The guest's watchdog fired.
    Watchdog = 3, DOMAIN_EVENT_CALLBACK_WATCHDOG(DomainEventCallbackWatchdogMsg.msg) {
        /// What was done.
        action: Code<DomainEventWatchdogAction> = Code::new(event.action),
    };
    /// A disk could not be read or written.
    IoError = 4, DOMAIN_EVENT_CALLBACK_IO_ERROR(DomainEventCallbackIoErrorMsg.msg) {
        /// The disk's source.
        path: String = event.src_path,
        /// The device's alias.
        device: String = event.dev_alias,
        /// What was done.
        action: Code<DomainEventIoErrorAction> = Code::new(event.action),
    };
    /// A client of the guest's display came or went.
    Graphics = 5, DOMAIN_EVENT_CALLBACK_GRAPHICS(DomainEventCallbackGraphicsMsg.msg) {
        /// Where the client is.
        phase: Code<DomainEventGraphicsPhase> = Code::new(event.phase),
        /// The server's address.
        local: DomainEventGraphicsAddress = event.local,
        /// The client's address.
        remote: DomainEventGraphicsAddress = event.remote,
        /// How it authenticates.
        auth_scheme: String = event.auth_scheme,
        /// Who it is.
        subject: Vec<DomainEventGraphicsIdentity> = event.subject,
    };
    /// A disk could not be read or written, with the reason.
    IoErrorReason = 6, DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON(DomainEventCallbackIoErrorReasonMsg.msg) {
        /// The disk's source.
        path: String = event.src_path,
        /// The device's alias.
        device: String = event.dev_alias,
        /// What was done.
        action: Code<DomainEventIoErrorAction> = Code::new(event.action),
        /// Why, such as `enospc`.
        reason: String = event.reason,
    };
    /// The daemon lost control of the guest's process.
    ControlError = 7, DOMAIN_EVENT_CALLBACK_CONTROL_ERROR(DomainEventCallbackControlErrorMsg.msg);
    /// A job on a disk changed its state; the disk is named by its source.
    BlockJob = 8, DOMAIN_EVENT_CALLBACK_BLOCK_JOB(DomainEventCallbackBlockJobMsg.msg) {
        /// The disk's source.
        path: String = event.path,
        /// What it did.
        job: Code<DomainBlockJobType> = Code::new(event.r#type),
        /// How it is.
        status: Code<ConnectDomainEventBlockJobStatus> = Code::new(event.status),
    };
    /// A disk has another source.
    DiskChange = 9, DOMAIN_EVENT_CALLBACK_DISK_CHANGE(DomainEventCallbackDiskChangeMsg.msg) {
        /// The source before.
        old_path: Option<String> = event.old_src_path,
        /// The source now.
        new_path: Option<String> = event.new_src_path,
        /// The device's alias.
        device: String = event.dev_alias,
        /// Why.
        reason: Code<ConnectDomainEventDiskChangeReason> = Code::new(event.reason),
    };
    /// The tray of a removable disk moved.
    TrayChange = 10, DOMAIN_EVENT_CALLBACK_TRAY_CHANGE(DomainEventCallbackTrayChangeMsg.msg) {
        /// The device's alias.
        device: String = event.dev_alias,
        /// Opened or closed.
        reason: Code<DomainEventTrayChangeReason> = Code::new(event.reason),
    };
    /// The guest woke up.
    PmWakeup = 11, DOMAIN_EVENT_CALLBACK_PMWAKEUP(DomainEventCallbackPmwakeupMsg.msg);
    /// The guest suspended itself to memory.
    PmSuspend = 12, DOMAIN_EVENT_CALLBACK_PMSUSPEND(DomainEventCallbackPmsuspendMsg.msg);
    /// The balloon changed its size.
    BalloonChange = 13, DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE(DomainEventCallbackBalloonChangeMsg.msg) {
        /// The guest's memory in KiB.
        actual: u64 = event.actual,
    };
    /// The guest suspended itself to disk.
    PmSuspendDisk = 14, DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK(DomainEventCallbackPmsuspendDiskMsg.msg);
    /// A device is gone.
    DeviceRemoved = 15, DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED(DomainEventCallbackDeviceRemovedMsg.msg) {
        /// The device's alias.
        device: String = event.dev_alias,
    };
    /// A job on a disk changed its state; the disk is named by its target.
    BlockJob2 = 16, DOMAIN_EVENT_BLOCK_JOB_2(DomainEventBlockJob2Msg) {
        /// The disk's target, such as `vda`.
        target: String = event.dst,
        /// What it did.
        job: Code<DomainBlockJobType> = Code::new(event.r#type),
        /// How it is.
        status: Code<ConnectDomainEventBlockJobStatus> = Code::new(event.status),
    };
    /// Limits were changed.
    Tunable = 17, DOMAIN_EVENT_CALLBACK_TUNABLE(DomainEventCallbackTunableMsg) {
        /// What has changed.
        params: Params = event.params.into(),
    };
    /// The QEMU guest agent opened or closed its channel.
    AgentLifecycle = 18, DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE(DomainEventCallbackAgentLifecycleMsg) {
        /// Connected or not.
        state: Code<ConnectDomainEventAgentLifecycleState> = Code::new(event.state),
        /// Why it is told.
        reason: Code<ConnectDomainEventAgentLifecycleReason> = Code::new(event.reason),
    };
    /// A device was added.
    DeviceAdded = 19, DOMAIN_EVENT_CALLBACK_DEVICE_ADDED(DomainEventCallbackDeviceAddedMsg) {
        /// The device's alias.
        device: String = event.dev_alias,
    };
    /// A migration started another pass over the memory.
    MigrationIteration = 20, DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION(DomainEventCallbackMigrationIterationMsg) {
        /// Which one.
        iteration: i32 = event.iteration,
    };
    /// A migration, save or similar job has ended.
    JobCompleted = 21, DOMAIN_EVENT_CALLBACK_JOB_COMPLETED(DomainEventCallbackJobCompletedMsg) {
        /// The job's statistics.
        params: Params = event.params.into(),
    };
    /// The guest did not let go of a device.
    DeviceRemovalFailed = 22, DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED(DomainEventCallbackDeviceRemovalFailedMsg) {
        /// The device's alias.
        device: String = event.dev_alias,
    };
    /// Title, description or metadata were changed.
    MetadataChange = 23, DOMAIN_EVENT_CALLBACK_METADATA_CHANGE(DomainEventCallbackMetadataChangeMsg) {
        /// Which kind.
        metadata: Code<DomainMetadataType> = Code::new(event.r#type),
        /// The element's XML namespace.
        namespace: Option<String> = event.nsuri,
    };
    /// A disk's image has grown beyond the limit that was set.
    BlockThreshold = 24, DOMAIN_EVENT_BLOCK_THRESHOLD(DomainEventBlockThresholdMsg) {
        /// The disk's target with its index.
        device: String = event.dev,
        /// The disk's source.
        path: Option<String> = event.path,
        /// The limit in bytes.
        threshold: u64 = event.threshold,
        /// Bytes beyond it.
        excess: u64 = event.excess,
    };
    /// The hypervisor's memory failed under the guest.
    MemoryFailure = 25, DOMAIN_EVENT_MEMORY_FAILURE(DomainEventMemoryFailureMsg) {
        /// Whom it hit.
        recipient: Code<DomainMemoryFailureRecipientType> = Code::new(event.recipient),
        /// What was done.
        action: Code<DomainMemoryFailureActionType> = Code::new(event.action),
        /// `virDomainMemoryFailureFlags`.
        flags: u32 = event.flags,
    };
    /// A memory device changed its size.
    MemoryDeviceSizeChange = 26, DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE(DomainEventMemoryDeviceSizeChangeMsg) {
        /// The device's alias.
        device: String = event.alias,
        /// The size in KiB.
        size: u64 = event.size,
    };
    /// The guest changed a network card's address.
    NicMacChange = 27, DOMAIN_EVENT_NIC_MAC_CHANGE(DomainEventNicMacChangeMsg) {
        /// The device's alias.
        device: String = event.alias,
        /// The address before.
        old: String = event.old_mac,
        /// The address now.
        new: String = event.new_mac,
    };
    /// A virtual CPU is gone. Since libvirt 12.
    VcpuRemoved = 28, DOMAIN_EVENT_VCPU_REMOVED(DomainEventVcpuRemovedMsg) {
        /// Which one.
        vcpu: u32 = event.vcpuid,
    };
    /// A program in the guest opened or closed a channel. Since libvirt 12.
    ChannelLifecycle = 29, DOMAIN_EVENT_CALLBACK_CHANNEL_LIFECYCLE(DomainEventCallbackChannelLifecycleMsg) {
        /// The channel's name.
        channel: String = event.channel_name,
        /// 1: connected, 2: not.
        state: i32 = event.state,
        /// Why it is told.
        reason: i32 = event.reason,
    };
);

// === impl Connect ===

impl Connect {
    /// What happens to domains from now on: events of the given kinds, of one domain or of all, in the order in which they
    /// happen. At most `capacity` events wait (`None`: 16,384).
    ///
    /// Ask for each kind that you need: libvirt has no registration for all of them, and a daemon refuses kinds that
    /// it does not know.
    ///
    /// # Errors
    /// The daemon or the connection.
    pub async fn domain_events(
        &self,
        kinds: &[DomainEventId],
        of: Option<&Domain>,
        capacity: Option<usize>,
    ) -> Result<Events<DomainEvent>, Error> {
        let topics = kinds
            .iter()
            .map(|&kind| {
                let arguments = ConnectDomainEventCallbackRegisterAnyArgs {
                    event_id: kind as i32,
                    dom: of.map(|domain| domain.raw().clone()),
                };
                Ok(Topic {
                    register: remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
                    arguments: encode(&arguments)?,
                    event: kind.procedure(),
                    deregister: remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
                    optional: false,
                })
            })
            .collect::<Result<_, Error>>()?;
        Events::subscribe(self, topics, capacity, read).await
    }
}
