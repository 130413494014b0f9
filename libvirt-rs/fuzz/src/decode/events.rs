//! Events, as the client reads them: by the procedure's number.

use libvirt::raw::{qemu, remote};

use super::{encode, refused};

macro_rules! encoding {
    ($event:expr, $module:ident: $($variant:ident)*) => {
        match $event {
            $($module::Event::$variant(message) => encode(message),)*
            other => panic!("an event that the target does not know, list it: {other:?}"),
        }
    };
}

/// An event of the main program: procedure and message.
pub(super) fn remote(input: &[u8]) -> bool {
    let Some((procedure, payload)) = procedure(input) else {
        return false;
    };
    match remote::Event::decode(procedure, payload) {
        Ok(None) => false,
        Ok(Some(event)) => {
            let encoding = encoding!(&event, remote:
                DomainEventLifecycle DomainEventReboot DomainEventRtcChange DomainEventWatchdog DomainEventIoError
                DomainEventGraphics DomainEventIoErrorReason DomainEventControlError DomainEventBlockJob
                DomainEventDiskChange DomainEventTrayChange DomainEventPmwakeup DomainEventPmsuspend
                DomainEventBalloonChange DomainEventPmsuspendDisk DomainEventDeviceRemoved NetworkEventLifecycle
                DomainEventCallbackLifecycle DomainEventCallbackReboot DomainEventCallbackRtcChange
                DomainEventCallbackWatchdog DomainEventCallbackIoError DomainEventCallbackGraphics
                DomainEventCallbackIoErrorReason DomainEventCallbackControlError DomainEventCallbackBlockJob
                DomainEventCallbackDiskChange DomainEventCallbackTrayChange DomainEventCallbackPmwakeup
                DomainEventCallbackPmsuspend DomainEventCallbackBalloonChange DomainEventCallbackPmsuspendDisk
                DomainEventCallbackDeviceRemoved DomainEventBlockJob2 DomainEventCallbackTunable
                DomainEventCallbackAgentLifecycle DomainEventCallbackDeviceAdded
                DomainEventCallbackMigrationIteration ConnectEventConnectionClosed DomainEventCallbackJobCompleted
                DomainEventCallbackDeviceRemovalFailed StoragePoolEventLifecycle StoragePoolEventRefresh
                NodeDeviceEventLifecycle NodeDeviceEventUpdate DomainEventCallbackMetadataChange
                SecretEventLifecycle SecretEventValueChanged DomainEventBlockThreshold DomainEventMemoryFailure
                DomainEventMemoryDeviceSizeChange NetworkEventCallbackMetadataChange DomainEventNicMacChange
                DomainEventVcpuRemoved DomainEventCallbackChannelLifecycle);
            assert!(
                encoding == payload,
                "{encoding:x?} was read from {payload:x?}"
            );
            true
        }
        Err(error) => refused(&error, payload),
    }
}

/// An event of the QEMU program.
pub(super) fn qemu(input: &[u8]) -> bool {
    let Some((procedure, payload)) = procedure(input) else {
        return false;
    };
    match qemu::Event::decode(procedure, payload) {
        Ok(None) => false,
        Ok(Some(event)) => {
            let encoding = encoding!(&event, qemu: DomainMonitorEvent);
            assert!(
                encoding == payload,
                "{encoding:x?} was read from {payload:x?}"
            );
            true
        }
        Err(error) => refused(&error, payload),
    }
}

fn procedure(input: &[u8]) -> Option<(i32, &[u8])> {
    let (number, payload) = input.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number).into(), payload))
}
