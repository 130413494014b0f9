//! The body of a request, whose end is its end.
//!
//! hyper makes an end of a stream that was reset with NO_ERROR, and tonic of one that was reset with CANCEL. A service that
//! takes a stream would think that it has all of it: half a file, half of what is sent to a connection. Here both are an
//! error.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

/// A body of a request as it comes from the network.
pub(crate) struct Upload<B>(B);

impl<B> Upload<B> {
    pub(crate) fn new(body: B) -> Self {
        Self(body)
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                let status = Status::from_error(Box::new(error));
                match status.code() {
                    Code::Cancelled => Some(Err(broken_off())),
                    _ => Some(Err(status)),
                }
            }
            None if self.0.is_end_stream() => None,
            None => Some(Err(broken_off())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Nobody reads it: the call is gone.
fn broken_off() -> Status {
    Status::aborted("the caller has broken the call off")
}
