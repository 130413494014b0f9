//! Calls that one of the two ends early.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::Reason;
use tokio::time::timeout;

use super::{SOON, Transcript, counted, rest_soon, unique};
use crate::{
    content,
    exercise::v1::{
        Answer, BidiRequest, BulkReadRequest, BulkWriteRequest, ClientStreamRequest, HangRequest,
        ServerStreamRequest, UnaryRequest,
    },
    place::Place,
    raw::{Event, path},
};

/// Codes of RFC 9113, section 7, and one that does not exist. NO_ERROR and CANCEL are what gRPC itself uses.
const CODES: [u32; 12] = [
    0x0, 0x1, 0x2, 0x3, 0x5, 0x7, 0x8, 0x9, 0xb, 0xc, 0xd, 0x1234,
];

/// Between what a server sends last and its reset: a reset overtakes what still waits to be sent, here as anywhere.
const BEFORE_RESET: Option<prost_types::Duration> = Some(prost_types::Duration {
    seconds: 0,
    nanos: 100_000_000,
});

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_call_that_is_reset_by_its_client_is_cancelled_in_the_server(
    place: Place,
) -> Result<Transcript> {
    let id = unique("cancel");
    let connection = place.raw().await?;
    let mut call = connection.call(&path("Hang"), &[]).await?;
    call.send_last(&HangRequest { id: id.clone() }).await?;
    counted(&place, &id, "the call begins", |counters| {
        counters.active == 1
    })
    .await?;
    call.reset(Reason::CANCEL);
    let counters = counted(&place, &id, "the call is cancelled", |counters| {
        counters.active == 0
    })
    .await?;
    let mut seen = Transcript::default();
    seen.note(format!(
        "started {}, cancelled {}",
        counters.started, counters.cancelled
    ));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_stream_that_is_dropped_by_its_client_is_cancelled_in_the_server(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    let mut client = place.exercise().await?;

    let id = unique("drop-unary");
    let (mut hanging, request) = (client.clone(), HangRequest { id: id.clone() });
    let hang = tokio::spawn(async move { hanging.hang(request).await });
    counted(&place, &id, "the call begins", |counters| {
        counters.active == 1
    })
    .await?;
    hang.abort();
    let counters = counted(&place, &id, "the call is cancelled", |counters| {
        counters.active == 0
    })
    .await?;
    seen.note(format!(
        "unary: started {}, cancelled {}",
        counters.started, counters.cancelled
    ));

    let id = unique("drop-server-stream");
    let request = BulkReadRequest {
        size: u64::MAX,
        without_digest: true,
        id: id.clone(),
        ..Default::default()
    };
    let mut answers = client.bulk_read(request).await?.into_inner();
    answers.message().await?.context("no message")?;
    drop(answers);
    let counters = counted(&place, &id, "the stream is cancelled", |counters| {
        counters.active == 0
    })
    .await?;
    seen.note(format!(
        "server stream: started {}, cancelled {}",
        counters.started, counters.cancelled
    ));

    let id = unique("drop-bidi");
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    requests
        .send(BidiRequest {
            id: id.clone(),
            ..Default::default()
        })
        .await?;
    let mut answers = client
        .bidi(tokio_stream::wrappers::ReceiverStream::new(stream))
        .await?
        .into_inner();
    answers.message().await?.context("no message")?;
    // A stream is given up when both of its halves are.
    drop((answers, requests));
    let counters = counted(&place, &id, "the bidi stream is cancelled", |counters| {
        counters.active == 0
    })
    .await?;
    seen.note(format!(
        "bidi: started {}, active {}",
        counters.started, counters.active
    ));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_connection_that_breaks_cancels_its_calls(place: Place) -> Result<Transcript> {
    let id = unique("break");
    let connection = place.raw().await?;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let mut call = connection.call(&path("Hang"), &[]).await?;
        call.send_last(&HangRequest { id: id.clone() }).await?;
        calls.push(call);
    }
    counted(&place, &id, "the calls begin", |counters| {
        counters.active == 20
    })
    .await?;
    drop(connection);
    let counters = counted(&place, &id, "the calls are cancelled", |counters| {
        counters.active == 0
    })
    .await?;
    let mut seen = Transcript::default();
    seen.note(format!(
        "started {}, cancelled {}",
        counters.started, counters.cancelled
    ));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_reset_by_the_client_keeps_its_code(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    let connection = place.raw().await?;
    for code in CODES {
        let id = unique("client-reset");
        let mut call = connection
            .call(&path("ClientStream"), &[("x-exercise-id", &id)])
            .await?;
        call.send(&ClientStreamRequest {
            id: id.clone(),
            ..Default::default()
        })
        .await?;
        // A call that its server has not seen yet would be forgotten.
        counted(&place, &id, "the call begins", |counters| {
            counters.active == 1
        })
        .await?;
        call.reset(code.into());
        if Reason::from(code) == Reason::CANCEL || Reason::from(code) == Reason::NO_ERROR {
            // What a server of hyper does not tell apart from the end.
            seen.note(format!("code {code} was sent"));
            continue;
        }
        let counters = counted(
            &place,
            &id,
            &format!("the reset with code {code} arrives"),
            |counters| !counters.resets.is_empty(),
        )
        .await?;
        seen.note(format!(
            "code {code} was sent and {:?} arrived",
            counters.resets
        ));
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_reset_by_the_server_keeps_its_code(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    let connection = place.raw().await?;
    for code in CODES {
        let answer = Answer {
            reset: Some(code),
            ..Answer::default()
        };
        let request = ServerStreamRequest {
            count: 1,
            size: 5,
            interval: BEFORE_RESET,
            answer: Some(answer),
            ..Default::default()
        };
        let mut call = connection.call(&path("ServerStream"), &[]).await?;
        call.send(&request).await?;
        call.finish()?;
        seen.note(format!("asked for code {code}"));
        seen.events(&rest_soon(&mut call, "the reset").await?);
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_reset_by_the_server_before_its_headers_keeps_its_code(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    let connection = place.raw().await?;
    // A request with a header block that no server takes.
    for code in CODES {
        let answer = Answer {
            reset: Some(code),
            ..Answer::default()
        };
        let mut call = connection.call(&path("Unary"), &[]).await?;
        call.send_last(&UnaryRequest {
            payload: Bytes::new(),
            answer: Some(answer),
        })
        .await?;
        // Headers and message may or may not be overtaken.
        let events = rest_soon(&mut call, "the reset").await?;
        seen.note(format!(
            "asked for code {code}: {}",
            events.last().context("no event")?
        ));
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn an_early_answer_keeps_its_status_while_the_client_still_uploads(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for _ in 0..10 {
        let request = BulkWriteRequest {
            seed: 14,
            answer_after: Some(100_000),
            ..Default::default()
        };
        upload(&place, request, 14, &mut seen).await?;
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn an_early_failure_keeps_its_status_while_the_client_still_uploads(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for _ in 0..10 {
        // The content is of another seed: DATA_LOSS.
        upload(
            &place,
            BulkWriteRequest {
                seed: 15,
                ..Default::default()
            },
            16,
            &mut seen,
        )
        .await?;
    }
    Ok(seen)
}

/// Uploads without end until the server stops it, and only then looks at the answer.
async fn upload(
    place: &Place,
    first: BulkWriteRequest,
    seed: u64,
    seen: &mut Transcript,
) -> Result<()> {
    let chunk = 10_000;
    let connection = place.raw().await?;
    let mut call = connection.call(&path("BulkWrite"), &[]).await?;
    let uploading = async {
        let mut request = first;
        for index in 0.. {
            request.data = content::bytes(seed, index * chunk, usize::try_from(chunk)?);
            if call.send(&request).await.is_err() {
                break;
            }
            request = BulkWriteRequest::default();
        }
        anyhow::Ok(())
    };
    timeout(SOON, uploading)
        .await
        .context("the server does not stop the upload")??;
    let events = rest_soon(&mut call, "the answer").await?;
    ensure!(
        matches!(
            events.last(),
            Some(Event::Trailers(_) | Event::TrailersOnly(..))
        ),
        "the status is lost: {events:?}"
    );
    let reset = timeout(Duration::from_secs(1), call.reset_by_server()).await;
    seen.events(&events);
    seen.note(format!(
        "the upload was stopped with {:?}",
        reset.context("no reset")??
    ));
    Ok(())
}
