//! What happens to domains.

use super::family::{family, supported};
use super::lifecycle::LifecycleEvent;
use super::{About, Events, Topic};
use crate::code::Code;
use crate::connect::Connect;
use crate::domain::Domain;
use crate::error::Error;
use crate::params::Params;
use crate::raw::api::{
    ConnectDomainEventAgentLifecycleReason, ConnectDomainEventAgentLifecycleState,
    ConnectDomainEventBlockJobStatus, ConnectDomainEventChannelLifecycleReason,
    ConnectDomainEventChannelLifecycleState, ConnectDomainEventDiskChangeReason,
    DomainBlockJobType, DomainEventGraphicsAddressType, DomainEventGraphicsPhase,
    DomainEventIoErrorAction, DomainEventTrayChangeReason, DomainEventWatchdogAction,
    DomainJobOperation, DomainMemoryFailureActionType, DomainMemoryFailureFlags,
    DomainMemoryFailureRecipientType, DomainMetadataType,
};
use crate::raw::remote::{
    self, DomainEventGraphicsAddress, DomainEventGraphicsIdentity, TypedParam, TypedParamValue,
};
use crate::raw::{decode, encode};
use crate::rpc::Message;

/// One end of a connection to a guest's display.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GraphicsAddress {
    /// What kind of address it is.
    pub family: Code<DomainEventGraphicsAddressType>,
    /// The host's address, or the path of a socket.
    pub node: String,
    /// The port.
    pub service: String,
}

/// Who uses a guest's display, as one way to authenticate has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GraphicsIdentity {
    /// What the name is, such as `x509dname` or `saslUsername`.
    pub kind: String,
    /// The name.
    pub name: String,
}

family!(
    "domain", DomainEvent { domain: Domain }, DomainEventKind, DomainEventId("virDomainEventID"),
    domain_events, supported_domain_events,
    CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY(ConnectDomainEventCallbackRegisterAnyArgs { dom: by uuid }),
    CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY;
    |event|
    /// It was defined, started, suspended, resumed, stopped, undefined …
    Lifecycle = 0, DOMAIN_EVENT_CALLBACK_LIFECYCLE(DomainEventCallbackLifecycleMsg: msg.dom) {
        /// What happened, and why.
        event: LifecycleEvent = LifecycleEvent::new(event.msg.event, event.msg.detail),
    };
    /// The guest rebooted.
    Reboot = 1, DOMAIN_EVENT_CALLBACK_REBOOT(DomainEventCallbackRebootMsg: msg.dom);
    /// The guest set its clock.
    RtcChange = 2, DOMAIN_EVENT_CALLBACK_RTC_CHANGE(DomainEventCallbackRtcChangeMsg: msg.dom) {
        /// The new offset from UTC in seconds.
        offset: i64 = event.msg.offset,
    };
    /// The guest's watchdog fired.
    Watchdog = 3, DOMAIN_EVENT_CALLBACK_WATCHDOG(DomainEventCallbackWatchdogMsg: msg.dom) {
        /// What was done.
        action: Code<DomainEventWatchdogAction> = Code::new(event.msg.action),
    };
    /// A disk could not be read or written.
    IoError = 4, DOMAIN_EVENT_CALLBACK_IO_ERROR(DomainEventCallbackIoErrorMsg: msg.dom) {
        /// The disk's source.
        path: String = event.msg.src_path,
        /// The device's alias.
        device: String = event.msg.dev_alias,
        /// What was done.
        action: Code<DomainEventIoErrorAction> = Code::new(event.msg.action),
    };
    /// A client of the guest's display came or went.
    Graphics = 5, DOMAIN_EVENT_CALLBACK_GRAPHICS(DomainEventCallbackGraphicsMsg: msg.dom) {
        /// Where the client is.
        phase: Code<DomainEventGraphicsPhase> = Code::new(event.msg.phase),
        /// The server's address.
        local: GraphicsAddress = event.msg.local.into(),
        /// The client's address.
        remote: GraphicsAddress = event.msg.remote.into(),
        /// How it authenticates.
        auth_scheme: String = event.msg.auth_scheme,
        /// Who it is.
        subject: Vec<GraphicsIdentity> = event.msg.subject.into_iter().map(Into::into).collect(),
    };
    /// A disk could not be read or written, with the reason.
    IoErrorReason = 6, DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON(DomainEventCallbackIoErrorReasonMsg: msg.dom) {
        /// The disk's source.
        path: String = event.msg.src_path,
        /// The device's alias.
        device: String = event.msg.dev_alias,
        /// What was done.
        action: Code<DomainEventIoErrorAction> = Code::new(event.msg.action),
        /// Why, such as `enospc`.
        reason: String = event.msg.reason,
    };
    /// The daemon lost control of the guest's process.
    ControlError = 7, DOMAIN_EVENT_CALLBACK_CONTROL_ERROR(DomainEventCallbackControlErrorMsg: msg.dom);
    /// A job on a disk changed its state; the disk is named by its source.
    BlockJob = 8, DOMAIN_EVENT_CALLBACK_BLOCK_JOB(DomainEventCallbackBlockJobMsg: msg.dom) {
        /// The disk's source.
        path: String = event.msg.path,
        /// What it did.
        job: Code<DomainBlockJobType> = Code::new(event.msg.r#type),
        /// How it is.
        status: Code<ConnectDomainEventBlockJobStatus> = Code::new(event.msg.status),
    };
    /// A disk has another source.
    DiskChange = 9, DOMAIN_EVENT_CALLBACK_DISK_CHANGE(DomainEventCallbackDiskChangeMsg: msg.dom) {
        /// The source before.
        old_path: Option<String> = event.msg.old_src_path,
        /// The source now.
        new_path: Option<String> = event.msg.new_src_path,
        /// The device's alias.
        device: String = event.msg.dev_alias,
        /// Why.
        reason: Code<ConnectDomainEventDiskChangeReason> = Code::new(event.msg.reason),
    };
    /// The tray of a removable disk moved.
    TrayChange = 10, DOMAIN_EVENT_CALLBACK_TRAY_CHANGE(DomainEventCallbackTrayChangeMsg: msg.dom) {
        /// The device's alias.
        device: String = event.msg.dev_alias,
        /// Opened or closed.
        reason: Code<DomainEventTrayChangeReason> = Code::new(event.msg.reason),
    };
    /// The guest woke up.
    PmWakeup = 11, DOMAIN_EVENT_CALLBACK_PMWAKEUP(DomainEventCallbackPmwakeupMsg: msg.dom) {
        /// Why; libvirt has no names for it, and says 0 so far.
        reason: i32 = event.reason,
    };
    /// The guest suspended itself to memory.
    PmSuspend = 12, DOMAIN_EVENT_CALLBACK_PMSUSPEND(DomainEventCallbackPmsuspendMsg: msg.dom) {
        /// Why; libvirt has no names for it, and says 0 so far.
        reason: i32 = event.reason,
    };
    /// The balloon changed its size.
    BalloonChange = 13, DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE(DomainEventCallbackBalloonChangeMsg: msg.dom) {
        /// The guest's memory in KiB.
        actual: u64 = event.msg.actual,
    };
    /// The guest suspended itself to disk.
    PmSuspendDisk = 14, DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK(DomainEventCallbackPmsuspendDiskMsg: msg.dom) {
        /// Why; libvirt has no names for it, and says 0 so far.
        reason: i32 = event.reason,
    };
    /// A device is gone.
    DeviceRemoved = 15, DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED(DomainEventCallbackDeviceRemovedMsg: msg.dom) {
        /// The device's alias.
        device: String = event.msg.dev_alias,
    };
    /// A job on a disk changed its state; the disk is named by its target.
    BlockJob2 = 16, DOMAIN_EVENT_BLOCK_JOB_2(DomainEventBlockJob2Msg: dom) {
        /// The disk's target, such as `vda`.
        target: String = event.dst,
        /// What it did.
        job: Code<DomainBlockJobType> = Code::new(event.r#type),
        /// How it is.
        status: Code<ConnectDomainEventBlockJobStatus> = Code::new(event.status),
    };
    /// Limits were changed.
    Tunable = 17, DOMAIN_EVENT_CALLBACK_TUNABLE(DomainEventCallbackTunableMsg: dom) {
        /// What has changed.
        params: Params = event.params.into(),
    };
    /// The QEMU guest agent opened or closed its channel.
    AgentLifecycle = 18, DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE(DomainEventCallbackAgentLifecycleMsg: dom) {
        /// Connected or not.
        state: Code<ConnectDomainEventAgentLifecycleState> = Code::new(event.state),
        /// Why it is told.
        reason: Code<ConnectDomainEventAgentLifecycleReason> = Code::new(event.reason),
    };
    /// A device was added.
    DeviceAdded = 19, DOMAIN_EVENT_CALLBACK_DEVICE_ADDED(DomainEventCallbackDeviceAddedMsg: dom) {
        /// The device's alias.
        device: String = event.dev_alias,
    };
    /// A migration started another pass over the memory.
    MigrationIteration = 20, DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION(DomainEventCallbackMigrationIterationMsg: dom) {
        /// Which one.
        iteration: i32 = event.iteration,
    };
    /// A migration, save or similar job has ended.
    JobCompleted = 21, DOMAIN_EVENT_CALLBACK_JOB_COMPLETED(DomainEventCallbackJobCompletedMsg: dom) {
        /// What it did, where the daemon says so.
        operation: Option<Code<DomainJobOperation>> = operation(&event.params),
        /// The job's statistics.
        params: Params = event.params.into(),
    };
    /// The guest did not let go of a device.
    DeviceRemovalFailed = 22, DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED(DomainEventCallbackDeviceRemovalFailedMsg: dom) {
        /// The device's alias.
        device: String = event.dev_alias,
    };
    /// Title, description or metadata were changed.
    MetadataChange = 23, DOMAIN_EVENT_CALLBACK_METADATA_CHANGE(DomainEventCallbackMetadataChangeMsg: dom) {
        /// Which kind.
        metadata: Code<DomainMetadataType> = Code::new(event.r#type),
        /// The element's XML namespace.
        namespace: Option<String> = event.nsuri,
    };
    /// A disk's image has grown beyond the limit that was set.
    BlockThreshold = 24, DOMAIN_EVENT_BLOCK_THRESHOLD(DomainEventBlockThresholdMsg: dom) {
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
    MemoryFailure = 25, DOMAIN_EVENT_MEMORY_FAILURE(DomainEventMemoryFailureMsg: dom) {
        /// Whom it hit.
        recipient: Code<DomainMemoryFailureRecipientType> = Code::new(event.recipient),
        /// What was done.
        action: Code<DomainMemoryFailureActionType> = Code::new(event.action),
        /// More about it.
        flags: DomainMemoryFailureFlags = DomainMemoryFailureFlags::from_bits_retain(event.flags),
    };
    /// A memory device changed its size.
    MemoryDeviceSizeChange = 26, DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE(DomainEventMemoryDeviceSizeChangeMsg: dom) {
        /// The device's alias.
        device: String = event.alias,
        /// The size in KiB.
        size: u64 = event.size,
    };
    /// The guest changed a network card's address.
    NicMacChange = 27, DOMAIN_EVENT_NIC_MAC_CHANGE(DomainEventNicMacChangeMsg: dom) {
        /// The device's alias.
        device: String = event.alias,
        /// The address before.
        old: String = event.old_mac,
        /// The address now.
        new: String = event.new_mac,
    };
    /// A virtual CPU is gone. Since libvirt 12.
    VcpuRemoved = 28, DOMAIN_EVENT_VCPU_REMOVED(DomainEventVcpuRemovedMsg: dom) {
        /// Which one.
        vcpu: u32 = event.vcpuid,
    };
    /// A program in the guest opened or closed a channel. Since libvirt 12.
    ChannelLifecycle = 29, DOMAIN_EVENT_CALLBACK_CHANNEL_LIFECYCLE(DomainEventCallbackChannelLifecycleMsg: dom) {
        /// The channel's name.
        channel: String = event.channel_name,
        /// Connected or not.
        state: Code<ConnectDomainEventChannelLifecycleState> = Code::new(event.state),
        /// Why it is told.
        reason: Code<ConnectDomainEventChannelLifecycleReason> = Code::new(event.reason),
    };
);

/// `VIR_DOMAIN_JOB_OPERATION` among a job's statistics.
fn operation(params: &[TypedParam]) -> Option<Code<DomainJobOperation>> {
    params.iter().find_map(|param| match param.value {
        TypedParamValue::Int(number) if param.field == "operation" => Some(Code::new(number)),
        _ => None,
    })
}

impl From<DomainEventGraphicsAddress> for GraphicsAddress {
    fn from(raw: DomainEventGraphicsAddress) -> Self {
        Self {
            family: Code::new(raw.family),
            node: raw.node,
            service: raw.service,
        }
    }
}

impl From<DomainEventGraphicsIdentity> for GraphicsIdentity {
    fn from(raw: DomainEventGraphicsIdentity) -> Self {
        Self {
            kind: raw.r#type,
            name: raw.name,
        }
    }
}
