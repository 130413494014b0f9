//! Holds a call's places in the limits of the policy until its last byte is out, or nobody wants it any more.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::{policy::Places, router::CallFuture};

/// A response body with places.
struct Holding {
    body: Body,
    places: Option<Places>,
}

/// Gives the places back when the call has ended.
pub(crate) fn hold(places: Places, call: CallFuture) -> CallFuture {
    Box::pin(async move {
        let response = call.await;
        match response.body().is_end_stream() {
            true => response,
            false => response.map(|body| {
                let places = Some(places);
                Body::new(Holding { body, places })
            }),
        }
    })
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        let is_last = match &frame {
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            Poll::Pending => false,
        };
        if is_last {
            this.places = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
