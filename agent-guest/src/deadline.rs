//! The deadline of a call: `grpc-timeout`, for the response and for the stream after it; and the agent's own for calls of one
//! request and one answer (`request_timeout`).
//!
//! A client watches its own deadline; the guest does too, so that a call that nobody waits for any more costs nothing
//! even if the cancellation is stuck behind a bulk transfer.
//!
//! The agent's own is for none of the calls that have a stream: a watch is meant to go on, and a file takes as long as it takes.
//! Nor is it for methods of which no descriptor says that they have none, which are an upstream's or an embedding program's.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};

use crate::{error, router::CallFuture};

/// Digits of a timeout, as gRPC's PROTOCOL-HTTP2.md bounds them.
const MAX_DIGITS: usize = 8;

/// How long calls of one request and one answer may take, whatever they say.
#[derive(Debug, Clone)]
pub(crate) struct Longest {
    time: Duration,
    /// The paths of the methods that have neither stream.
    methods: Arc<HashSet<String>>,
}

/// When a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    at: Instant,
    /// It is the agent's own, of so much time, and comes before the call's.
    own: Option<Duration>,
}

// === impl Longest ===

impl Longest {
    pub(crate) fn new(time: Duration, methods: HashSet<String>) -> Self {
        let methods = Arc::new(methods);
        Self { time, methods }
    }

    /// How long a call of this method may take; `None`: as long as it says.
    pub(crate) fn of(&self, path: &str) -> Option<Duration> {
        self.methods.contains(path).then_some(self.time)
    }
}

// === impl Deadline ===

impl Deadline {
    fn passed(self) -> Status {
        match self.own {
            None => error::deadline_exceeded(),
            Some(longest) => error::request_timeout(longest),
        }
    }
}

/// When the call with these headers is over that may take no longer than `longest`; `None` if neither of them says.
pub(crate) fn of(headers: &HeaderMap, longest: Option<Duration>) -> Option<Deadline> {
    let said = said(headers);
    let (time, own) = match (said, longest) {
        (Some(said), Some(longest)) if said > longest => (longest, Some(longest)),
        (None, Some(longest)) => (longest, Some(longest)),
        (said, _) => (said?, None),
    };
    let at = Instant::now().checked_add(time)?;
    Some(Deadline { at, own })
}

/// What the call says; `None` if it does not say, or says it wrongly.
fn said(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get("grpc-timeout")?.to_str().ok()?)
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Cuts a call off at its deadline.
pub(crate) fn limit(deadline: Deadline, call: CallFuture) -> CallFuture {
    Box::pin(async move {
        match tokio::time::timeout_at(deadline.at, call).await {
            Err(_) => deadline.passed().into_http(),
            // A unary answer is complete already more often than not, and needs no timer.
            Ok(response) if response.body().is_end_stream() => response,
            Ok(response) => response.map(|body| Body::new(Limited::new(deadline, body))),
        }
    })
}

/// A response body that ends with DEADLINE_EXCEEDED.
struct Limited {
    body: Body,
    /// Made when the body first has to wait.
    sleep: Option<Pin<Box<Sleep>>>,
    deadline: Deadline,
    over: bool,
}

impl Limited {
    fn new(deadline: Deadline, body: Body) -> Self {
        Self {
            body,
            sleep: None,
            deadline,
            over: false,
        }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let deadline = this.deadline.at;
        let sleep = this
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.over = true;
        // Whatever the service was doing for this call ends here.
        this.body = Body::empty();
        let response: Response<()> = this.deadline.passed().into_http();
        Poll::Ready(Some(Ok(Frame::trailers(response.into_parts().0.headers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A body that never comes.
    struct Never;

    impl http_body::Body for Never {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    fn before(time: Duration) -> Deadline {
        let (at, own) = (Instant::now() + time, None);
        Deadline { at, own }
    }

    #[tokio::test(start_paused = true)]
    async fn the_agents_own_deadline_is_for_calls_of_one_answer_that_do_not_end_before() {
        let unary = HashSet::from(["/a.B/Get".to_owned()]);
        let longest = Longest::new(Duration::from_secs(60), unary);
        assert_eq!(longest.of("/a.B/Watch"), None);
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers, None), None);
        let after = |headers: &HeaderMap| {
            let deadline = of(headers, longest.of("/a.B/Get")).unwrap();
            (
                (deadline.at - Instant::now()).as_secs(),
                deadline.own.is_some(),
            )
        };
        for (said, expected) in [("", (60, true)), ("59S", (59, false)), ("2M", (60, true))] {
            headers.insert("grpc-timeout", said.parse().unwrap());
            assert_eq!(after(&headers), expected, "{said}");
        }
        let deadline = of(&headers, longest.of("/a.B/Get")).unwrap();
        let response = limit(deadline, Box::pin(std::future::pending())).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("60s"), "{status}");
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse("15S"), Some(Duration::from_secs(15)));
        assert_eq!(parse("100m"), Some(Duration::from_millis(100)));
        assert_eq!(
            parse("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1 S", "1µ"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_is_cut_off() {
        let deadline = before(Duration::from_secs(1));
        let response = limit(deadline, Box::pin(std::future::pending())).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_the_deadline_with_its_status() {
        let start = Instant::now();
        let call = Box::pin(std::future::ready(Response::new(Body::new(Never))));
        let mut body = limit(before(Duration::from_secs(3)), call)
            .await
            .into_body();
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))
            .await
            .unwrap()
            .unwrap();
        assert!(start.elapsed() >= Duration::from_secs(3));
        let status = Status::from_header_map(frame.trailers_ref().unwrap()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(
            poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))
                .await
                .is_none()
        );
    }
}
