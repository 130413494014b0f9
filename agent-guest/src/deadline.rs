//! The deadline of a call: `grpc-timeout`, for the response and for the stream after it.
//!
//! A client watches its own deadline; the guest does too, so that a call that nobody waits for any more costs nothing
//! even if the cancellation is stuck behind a bulk transfer.

use std::{
    pin::Pin,
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

/// When the call with these headers is over; `None` if it does not say, or says it wrongly.
pub(crate) fn of(headers: &HeaderMap) -> Option<Instant> {
    let timeout = parse(headers.get("grpc-timeout")?.to_str().ok()?)?;
    Instant::now().checked_add(timeout)
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
pub(crate) fn limit(deadline: Instant, call: CallFuture) -> CallFuture {
    Box::pin(async move {
        match tokio::time::timeout_at(deadline, call).await {
            Err(_) => error::deadline_exceeded().into_http(),
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
    deadline: Instant,
    over: bool,
}

impl Limited {
    fn new(deadline: Instant, body: Body) -> Self {
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
        let deadline = this.deadline;
        let sleep = this
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.over = true;
        // Whatever the service was doing for this call ends here.
        this.body = Body::empty();
        let response: Response<()> = error::deadline_exceeded().into_http();
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
        let deadline = Instant::now() + Duration::from_secs(1);
        let response = limit(deadline, Box::pin(std::future::pending())).await;
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_the_deadline_with_its_status() {
        let start = Instant::now();
        let call = Box::pin(std::future::ready(Response::new(Body::new(Never))));
        let mut body = limit(start + Duration::from_secs(3), call)
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
