//! What a subscriber that does not look may cost. The memory of the whole process is counted, so nothing else runs here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use libvirt::rpc::limits::{MESSAGES, READ};
use libvirt::rpc::{Interruption, Procedure};
use peak_alloc::PeakAlloc;
use support::{MESSAGE, OK, packet};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const PLAIN: Procedure = Procedure::unlisted(0x2000_8086, 1, 4);
const EVENT: Procedure = Procedure::unlisted(0x2000_8086, 1, 318);

/// What happens while the subscriber sleeps: four times what waits for it at most.
const EVENTS: usize = 4 * MESSAGES;
/// So many come at once, and then a call is made.
const BURST: usize = 256;
/// The bytes of an event: much, so that those that are kept for nothing show.
const PAYLOAD: usize = 1024;
/// What an event may take beside them, in its queue and in the allocator.
const PER_EVENT: usize = 256;
/// What the connection itself may take, whatever waits: what one read brings, as it was read and as it is taken apart, and
/// as much for the other end, which runs in this process.
const CONNECTION: usize = 4 * READ + 4 * BURST * PAYLOAD;

/// An event with its number.
fn event(number: usize) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD];
    payload[..4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    packet(318, MESSAGE, 1, OK, &payload)
}

/// Sleeps through all events, with a queue for so many.
async fn sleep_through(capacity: Option<usize>) {
    let (client, mut daemon) = support::connect();
    let kept = capacity.unwrap_or(MESSAGES);
    let allowed = kept * (PAYLOAD + PER_EVENT) + CONNECTION;
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();

    let mut events = client.subscribe(&[EVENT], capacity).unwrap();
    for first in (0..EVENTS).step_by(BURST) {
        let burst: Vec<_> = (first..first + BURST).map(event).collect();
        // The call goes out in the middle of them, and its reply comes behind them all.
        let (reply, ()) = tokio::join!(client.call(&PLAIN, Vec::new()), async {
            daemon.raw(&burst.concat()).await;
            daemon.answer(b"done").await;
        });
        assert_eq!(&reply.unwrap()[..], b"done");
    }
    let held = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(
        held <= allowed,
        "{held} bytes were held for {kept} events, {allowed} are allowed"
    );

    let missed = events.next().await.unwrap().unwrap_err();
    let expected = u64::try_from(EVENTS - kept).unwrap();
    assert!(
        matches!(missed, Interruption::Missed(count) if count == expected),
        "{missed:?}, and not {expected}"
    );
    for number in EVENTS - kept..EVENTS {
        let event = events.next().await.unwrap().unwrap();
        let word = event.payload.first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*word) as usize, number);
    }
    // And what they have taken is given back.
    let after = ALLOCATOR.current_usage().saturating_sub(before);
    let rest = kept * PER_EVENT + CONNECTION;
    assert!(after <= rest, "{after} bytes are still held, {rest} may be");
}

#[tokio::test]
async fn a_subscriber_that_sleeps_through_everything_costs_what_its_queue_may_hold() {
    sleep_through(None).await;
    sleep_through(Some(100)).await;
}
