//! What happens to networks, pools, devices and secrets, and to the hypervisor itself.

use libvirt::{
    events::{
        NetworkEventId, NetworkEventKind, NodeDeviceEventId, NodeDeviceEventKind, SecretEventId,
        SecretEventKind, StoragePoolEventId, StoragePoolEventKind,
    },
    raw::api::{
        ConnectCloseReason, NetworkEventLifecycleType, NetworkMetadataType,
        NodeDeviceEventLifecycleType, SecretEventLifecycleType, SecretUsageType,
        StoragePoolEventLifecycleType,
    },
};

use super::{Wire, daemon, nothing_else, open, told};
use crate::script::{Answer, Event, Scripted, text, words};

const UUID: [u8; 16] = [9; 16];

/// A registration for a kind of events of all objects, and the event.
fn wire(register: u32, number: u32, event: u32, body: Vec<u8>) -> Wire {
    Wire {
        register,
        arguments: words(&[number, 0]),
        event,
        body,
    }
}

/// Subscribes to each kind of a family and compares what comes.
macro_rules! family {
    ($family:ident, $id:ident, $is:expr, [$($kind:expr => $wire:expr),* $(,)?]) => {
        let rows = [$(($kind, $wire)),*];
        assert_eq!(rows.len(), $id::ALL.len());
        for (&id, (kind, wire)) in $id::ALL.iter().zip(rows) {
            let daemon = daemon(&wire);
            let connect = open(&daemon).await;
            let mut events = connect.$family(&[id], None, None).await.unwrap();
            let event = told(&mut events).await;
            assert_eq!(event.kind, kind);
            assert!($is(&event.object), "{id:?}: {:?}", event.object);
            nothing_else(&connect, &mut events).await;
            connect.close().await;
        }
    };
}

#[tokio::test]
async fn a_subscriber_to_any_kind_of_event_of_networks_is_told_what_the_daemon_sends() {
    let of = || [text("lan"), UUID.to_vec()].concat();
    let is =
        |network: &libvirt::Network| (network.name(), network.uuid().into_bytes()) == ("lan", UUID);
    family!(network_events, NetworkEventId, is, [
        NetworkEventKind::Lifecycle { event: NetworkEventLifecycleType::Stopped.into(), detail: 31 }
            => wire(313, 0, 315, [of(), words(&[3, 31])].concat()),
        NetworkEventKind::MetadataChange {
            metadata: NetworkMetadataType::Element.into(), namespace: Some("http://a/1".to_owned()),
        } => wire(313, 1, 446, [of(), words(&[2, 1]), text("http://a/1")].concat()),
    ]);
}

#[tokio::test]
async fn a_subscriber_to_any_kind_of_event_of_storage_pools_is_told_what_the_daemon_sends() {
    let of = || [text("kept"), UUID.to_vec()].concat();
    let is =
        |pool: &libvirt::StoragePool| (pool.name(), pool.uuid().into_bytes()) == ("kept", UUID);
    family!(storage_pool_events, StoragePoolEventId, is, [
        StoragePoolEventKind::Lifecycle { event: StoragePoolEventLifecycleType::Deleted.into(), detail: 32 }
            => wire(368, 0, 370, [of(), words(&[5, 32])].concat()),
        StoragePoolEventKind::Refresh => wire(368, 1, 373, of()),
    ]);
}

#[tokio::test]
async fn a_subscriber_to_any_kind_of_event_of_devices_is_told_what_the_daemon_sends() {
    let of = || text("pci_0000_00_02_0");
    let is = |device: &libvirt::NodeDevice| device.name() == "pci_0000_00_02_0";
    family!(node_device_events, NodeDeviceEventId, is, [
        NodeDeviceEventKind::Lifecycle { event: NodeDeviceEventLifecycleType::Undefined.into(), detail: 33 }
            => wire(374, 0, 376, [of(), words(&[3, 33])].concat()),
        NodeDeviceEventKind::Update => wire(374, 1, 377, of()),
    ]);
}

#[tokio::test]
async fn a_subscriber_to_any_kind_of_event_of_secrets_is_told_what_the_daemon_sends() {
    let of = || [UUID.to_vec(), words(&[3]), text("target")].concat();
    let is = |secret: &libvirt::Secret| {
        let (uuid, kind) = (secret.uuid().into_bytes(), secret.usage_kind());
        (uuid, secret.usage()) == (UUID, "target") && kind == SecretUsageType::Iscsi
    };
    family!(secret_events, SecretEventId, is, [
        SecretEventKind::Lifecycle { event: SecretEventLifecycleType::Undefined.into(), detail: 34 }
            => wire(380, 0, 382, [of(), words(&[1, 34])].concat()),
        SecretEventKind::ValueChanged => wire(380, 1, 383, of()),
    ]);
}

/// This family has no callbacks' numbers: nothing comes before the reason.
#[tokio::test]
async fn the_loss_of_the_hypervisor_is_told_with_its_reason() {
    const REGISTER: u32 = 360;
    const CLOSED: u32 = 362;
    const UNREGISTER: u32 = 361;

    let reasons = [
        ConnectCloseReason::Error,
        ConnectCloseReason::Eof,
        ConnectCloseReason::Keepalive,
        ConnectCloseReason::Client,
    ];
    for (number, reason) in (0..).zip(reasons) {
        let daemon = Scripted::unix(move |procedure, _| {
            if procedure != REGISTER {
                return Answer::Usual;
            }
            let event = Event {
                procedure: CLOSED,
                payload: words(&[number]),
            };
            Answer::Tell(Vec::new(), vec![event])
        });
        let connect = open(&daemon).await;
        let mut events = connect.close_events(None).await.unwrap();
        assert_eq!(told(&mut events).await.reason, reason);
        nothing_else(&connect, &mut events).await;
        let asked = daemon.calls().into_iter();
        let asked: Vec<_> = asked.filter(|call| call.procedure == REGISTER).collect();
        assert!(matches!(&asked[..], [call] if call.arguments.is_empty()));
        assert!(!daemon.procedures().contains(&UNREGISTER));
        connect.close().await;
    }
}
