//! What happens to domains.

use libvirt::{
    Code, Params,
    events::{
        DomainEventId as Id, DomainEventKind as Kind, GraphicsAddress, GraphicsIdentity,
        LifecycleEvent,
    },
    raw::{
        api::{
            ConnectDomainEventAgentLifecycleReason, ConnectDomainEventAgentLifecycleState,
            ConnectDomainEventBlockJobStatus, ConnectDomainEventChannelLifecycleReason,
            ConnectDomainEventChannelLifecycleState, ConnectDomainEventDiskChangeReason,
            DomainBlockJobType, DomainEventGraphicsAddressType, DomainEventGraphicsPhase,
            DomainEventIoErrorAction, DomainEventStoppedDetailType, DomainEventTrayChangeReason,
            DomainEventWatchdogAction, DomainJobOperation, DomainMemoryFailureActionType,
            DomainMemoryFailureFlags, DomainMemoryFailureRecipientType, DomainMetadataType,
        },
        remote::NonnullDomain,
    },
};

use super::{Wire, daemon, nothing_else, open, told};
use crate::script::{hyper, text, words};

/// Registers for a kind of events of domains, of all of them or of one.
const REGISTER: u32 = 316;

/// A kind of events.
struct Row {
    id: Id,
    /// libvirt's number of it (`virDomainEventID`).
    number: u32,
    /// The procedure that brings it.
    procedure: u32,
    /// What it brings, behind the callback's number.
    body: Vec<u8>,
    /// What the subscriber is told.
    kind: Kind,
}

/// Writes rows down: `NUMBER KIND { FIELDS } = PROCEDURE: BODY;`, where the domain comes first in the body but for what
/// stands before a `;`.
macro_rules! rows {
    ($($number:literal $kind:ident $({ $($field:ident: $value:expr),* $(,)? })? = $procedure:literal
        $([$($before:expr),*])? $(, $part:expr)*;)*) => {
        vec![$(Row {
            id: Id::$kind,
            number: $number,
            procedure: $procedure,
            body: [$($($before,)*)? domain(), $($part),*].concat(),
            kind: Kind::$kind $({ $($field: $value),* })?,
        }),*]
    };
}

/// The domain that everything happens to.
fn domain() -> Vec<u8> {
    [text("web"), (1..=16).collect(), words(&[3])].concat()
}

fn some(string: &str) -> Vec<u8> {
    [words(&[1]), text(string)].concat()
}

fn none() -> Vec<u8> {
    words(&[0])
}

fn s(string: &str) -> String {
    string.to_owned()
}

/// A parameter: its name, its type's number, its value.
fn param(name: &str, kind: u32, value: Vec<u8>) -> Vec<u8> {
    [text(name), words(&[kind]), value].concat()
}

/// The other number of an enumeration than those that it has.
fn unknown<E: libvirt::Enumeration>(number: i32) -> Code<E> {
    let code = Code::new(number);
    assert!(code.known().is_none(), "{code:?}");
    code
}

fn early() -> Vec<Row> {
    rows![
        0 Lifecycle {
            event: LifecycleEvent::Stopped(DomainEventStoppedDetailType::Saved.into()),
        } = 318, words(&[5, 4]);
        1 Reboot = 319;
        2 RtcChange { offset: -3600 } = 320, (-3600_i64).to_be_bytes().to_vec();
        3 Watchdog { action: DomainEventWatchdogAction::Poweroff.into() } = 321, words(&[3]);
        4 IoError {
            path: s("/a.img"), device: s("virtio-disk0"), action: DomainEventIoErrorAction::Pause.into(),
        } = 322, text("/a.img"), text("virtio-disk0"), words(&[1]);
        5 Graphics {
            phase: DomainEventGraphicsPhase::Disconnect.into(),
            local: GraphicsAddress {
                family: DomainEventGraphicsAddressType::Ipv4.into(), node: s("192.0.2.1"), service: s("5901"),
            },
            remote: GraphicsAddress {
                family: DomainEventGraphicsAddressType::Ipv6.into(), node: s("2001:db8::2"), service: s("49152"),
            },
            auth_scheme: s("vnc"),
            subject: vec![
                GraphicsIdentity { kind: s("x509dname"), name: s("CN=me") },
                GraphicsIdentity { kind: s("saslUsername"), name: s("you") },
            ],
        } = 323, words(&[2]),
            words(&[0]), text("192.0.2.1"), text("5901"),
            words(&[1]), text("2001:db8::2"), text("49152"),
            text("vnc"), words(&[2]), text("x509dname"), text("CN=me"), text("saslUsername"), text("you");
        6 IoErrorReason {
            path: s("/b.img"), device: s("ide0-0-1"), action: DomainEventIoErrorAction::Report.into(),
            reason: s("enospc"),
        } = 324, text("/b.img"), text("ide0-0-1"), words(&[2]), text("enospc");
        7 ControlError = 325;
        8 BlockJob {
            path: s("/c.img"), job: DomainBlockJobType::Copy.into(),
            status: ConnectDomainEventBlockJobStatus::Ready.into(),
        } = 326, text("/c.img"), words(&[2, 3]);
        9 DiskChange {
            old_path: Some(s("/old.iso")), new_path: None, device: s("sata0-0-0"),
            reason: ConnectDomainEventDiskChangeReason::DropMissingOnStart.into(),
        } = 327, some("/old.iso"), none(), text("sata0-0-0"), words(&[1]);
    ]
}

fn later() -> Vec<Row> {
    rows![
        10 TrayChange { device: s("sata0-0-1"), reason: DomainEventTrayChangeReason::Close.into() }
            = 328, text("sata0-0-1"), words(&[1]);
        11 PmWakeup { reason: 21 } = 329 [words(&[21])];
        12 PmSuspend { reason: 22 } = 330 [words(&[22])];
        13 BalloonChange { actual: 1 << 33 } = 331, hyper(1 << 33);
        14 PmSuspendDisk { reason: 23 } = 332 [words(&[23])];
        15 DeviceRemoved { device: s("usb-disk0") } = 333, text("usb-disk0");
        16 BlockJob2 {
            target: s("vdc"), job: DomainBlockJobType::ActiveCommit.into(),
            status: ConnectDomainEventBlockJobStatus::Canceled.into(),
        } = 339, text("vdc"), words(&[4, 2]);
        17 Tunable {
            params: Params::new()
                .with("cputune.vcpupin0", "0-1")
                .with("cputune.cpu_shares", 2048_u64)
                .with("cputune.vcpu_quota", -1_i64),
        } = 346, words(&[3]),
            param("cputune.vcpupin0", 7, text("0-1")),
            param("cputune.cpu_shares", 4, hyper(2048)),
            param("cputune.vcpu_quota", 3, (-1_i64).to_be_bytes().to_vec());
        18 AgentLifecycle {
            state: ConnectDomainEventAgentLifecycleState::Disconnected.into(),
            reason: ConnectDomainEventAgentLifecycleReason::DomainStarted.into(),
        } = 348, words(&[2, 1]);
        19 DeviceAdded { device: s("net1") } = 354, text("net1");
    ]
}

fn latest() -> Vec<Row> {
    rows![
        20 MigrationIteration { iteration: 17 } = 359, words(&[17]);
        21 JobCompleted {
            operation: Some(DomainJobOperation::Dump.into()),
            params: Params::new()
                .with("time_elapsed", 1500_u64)
                .with("operation", 8)
                .with("success", true),
        } = 363, words(&[3]),
            param("time_elapsed", 4, hyper(1500)),
            param("operation", 1, words(&[8])),
            param("success", 6, words(&[1]));
        22 DeviceRemovalFailed { device: s("hostdev0") } = 367, text("hostdev0");
        23 MetadataChange { metadata: DomainMetadataType::Element.into(), namespace: Some(s("http://a/1")) }
            = 379, words(&[2]), some("http://a/1");
        24 BlockThreshold {
            device: s("vda[1]"), path: Some(s("/d.img")), threshold: 1 << 20, excess: 4096,
        } = 385, text("vda[1]"), some("/d.img"), hyper(1 << 20), hyper(4096);
        25 MemoryFailure {
            recipient: DomainMemoryFailureRecipientType::Guest.into(),
            action: DomainMemoryFailureActionType::Reset.into(),
            flags: DomainMemoryFailureFlags::RECURSIVE,
        } = 423, words(&[1, 3, 2]);
        26 MemoryDeviceSizeChange { device: s("virtiomem0"), size: 5 << 32 }
            = 438, text("virtiomem0"), hyper(5 << 32);
        27 NicMacChange {
            device: s("net0"), old: s("52:54:00:00:00:01"), new: s("52:54:00:00:00:02"),
        } = 453, text("net0"), text("52:54:00:00:00:01"), text("52:54:00:00:00:02");
        28 VcpuRemoved { vcpu: 6 } = 454, words(&[6]);
        29 ChannelLifecycle {
            channel: s("org.example.0"),
            state: ConnectDomainEventChannelLifecycleState::Connected.into(),
            reason: ConnectDomainEventChannelLifecycleReason::Channel.into(),
        } = 455, text("org.example.0"), words(&[1, 2]);
    ]
}

fn rows() -> Vec<Row> {
    [early(), later(), latest()].into_iter().flatten().collect()
}

/// The same kinds with what a daemon may say as well: nothing, or numbers that are new.
fn other_rows() -> Vec<Row> {
    rows![
        0 Lifecycle { event: LifecycleEvent::Unknown { event: 77, detail: 78 } } = 318, words(&[77, 78]);
        9 DiskChange {
            old_path: None, new_path: Some(s("/new.iso")), device: s("fdc0-0-0"), reason: unknown(79),
        } = 327, none(), some("/new.iso"), text("fdc0-0-0"), words(&[79]);
        17 Tunable { params: Params::new() } = 346, words(&[0]);
        21 JobCompleted { operation: None, params: Params::new() } = 363, words(&[0]);
        23 MetadataChange { metadata: DomainMetadataType::Title.into(), namespace: None }
            = 379, words(&[1]), none();
        24 BlockThreshold { device: s("vdb"), path: None, threshold: 1, excess: 2 }
            = 385, text("vdb"), none(), hyper(1), hyper(2);
    ]
}

#[test]
fn every_kind_of_event_of_domains_has_a_row_here() {
    let rows = rows();
    let ids: Vec<Id> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids, Id::ALL);
    // Each procedure brings one kind.
    let mut procedures: Vec<u32> = rows.iter().map(|row| row.procedure).collect();
    procedures.sort_unstable();
    procedures.dedup();
    assert_eq!(procedures.len(), rows.len());
}

#[tokio::test]
async fn a_subscriber_to_any_kind_of_event_of_domains_is_told_what_the_daemon_sends() {
    for row in rows().into_iter().chain(other_rows()) {
        let daemon = daemon(&Wire {
            register: REGISTER,
            arguments: [words(&[row.number]), none()].concat(),
            event: row.procedure,
            body: row.body,
        });
        let connect = open(&daemon).await;
        let mut events = connect.domain_events(&[row.id], None, None).await.unwrap();
        let event = told(&mut events).await;
        assert_eq!(event.kind, row.kind);
        let of = NonnullDomain {
            name: s("web"),
            uuid: std::array::from_fn(|index| u8::try_from(index).unwrap() + 1),
            id: 3,
        };
        assert_eq!(*event.domain.raw(), of, "{:?}", row.id);
        nothing_else(&connect, &mut events).await;
        connect.close().await;
    }
}

#[tokio::test]
async fn events_of_one_domain_are_asked_for_by_its_name() {
    let lookup = 23;
    for row in rows() {
        let wire = Wire {
            register: REGISTER,
            arguments: [words(&[row.number, 1]), domain()].concat(),
            event: row.procedure,
            body: row.body,
        };
        let daemon = super::daemon_with(&wire, lookup, domain());
        let connect = open(&daemon).await;
        let web = connect.domain_by_name("web").await.unwrap();
        let events = connect.domain_events(&[row.id], Some(&web), None).await;
        let event = told(&mut events.unwrap()).await;
        assert_eq!((event.kind, event.domain), (row.kind, web));
        connect.close().await;
    }
}
