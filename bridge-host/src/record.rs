//! One call from its arrival to its end: what is measured of it, and what the audit log says.
//!
//! ```text
//!   arrives ──▶ caller ──▶ guest ──▶ answered ──▶ headers, bytes, trailers ──▶ dropped: the end
//!                  │          │                                                  ▲
//!                  └──────────┴── refused: status and why ───────────────────────┘
//! ```
//!
//! Dropped before it has a status, a call was cancelled.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::{
    access::{Peer, Place},
    audit::{Line, Slot},
    connections::Busy,
    guest::Guest,
    limits::MAX_AUDITED_METHOD,
    metrics::{Calls, code_name},
};

/// How a call has ended.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Grpc(Code),
    Http(StatusCode),
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Record {
    calls: Calls,
    guest: Option<Arc<Guest>>,
    /// `None` for what is no call of gRPC.
    method: Option<String>,
    begun: Instant,
    ending: Option<Ending>,
    /// Bytes of the request's body.
    pub(crate) received: Arc<AtomicU64>,
    sent: u64,
    line: Option<(Slot, Line)>,
    held: Option<(Place, Busy)>,
}

impl Record {
    /// A call arrives.
    pub(crate) fn new(calls: &Calls, method: Option<&str>) -> Self {
        Self {
            calls: calls.clone(),
            guest: None,
            method: method.map(|method| calls.label(method)),
            begun: Instant::now(),
            ending: None,
            received: Arc::default(),
            sent: 0,
            line: None,
            held: None,
        }
    }

    /// Its end will be written to the audit log.
    pub(crate) fn audit(&mut self, slot: Slot, peer: &Peer, path: &str) {
        let path = path.strip_prefix('/').unwrap_or(path);
        let line = Line {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            caller: String::new(),
            peer: peer.to_string(),
            guest: String::new(),
            method: path.chars().take(MAX_AUDITED_METHOD).collect(),
            status: String::new(),
            received: 0,
            sent: 0,
            ms: 0.0,
            why: None,
        };
        self.line = Some((slot, line));
    }

    /// It is known who calls.
    pub(crate) fn caller(&mut self, name: &str) {
        if let Some((_, line)) = &mut self.line {
            name.clone_into(&mut line.caller);
        }
    }

    /// It is known whom the call is for.
    pub(crate) fn target(&mut self, name: &str, guest: Option<&Arc<Guest>>) {
        self.guest = guest.cloned();
        if let Some((_, line)) = &mut self.line {
            name.clone_into(&mut line.guest);
        }
    }

    /// Keeps these places until its end.
    pub(crate) fn hold(&mut self, place: Place, busy: Busy) {
        self.held = Some((place, busy));
    }

    /// The bridge answers with this status.
    pub(crate) fn refused(&mut self, status: &Status) {
        self.ended(Ending::Grpc(status.code()));
        if let Some((_, line)) = &mut self.line {
            line.why = Some(status.message().to_owned());
        }
    }

    /// It has this status.
    pub(crate) fn code(&mut self, code: Code) {
        self.ended(Ending::Grpc(code));
    }

    fn ended(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    /// What the response says, if it says it already.
    fn headers(&mut self, headers: &HeaderMap) {
        if let Some(value) = headers.get("grpc-status") {
            self.ended(Ending::Grpc(Code::from_bytes(value.as_bytes())));
        }
    }

    /// Follows the response to its end.
    pub(crate) fn follow<B>(mut self, response: Response<B>) -> Response<Recorded<B>> {
        match self.method {
            Some(_) => self.headers(response.headers()),
            None => self.ended(Ending::Http(response.status())),
        }
        response.map(|body| Recorded { body, record: self })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ending = self.ending.unwrap_or(Ending::Grpc(Code::Cancelled));
        let time = self.begun.elapsed();
        if let (Some(method), Ending::Grpc(code)) = (self.method.take(), ending) {
            self.calls.ended(self.guest.as_deref(), method, code, time);
        }
        if let Some((slot, mut line)) = self.line.take() {
            line.status = match ending {
                Ending::Grpc(code) => code_name(code).to_owned(),
                Ending::Http(status) => format!("HTTP {}", status.as_u16()),
            };
            line.received = self.received.load(Ordering::Relaxed);
            line.sent = self.sent;
            line.ms = time.as_secs_f64() * 1000.0;
            slot.write(line);
        }
    }
}

/// A response on its way, whose trailers say how the call has ended.
#[derive(Debug)]
pub(crate) struct Recorded<B> {
    body: B,
    record: Record,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Recorded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.sent += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.headers(trailers);
                }
            }
            Some(Err(_)) => {}
            // Without a status it was no gRPC.
            None => self.record.ended(Ending::Grpc(Code::Unknown)),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request that the bridge answers itself.
#[derive(Debug)]
pub(crate) struct Counted<B> {
    body: B,
    received: Arc<AtomicU64>,
}

impl<B> Counted<B> {
    pub(crate) fn new(body: B, record: &Record) -> Self {
        Self {
            body,
            received: Arc::clone(&record.received),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.received
                .fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
