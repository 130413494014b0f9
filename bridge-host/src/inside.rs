//! Calls of the bridge's own to a guest: what generated clients need of a connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{forward::RequestBody, guest::Guest};

/// A guest as a client's connection. A call does not wait for a guest that can't be reached now.
#[derive(Debug, Clone)]
pub(crate) struct Inside(Arc<Guest>);

impl Inside {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self(guest)
    }

    /// What clients have as authority: the connection itself says which guest it is.
    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://guest")
    }
}

impl Service<Request<Body>> for Inside {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let guest = Arc::clone(&self.0);
        Box::pin(async move {
            let _place = guest.admit()?;
            let mut ready = guest.ready(Instant::now(), false).await?;
            let request = request.map(RequestBody::own);
            let answer = ready.sender.send_request(request).await;
            answer.map_err(|_| guest.session_ended())
        })
    }
}
