use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tonic::Code;
use vbridge_api::guest::v1::{storage_client::StorageClient, system_client::SystemClient};

use super::*;
use crate::qemu::script::{Script, no};

/// An agent with two file systems, `/` and `/boot`.
fn guest() -> (Arc<Script>, Arc<AtomicBool>) {
    let frozen = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&frozen);
    let script = Script::new(move |command, arguments| {
        let is_frozen = state.load(Ordering::SeqCst);
        match command {
            "guest-ping" => Ok(json!({})),
            "guest-fsfreeze-status" if is_frozen => Ok(json!("frozen")),
            "guest-fsfreeze-status" => Ok(json!("thawed")),
            "guest-fsfreeze-thaw" => {
                let count = if state.swap(false, Ordering::SeqCst) {
                    2
                } else {
                    0
                };
                Ok(json!(count))
            }
            _ if is_frozen => Err(no(
                command,
                "Command x has been disabled: the agent is in frozen state",
            )),
            "guest-get-fsinfo" => Ok(json!([{ "mountpoint": "/boot" }, { "mountpoint": "/" }])),
            "guest-fsfreeze-freeze" => {
                state.store(true, Ordering::SeqCst);
                Ok(json!(2))
            }
            "guest-fsfreeze-freeze-list" => {
                state.store(true, Ordering::SeqCst);
                let count = arguments["mountpoints"].as_array().map_or(0, Vec::len);
                Ok(json!(count))
            }
            "guest-get-timezone" => Ok(json!({ "offset": 0 })),
            _ => Err(no(command, "no")),
        }
    });
    (script, frozen)
}

fn asked(mount_points: &[&str], limit: Option<i64>) -> api::StorageFreezeRequest {
    api::StorageFreezeRequest {
        mount_points: mount_points
            .iter()
            .map(|mount| (*mount).to_owned())
            .collect(),
        limit: limit.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_standstill_ends_by_itself_and_says_so() {
    let (script, frozen) = guest();
    let mut client = StorageClient::new(script.serve());
    let answer = client.freeze(asked(&[], Some(5))).await.unwrap();
    assert_eq!(answer.into_inner().frozen, ["/", "/boot"]);
    assert!(frozen.load(Ordering::SeqCst));
    let status = client
        .freeze_status(api::StorageFreezeStatusRequest {})
        .await;
    let status = status.unwrap().into_inner();
    assert_eq!((status.frozen.len(), status.expired), (2, false));
    assert!(status.remaining.is_some());
    sleep(Duration::from_secs(6)).await;
    assert!(!frozen.load(Ordering::SeqCst));
    let status = client
        .freeze_status(api::StorageFreezeStatusRequest {})
        .await;
    let status = status.unwrap().into_inner();
    assert_eq!((status.frozen.len(), status.expired), (0, true));
}

#[tokio::test(start_paused = true)]
async fn other_calls_are_refused_meanwhile_and_are_not_sent() {
    let (script, _frozen) = guest();
    let services = script.serve();
    let mut storage = StorageClient::new(services.clone());
    let mut system = SystemClient::new(services);
    storage.freeze(asked(&["/"], None)).await.unwrap();
    let sent = script.commands().len();
    let status = system
        .get_timezone(api::GetTimezoneRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let status = storage.freeze(asked(&[], None)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(script.commands().len(), sent);
    system.ping(api::PingRequest::default()).await.unwrap();
    let thawed = storage.thaw(api::StorageThawRequest {}).await.unwrap();
    assert_eq!(thawed.into_inner().thawed, ["/"]);
    system
        .get_timezone(api::GetTimezoneRequest {})
        .await
        .unwrap();
    let thawed = storage.thaw(api::StorageThawRequest {}).await.unwrap();
    assert!(thawed.into_inner().thawed.is_empty());
    // The limit of the first must not end a second one.
    storage.freeze(asked(&[], Some(100))).await.unwrap();
    sleep(Duration::from_secs(70)).await;
    let status = storage
        .freeze_status(api::StorageFreezeStatusRequest {})
        .await;
    assert_eq!(status.unwrap().into_inner().frozen.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_does_not_wait_leaves_nothing_frozen() {
    let (script, frozen) = guest();
    let services = script.serve();
    let mut client = StorageClient::new(services.clone());
    let gone = tokio::time::timeout(Duration::ZERO, client.freeze(asked(&[], None)));
    assert!(gone.await.is_err());
    sleep(Duration::from_secs(1)).await;
    assert!(!frozen.load(Ordering::SeqCst));
    let mut client = StorageClient::new(services);
    client.freeze(asked(&[], None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_thawed_is_tried_again() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let script = Script::new(move |command, _| match command {
        "guest-fsfreeze-freeze" => Ok(json!(1)),
        "guest-fsfreeze-thaw" if counted.fetch_add(1, Ordering::SeqCst) < 3 => {
            Err(no(command, "no"))
        }
        "guest-fsfreeze-thaw" => Ok(json!(1)),
        "guest-fsfreeze-status" => Ok(json!("thawed")),
        _ => Err(no(command, "no")),
    });
    let mut client = StorageClient::new(script.serve());
    let answer = client
        .freeze(asked(&[], Some(1)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.frozen, [SOME]);
    assert!(answer.skipped[0].contains("has frozen 1"));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(tries.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_is_told_to_thaw_all_the_same() {
    let script = Script::new(|command, _| match command {
        "guest-fsfreeze-freeze" => Err(Failure::Away {
            reason: error::Reason::GuestSilent,
            why: "silence".to_owned(),
        }),
        "guest-fsfreeze-thaw" => Ok(json!(0)),
        _ => Err(no(command, "no")),
    });
    let mut client = StorageClient::new(script.serve());
    let status = client.freeze(asked(&[], None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(script.commands().last().unwrap(), "guest-fsfreeze-thaw");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_frozen() {
    let (script, frozen) = guest();
    let mut client = StorageClient::new(script.serve());
    for (request, code) in [
        (asked(&[], Some(601)), Code::InvalidArgument),
        (asked(&[], Some(0)), Code::InvalidArgument),
        (asked(&[], Some(-1)), Code::InvalidArgument),
        (asked(&["/"; 257], None), Code::InvalidArgument),
        (asked(&["/nowhere"], None), Code::NotFound),
    ] {
        assert_eq!(client.freeze(request).await.unwrap_err().code(), code);
        assert!(!frozen.load(Ordering::SeqCst));
    }
    client.freeze(asked(&[], None)).await.unwrap();
}

#[test]
fn as_many_as_could_be_are_those_and_others_are_not_named() {
    let mounts = || vec!["/".to_owned(), "/boot".to_owned()];
    assert_eq!(told(2, mounts()).frozen, mounts());
    assert_eq!(told(1, mounts()).frozen, [SOME]);
    assert_eq!(told(u64::MAX, mounts()).frozen, [SOME]);
    let none = told(0, mounts());
    assert_eq!((none.frozen.len(), none.skipped.len()), (0, 2));
}
