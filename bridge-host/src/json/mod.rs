//! The JSON API for curl: `/api/v1/`, on the same port, with HTTP/1.1 or HTTP/2.
//!
//! ```text
//!   request ─▶ guard ─▶ endpoint ─▶ routing ─▶ request ─▶ asked ──gRPC──▶ inside ─▶ guest
//!             browser?  path and    which      body or    system, shell,
//!             host?     method      guest      query      files, service
//!                │         │          │          │            │
//!                └─────────┴──────────┴──────────┴────────────┴─▶ answer: the envelope
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `answer` | the envelope around every answer, and the headers of each |
//! | `asked` | what a request asks a guest for, and the way there |
//! | `code` | the numeric codes, and what becomes of a gRPC status |
//! | `endpoint` | which endpoints there are; `vbridge_api::json` has the gRPC methods that each stands for |
//! | `signed` | what a request proves to a guest that wants each call signed |
//! | `files`, `service`, `shell`, `system` | what the endpoints do |
//! | `guard` | what is refused before anything is touched |
//! | `request` | what a request says, in its body or its query |
//!
//! `openapi.json` describes all of it for programs, and is served itself.
//!
//! A guest is named as in every other call: by the authority, or by the header `x-vbridge-guest`. One thing is stricter than for
//! gRPC, which browsers can't speak: no page of another site can have a browser send a request here, whatever it makes the
//! browser's DNS say. See `guard`.

mod answer;
mod asked;
mod code;
mod endpoint;
mod files;
mod guard;
mod request;
mod service;
mod shell;
mod signed;
mod system;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};

pub(crate) use vbridge_api::json::{PREFIX, methods};

use self::{
    answer::{Answer, Head},
    asked::Asked,
    code::{Code, Failure},
    endpoint::{Endpoint, What},
    request::Fields,
};
use crate::{
    forward::BoxError,
    guest::{Guest, wait_of},
    guests::Guests,
    limits::{MAX_JSON_BODIES, MAX_JSON_CALLS},
    routing::{BRIDGE_NAME, GUEST_HEADER, Target},
};

/// What the API's document is.
const DOCUMENT: &str = include_str!("openapi.json");

/// Serves the API; one for all listeners, whose bounds they share.
#[derive(Clone)]
pub(crate) struct Api {
    guests: Guests,
    places: Arc<Semaphore>,
    /// A permit for each byte.
    bodies: Arc<Semaphore>,
}

impl Api {
    pub(crate) fn new(guests: Guests) -> Self {
        Self {
            guests,
            places: Arc::new(Semaphore::new(MAX_JSON_CALLS)),
            bodies: Arc::new(Semaphore::new(MAX_JSON_BODIES)),
        }
    }

    /// Answers a request whose path begins with [`PREFIX`], and says how the calls have ended that it stands for. `admit` says
    /// whom it is for, if its caller may make it. `anybody` may, if a page of another site may have sent it as well.
    pub(crate) async fn serve<B, A>(
        &self,
        anybody: bool,
        admit: A,
        request: Request<B>,
    ) -> (Response<Body>, tonic::Code)
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
        A: FnOnce(&[&str], &mut Request<B>) -> Result<Target<Arc<Guest>>, Box<Status>>,
    {
        let head = Head::of(request.headers());
        let outcome = self.answer(anybody, admit, request).await;
        let code = match &outcome {
            Ok(_) => tonic::Code::Ok,
            Err(failure) => failure.grpc(),
        };
        (head.respond(outcome), code)
    }

    async fn answer<B, A>(
        &self,
        anybody: bool,
        admit: A,
        mut request: Request<B>,
    ) -> Result<Answer, Failure>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
        A: FnOnce(&[&str], &mut Request<B>) -> Result<Target<Arc<Guest>>, Box<Status>>,
    {
        guard::check(&self.guests, anybody, request.uri(), request.headers())?;
        let endpoint = Endpoint::find(request.uri().path(), request.method())?;
        endpoint.check_body(request.headers())?;
        let _place = place(&self.places, 1)?;
        let target =
            admit(methods(request.uri().path()), &mut request).map_err(|status| *status)?;
        if endpoint.what == What::Document {
            return Ok(Answer::Document(DOCUMENT));
        }
        match target {
            Target::Guest(guest) => self.ask(endpoint, guest, request).await,
            Target::Bridge => Err(Failure::new(
                Code::EndpointNotFound,
                format!(
                    "\"{BRIDGE_NAME}\" is the bridge itself, and this API is about guests: name one in the host, as NAME.localhost, or in the header {GUEST_HEADER}"
                ),
            )),
        }
    }

    async fn ask<B>(
        &self,
        endpoint: &Endpoint,
        guest: Arc<Guest>,
        request: Request<B>,
    ) -> Result<Answer, Failure>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (wait, patient) = wait_of(request.headers())?;
        let proof = signed::proof(&request);
        let (fields, _bytes) = if endpoint.has_body() {
            let bytes = place(&self.bodies, request::most(request.body())?)?;
            let body = request::read(request.into_body()).await?;
            (Fields::of_body(&body, endpoint.what)?, Some(bytes))
        } else {
            (Fields::of_query(request.uri().query())?, None)
        };
        let (asked, limit) = Asked::parse(endpoint.what, fields)?;
        asked.ask(guest, proof, (wait, patient), limit).await
    }
}

/// Whether a request may be made that tells all at once: why not, if a page of another site may have caused it.
pub(crate) fn check_page<B>(
    guests: &Guests,
    anybody: bool,
    request: &Request<B>,
) -> Result<(), String> {
    let checked = guard::check(guests, anybody, request.uri(), request.headers());
    checked.map_err(|failure| failure.detail().to_owned())
}

/// A part of what there is, for as long as the permit lives.
fn place(places: &Arc<Semaphore>, parts: usize) -> Result<OwnedSemaphorePermit, Failure> {
    // What is more than that can count is more than there is.
    let parts = u32::try_from(parts).unwrap_or(u32::MAX);
    Arc::clone(places)
        .try_acquire_many_owned(parts)
        .map_err(|_| Failure::busy())
}
