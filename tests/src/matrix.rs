//! Every kind of call, told as a transcript: what a caller sees, in the order in which it sees it. The same call to
//! the same service must give the same transcript wherever the service is.
//!
//! [`for_every_case!`](crate::for_every_case) lists the cases.

mod calls;
mod flow;
mod resets;

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, timeout};

pub use self::{calls::*, flow::*, resets::*};
use crate::{
    exercise::v1::{CountersRequest, CountersResponse},
    place::Place,
    raw::{self, Event},
};

/// A case takes at most so long: the largest moves some hundred megabytes through a guest that is emulated.
pub const CASE_LIMIT: Duration = Duration::from_secs(120);

/// Lines of a transcript that a failure shows before a difference and after it.
const SHOWN: usize = 4;

/// What is to happen at once happens within this time, on a machine that is badly overloaded.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Calls a macro with the name of every case.
#[macro_export]
macro_rules! for_every_case {
    ($then:ident) => {
        $then! {
            a_unary_call_is_answered_with_headers_and_trailers,
            a_unary_call_fails_with_every_code_its_message_and_its_details,
            an_answer_of_trailers_only_stays_one,
            a_client_stream_is_counted_and_digested,
            a_client_stream_without_messages_is_answered,
            a_server_stream_comes_complete_and_in_order,
            a_server_stream_without_messages_ends_in_order,
            a_server_stream_fails_after_some_messages_with_its_trailers,
            a_bidi_stream_returns_each_message_as_it_comes,
            a_bidi_stream_that_the_client_ends_ends_in_order,
            headers_come_before_the_first_message,
            metadata_pass_in_both_directions,
            large_metadata_pass,
            an_unknown_method_is_unimplemented,
            an_unknown_service_is_unimplemented,
            the_server_sees_the_deadline,
            a_deadline_that_passes_ends_the_call_at_both_ends,
            a_deadline_that_passes_ends_a_stream_at_both_ends,
            compressed_messages_pass_in_both_directions,
            messages_of_64_mib_pass_in_both_directions,
            bulk_streams_in_both_directions_arrive_unchanged,
            a_call_that_is_reset_by_its_client_is_cancelled_in_the_server,
            a_stream_that_is_dropped_by_its_client_is_cancelled_in_the_server,
            a_connection_that_breaks_cancels_its_calls,
            a_reset_by_the_client_keeps_its_code,
            a_reset_by_the_server_keeps_its_code,
            a_reset_by_the_server_before_its_headers_keeps_its_code,
            an_early_answer_keeps_its_status_while_the_client_still_uploads,
            an_early_failure_keeps_its_status_while_the_client_still_uploads,
            a_thousand_streams_share_one_connection,
            a_stream_that_nobody_reads_stops_its_sender,
            an_upload_that_the_server_does_not_read_stops_its_client,
            streams_that_nobody_reads_do_not_disturb_others,
        }
    };
}

/// What a caller saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    lines: Vec<String>,
}

impl Transcript {
    /// Adds a line.
    pub fn note(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds an event.
    pub fn event(&mut self, event: &Event) {
        self.note(event.to_string());
    }

    /// Adds events.
    pub fn events(&mut self, events: &[Event]) {
        for event in events {
            self.event(event);
        }
    }
}

/// Runs a case at two places and compares what it saw.
///
/// # Errors
/// The case fails at one of them, takes longer than [`CASE_LIMIT`], or the transcripts differ.
pub async fn compare<A, B>(
    case: (impl FnOnce(Place) -> A, impl FnOnce(Place) -> B),
    reference: &Place,
    subject: &Place,
) -> Result<()>
where
    A: Future<Output = Result<Transcript>>,
    B: Future<Output = Result<Transcript>>,
{
    let expected = limited(reference, case.0(reference.clone())).await?;
    let actual = limited(subject, case.1(subject.clone())).await?;
    if expected == actual {
        return Ok(());
    }
    let (expected, actual) = (&expected.lines, &actual.lines);
    let pairs = expected.iter().zip(actual);
    let at = pairs
        .take_while(|(expected, actual)| expected == actual)
        .count();
    let before = expected[at.saturating_sub(SHOWN)..at].join("\n    ");
    let shown = |lines: &[String]| match lines.get(at..(at + SHOWN).min(lines.len())) {
        None | Some([]) => "nothing".to_owned(),
        Some(lines) => lines.join("\n    "),
    };
    bail!(
        "the transcripts differ from line {} on; before it, both:\n    {before}\nthen {}:\n    {}\nbut {}:\n    {}",
        at + 1,
        reference.name(),
        shown(expected),
        subject.name(),
        shown(actual),
    );
}

async fn limited(
    place: &Place,
    case: impl Future<Output = Result<Transcript>>,
) -> Result<Transcript> {
    timeout(CASE_LIMIT, case)
        .await
        .with_context(|| format!("{}: no end within {CASE_LIMIT:?}", place.name()))?
        .with_context(|| place.name().to_owned())
}

/// A name for a call that no other call has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{number}", std::process::id())
}

/// What became of the calls with a name.
///
/// # Errors
/// The service can't be reached.
pub async fn counters(place: &Place, id: &str) -> Result<CountersResponse> {
    let mut client = place.exercise().await?;
    Ok(client
        .counters(CountersRequest { id: id.to_owned() })
        .await?
        .into_inner())
}

/// Waits until the counters of a name are as they should be.
pub(crate) async fn counted(
    place: &Place,
    id: &str,
    what: &str,
    holds: impl Fn(&CountersResponse) -> bool,
) -> Result<CountersResponse> {
    let mut client = place.exercise().await?;
    let started = Instant::now();
    loop {
        let counters = client
            .counters(CountersRequest { id: id.to_owned() })
            .await?
            .into_inner();
        if holds(&counters) {
            return Ok(counters);
        }
        ensure!(
            started.elapsed() < SOON,
            "{what}: not within {SOON:?}; the counters are {counters:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The next event, which is to come at once.
pub(crate) async fn soon(call: &mut raw::Call, what: &str) -> Result<Event> {
    timeout(SOON, call.next())
        .await
        .with_context(|| format!("{what}: not within {SOON:?}"))
}

/// All events up to the end, which is to come at once.
pub(crate) async fn rest_soon(call: &mut raw::Call, what: &str) -> Result<Vec<Event>> {
    timeout(SOON, call.rest())
        .await
        .with_context(|| format!("{what}: no end within {SOON:?}"))
}
