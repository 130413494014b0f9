//! Which service a call is for.
//!
//! tonic's own router is axum's, which costs a call several allocations and the agent a good part of its size; gRPC's
//! paths need no more than a table of service names.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::{Code, Status, body::Body, server::NamedService};
use tower_service::Service;

use crate::{
    call_auth::CallAuth,
    deadline::{self, Longest},
    error,
    gate::Gate,
    places,
    upstream::{Server, Upstreams},
};

/// The future of a call. It has a response whatever happens.
pub(crate) type CallFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A gRPC service as the agent takes it: what tonic's generated servers are, with or without layers.
pub trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

type Call = dyn Fn(Request<Body>) -> CallFuture + Send + Sync;

/// A service that is served.
struct Entry {
    call: Box<Call>,
    /// It is the agent's own, and calls of it pass the gate.
    is_own: bool,
}

/// Who serves a call.
#[derive(Clone, Copy)]
enum Target<'a> {
    Here(&'a Entry),
    Upstream(&'a Arc<Server>),
}

/// The services by name.
#[derive(Clone, Default)]
pub(crate) struct Router {
    services: Arc<BTreeMap<&'static str, Entry>>,
    upstreams: Upstreams,
    call_auth: Option<CallAuth>,
    gate: Gate,
    longest: Option<Longest>,
}

/// A table under construction.
#[derive(Default)]
pub(crate) struct Builder {
    services: BTreeMap<&'static str, Entry>,
}

impl Builder {
    /// Adds a service; whether its name was free.
    pub(crate) fn add<S: GrpcService>(&mut self, service: S) -> bool {
        self.insert::<S>(false, move |request| call(service.clone(), request))
    }

    /// Adds one of the agent's own services, whose requests have at most `limit` bytes. tonic calls a longer one
    /// OUT_OF_RANGE, and gives no details as these services do; the contract says INVALID_ARGUMENT.
    pub(crate) fn add_limited<S: GrpcService>(&mut self, service: S, limit: usize) -> bool {
        self.insert::<S>(true, move |request| {
            let response = call(service.clone(), request);
            Box::pin(async move {
                let response = response.await;
                match Status::from_header_map(response.headers()) {
                    Some(status) if is_too_large(&status) => {
                        error::request_too_large(limit).into_http()
                    }
                    _ => response,
                }
            })
        })
    }

    fn insert<S: NamedService>(
        &mut self,
        is_own: bool,
        call: impl Fn(Request<Body>) -> CallFuture + Send + Sync + 'static,
    ) -> bool {
        let is_free = !self.services.contains_key(S::NAME);
        if is_free {
            let call = Box::new(call);
            self.services.insert(S::NAME, Entry { call, is_own });
        }
        is_free
    }

    /// The names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.services.keys().copied()
    }

    pub(crate) fn build(self, upstreams: Upstreams, gate: Gate) -> Router {
        Router {
            upstreams,
            services: Arc::new(self.services),
            call_auth: None,
            gate,
            longest: None,
        }
    }
}

/// Whether this is what tonic says of a message that is longer than its service takes.
pub(crate) fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.details().is_empty()
}

fn call<S: GrpcService>(mut service: S, request: Request<Body>) -> CallFuture {
    Box::pin(async move {
        let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
        let Ok(response) = service.call(request).await;
        response
    })
}

impl Router {
    /// Asks for each call whether it is signed, before anything else.
    pub(crate) fn signed(mut self, call_auth: Option<CallAuth>) -> Self {
        self.call_auth = call_auth;
        self
    }

    /// Lets no call of one answer take longer.
    pub(crate) fn bounded(mut self, longest: Option<Longest>) -> Self {
        self.longest = longest;
        self
    }

    /// Answers a request.
    pub(crate) fn route(&self, mut request: Request<Body>) -> CallFuture {
        // As gRPC's PROTOCOL-HTTP2.md wants it.
        if !is_grpc(request.headers().get(CONTENT_TYPE)) {
            return answer(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if request.method() != Method::POST {
            return answer(plain(StatusCode::METHOD_NOT_ALLOWED));
        }
        if let Some(call_auth) = &self.call_auth {
            let path = request.uri().path().to_owned();
            if let Err(refusal) = call_auth.admit(&path, request.headers_mut()) {
                return answer(refusal.into_http());
            }
        }
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map(|(service, _)| service);
        let target = service.and_then(|service| self.find(service));
        let Some(target) = target else {
            return answer(error::unknown_service(path).into_http());
        };
        let is_own = matches!(target, Target::Here(entry) if entry.is_own);
        let places = match self.gate.admit(path, is_own) {
            Ok(places) => places,
            Err(refusal) => return answer(refusal.into_http()),
        };
        let longest = self.longest.as_ref().and_then(|it| it.of(path));
        if let Some(places) = &places {
            // What outlives its call holds them as well.
            request.extensions_mut().insert(places.clone());
        }
        let deadline = deadline::of(request.headers(), longest);
        let call = match target {
            Target::Here(entry) => (entry.call)(request),
            Target::Upstream(server) => server.call(request),
        };
        let call = match deadline {
            None => call,
            Some(deadline) => deadline::limit(deadline, call),
        };
        match places {
            None => call,
            Some(places) => places::hold(places, call),
        }
    }
}

impl Router {
    /// Who serves it: an upstream only what nobody here does.
    fn find(&self, service: &str) -> Option<Target<'_>> {
        let here = self.services.get(service).map(Target::Here);
        here.or_else(|| self.upstreams.find(service).map(Target::Upstream))
    }
}

fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type
        .and_then(|value| value.as_bytes().strip_prefix(GRPC))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn answer(response: Response<Body>) -> CallFuture {
    Box::pin(std::future::ready(response))
}

#[cfg(test)]
mod tests {
    use std::{
        task::{Context, Poll},
        time::{Duration, Instant, SystemTime},
    };

    use vbridge_link::Key;

    use super::*;
    use crate::{
        policy::{Limit, Policy, Profile, Rules},
        standstill::{Frozen, Standstill},
    };

    #[derive(Clone)]
    struct Echo;

    impl NamedService for Echo {
        const NAME: &'static str = "test.Echo";
    }

    impl Service<Request<Body>> for Echo {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::ready(Ok(Status::out_of_range("too long").into_http()))
        }
    }

    fn request(path: &str, content_type: &str) -> Request<Body> {
        Request::post(path)
            .header(CONTENT_TYPE, content_type)
            .body(Body::empty())
            .unwrap()
    }

    fn router_with(limited: bool, gate: Gate) -> Router {
        let mut builder = Builder::default();
        let added = if limited {
            builder.add_limited(Echo, 10)
        } else {
            builder.add(Echo)
        };
        assert!(added);
        assert!(!builder.add(Echo), "a name is served once");
        builder.build(Upstreams::default(), gate)
    }

    fn router(limited: bool) -> Router {
        router_with(limited, Gate::default())
    }

    async fn code(router: &Router, path: &str) -> Code {
        let response = router.route(request(path, "application/grpc")).await;
        Status::from_header_map(response.headers()).unwrap().code()
    }

    #[tokio::test]
    async fn a_call_goes_to_its_service_and_an_unknown_one_is_unimplemented() {
        let router = router(false);
        assert_eq!(code(&router, "/test.Echo/Any").await, Code::OutOfRange);
        for path in ["/test.Other/Any", "/test.Echo", "/", "//x", "/test.Ech/o"] {
            assert_eq!(code(&router, path).await, Code::Unimplemented, "{path}");
        }
    }

    #[tokio::test]
    async fn what_the_policy_refuses_does_not_reach_its_service() {
        let policy = Policy::new(Rules::new(Profile::Observe));
        let router = router_with(false, Gate::new(policy, Standstill::default()));
        let refused = Code::PermissionDenied;
        assert_eq!(code(&router, "/test.Echo/Any").await, refused);
        let unknown = code(&router, "/test.Other/Any").await;
        assert_eq!(
            unknown,
            Code::Unimplemented,
            "what is not there is not hidden"
        );
    }

    #[tokio::test]
    async fn what_is_not_signed_reaches_neither_a_service_nor_a_limit() {
        let limit = Limit::new("one", ["*"]).rate(1, Duration::from_secs(3600), 1);
        let policy = Policy::new(Rules::default().limit(limit));
        let key = Key::from_bytes(*b"0123456789abcdef").unwrap();
        let gate = Gate::new(policy, Standstill::default());
        let router = router_with(false, gate).signed(Some(CallAuth::new(key.clone())));
        let refused = Code::Unauthenticated;
        for path in ["/test.Echo/Any", "/test.Other/Any", "/test.Echo/Any"] {
            assert_eq!(code(&router, path).await, refused, "{path}");
        }
        let signed = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let now = now.unwrap().as_secs();
            let nonce = format!("nonce-{:?}", Instant::now());
            let nonce: String = nonce.chars().filter(char::is_ascii_digit).collect();
            let mut request = request("/test.Echo/Any", "application/grpc");
            let token = key.sign_call(now, &nonce, "/test.Echo/Any");
            let headers = request.headers_mut();
            headers.insert("x-auth-token", token.parse().unwrap());
            headers.insert("x-timestamp", now.into());
            headers.insert("x-nonce", nonce.parse().unwrap());
            request
        };
        for expected in [Code::OutOfRange, Code::ResourceExhausted] {
            let response = router.route(signed()).await;
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), expected);
        }
    }

    #[tokio::test]
    async fn a_request_too_long_for_an_own_service_is_an_invalid_argument() {
        assert_eq!(
            code(&router(true), "/test.Echo/Any").await,
            Code::InvalidArgument
        );
    }

    #[tokio::test]
    async fn only_own_services_are_refused_while_file_systems_are_frozen() {
        let standstill = Standstill::default();
        standstill.set(Some(Frozen {
            mount_points: Vec::new(),
            until: Instant::now(),
        }));
        for (is_own, expected) in [(true, Code::FailedPrecondition), (false, Code::OutOfRange)] {
            let router = router_with(is_own, Gate::new(Policy::default(), standstill.clone()));
            assert_eq!(code(&router, "/test.Echo/Any").await, expected);
        }
    }

    #[tokio::test]
    async fn what_is_not_grpc_is_told_so_in_http() {
        let router = router(false);
        for content_type in ["text/html", "application/grpcx", ""] {
            let response = router.route(request("/test.Echo/Any", content_type)).await;
            assert_eq!(
                response.status(),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{content_type}"
            );
        }
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            let response = router.route(request("/test.Echo/Any", content_type)).await;
            assert_eq!(response.status(), StatusCode::OK, "{content_type}");
        }
        let mut get = request("/test.Echo/Any", "application/grpc");
        *get.method_mut() = Method::GET;
        assert_eq!(
            router.route(get).await.status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
