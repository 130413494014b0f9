//! Calls of the bridge's own to a guest: what generated clients need of a connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{forward::RequestBody, guest::Guest};

/// A guest as a client's connection. A call does not wait for a guest that can't be reached now. It is never printed, since a
/// call's metadata may be a secret.
#[derive(Clone)]
pub(crate) struct Inside {
    guest: Arc<Guest>,
    /// What each call has beside its own.
    metadata: Arc<HeaderMap>,
}

impl Inside {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self::with(guest, HeaderMap::new())
    }

    /// With metadata of every call.
    pub(crate) fn with(guest: Arc<Guest>, metadata: HeaderMap) -> Self {
        let metadata = Arc::new(metadata);
        Self { guest, metadata }
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let guest = Arc::clone(&self.guest);
        for (name, value) in &*self.metadata {
            request.headers_mut().append(name, value.clone());
        }
        Box::pin(async move {
            let _place = guest.admit()?;
            let mut ready = guest.ready(Instant::now(), false).await?;
            let request = request.map(RequestBody::own);
            let answer = ready.sender.send_request(request).await;
            answer.map_err(|_| guest.session_ended())
        })
    }
}
