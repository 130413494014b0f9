//! Many calls at once, and calls that nobody reads.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout};

use super::{SOON, Transcript, counted, rest_soon, soon, unique};
use crate::{
    content,
    exercise::v1::{
        BidiRequest, BulkReadRequest, BulkWriteRequest, BulkWriteResponse, CountersRequest,
        UnaryRequest,
    },
    place::Place,
    raw::{Call, Connection, Event, Windows, digest, path},
};

/// Streams at once, as the project promises them.
const STREAMS: usize = 1000;

/// A sender that has been stopped sends nothing for so long.
const STILL: Duration = Duration::from_millis(500);

/// What a sender may get rid of before it is stopped: the windows of all on the way, the kernel's buffers, and the
/// queues of QEMU. Many times less than what it would send if it were not stopped.
const UNDER_WAY: u64 = 24 * 1024 * 1024;

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_thousand_streams_share_one_connection(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    let mut calls = Vec::new();
    for _ in 0..STREAMS {
        calls.push(connection.call(&path("Bidi"), &[]).await?);
    }
    // All are open before the first says a word.
    try_join_all(
        calls
            .iter_mut()
            .map(|call| soon(call, "headers of one of a thousand")),
    )
    .await?;
    let mut seen = Transcript::default();
    for round in 0..3 {
        for (index, call) in calls.iter_mut().enumerate() {
            let payload = content::bytes(index as u64, round, 200);
            call.send(&BidiRequest {
                payload,
                ..Default::default()
            })
            .await?;
        }
        let answers = try_join_all(calls.iter_mut().map(|call| soon(call, "an echo"))).await?;
        let all: String = answers.iter().map(ToString::to_string).collect();
        seen.note(format!(
            "round {round}: {} answers, {}",
            answers.len(),
            digest(all.as_bytes())
        ));
    }
    let ends = try_join_all(calls.iter_mut().map(|call| async {
        call.finish()?;
        rest_soon(call, "the end of one of a thousand").await
    }));
    let all: String = ends
        .await?
        .iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    seen.note(format!("the end: {}", digest(all.as_bytes())));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_stream_that_nobody_reads_stops_its_sender(place: Place) -> Result<Transcript> {
    let id = unique("held-read");
    let connection = Connection::open(
        &place,
        Windows {
            stream: 64 * 1024,
            connection: 1024 * 1024,
        },
    )
    .await?;
    let size = 1024 * 1024 * 1024;
    let mut call = connection.call(&path("BulkRead"), &[]).await?;
    call.hold(true);
    let request = BulkReadRequest {
        size,
        seed: 17,
        without_digest: true,
        id: id.clone(),
        chunk: 0,
    };
    call.send_last(&request).await?;
    let stopped = at_rest(&place, &id).await?;
    ensure!(
        stopped < UNDER_WAY,
        "the sender has sent {stopped} bytes to nobody"
    );
    // When it is read, it goes on where it stopped.
    call.hold(false);
    let beginning = stopped + UNDER_WAY;
    read(&mut call, 17, beginning).await?;
    counted(&place, &id, "the sender goes on", |counters| {
        counters.bulk_bytes > stopped
    })
    .await?;
    drop(call);
    drop(connection);
    counted(&place, &id, "the stream ends", |counters| {
        counters.active == 0
    })
    .await?;
    let mut seen = Transcript::default();
    seen.note("the sender stopped and went on");
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn an_upload_that_the_server_does_not_read_stops_its_client(
    place: Place,
) -> Result<Transcript> {
    let id = unique("held-write");
    let connection = place.raw().await?;
    let mut call = connection.call(&path("BulkWrite"), &[]).await?;
    let chunk = 32 * 1024;
    let rest = Some(prost_types::Duration {
        seconds: 2,
        nanos: 0,
    });
    let mut request = BulkWriteRequest {
        seed: 18,
        id: id.clone(),
        rest,
        ..Default::default()
    };
    let mut sent = 0;
    // What can't be sent for a while is not wanted.
    loop {
        request.data = content::bytes(18, sent, chunk);
        match timeout(STILL, call.send(&request)).await {
            Ok(result) => result?,
            Err(_) => break,
        }
        sent += chunk as u64;
        request = BulkWriteRequest::default();
        ensure!(
            sent < 2 * UNDER_WAY,
            "nobody reads, and {sent} bytes were sent"
        );
    }
    let mut seen = Transcript::default();
    seen.note("the client was stopped");
    // The message that was cut off would have to be sent to its end; this call is of no more use.
    drop(call);
    counted(&place, &id, "the call ends", |counters| {
        counters.active == 0
    })
    .await?;
    // The server rests once and then takes all: nothing is lost by waiting.
    let mut call = connection.call(&path("BulkWrite"), &[]).await?;
    let total = 2 * UNDER_WAY;
    let whole = async {
        let mut request = BulkWriteRequest {
            seed: 19,
            rest,
            without_digest: true,
            ..Default::default()
        };
        for offset in (0..total).step_by(chunk) {
            request.data = content::bytes(19, offset, chunk);
            call.send(&request).await?;
            request = BulkWriteRequest::default();
        }
        call.finish()?;
        anyhow::Ok(call.rest().await)
    };
    let events = timeout(super::CASE_LIMIT, whole)
        .await
        .context("the upload does not go on")??;
    let answer: BulkWriteResponse = events.get(1).context("no message")?.message()?;
    seen.note(format!("{} bytes arrived after a rest", answer.bytes));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn streams_that_nobody_reads_do_not_disturb_others(place: Place) -> Result<Transcript> {
    let id = unique("held-many");
    // A window of the connection that all the held streams can't exhaust: that would be this client's own doing.
    let connection = Connection::open(
        &place,
        Windows {
            stream: 64 * 1024,
            connection: 64 * 1024 * 1024,
        },
    )
    .await?;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut call = connection.call(&path("BulkRead"), &[]).await?;
        call.hold(true);
        let request = BulkReadRequest {
            size: 1 << 40,
            seed: 20,
            without_digest: true,
            id: id.clone(),
            ..Default::default()
        };
        call.send_last(&request).await?;
        held.push(call);
    }
    let stopped = at_rest(&place, &id).await?;
    // Others on the same connection, and on another.
    for connection in [&connection, &place.raw().await?] {
        let started = Instant::now();
        for _ in 0..20 {
            let mut call = connection.call(&path("Unary"), &[]).await?;
            call.send_last(&UnaryRequest {
                payload: content::bytes(21, 0, 10_000),
                answer: None,
            })
            .await?;
            let events = rest_soon(&mut call, "a call beside streams that nobody reads").await?;
            ensure!(
                matches!(events.last(), Some(Event::Trailers(_))),
                "{events:?}"
            );
        }
        ensure!(
            started.elapsed() < SOON,
            "20 small calls took {:?}",
            started.elapsed()
        );
        let mut call = connection.call(&path("BulkRead"), &[]).await?;
        let request = BulkReadRequest {
            size: 8 << 20,
            seed: 22,
            without_digest: true,
            ..Default::default()
        };
        call.send_last(&request).await?;
        timeout(SOON, read(&mut call, 22, 8 << 20))
            .await
            .context("a bulk stream beside others that are held")??;
    }
    ensure!(
        stopped < 50 * UNDER_WAY,
        "{stopped} bytes were sent to nobody"
    );
    let mut seen = Transcript::default();
    seen.note("the others went on");
    Ok(seen)
}

/// Memory that the bridge may take for calls that nobody reads: a stream's windows and buffers on both of its sides,
/// and some for the allocator's ways. What it must not depend on is how long they wait.
const HELD_MEMORY: u64 = 24 * 1024 * 1024;

/// Calls that nobody reads, in each direction.
const HELD: usize = 10;

/// How long they are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The memory of what lies between does not grow while clients do not read and servers do not take. This is no
/// comparison: `resident` tells what a bridge holds.
///
/// # Errors
/// It does.
pub async fn memory_stays_flat(place: Place, resident: impl Fn() -> Result<u64>) -> Result<()> {
    let id = unique("memory");
    let connection = Connection::open(
        &place,
        Windows {
            stream: 64 * 1024,
            connection: 16 * 1024 * 1024,
        },
    )
    .await?;
    // Buffers that are kept after their first use are there before.
    let mut call = connection.call(&path("BulkRead"), &[]).await?;
    let request = BulkReadRequest {
        size: 32 << 20,
        seed: 23,
        without_digest: true,
        ..Default::default()
    };
    call.send_last(&request).await?;
    read(&mut call, 23, 32 << 20).await?;
    let before = resident()?;

    let mut held = Vec::new();
    for _ in 0..HELD {
        let mut call = connection.call(&path("BulkRead"), &[]).await?;
        call.hold(true);
        let request = BulkReadRequest {
            size: 1 << 40,
            seed: 24,
            without_digest: true,
            id: id.clone(),
            ..Default::default()
        };
        call.send_last(&request).await?;
        held.push(call);
    }
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..HELD {
        let mut call = connection.call(&path("BulkWrite"), &[]).await?;
        uploads.spawn(async move {
            let rest = Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            });
            let mut request = BulkWriteRequest {
                seed: 25,
                rest,
                ..Default::default()
            };
            for offset in (0u64..).step_by(32 * 1024) {
                request.data = content::bytes(25, offset, 32 * 1024);
                if call.send(&request).await.is_err() {
                    break;
                }
                request = BulkWriteRequest::default();
            }
        });
    }
    at_rest(&place, &id).await?;
    let started = Instant::now();
    let (mut least, mut most) = (u64::MAX, 0);
    while started.elapsed() < LOOK {
        let now = resident()?;
        (least, most) = (least.min(now), most.max(now));
        ensure!(
            now < before + HELD_MEMORY,
            "{now} bytes with {HELD} streams held in each direction, {before} before"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    uploads.shutdown().await;
    eprintln!("the bridge held {before} bytes before, {least} to {most} while nobody read");
    Ok(())
}

/// Reads and checks so many bytes of a bulk stream.
async fn read(call: &mut Call, seed: u64, len: u64) -> Result<()> {
    let mut offset = 0;
    while offset < len {
        match soon(call, "bulk content").await? {
            Event::Headers(..) => {}
            event => {
                let part: crate::exercise::v1::BulkReadResponse = event.message()?;
                ensure!(
                    content::first_difference(seed, offset, &part.data).is_none(),
                    "wrong content"
                );
                offset += part.data.len() as u64;
            }
        }
    }
    Ok(())
}

/// Waits until the bulk streams of a name stand still. Returns what they have sent.
async fn at_rest(place: &Place, id: &str) -> Result<u64> {
    let mut client = place.exercise().await?;
    let started = Instant::now();
    let mut last = 0;
    let mut since = started;
    loop {
        let counters = client
            .counters(CountersRequest { id: id.to_owned() })
            .await?
            .into_inner();
        if counters.bulk_bytes != last || counters.active == 0 {
            last = counters.bulk_bytes;
            since = Instant::now();
        } else if since.elapsed() > STILL {
            return Ok(last);
        }
        ensure!(
            started.elapsed() < SOON,
            "after {SOON:?} the sender still sends: {counters:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
