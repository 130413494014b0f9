//! Every kind of event: the number that is registered, the procedure that brings it, and the subscriber's fields belong
//! together.
//!
//! Numbers and bytes are written down here as libvirt has them, and not taken from the crate's own tables: a kind that is
//! mixed up with another one there would be so on both sides. No two fields of an event have the same value.
//!
//! | file | what |
//! |---|---|
//! | `domain` | domains: the thirty kinds |
//! | `objects` | the other families, and the loss of the hypervisor |

mod domain;
mod objects;

use std::{fmt::Debug, time::Duration};

use futures_util::FutureExt as _;
use libvirt::{Connect, Events, Notice};
use tokio::time::timeout;

use crate::script::{Answer, Event, Scripted, words};

/// For an event that has been sent already; a busy machine takes its time.
const SOON: Duration = Duration::from_secs(30);

/// The callback's number that the daemon gives out.
const CALLBACK: u32 = 4_711;

/// Somebody else's, on the same connection.
const FOREIGN: u32 = 815;

/// How an event is asked for and brought.
#[derive(Debug, Clone)]
struct Wire {
    /// The procedure that registers.
    register: u32,
    /// All of its arguments.
    arguments: Vec<u8>,
    /// The procedure that brings the event.
    event: u32,
    /// What it brings, behind the callback's number.
    body: Vec<u8>,
}

/// A daemon that takes nothing but this registration, and then tells first what another registration has asked for, and
/// then what this one has.
fn daemon(wire: &Wire) -> Scripted {
    daemon_with(wire, 0, Vec::new())
}

/// As [`daemon`], and it answers one more procedure so.
fn daemon_with(wire: &Wire, procedure: u32, answer: Vec<u8>) -> Scripted {
    let (wire, other) = (wire.clone(), procedure);
    Scripted::unix(move |procedure, arguments| {
        if procedure == other {
            return Answer::Say(answer.clone());
        }
        if procedure != wire.register {
            return Answer::Usual;
        }
        if arguments != wire.arguments {
            return Answer::Refuse;
        }
        let events = [FOREIGN, CALLBACK].map(|callback| Event {
            procedure: wire.event,
            payload: [words(&[callback]), wire.body.clone()].concat(),
        });
        Answer::Tell(words(&[CALLBACK]), events.to_vec())
    })
}

async fn open(daemon: &Scripted) -> Connect {
    let opening = Connect::builder(&daemon.uri).keepalive(None).open();
    opening.await.unwrap()
}

/// The next event.
async fn told<T: Debug>(events: &mut Events<T>) -> T {
    let next = timeout(SOON, events.next()).await;
    match next.expect("no event came").unwrap() {
        Ok(Notice::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

/// Nothing else has come: the daemon sent everything before it answered the last call.
async fn nothing_else<T: Debug>(connect: &Connect, events: &mut Events<T>) {
    connect.raw().unwrap().connect_get_uri().await.unwrap();
    let next = events.next().now_or_never();
    assert!(next.is_none(), "{next:?}");
}
