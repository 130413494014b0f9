//! Calls that end as their service wants.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::{Request, codec::CompressionEncoding};

use super::{SOON, Transcript, counted, rest_soon, soon, unique};
use crate::{
    content,
    exercise::v1::{
        Answer, BidiRequest, BigMessageRequest, BigMessageResponse, BulkReadRequest,
        BulkWriteRequest, ClientStreamRequest, ClientStreamResponse, DeadlineRequest,
        DeadlineResponse, EchoMetadataRequest, EchoMetadataResponse, HangRequest, Metadata,
        ServerStreamRequest, TrailersOnlyRequest, UnaryRequest,
    },
    place::Place,
    raw::{Event, digest, path},
};

/// A payload of gRPC's largest message in this project.
const MIB_64: usize = 64 * 1024 * 1024;

/// What a bulk stream moves: seconds at the speed of an emulated guest.
const BULK: u64 = 64 * 1024 * 1024;

fn metadata() -> Vec<Metadata> {
    let entry = |key: &str, value: &[u8]| Metadata {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
    };
    vec![
        entry("x-text", b"plain"),
        entry("x-text", b"and a second value, with a comma"),
        entry("x-empty", b""),
        entry("x-octets-bin", &[0, 1, 2, 0xfd, 0xfe, 0xff]),
        entry("x-octets-bin", b""),
        entry("x-octets-bin", &[0x80; 3]),
    ]
}

fn trailers() -> Vec<Metadata> {
    metadata()
        .into_iter()
        .map(|entry| Metadata {
            key: format!("t{}", entry.key),
            ..entry
        })
        .collect()
}

async fn one(
    place: &Place,
    method: &str,
    request: &impl prost::Message,
    headers: &[(&str, &str)],
) -> Result<Vec<Event>> {
    let connection = place.raw().await?;
    let mut call = connection.call(&path(method), headers).await?;
    // A server may answer before it has taken the request; then the answer counts.
    let _ = call.send_last(request).await;
    rest_soon(&mut call, method).await
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_unary_call_is_answered_with_headers_and_trailers(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for size in [0, 1, 100, 16_384, 70_000, 1_000_000] {
        let answer = Answer {
            headers: metadata(),
            trailers: trailers(),
            ..Answer::default()
        };
        let request = UnaryRequest {
            payload: content::bytes(1, 0, size),
            answer: Some(answer),
        };
        seen.events(&one(&place, "Unary", &request, &[]).await?);
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_unary_call_fails_with_every_code_its_message_and_its_details(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for code in 1..=16 {
        let answer = Answer {
            code,
            message: format!("code {code}: 100 % “quoted”, a line\nand a tab\t"),
            details: content::bytes(2, 0, 300),
            headers: metadata(),
            trailers: trailers(),
            ..Answer::default()
        };
        let events = one(
            &place,
            "Unary",
            &UnaryRequest {
                answer: Some(answer),
                ..Default::default()
            },
            &[],
        )
        .await?;
        ensure!(
            events.last().context("no event")?.status()?.0 == code,
            "expected code {code}, got {events:?}"
        );
        seen.events(&events);
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn an_answer_of_trailers_only_stays_one(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for code in [0, 5, 14] {
        let answer = Answer {
            code,
            message: "no".to_owned(),
            trailers: trailers(),
            ..Answer::default()
        };
        let events = one(
            &place,
            "TrailersOnly",
            &TrailersOnlyRequest {
                answer: Some(answer),
            },
            &[],
        )
        .await?;
        ensure!(
            matches!(events[..], [Event::TrailersOnly(200, _)]),
            "not trailers only: {events:?}"
        );
        seen.events(&events);
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_client_stream_is_counted_and_digested(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    let mut call = connection.call(&path("ClientStream"), &[]).await?;
    let mut sha = Sha256::new();
    for index in 0..200 {
        let payload = content::bytes(3, index * 1000, usize::try_from(index * 37)?);
        sha.update(&payload);
        call.send(&ClientStreamRequest {
            payload,
            ..Default::default()
        })
        .await?;
    }
    call.finish()?;
    let events = rest_soon(&mut call, "ClientStream").await?;
    let answer: ClientStreamResponse = events.get(1).context("no message")?.message()?;
    ensure!(
        answer.count == 200 && answer.sha256 == sha.finalize()[..],
        "wrong: {answer:?}"
    );
    let mut seen = Transcript::default();
    seen.events(&events);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_client_stream_without_messages_is_answered(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    let mut call = connection.call(&path("ClientStream"), &[]).await?;
    call.finish()?;
    let mut seen = Transcript::default();
    seen.events(&rest_soon(&mut call, "ClientStream").await?);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_server_stream_comes_complete_and_in_order(place: Place) -> Result<Transcript> {
    let answer = Answer {
        headers: metadata(),
        trailers: trailers(),
        ..Answer::default()
    };
    let request = ServerStreamRequest {
        count: 300,
        size: 3001,
        seed: 4,
        answer: Some(answer),
        ..Default::default()
    };
    let events = one(&place, "ServerStream", &request, &[]).await?;
    ensure!(events.len() == 302, "{} events", events.len());
    let mut seen = Transcript::default();
    seen.events(&events);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_server_stream_without_messages_ends_in_order(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    seen.events(&one(&place, "ServerStream", &ServerStreamRequest::default(), &[]).await?);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_server_stream_fails_after_some_messages_with_its_trailers(
    place: Place,
) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for count in [0, 1, 7] {
        let answer = Answer {
            code: 9,
            message: "that is enough".to_owned(),
            details: content::bytes(5, 0, 1000),
            trailers: trailers(),
            ..Answer::default()
        };
        let request = ServerStreamRequest {
            count,
            size: 10,
            seed: 6,
            answer: Some(answer),
            ..Default::default()
        };
        seen.events(&one(&place, "ServerStream", &request, &[]).await?);
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_bidi_stream_returns_each_message_as_it_comes(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    let mut call = connection.call(&path("Bidi"), &[]).await?;
    let mut seen = Transcript::default();
    seen.event(&soon(&mut call, "headers").await?);
    for index in 0..50 {
        let payload = content::bytes(7, index, usize::try_from(index * 100)?);
        call.send(&BidiRequest {
            payload,
            ..Default::default()
        })
        .await?;
        // The next is not sent before this one has come back.
        seen.event(&soon(&mut call, "the message's return").await?);
    }
    for index in 0..50 {
        let payload = content::bytes(8, index, 500);
        call.send(&BidiRequest {
            payload,
            ..Default::default()
        })
        .await?;
    }
    let answer = Answer {
        code: 11,
        message: "over".to_owned(),
        trailers: trailers(),
        ..Answer::default()
    };
    call.send(&BidiRequest {
        answer: Some(answer),
        ..Default::default()
    })
    .await?;
    seen.events(&rest_soon(&mut call, "Bidi").await?);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_bidi_stream_that_the_client_ends_ends_in_order(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    let mut call = connection.call(&path("Bidi"), &[]).await?;
    call.send_last(&BidiRequest {
        payload: Bytes::from_static(b"the only one"),
        ..Default::default()
    })
    .await?;
    let mut seen = Transcript::default();
    seen.events(&rest_soon(&mut call, "Bidi").await?);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn headers_come_before_the_first_message(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    // Nothing is sent but the request's headers.
    let mut call = connection.call(&path("Bidi"), &[]).await?;
    let mut seen = Transcript::default();
    seen.event(&soon(&mut call, "headers without a message").await?);
    call.send_last(&BidiRequest {
        payload: Bytes::from_static(b"late"),
        ..Default::default()
    })
    .await?;
    seen.events(&rest_soon(&mut call, "Bidi").await?);
    // The same of a stream that the server sends: its first message comes much later.
    let interval = Some(prost_types::Duration {
        seconds: 60,
        nanos: 0,
    });
    let request = ServerStreamRequest {
        interval,
        ..Default::default()
    };
    let mut call = connection.call(&path("ServerStream"), &[]).await?;
    call.send_last(&ServerStreamRequest {
        count: 2,
        size: 1,
        ..request
    })
    .await?;
    seen.event(&soon(&mut call, "headers of a slow stream").await?);
    seen.event(&soon(&mut call, "the first message of a slow stream").await?);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn metadata_pass_in_both_directions(place: Place) -> Result<Transcript> {
    let headers = [
        ("x-one", "1"),
        ("x-many", "first"),
        ("x-many", "second"),
        ("x-empty", ""),
        ("x-spaces", "a  b"),
        ("x-octets-bin", "AAEC/f7/"),
        ("x-octets-bin", "AAEC/f7"),
        ("authorization", "Bearer not-a-secret"),
        ("cookie", "a=b"),
        ("grpc-accept-encoding", "identity"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("via", "1.1 somebody"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let events = one(&place, "EchoMetadata", &EchoMetadataRequest {}, &headers).await?;
    let answer: EchoMetadataResponse = events.get(1).context("no message")?.message()?;
    let mut seen = Transcript::default();
    for Metadata { key, value } in answer.metadata {
        seen.note(format!("the server saw {key}: {}", value.escape_ascii()));
    }
    seen.events(&events);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn large_metadata_pass(place: Place) -> Result<Transcript> {
    let value = "v".repeat(6000);
    let answer = Answer {
        headers: vec![Metadata {
            key: "x-large".to_owned(),
            value: value.clone().into(),
        }],
        trailers: vec![Metadata {
            key: "x-large-bin".to_owned(),
            value: content::bytes(9, 0, 5000),
        }],
        ..Answer::default()
    };
    let request = UnaryRequest {
        answer: Some(answer),
        ..Default::default()
    };
    let mut seen = Transcript::default();
    seen.events(&one(&place, "Unary", &request, &[("x-large", &value)]).await?);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn an_unknown_method_is_unimplemented(place: Place) -> Result<Transcript> {
    let events = one(&place, "Unknown", &UnaryRequest::default(), &[]).await?;
    ensure!(
        events.last().context("no event")?.status()?.0 == 12,
        "not UNIMPLEMENTED: {events:?}"
    );
    let mut seen = Transcript::default();
    seen.events(&events);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn an_unknown_service_is_unimplemented(place: Place) -> Result<Transcript> {
    let connection = place.raw().await?;
    let mut call = connection.call("/no.such.v1.Service/Method", &[]).await?;
    // The server may have answered before it gets the message, and then takes none.
    let _ = call.send_last(&UnaryRequest::default()).await;
    let events = rest_soon(&mut call, "an unknown service").await?;
    // The words are the server library's: the agent's are better than tonic's.
    let (code, _) = events.last().context("no event")?.status()?;
    let mut seen = Transcript::default();
    seen.note(format!("{} event with code {code}", events.len()));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn the_server_sees_the_deadline(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    for header in ["20S", "99999999u", "30000m", "99999999H"] {
        let events = one(
            &place,
            "Deadline",
            &DeadlineRequest {},
            &[("grpc-timeout", header)],
        )
        .await?;
        let answer: DeadlineResponse = events.get(1).context("no message")?.message()?;
        ensure!(
            answer.header == header,
            "sent {header}, the server saw {}",
            answer.header
        );
        seen.note(format!("{answer:?}"));
    }
    let events = one(&place, "Deadline", &DeadlineRequest {}, &[]).await?;
    seen.note(format!(
        "{:?}",
        events
            .get(1)
            .context("no message")?
            .message::<DeadlineResponse>()?
    ));
    let mut request = Request::new(DeadlineRequest {});
    request.set_timeout(Duration::from_secs(25));
    let answer = place
        .exercise()
        .await?
        .deadline(request)
        .await?
        .into_inner();
    seen.note(format!("{answer:?}"));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_deadline_that_passes_ends_the_call_at_both_ends(place: Place) -> Result<Transcript> {
    let id = unique("deadline");
    // The raw client has no clock: it is the other side that ends the call. Which words it says differs.
    let events = one(
        &place,
        "Hang",
        &HangRequest { id: id.clone() },
        &[("grpc-timeout", "300m")],
    )
    .await?;
    let (code, _) = events.last().context("no event")?.status()?;
    let counters = counted(&place, &id, "the hanging call ends", |counters| {
        counters.active == 0
    })
    .await?;
    ensure!(
        counters.started == 1 && counters.cancelled == 1,
        "{counters:?}"
    );
    // tonic's own server calls it CANCELLED; gRPC says DEADLINE_EXCEEDED, and so do the agent and the bridge.
    ensure!(
        code == 4 || (code == 1 && place.is_reference()),
        "code {code}"
    );
    // A client with a clock.
    let mut request = Request::new(HangRequest { id: id.clone() });
    request.set_timeout(Duration::from_millis(300));
    let Err(status) = timeout(SOON, place.exercise().await?.hang(request)).await? else {
        bail!("a call that hangs was answered");
    };
    let counters = counted(&place, &id, "the second call ends", |counters| {
        counters.active == 0
    })
    .await?;
    let mut seen = Transcript::default();
    seen.note(format!(
        "started {}, cancelled {}",
        counters.started, counters.cancelled
    ));
    drop(status);
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn a_deadline_that_passes_ends_a_stream_at_both_ends(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    if place.is_reference() {
        // tonic's server limits the answer's beginning, not the stream after it.
        seen.note("after the deadline: active 0, code 4");
        return Ok(seen);
    }
    let id = unique("stream-deadline");
    let interval = Some(prost_types::Duration {
        seconds: 60,
        nanos: 0,
    });
    let request = ServerStreamRequest {
        count: 10,
        size: 1,
        interval,
        id: id.clone(),
        ..Default::default()
    };
    let events = one(
        &place,
        "ServerStream",
        &request,
        &[("grpc-timeout", "500m")],
    )
    .await?;
    let (code, _) = events.last().context("no event")?.status()?;
    let counters = counted(&place, &id, "the stream ends", |counters| {
        counters.active == 0
    })
    .await?;
    seen.note(format!(
        "after the deadline: active {}, code {code}",
        counters.active
    ));
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn compressed_messages_pass_in_both_directions(place: Place) -> Result<Transcript> {
    let mut seen = Transcript::default();
    // What comes is told by its bits on the wire.
    let payload = Bytes::from(vec![7; 100_000]);
    let request = UnaryRequest {
        payload: payload.clone(),
        answer: None,
    };
    let events = one(
        &place,
        "Unary",
        &request,
        &[("grpc-accept-encoding", "gzip")],
    )
    .await?;
    ensure!(
        matches!(
            events.get(1),
            Some(Event::Message {
                compressed: true,
                ..
            })
        ),
        "not compressed: {events:?}"
    );
    seen.events(&events);
    let mut client = place
        .exercise()
        .await?
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client.unary(request).await?.into_inner();
    ensure!(answer.payload == payload, "the payload has changed");
    let messages = (0..50).map(|index| BidiRequest {
        payload: vec![index; 5000].into(),
        ..Default::default()
    });
    let mut answers = client.bidi(stream::iter(messages)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        seen.note(format!("{} {}", answer.index, digest(&answer.payload)));
    }
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn messages_of_64_mib_pass_in_both_directions(place: Place) -> Result<Transcript> {
    let mut client = place.exercise().await?;
    let payload = content::bytes(10, 0, MIB_64);
    let sent = Sha256::digest(&payload);
    let request = BigMessageRequest {
        payload,
        response_size: u32::try_from(MIB_64)?,
        seed: 11,
    };
    let BigMessageResponse {
        payload,
        received,
        sha256,
    } = client.big_message(request).await?.into_inner();
    ensure!(
        received == MIB_64 as u64 && sha256 == sent[..],
        "the request has changed on its way"
    );
    ensure!(payload.len() == MIB_64, "{} bytes came back", payload.len());
    ensure!(
        content::first_difference(11, 0, &payload).is_none(),
        "the answer has changed on its way"
    );
    let mut seen = Transcript::default();
    seen.note("64 MiB there and back");
    Ok(seen)
}

/// See its name.
///
/// # Errors
/// It is not so.
pub async fn bulk_streams_in_both_directions_arrive_unchanged(place: Place) -> Result<Transcript> {
    let channel = place.channel().await?;
    let mut reader = crate::place::exercise(channel.clone());
    let mut writer = crate::place::exercise(channel);
    let read = async move {
        let request = BulkReadRequest {
            size: BULK,
            seed: 12,
            ..Default::default()
        };
        let mut stream = reader.bulk_read(request).await?.into_inner();
        let (mut sha, mut offset) = (Sha256::new(), 0);
        let mut told = Bytes::new();
        while let Some(part) = stream.message().await? {
            if let Some(position) = content::first_difference(12, offset, &part.data) {
                bail!("byte {position} is wrong");
            }
            sha.update(&part.data);
            offset += part.data.len() as u64;
            told = part.sha256;
        }
        ensure!(
            offset == BULK && told == sha.finalize()[..],
            "{offset} bytes came, or their digest is wrong"
        );
        Ok(())
    };
    let write = async move {
        let chunk = 64 * 1024;
        let parts = stream::iter((0..BULK).step_by(chunk)).map(move |offset| BulkWriteRequest {
            data: content::bytes(13, offset, chunk),
            seed: 13,
            ..Default::default()
        });
        let answer = writer.bulk_write(parts).await?.into_inner();
        anyhow::Ok((answer.bytes, digest(&answer.sha256)))
    };
    let (_, written) = tokio::try_join!(read, write)?;
    let mut seen = Transcript::default();
    seen.note(format!("{BULK} bytes read, {written:?} written"));
    Ok(seen)
}
