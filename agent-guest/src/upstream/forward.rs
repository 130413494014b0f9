//! Passes calls on to an upstream, knowing no service: header blocks and data frames pass as they are, both ways, and each
//! side's windows hold the other back.
//!
//! What it adds:
//!
//! - A call that no connection has taken yet is sent on the next one; every other is never sent twice.
//! - A call that ends because the connection does is UNAVAILABLE, and one that is reset has the status that gRPC gives to the
//!   reset: hosts see no difference between the agent's services and an upstream's.
//! - A call that the host gives up is reset, and what it was waiting for is let go.

use std::{
    error::Error as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header::HOST};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Status, body::Body};

use super::Server;

/// What stands for the server in HTTP/2, which wants a name.
const AUTHORITY: &str = "localhost";

/// Sends a call and brings its response; one that can't be had is a status.
pub(super) async fn forward(server: Arc<Server>, request: Request<Body>) -> Response<Body> {
    match send(&server, request).await {
        Ok(response) => response.map(|body| {
            Body::new(Answer {
                body: Some(body),
                has_trailers: false,
                server,
            })
        }),
        Err(status) => status.into_http(),
    }
}

async fn send(server: &Server, request: Request<Body>) -> Result<Response<Incoming>, Status> {
    let mut request = address(request)?;
    // A connection may have died without anybody having seen it; a second that dies is told.
    for _ in 0..2 {
        let connection = server.connection().await?;
        let mut sender = connection.sender.clone();
        match sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(mut error) => match error.take_message() {
                Some(unsent) => {
                    server.forget(&connection);
                    request = unsent;
                }
                None => return Err(status(server, error.into_error())),
            },
        }
    }
    Err(server.unavailable("it ends every connection"))
}

/// Makes the request one for the server.
fn address(mut request: Request<Body>) -> Result<Request<Body>, Status> {
    let path = request.uri().path();
    let uri = Uri::builder().scheme("http").authority(AUTHORITY);
    let uri = uri.path_and_query(path).build();
    *request.uri_mut() = uri.map_err(|error| Status::invalid_argument(error.to_string()))?;
    request.headers_mut().remove(HOST);
    Ok(request)
}

/// What a broken call is called.
fn status(server: &Server, error: hyper::Error) -> Status {
    let reset = error.source().and_then(|it| it.downcast_ref::<h2::Error>());
    match reset.is_some_and(h2::Error::is_reset) {
        true => Status::from_error(Box::new(error)),
        false => server.unavailable(&format!("the connection broke: {error}")),
    }
}

/// A response body on its way to the host.
struct Answer {
    /// `None` when it is over.
    body: Option<Incoming>,
    /// The trailers have passed: whatever follows, the call has its status.
    has_trailers: bool,
    server: Arc<Server>,
}

impl Answer {
    fn end(&mut self, status: &Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.body = None;
        if self.has_trailers {
            return None;
        }
        let mut trailers = HeaderMap::new();
        // A status of the agent's own always fits into headers.
        let _ = status.add_header(&mut trailers);
        Some(Ok(Frame::trailers(trailers)))
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.has_trailers |= frame.is_trailers();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let status = status(&this.server, error);
                this.end(&status)
            }
            // hyper makes an end of a reset with NO_ERROR. It is one only behind a complete answer.
            None if this.has_trailers || body.is_end_stream() => None,
            None => {
                let status = this.server.unavailable("it broke the call off");
                this.end(&status)
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }

    /// Unknown, so that no length is made up that the server did not announce.
    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}
