//! What becomes of the numbers in events, known and unknown ones.

use super::domain::{DomainEvent, DomainEventKind, GraphicsAddress};
use super::lifecycle::LifecycleEvent;
use super::objects::CloseEvent;
use crate::connect::Connect;
use crate::raw::api::{
    ConnectCloseReason, ConnectDomainEventChannelLifecycleReason,
    ConnectDomainEventChannelLifecycleState, DomainEventGraphicsAddressType,
    DomainEventStoppedDetailType, DomainEventType, DomainJobOperation, DomainMemoryFailureFlags,
};
use crate::raw::encode;
use crate::raw::remote::{self, TypedParam, TypedParamValue};
use crate::rpc::{Message, Procedure};

fn message<T: serde::Serialize>(procedure: &Procedure, payload: &T) -> Message {
    Message {
        program: procedure.program,
        procedure: procedure.number,
        payload: encode(payload).unwrap().into(),
    }
}

/// What the subscriber is told.
fn told<T: serde::Serialize>(procedure: &Procedure, payload: &T) -> DomainEventKind {
    let connect = Connect::for_test();
    DomainEvent::read(&connect, &message(procedure, payload))
        .unwrap()
        .kind
}

#[test]
fn a_lifecycle_event_has_the_reasons_of_its_kind() {
    let stopped = LifecycleEvent::new(5, 2);
    assert_eq!(
        stopped,
        LifecycleEvent::Stopped(DomainEventStoppedDetailType::Crashed.into())
    );
    assert_eq!(stopped.to_string(), "Stopped (Crashed)");
    for number in 0.. {
        let event = LifecycleEvent::new(number, 1);
        assert_eq!((event.event().raw(), event.detail()), (number, 1));
        let unknown = matches!(event, LifecycleEvent::Unknown { .. });
        assert_eq!(unknown, DomainEventType::from_raw(number).is_none());
        if unknown {
            break;
        }
    }
}

#[test]
fn a_lifecycle_event_keeps_numbers_that_are_not_known() {
    let reason = LifecycleEvent::new(5, 99);
    assert!(matches!(reason, LifecycleEvent::Stopped(why) if why.known().is_none()));
    assert_eq!(reason.detail(), 99);
    assert_eq!(reason.to_string(), "Stopped (unknown (99))");
    let event = LifecycleEvent::new(77, 99);
    let (number, detail) = (77, 99);
    assert_eq!(
        event,
        LifecycleEvent::Unknown {
            event: number,
            detail
        }
    );
    assert_eq!(event.to_string(), "unknown (77) (99)");
}

#[tokio::test]
async fn a_channels_state_and_reason_have_names() {
    let event = remote::DomainEventCallbackChannelLifecycleMsg {
        channel_name: "org.example.0".to_owned(),
        state: 1,
        reason: 2,
        ..Default::default()
    };
    let expected = DomainEventKind::ChannelLifecycle {
        channel: "org.example.0".to_owned(),
        state: ConnectDomainEventChannelLifecycleState::Connected.into(),
        reason: ConnectDomainEventChannelLifecycleReason::Channel.into(),
    };
    let procedure = remote::DOMAIN_EVENT_CALLBACK_CHANNEL_LIFECYCLE;
    assert_eq!(told(&procedure, &event), expected);
}

#[tokio::test]
async fn a_displays_addresses_have_families() {
    let address = |family, node: &str| remote::DomainEventGraphicsAddress {
        family,
        node: node.to_owned(),
        service: "5900".to_owned(),
    };
    let event = remote::DomainEventCallbackGraphicsMsg {
        msg: remote::DomainEventGraphicsMsg {
            local: address(1, "::1"),
            remote: address(7, "somewhere"),
            ..Default::default()
        },
        ..Default::default()
    };
    let procedure = remote::DOMAIN_EVENT_CALLBACK_GRAPHICS;
    let DomainEventKind::Graphics { local, remote, .. } = told(&procedure, &event) else {
        panic!("another event");
    };
    let expected = GraphicsAddress {
        family: DomainEventGraphicsAddressType::Ipv6.into(),
        node: "::1".to_owned(),
        service: "5900".to_owned(),
    };
    assert_eq!(local, expected);
    assert_eq!((remote.family.raw(), remote.family.known()), (7, None));
}

#[tokio::test]
async fn numbers_and_flags_without_names_are_kept() {
    let event = remote::DomainEventCallbackPmsuspendMsg {
        reason: 3,
        ..Default::default()
    };
    let procedure = remote::DOMAIN_EVENT_CALLBACK_PMSUSPEND;
    let expected = DomainEventKind::PmSuspend { reason: 3 };
    assert_eq!(told(&procedure, &event), expected);

    let event = remote::DomainEventMemoryFailureMsg {
        flags: 0x82,
        ..Default::default()
    };
    let told = told(&remote::DOMAIN_EVENT_MEMORY_FAILURE, &event);
    let DomainEventKind::MemoryFailure { flags, .. } = told else {
        panic!("another event");
    };
    assert!(flags.contains(DomainMemoryFailureFlags::RECURSIVE));
    assert_eq!(flags.bits(), 0x82);
}

#[tokio::test]
async fn a_job_that_has_ended_is_named_where_the_daemon_says_which() {
    let param = |field: &str, value| TypedParam {
        field: field.to_owned(),
        value: TypedParamValue::Int(value),
    };
    let told = |params| {
        let event = remote::DomainEventCallbackJobCompletedMsg {
            params,
            ..Default::default()
        };
        match told(&remote::DOMAIN_EVENT_CALLBACK_JOB_COMPLETED, &event) {
            DomainEventKind::JobCompleted { operation, params } => (operation, params.len()),
            other => panic!("{other:?}"),
        }
    };
    let save = DomainJobOperation::Save.as_raw();
    let (operation, count) = told(vec![param("time", 9), param("operation", save)]);
    assert!(operation.is_some_and(|operation| operation == DomainJobOperation::Save));
    assert_eq!(count, 2);
    assert_eq!(told(Vec::new()).0, None);
}

#[tokio::test]
async fn the_loss_of_a_hypervisor_has_a_reason() {
    let event = remote::ConnectEventConnectionClosedMsg { reason: 2 };
    let message = message(&remote::CONNECT_EVENT_CONNECTION_CLOSED, &event);
    let event = CloseEvent::read(&Connect::for_test(), &message).unwrap();
    assert_eq!(event.reason, ConnectCloseReason::Keepalive);
}
