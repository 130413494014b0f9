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

/// What happened to a domain.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DomainEventKind {
    /// It was defined, started, suspended, resumed, stopped, undefined …
    Lifecycle {
        /// What happened.
        event: Code<DomainEventType>,
        /// Why, in the numbers of `virDomainEvent…DetailType` for that event.
        detail: i32,
    },
    /// The guest rebooted.
    Reboot,
    /// The guest set its clock.
    RtcChange {
        /// The new offset from UTC in seconds.
        offset: i64,
    },
    /// The guest's watchdog fired.
    Watchdog {
        /// What was done.
        action: Code<DomainEventWatchdogAction>,
    },
    /// A disk could not be read or written.
    IoError {
        /// The disk's source.
        path: String,
        /// The device's alias.
        device: String,
        /// What was done.
        action: Code<DomainEventIoErrorAction>,
    },
    /// A client of the guest's display came or went.
    Graphics {
        /// Where the client is.
        phase: Code<DomainEventGraphicsPhase>,
        /// The server's address.
        local: DomainEventGraphicsAddress,
        /// The client's address.
        remote: DomainEventGraphicsAddress,
        /// How it authenticates.
        auth_scheme: String,
        /// Who it is.
        subject: Vec<DomainEventGraphicsIdentity>,
    },
    /// A disk could not be read or written, with the reason.
    IoErrorReason {
        /// The disk's source.
        path: String,
        /// The device's alias.
        device: String,
        /// What was done.
        action: Code<DomainEventIoErrorAction>,
        /// Why, such as `enospc`.
        reason: String,
    },
    /// The daemon lost control of the guest's process.
    ControlError,
    /// A job on a disk changed its state; the disk is named by its source.
    BlockJob {
        /// The disk's source.
        path: String,
        /// What it did.
        job: Code<DomainBlockJobType>,
        /// How it is.
        status: Code<ConnectDomainEventBlockJobStatus>,
    },
    /// A disk has another source.
    DiskChange {
        /// The source before.
        old_path: Option<String>,
        /// The source now.
        new_path: Option<String>,
        /// The device's alias.
        device: String,
        /// Why.
        reason: Code<ConnectDomainEventDiskChangeReason>,
    },
    /// The tray of a removable disk moved.
    TrayChange {
        /// The device's alias.
        device: String,
        /// Opened or closed.
        reason: Code<DomainEventTrayChangeReason>,
    },
    /// The guest woke up.
    PmWakeup,
    /// The guest suspended itself to memory.
    PmSuspend,
    /// The balloon changed its size.
    BalloonChange {
        /// The guest's memory in KiB.
        actual: u64,
    },
    /// The guest suspended itself to disk.
    PmSuspendDisk,
    /// A device is gone.
    DeviceRemoved {
        /// The device's alias.
        device: String,
    },
    /// A job on a disk changed its state; the disk is named by its target.
    BlockJob2 {
        /// The disk's target, such as `vda`.
        target: String,
        /// What it did.
        job: Code<DomainBlockJobType>,
        /// How it is.
        status: Code<ConnectDomainEventBlockJobStatus>,
    },
    /// Limits were changed.
    Tunable {
        /// What has changed.
        params: Params,
    },
    /// The QEMU guest agent opened or closed its channel.
    AgentLifecycle {
        /// Connected or not.
        state: Code<ConnectDomainEventAgentLifecycleState>,
        /// Why it is told.
        reason: Code<ConnectDomainEventAgentLifecycleReason>,
    },
    /// A device was added.
    DeviceAdded {
        /// The device's alias.
        device: String,
    },
    /// A migration started another pass over the memory.
    MigrationIteration {
        /// Which one.
        iteration: i32,
    },
    /// A migration, save or similar job has ended.
    JobCompleted {
        /// The job's statistics.
        params: Params,
    },
    /// The guest did not let go of a device.
    DeviceRemovalFailed {
        /// The device's alias.
        device: String,
    },
    /// Title, description or metadata were changed.
    MetadataChange {
        /// Which kind.
        metadata: Code<DomainMetadataType>,
        /// The element's XML namespace.
        namespace: Option<String>,
    },
    /// A disk's image has grown beyond the limit that was set.
    BlockThreshold {
        /// The disk's target with its index.
        device: String,
        /// The disk's source.
        path: Option<String>,
        /// The limit in bytes.
        threshold: u64,
        /// Bytes beyond it.
        excess: u64,
    },
    /// The hypervisor's memory failed under the guest.
    MemoryFailure {
        /// Whom it hit.
        recipient: Code<DomainMemoryFailureRecipientType>,
        /// What was done.
        action: Code<DomainMemoryFailureActionType>,
        /// `virDomainMemoryFailureFlags`.
        flags: u32,
    },
    /// A memory device changed its size.
    MemoryDeviceSizeChange {
        /// The device's alias.
        device: String,
        /// The size in KiB.
        size: u64,
    },
    /// The guest changed a network card's address.
    NicMacChange {
        /// The device's alias.
        device: String,
        /// The address before.
        old: String,
        /// The address now.
        new: String,
    },
    /// A virtual CPU is gone. Since libvirt 12.
    VcpuRemoved {
        /// Which one.
        vcpu: u32,
    },
    /// A program in the guest opened or closed a channel. Since libvirt 12.
    ChannelLifecycle {
        /// The channel's name.
        channel: String,
        /// 1: connected, 2: not.
        state: i32,
        /// Why it is told.
        reason: i32,
    },
}

/// The kinds of events that a subscriber may ask for, by libvirt's number (`virDomainEventID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum DomainEventId {
    /// It was defined, started, suspended, resumed, stopped, undefined …
    Lifecycle = 0,
    /// The guest rebooted.
    Reboot = 1,
    /// The guest set its clock.
    RtcChange = 2,
    /// The guest's watchdog fired.
    Watchdog = 3,
    /// A disk could not be read or written.
    IoError = 4,
    /// A client of the guest's display came or went.
    Graphics = 5,
    /// A disk could not be read or written, with the reason.
    IoErrorReason = 6,
    /// The daemon lost control of the guest's process.
    ControlError = 7,
    /// A job on a disk changed its state; the disk is named by its source.
    BlockJob = 8,
    /// A disk has another source.
    DiskChange = 9,
    /// The tray of a removable disk moved.
    TrayChange = 10,
    /// The guest woke up.
    PmWakeup = 11,
    /// The guest suspended itself to memory.
    PmSuspend = 12,
    /// The balloon changed its size.
    BalloonChange = 13,
    /// The guest suspended itself to disk.
    PmSuspendDisk = 14,
    /// A device is gone.
    DeviceRemoved = 15,
    /// A job on a disk changed its state; the disk is named by its target.
    BlockJob2 = 16,
    /// Limits were changed.
    Tunable = 17,
    /// The QEMU guest agent opened or closed its channel.
    AgentLifecycle = 18,
    /// A device was added.
    DeviceAdded = 19,
    /// A migration started another pass over the memory.
    MigrationIteration = 20,
    /// A migration, save or similar job has ended.
    JobCompleted = 21,
    /// The guest did not let go of a device.
    DeviceRemovalFailed = 22,
    /// Title, description or metadata were changed.
    MetadataChange = 23,
    /// A disk's image has grown beyond the limit that was set.
    BlockThreshold = 24,
    /// The hypervisor's memory failed under the guest.
    MemoryFailure = 25,
    /// A memory device changed its size.
    MemoryDeviceSizeChange = 26,
    /// The guest changed a network card's address.
    NicMacChange = 27,
    /// A virtual CPU is gone. Since libvirt 12.
    VcpuRemoved = 28,
    /// A program in the guest opened or closed a channel. Since libvirt 12.
    ChannelLifecycle = 29,
}

// === impl DomainEventId ===

impl DomainEventId {
    /// All of them, in libvirt's order.
    pub const ALL: [Self; 30] = [
        Self::Lifecycle,
        Self::Reboot,
        Self::RtcChange,
        Self::Watchdog,
        Self::IoError,
        Self::Graphics,
        Self::IoErrorReason,
        Self::ControlError,
        Self::BlockJob,
        Self::DiskChange,
        Self::TrayChange,
        Self::PmWakeup,
        Self::PmSuspend,
        Self::BalloonChange,
        Self::PmSuspendDisk,
        Self::DeviceRemoved,
        Self::BlockJob2,
        Self::Tunable,
        Self::AgentLifecycle,
        Self::DeviceAdded,
        Self::MigrationIteration,
        Self::JobCompleted,
        Self::DeviceRemovalFailed,
        Self::MetadataChange,
        Self::BlockThreshold,
        Self::MemoryFailure,
        Self::MemoryDeviceSizeChange,
        Self::NicMacChange,
        Self::VcpuRemoved,
        Self::ChannelLifecycle,
    ];

    /// The procedure under which the daemon sends it.
    fn procedure(self) -> Procedure {
        match self {
            Self::Lifecycle => remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
            Self::Reboot => remote::DOMAIN_EVENT_CALLBACK_REBOOT,
            Self::RtcChange => remote::DOMAIN_EVENT_CALLBACK_RTC_CHANGE,
            Self::Watchdog => remote::DOMAIN_EVENT_CALLBACK_WATCHDOG,
            Self::IoError => remote::DOMAIN_EVENT_CALLBACK_IO_ERROR,
            Self::Graphics => remote::DOMAIN_EVENT_CALLBACK_GRAPHICS,
            Self::IoErrorReason => remote::DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON,
            Self::ControlError => remote::DOMAIN_EVENT_CALLBACK_CONTROL_ERROR,
            Self::BlockJob => remote::DOMAIN_EVENT_CALLBACK_BLOCK_JOB,
            Self::DiskChange => remote::DOMAIN_EVENT_CALLBACK_DISK_CHANGE,
            Self::TrayChange => remote::DOMAIN_EVENT_CALLBACK_TRAY_CHANGE,
            Self::PmWakeup => remote::DOMAIN_EVENT_CALLBACK_PMWAKEUP,
            Self::PmSuspend => remote::DOMAIN_EVENT_CALLBACK_PMSUSPEND,
            Self::BalloonChange => remote::DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE,
            Self::PmSuspendDisk => remote::DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK,
            Self::DeviceRemoved => remote::DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED,
            Self::BlockJob2 => remote::DOMAIN_EVENT_BLOCK_JOB_2,
            Self::Tunable => remote::DOMAIN_EVENT_CALLBACK_TUNABLE,
            Self::AgentLifecycle => remote::DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE,
            Self::DeviceAdded => remote::DOMAIN_EVENT_CALLBACK_DEVICE_ADDED,
            Self::MigrationIteration => remote::DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION,
            Self::JobCompleted => remote::DOMAIN_EVENT_CALLBACK_JOB_COMPLETED,
            Self::DeviceRemovalFailed => remote::DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED,
            Self::MetadataChange => remote::DOMAIN_EVENT_CALLBACK_METADATA_CHANGE,
            Self::BlockThreshold => remote::DOMAIN_EVENT_BLOCK_THRESHOLD,
            Self::MemoryFailure => remote::DOMAIN_EVENT_MEMORY_FAILURE,
            Self::MemoryDeviceSizeChange => remote::DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE,
            Self::NicMacChange => remote::DOMAIN_EVENT_NIC_MAC_CHANGE,
            Self::VcpuRemoved => remote::DOMAIN_EVENT_VCPU_REMOVED,
            Self::ChannelLifecycle => remote::DOMAIN_EVENT_CALLBACK_CHANNEL_LIFECYCLE,
        }
    }
}

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

fn read(connect: &Connect, message: &Message) -> Result<DomainEvent, Error> {
    use DomainEventKind as Kind;

    let payload = &message.payload;
    let (dom, kind) = match message.procedure {
        n if n == remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE.number => {
            let event: remote::DomainEventCallbackLifecycleMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::Lifecycle {
                event: Code::new(event.event),
                detail: event.detail,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_REBOOT.number => {
            let event: remote::DomainEventCallbackRebootMsg = decode(payload)?;
            (event.msg.dom, Kind::Reboot)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_RTC_CHANGE.number => {
            let event: remote::DomainEventCallbackRtcChangeMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::RtcChange {
                offset: event.offset,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_WATCHDOG.number => {
            let event: remote::DomainEventCallbackWatchdogMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::Watchdog {
                action: Code::new(event.action),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_IO_ERROR.number => {
            let event: remote::DomainEventCallbackIoErrorMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::IoError {
                path: event.src_path,
                device: event.dev_alias,
                action: Code::new(event.action),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_GRAPHICS.number => {
            let event: remote::DomainEventCallbackGraphicsMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::Graphics {
                phase: Code::new(event.phase),
                local: event.local,
                remote: event.remote,
                auth_scheme: event.auth_scheme,
                subject: event.subject,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_IO_ERROR_REASON.number => {
            let event: remote::DomainEventCallbackIoErrorReasonMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::IoErrorReason {
                path: event.src_path,
                device: event.dev_alias,
                action: Code::new(event.action),
                reason: event.reason,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_CONTROL_ERROR.number => {
            let event: remote::DomainEventCallbackControlErrorMsg = decode(payload)?;
            (event.msg.dom, Kind::ControlError)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_BLOCK_JOB.number => {
            let event: remote::DomainEventCallbackBlockJobMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::BlockJob {
                path: event.path,
                job: Code::new(event.r#type),
                status: Code::new(event.status),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_DISK_CHANGE.number => {
            let event: remote::DomainEventCallbackDiskChangeMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::DiskChange {
                old_path: event.old_src_path,
                new_path: event.new_src_path,
                device: event.dev_alias,
                reason: Code::new(event.reason),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_TRAY_CHANGE.number => {
            let event: remote::DomainEventCallbackTrayChangeMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::TrayChange {
                device: event.dev_alias,
                reason: Code::new(event.reason),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_PMWAKEUP.number => {
            let event: remote::DomainEventCallbackPmwakeupMsg = decode(payload)?;
            (event.msg.dom, Kind::PmWakeup)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_PMSUSPEND.number => {
            let event: remote::DomainEventCallbackPmsuspendMsg = decode(payload)?;
            (event.msg.dom, Kind::PmSuspend)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_BALLOON_CHANGE.number => {
            let event: remote::DomainEventCallbackBalloonChangeMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::BalloonChange {
                actual: event.actual,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_PMSUSPEND_DISK.number => {
            let event: remote::DomainEventCallbackPmsuspendDiskMsg = decode(payload)?;
            (event.msg.dom, Kind::PmSuspendDisk)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_DEVICE_REMOVED.number => {
            let event: remote::DomainEventCallbackDeviceRemovedMsg = decode(payload)?;
            let event = event.msg;
            let kind = Kind::DeviceRemoved {
                device: event.dev_alias,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_BLOCK_JOB_2.number => {
            let event: remote::DomainEventBlockJob2Msg = decode(payload)?;
            let kind = Kind::BlockJob2 {
                target: event.dst,
                job: Code::new(event.r#type),
                status: Code::new(event.status),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_TUNABLE.number => {
            let event: remote::DomainEventCallbackTunableMsg = decode(payload)?;
            let kind = Kind::Tunable {
                params: event.params.into(),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_AGENT_LIFECYCLE.number => {
            let event: remote::DomainEventCallbackAgentLifecycleMsg = decode(payload)?;
            let kind = Kind::AgentLifecycle {
                state: Code::new(event.state),
                reason: Code::new(event.reason),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_DEVICE_ADDED.number => {
            let event: remote::DomainEventCallbackDeviceAddedMsg = decode(payload)?;
            let kind = Kind::DeviceAdded {
                device: event.dev_alias,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION.number => {
            let event: remote::DomainEventCallbackMigrationIterationMsg = decode(payload)?;
            let kind = Kind::MigrationIteration {
                iteration: event.iteration,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_JOB_COMPLETED.number => {
            let event: remote::DomainEventCallbackJobCompletedMsg = decode(payload)?;
            let kind = Kind::JobCompleted {
                params: event.params.into(),
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_DEVICE_REMOVAL_FAILED.number => {
            let event: remote::DomainEventCallbackDeviceRemovalFailedMsg = decode(payload)?;
            let kind = Kind::DeviceRemovalFailed {
                device: event.dev_alias,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_METADATA_CHANGE.number => {
            let event: remote::DomainEventCallbackMetadataChangeMsg = decode(payload)?;
            let kind = Kind::MetadataChange {
                metadata: Code::new(event.r#type),
                namespace: event.nsuri,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_BLOCK_THRESHOLD.number => {
            let event: remote::DomainEventBlockThresholdMsg = decode(payload)?;
            let kind = Kind::BlockThreshold {
                device: event.dev,
                path: event.path,
                threshold: event.threshold,
                excess: event.excess,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_MEMORY_FAILURE.number => {
            let event: remote::DomainEventMemoryFailureMsg = decode(payload)?;
            let kind = Kind::MemoryFailure {
                recipient: Code::new(event.recipient),
                action: Code::new(event.action),
                flags: event.flags,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE.number => {
            let event: remote::DomainEventMemoryDeviceSizeChangeMsg = decode(payload)?;
            let kind = Kind::MemoryDeviceSizeChange {
                device: event.alias,
                size: event.size,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_NIC_MAC_CHANGE.number => {
            let event: remote::DomainEventNicMacChangeMsg = decode(payload)?;
            let kind = Kind::NicMacChange {
                device: event.alias,
                old: event.old_mac,
                new: event.new_mac,
            };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_VCPU_REMOVED.number => {
            let event: remote::DomainEventVcpuRemovedMsg = decode(payload)?;
            let kind = Kind::VcpuRemoved { vcpu: event.vcpuid };
            (event.dom, kind)
        }
        n if n == remote::DOMAIN_EVENT_CALLBACK_CHANNEL_LIFECYCLE.number => {
            let event: remote::DomainEventCallbackChannelLifecycleMsg = decode(payload)?;
            let kind = Kind::ChannelLifecycle {
                channel: event.channel_name,
                state: event.state,
                reason: event.reason,
            };
            (event.dom, kind)
        }
        // Only what was subscribed to is delivered.
        other => return Err(Error::UnknownEvent { procedure: other }),
    };
    Ok(DomainEvent {
        domain: Domain::new(connect, dom),
        kind,
    })
}
