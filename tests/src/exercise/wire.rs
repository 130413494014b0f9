//! What tonic's handlers can't say: trailers of a call that succeeds, and resets with a code of one's choice.
//!
//! A handler leaves an [`Ending`] in its response's extensions; the body around tonic's adds the trailers to tonic's,
//! or fails with an HTTP/2 error, whose code hyper puts into RST_STREAM. The request's body is watched for the code
//! with which the caller resets it.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::counters::{Call, Counters};

/// The request's metadata that names the call whose resets are counted.
pub(crate) const ID: &str = "x-exercise-id";

/// How a response ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    pub(crate) trailers: HeaderMap,
    pub(crate) reset: Option<u32>,
}

/// The service with what tonic's handlers can't say.
#[derive(Debug, Clone)]
pub struct Wire<S> {
    inner: S,
    counters: Counters,
}

impl<S> Wire<S> {
    pub(super) fn new(inner: S, counters: Counters) -> Self {
        Self { inner, counters }
    }
}

impl<S: NamedService> NamedService for Wire<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Wire<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = self.counters.call();
        let id = request
            .headers()
            .get(ID)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let id = id.to_owned();
        let counters = self.counters.clone();
        let request = request.map(|inner| {
            Body::new(Watched {
                inner,
                id,
                counters,
            })
        });
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let ending = response
                .extensions_mut()
                .remove::<Ending>()
                .unwrap_or_default();
            Ok(response.map(|inner| {
                Body::new(Ended {
                    inner,
                    ending,
                    _call: call,
                })
            }))
        })
    }
}

/// A response's body with its ending.
#[derive(Debug)]
struct Ended {
    inner: Body,
    ending: Ending,
    _call: Call,
}

impl HttpBody for Ended {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(status)) => return Poll::Ready(Some(Err(status.into()))),
            None => return Poll::Ready(None),
        };
        let frame = match frame.into_trailers() {
            Ok(mut trailers) => {
                if let Some(code) = self.ending.reset.take() {
                    return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::from(code)).into())));
                }
                trailers.extend(std::mem::take(&mut self.ending.trailers));
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ending.reset.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body that is watched for a reset.
#[derive(Debug)]
struct Watched {
    inner: Body,
    id: String,
    counters: Counters,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Err(status)) = &frame
            && let Some(code) = reset_code(status)
        {
            self.counters.reset(&self.id, code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The HTTP/2 code among an error's causes.
fn reset_code(error: &(dyn Error + 'static)) -> Option<u32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error
            .downcast_ref::<h2::Error>()
            .and_then(h2::Error::reason)
        {
            return Some(reason.into());
        }
        cause = error.source();
    }
    None
}
