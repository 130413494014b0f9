//! Forwards calls to a guest at the level of HTTP/2, knowing no service.
//!
//! Header blocks and data frames pass as they are. What the forwarding itself adds:
//!
//! - `x-vbridge-*` metadata are taken out: they are for the bridge.
//! - A stream that the guest resets is reset to the client with the same code, and the other way round.
//! - Two things hold a call in the guest, its upload and its response. When the client resets it, both learn of it, in
//!   any order; only the upload knows the code. So the response is let go when the upload has ended.
//! - A pause that is known of is told to calls that wait for their answer. An upload under way goes on after it. One of
//!   which nothing need have left the bridge is not under way: its call would hang for as long as the pause.
//! - A stream that ends because the session does gets trailers with UNAVAILABLE: a reset would be read as INTERNAL.
//! - A call that no session has taken yet is sent on the next one; every other is never sent twice.
//! - A call without answer checks that the guest is alive at all; and past its deadline it ends, whoever hangs.

use std::{
    error::Error as StdError,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, timeout, timeout_at},
};
use tonic::Status;
use vbridge_link::LinkHandle;

use crate::{
    error::Reason,
    guest::{Guest, wait_of},
    limits::{DEADLINE_GRACE, PROBE_AFTER, PROBE_TIMEOUT, PROBES, RESET_GRACE, SEND_BUFFER},
};

/// Metadata that says how long a call waits for its guest.
pub const WAIT_HEADER: &str = "x-vbridge-wait";

/// Metadata for the bridge begin so and are not forwarded.
const OWN_PREFIX: &str = "x-vbridge-";

/// Any error of a stream.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Why there is no response from the guest.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The bridge answers with this status.
    Status(Box<Status>),
    /// The client's stream is reset as the guest's was.
    Reset(hyper::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Sends a call to the guest and brings its response. `taken` counts the bytes of its body.
pub(crate) async fn forward(
    guest: Arc<Guest>,
    mut request: Request<Incoming>,
    taken: Arc<AtomicU64>,
) -> Result<Response<ForwardBody>, Failure> {
    let permit = guest.admit()?;
    let arrived = Instant::now();
    let (wait, patient) = wait_of(request.headers())?;
    let upload = Arc::new(Upload::new(taken));
    let deadline = deadline_of(request.headers()).map(|timeout| arrived + timeout + DEADLINE_GRACE);
    prepare(&mut request);
    let mut request = request.map(|body| RequestBody {
        body: Source::Client(body),
        upload: Arc::clone(&upload),
    });
    let give_up = deadline.map_or(arrived + wait, |deadline| deadline.min(arrived + wait));
    loop {
        let mut ready = guest.ready(give_up, patient).await?;
        let question = ready.link.as_ref().and_then(LinkHandle::ask_along);
        let mut kept = Kept::new(Box::pin(ready.sender.try_send_request(request)), &upload);
        let answer = poll_fn(|cx| match kept.get() {
            Some(answer) => answer.as_mut().poll(cx),
            None => Poll::Pending,
        });
        tokio::pin!(answer);
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            silent = is_silent(&guest, ready.link.as_ref(), question, &upload) => match silent {
                true => return Err(guest.silent().into()),
                // It is alive: it may take its time.
                false => match until(deadline, &mut answer).await {
                    Some(outcome) => outcome,
                    None => return Err(too_late(&guest).into()),
                }
            },
            () = passed(deadline) => return Err(too_late(&guest).into()),
        };
        kept.done();
        match outcome {
            Ok(response) => {
                return Ok(response.map(|body| ForwardBody {
                    body: Kept::new(body, &upload),
                    has_trailers: false,
                    deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
                    guest,
                    _permit: permit,
                }));
            }
            Err(mut error) => match error.take_message() {
                // No session has taken it.
                Some(unsent) => request = unsent,
                None => {
                    let error = error.into_error();
                    return Err(if is_reset(&error) {
                        Failure::Reset(error)
                    } else {
                        guest.session_ended().into()
                    });
                }
            },
        }
    }
}

/// How far a call's body is on its way to the guest.
#[derive(Debug)]
struct Upload {
    /// Bytes that the session has taken.
    taken: Arc<AtomicU64>,
    /// Closed when there is no more of it; it never has permits.
    ended: Semaphore,
}

impl Upload {
    fn new(taken: Arc<AtomicU64>) -> Self {
        Self {
            taken,
            ended: Semaphore::const_new(0),
        }
    }

    /// More was taken than can wait in the session: the channel has had some. And there is more.
    fn is_under_way(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > SEND_BUFFER as u64 && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.ended.is_closed()
    }

    async fn end(&self) {
        // Either way it has ended.
        let _ = self.ended.acquire().await;
    }
}

/// What stands for a call in the guest. Dropped before its time, it stays until the call's upload has ended.
struct Kept<T: Send + 'static> {
    what: Option<T>,
    upload: Arc<Upload>,
}

impl<T: Send + 'static> Kept<T> {
    fn new(what: T, upload: &Arc<Upload>) -> Self {
        Self {
            what: Some(what),
            upload: Arc::clone(upload),
        }
    }

    /// `None` after [`done`](Self::done).
    fn get(&mut self) -> Option<&mut T> {
        self.what.as_mut()
    }

    /// It has come to its end and need not be kept.
    fn done(&mut self) {
        self.what = None;
    }
}

impl<T: Send + 'static> Drop for Kept<T> {
    fn drop(&mut self) {
        let Some(what) = self.what.take() else {
            return;
        };
        if !self.upload.has_ended() {
            let upload = Arc::clone(&self.upload);
            tokio::spawn(async move {
                // Either way the call is let go.
                let _ = timeout(RESET_GRACE, upload.end()).await;
                drop(what);
            });
        }
    }
}

/// A call's body on its way to the guest.
#[derive(Debug)]
pub(crate) struct RequestBody {
    body: Source,
    upload: Arc<Upload>,
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    Client(Incoming),
    Own(tonic::body::Body),
}

impl RequestBody {
    /// The body of a call of the bridge's own.
    pub(crate) fn own(body: tonic::body::Body) -> Self {
        Self {
            body: Source::Own(body),
            upload: Arc::new(Upload::new(Arc::default())),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.upload.ended.close();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(match &mut self.body {
            Source::Client(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| Box::new(error).into()),
            Source::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|status| Box::new(status).into()),
        });
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let taken = data.len() as u64;
            self.upload.taken.fetch_add(taken, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Client(body) => body.is_end_stream(),
            Source::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Client(body) => body.size_hint(),
            Source::Own(body) => body.size_hint(),
        }
    }
}

/// Takes out what is for the bridge.
fn prepare(request: &mut Request<Incoming>) {
    let own: Vec<HeaderName> = request
        .headers()
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in own {
        request.headers_mut().remove(name);
    }
    // HTTP/2 has `:authority` instead; both together would contradict each other.
    request.headers_mut().remove(header::HOST);
}

/// Whether the guest gives no sign of life that is younger than the call.
///
/// Any byte is not one: what a paused guest sent before is still on its way when the call begins. An answer to a
/// question that was asked with the call (`question`) or behind it is. A guest that has given it may take its time, and
/// be quiet: a service that computes for seconds without a break keeps the whole agent from answering.
async fn is_silent(
    guest: &Guest,
    link: Option<&LinkHandle>,
    question: Option<u64>,
    upload: &Upload,
) -> bool {
    let Some(link) = link else {
        // qemu-guest-agent has its own time limits.
        guest.paused().await;
        return true;
    };
    if timeout(PROBE_AFTER, guest.paused()).await.is_ok() {
        return !upload.is_under_way();
    }
    if question.is_some_and(|question| link.is_answered(question)) {
        return false;
    }
    let question = question.or_else(|| link.probe());
    for _ in 0..PROBES {
        let since = Instant::now().into_std();
        if timeout(PROBE_TIMEOUT, guest.paused()).await.is_ok() {
            return !upload.is_under_way();
        }
        // Without a session to ask in, the call fails by itself.
        if question.is_none_or(|question| link.is_answered(question)) {
            return false;
        }
        // The answer may wait behind a stream's bytes.
        if link.heard().is_some_and(|heard| heard <= since) {
            link.give_up(since);
            return true;
        }
    }
    false
}

/// Done when the guest gives no sign of life that is younger than a call of the bridge's own, which has just begun.
pub(crate) async fn silence(guest: &Guest, link: Option<&LinkHandle>) {
    if !is_silent(guest, link, None, &Upload::new(Arc::default())).await {
        // It is alive: it may take its time.
        std::future::pending().await
    }
}

async fn until<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn too_late(guest: &Guest) -> Status {
    let message = format!("guest \"{}\" let the call's deadline pass", guest.name());
    Reason::DeadlineExceeded.status(guest.name(), message)
}

/// The `grpc-timeout` of a call; one that makes no sense counts as none, and the guest says so.
fn deadline_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Whether the guest reset this one stream.
fn is_reset(error: &(dyn StdError + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.is_reset();
        }
        source = error.source();
    }
    false
}

/// A guest's response body on its way to the client.
pub(crate) struct ForwardBody {
    body: Kept<Incoming>,
    /// The trailers have passed: whatever follows, the call has its status.
    has_trailers: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    guest: Arc<Guest>,
    /// The call's place among the guest's calls.
    _permit: OwnedSemaphorePermit,
}

impl ForwardBody {
    /// Ends the stream with the bridge's own status.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.body.done();
        let mut trailers = HeaderMap::new();
        // A status of the bridge's own always fits into headers.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl Body for ForwardBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(body) = this.body.get() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(match frame {
                Some(Err(error)) if !is_reset(&error) => {
                    let status = this.guest.session_ended();
                    Some(Ok(this.end(&status)))
                }
                Some(Err(error)) => {
                    this.body.done();
                    Some(Err(error.into()))
                }
                Some(Ok(frame)) => {
                    this.has_trailers |= frame.is_trailers();
                    Some(Ok(frame))
                }
                None => {
                    // hyper makes an end of a reset with NO_ERROR. It is one only behind a complete answer.
                    let was_reset = !this.has_trailers && !body.is_end_stream();
                    this.body.done();
                    was_reset.then(|| Err(h2::Error::from(h2::Reason::NO_ERROR).into()))
                }
            });
        }
        if let Some(deadline) = &mut this.deadline {
            ready!(deadline.as_mut().poll(cx));
            let status = too_late(&this.guest);
            return Poll::Ready(Some(Ok(this.end(&status))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.what.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Unknown, so that no length is made up that the guest did not announce.
    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_in_every_unit_and_nonsense_is_none() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline_of(&headers)
        };
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parse("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for text in ["", "S", "1", "1x", "-1S", "123456789S", "1 S"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
