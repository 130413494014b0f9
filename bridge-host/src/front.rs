//! What happens to a request that arrives at a listener.
//!
//! ```text
//!   request ──▶ a place in the audit log ──▶ who calls ──▶ for which guest ──▶ may they ──▶ too much? ──▶ guest, or bridge
//!                        │                      │                │                │             │
//!                        └──────────────────────┴────────────────┴────────────────┴─────────────┴──▶ a status
//! ```

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::ServiceExt as _;

use crate::{
    access::{Access, Peer, Viewer},
    audit::Audit,
    connections::Connection,
    forward::{BoxError, Failure, forward},
    guest::Guest,
    guests::Guests,
    json,
    metrics::{self, Calls, Exporter},
    record::{Counted, Record},
    routing::{BRIDGE_NAME, Names, Target, route},
};

/// What a request needs: shared by all listeners.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) guests: Guests,
    /// The bridge's own services.
    pub(crate) routes: Routes,
    /// What calls are counted by.
    pub(crate) calls: Calls,
    /// What is measured, for whoever asks.
    pub(crate) exporter: Exporter,
    /// Who may call what.
    pub(crate) access: Access,
    /// Where calls are written down, if they are.
    pub(crate) audit: Option<Audit>,
    /// The same for those who don't speak gRPC.
    pub(crate) json: json::Api,
    /// The guest that this listener belongs to.
    pub(crate) fixed: Option<Arc<Guest>>,
}

/// The guests that a caller may know of.
pub(crate) struct Seen<'a> {
    pub(crate) guests: &'a Guests,
    pub(crate) viewer: &'a Viewer,
}

impl Names for Seen<'_> {
    type Guest = Arc<Guest>;

    /// One that they may not know of is refused later, with the rule that does.
    fn find(&self, name: &str) -> Option<Arc<Guest>> {
        self.guests.find(name)
    }

    fn only(&self) -> Option<Arc<Guest>> {
        if self.viewer.sees_all() {
            return self.guests.only();
        }
        let all = self.guests.all();
        let mut seen = all.into_iter().filter(|it| self.viewer.sees(it.name()));
        seen.next().filter(|_| seen.next().is_none())
    }

    fn all(&self) -> Vec<String> {
        let mut names = Names::all(self.guests);
        names.retain(|name| self.viewer.sees(name));
        names
    }

    fn machine(&self) -> &str {
        self.guests.machine()
    }
}

/// What a request is, by its path and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Call,
    Json,
    Scrape,
}

impl Front {
    pub(crate) async fn serve(
        self,
        peer: Arc<Peer>,
        connection: Arc<Connection>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, BoxError> {
        let is_scrape = request.uri().path() == metrics::PATH && request.method() == Method::GET;
        let kind = match is_scrape && self.fixed.is_none() {
            true => Kind::Scrape,
            false if request.uri().path().starts_with(json::PREFIX) => {
                return Ok(self.answer_in_json(&peer, &connection, request).await);
            }
            false if request.version() < Version::HTTP_2 => return Ok(not_http2()),
            false => Kind::Call,
        };
        if kind == Kind::Scrape
            && let Err(why) = json::check_page(&self.guests, self.anybody_calls(), &request)
        {
            return Ok(text(StatusCode::FORBIDDEN, PLAIN, why + "\n"));
        }
        let path = request.uri().path();
        let mut record = Record::new(&self.calls, (kind == Kind::Call).then_some(path));
        let caller = (&*peer, &connection);
        let target = match self.admit(&mut record, caller, &mut request, kind, &[]) {
            Ok(target) => target,
            Err(status) => {
                record.refused(&status);
                return Ok(match kind {
                    Kind::Call => status.into_http(),
                    Kind::Scrape | Kind::Json => in_http(&status),
                });
            }
        };
        match target {
            Target::Guest(guest) => {
                let received = Arc::clone(&record.received);
                match forward(guest, request, received).await {
                    Ok(response) => Ok(record.follow(response).map(Body::new)),
                    Err(Failure::Status(status)) => {
                        record.refused(&status);
                        Ok(status.into_http())
                    }
                    Err(Failure::Reset(error)) => Err(error.into()),
                }
            }
            Target::Bridge if kind == Kind::Scrape => {
                let viewer = request.extensions().get::<Viewer>().cloned();
                let sees = |guest: &str| viewer.as_ref().is_some_and(|viewer| viewer.sees(guest));
                let response = scraped(&self.exporter, sees).await;
                Ok(record.follow(response).map(Body::new))
            }
            Target::Bridge => {
                let request = request.map(|body| Body::new(Counted::new(body, &record)));
                let response = self.routes.oneshot(request).await?;
                Ok(record.follow(response).map(Body::new))
            }
        }
    }

    /// Whether a page of another site may have a browser call. Where callers prove who they are, it has nothing to prove it with.
    fn anybody_calls(&self) -> bool {
        self.access.now().lets_anybody()
    }

    /// A request of the JSON API, which stands for calls.
    async fn answer_in_json(
        self,
        peer: &Peer,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let path = request.uri().path();
        let first = json::methods(path).first().copied();
        let mut record = Record::new(&self.calls, Some(first.unwrap_or(path)));
        let request = request.map(|body| Counted::new(body, &record));
        let anybody = self.anybody_calls();
        let admit = |methods: &[&str], request: &mut Request<_>| {
            let caller = (peer, connection);
            let admitted = self.admit(&mut record, caller, request, Kind::Json, methods);
            admitted.inspect_err(|status| record.refused(status))
        };
        let (response, code) = self.json.serve(anybody, admit, request).await;
        record.code(code);
        record.follow(response).map(Body::new)
    }

    /// Whom the request is for, if its caller may make it now: all of these methods, which stand for it.
    fn admit<B>(
        &self,
        record: &mut Record,
        (peer, connection): (&Peer, &Arc<Connection>),
        request: &mut Request<B>,
        kind: Kind,
        methods: &[&str],
    ) -> Result<Target<Arc<Guest>>, Box<Status>> {
        if let Some(audit) = &self.audit {
            record.audit(audit.place()?, peer, request.uri().path());
        }
        let policy = self.access.now();
        let caller = policy.caller(peer, request.headers_mut())?;
        record.caller(caller.name());
        let viewer = Viewer::new(policy, caller);
        let is_own = methods.is_empty();
        let own = request.uri().path().to_owned();
        let own = [own.as_str()];
        let methods = if is_own { &own } else { methods };
        let target = match (&self.fixed, kind) {
            (Some(guest), _) => Target::Guest(Arc::clone(guest)),
            (None, Kind::Scrape) => Target::Bridge,
            // The API's own document.
            (None, Kind::Json) if is_own => Target::Bridge,
            (None, Kind::Call | Kind::Json) => {
                let seen = Seen {
                    guests: &self.guests,
                    viewer: &viewer,
                };
                let target = route(&seen, request.uri(), request.headers());
                target.map_err(|status| viewer.hide(methods, status))?
            }
        };
        let name = match &target {
            Target::Guest(guest) => {
                record.target(guest.name(), Some(guest));
                guest.name()
            }
            Target::Bridge => {
                record.target(BRIDGE_NAME, None);
                BRIDGE_NAME
            }
        };
        viewer.may(name, methods)?;
        record.hold(viewer.caller().admit()?, connection.busy());
        if matches!(target, Target::Bridge) {
            request.extensions_mut().insert(viewer);
        }
        Ok(target)
    }
}

/// A text that is there as a whole.
fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let text = Full::new(text.into()).map_err(|never: Infallible| match never {});
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// A refusal for who does not speak gRPC.
fn in_http(status: &Status) -> Response<Body> {
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = text(code, PLAIN, format!("{}\n", status.message()));
    if code == StatusCode::UNAUTHORIZED {
        let value = header::HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// An answer for Prometheus.
async fn scraped(exporter: &Exporter, sees: impl Fn(&str) -> bool) -> Response<Body> {
    match exporter.scrape(sees).await {
        Ok(it) => text(StatusCode::OK, metrics::CONTENT_TYPE, it),
        // A string takes whatever is written to it.
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, error.to_string()),
    }
}

/// An answer for browsers and curl: they learn what this port is.
fn not_http2() -> Response<Body> {
    const TEXT: &str = "This is a vbridge port. It speaks gRPC, over HTTP/2 (without TLS with prior knowledge); try grpcurl, with -plaintext where it is without TLS. curl finds /api/v1/openapi.json, Prometheus /metrics.\n";
    let mut response = text(StatusCode::UPGRADE_REQUIRED, PLAIN, TEXT);
    let close = header::HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}
