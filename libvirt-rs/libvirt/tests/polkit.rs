//! A daemon that asks polkit who may come in, which may ask a person.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use libvirt::raw::api::ErrorNumber;
use libvirt::{Connect, Error};
use support::{Packet, Place, error_payload, text, words};

const CONNECT_OPEN: u32 = 1;
const CONNECT_CLOSE: u32 = 2;
const AUTH_LIST: u32 = 66;
const AUTH_POLKIT: u32 = 70;
const CONNECT_GET_URI: u32 = 110;

/// `REMOTE_AUTH_POLKIT`, the one way that the daemon offers.
const POLKIT: u32 = 2;
/// `VIR_FROM_POLKIT`.
const FROM_POLKIT: i32 = 60;

/// What polkit says, as the daemon tells it.
type Verdict = Result<Vec<u8>, Vec<u8>>;

fn yes() -> Verdict {
    Ok(words(&[1]))
}

fn no(code: ErrorNumber, said: &str) -> Verdict {
    Err(error_payload(code.as_raw(), FROM_POLKIT, said))
}

/// Opens a connection to a daemon whose polkit says this. Gives the result, and all that the daemon was asked.
async fn open(verdict: Verdict) -> (Result<Connect, Error>, Vec<Packet>) {
    let place = Place::new();
    let mut asked = Vec::new();
    let serving = async {
        let daemon = place.daemon().await;
        let answering = daemon.serve(|call| {
            asked.push(call.clone());
            match call.procedure {
                AUTH_LIST => Ok(words(&[1, POLKIT])),
                AUTH_POLKIT => verdict.clone(),
                CONNECT_GET_URI => Ok(text("test:///default")),
                _ => Ok(Vec::new()),
            }
        });
        answering.await;
    };
    let opening = async {
        let opened = Connect::builder(&place.uri()).keepalive(None).open().await;
        // Then the daemon sees the end, and all has been asked.
        if let Ok(connect) = &opened {
            connect.close().await;
        }
        opened
    };
    let (opened, ()) = tokio::join!(opening, serving);
    (opened, asked)
}

fn procedures(asked: &[Packet]) -> Vec<u32> {
    asked.iter().map(|call| call.procedure).collect()
}

#[tokio::test]
async fn a_client_that_polkit_lets_in_is_asked_for_nothing_else() {
    let (opened, asked) = open(yes()).await;
    assert_eq!(opened.unwrap().uri(), "test:///default");
    assert_eq!(
        procedures(&asked),
        [
            AUTH_LIST,
            AUTH_POLKIT,
            CONNECT_OPEN,
            CONNECT_GET_URI,
            CONNECT_CLOSE
        ]
    );
    assert!(asked[1].payload.is_empty(), "{:?}", asked[1]);
}

#[tokio::test]
async fn a_client_that_polkit_refuses_has_the_daemons_reason_and_goes() {
    let said = "authentication failed: access denied by policy";
    for code in [
        ErrorNumber::AuthFailed,
        ErrorNumber::AuthCancelled,
        ErrorNumber::AuthUnavailable,
    ] {
        let (opened, asked) = open(no(code, said)).await;
        let error = opened.unwrap_err();
        assert!(error.is(code), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(procedures(&asked), [AUTH_LIST, AUTH_POLKIT]);
    }
}

#[tokio::test]
async fn a_person_who_does_not_decide_is_waited_for_as_long_as_opening_may_take() {
    let place = Place::new();
    let limit = Duration::from_millis(100);
    let opening = Connect::builder(&place.uri())
        .keepalive(None)
        .open_within(limit)
        .open();
    let (opened, rest) = tokio::join!(opening, async {
        let mut daemon = place.daemon().await;
        daemon.answer(&words(&[1, POLKIT])).await;
        daemon.rest().await
    });
    let error = opened.unwrap_err();
    assert!(
        matches!(&error, Error::OpeningTooSlow { limit: said, .. } if *said == limit),
        "{error}"
    );
    assert!(error.to_string().contains("a person"), "{error}");
    // The daemon is not left with somebody who waits.
    assert_eq!(procedures(&rest), [AUTH_POLKIT]);
}
