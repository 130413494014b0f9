//! What the agent asks an upstream on its own account, within a bounded time: what it serves.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::future::join_all;
use http::{Request, Response, Uri};
use prost::Message as _;
use tokio::time::timeout;
use tokio_stream as stream;
use tonic::{Code, Status, body::Body};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use tower_service::Service;

use super::{Server, Upstreams, config::Pattern, reflection::V1ALPHA};
use crate::limits::{
    MAX_MESSAGE_REFLECTION, MAX_UPSTREAM_KNOWN, MAX_UPSTREAM_LISTED, UPSTREAM_ASK_TIMEOUT,
};

/// What a server has said of itself, by what it was asked. It goes with the connection.
#[derive(Default)]
pub(super) struct Known(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    answers: HashMap<Vec<u8>, ServerReflectionResponse>,
    bytes: usize,
}

/// A server as tonic's clients take it.
#[derive(Clone)]
pub(super) struct Callee {
    server: Arc<Server>,
    /// The method's path, if another one than the client's is to be called.
    path: Option<&'static str>,
}

/// A service of an upstream, as `GetInfo` lists it.
pub(crate) struct Listed {
    /// Its full name; that of a pattern where it does not tell.
    pub(crate) service: String,
    /// Why it can't be called.
    pub(crate) reason: Option<String>,
}

impl Upstreams {
    /// The services of all upstreams, in order.
    pub(crate) async fn services(&self) -> Vec<Listed> {
        let asked = self.servers().iter().map(|server| list(self, server));
        let mut all: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        all.sort_by(|one, other| one.service.cmp(&other.service));
        all.dedup_by(|one, other| one.service == other.service);
        all
    }
}

/// What a server lists that is passed on to it.
async fn list(upstreams: &Upstreams, server: &Arc<Server>) -> Vec<Listed> {
    let request = MessageRequest::ListServices(String::new());
    let answer = server.reflect(request).await;
    let is_its_own = |service: &str| {
        let found = upstreams.find(service);
        found.is_some_and(|found| Arc::ptr_eq(found, server))
    };
    let (listed, reason) = match answer {
        Ok(MessageResponse::ListServicesResponse(list)) => {
            let names = list.service.into_iter().map(|service| service.name);
            let own = names.filter(|name| is_its_own(name));
            (own.take(MAX_UPSTREAM_LISTED).collect(), None)
        }
        Ok(_) => (Vec::new(), None),
        Err(status) if status.code() == Code::Unimplemented => (Vec::new(), None),
        Err(status) => (Vec::new(), Some(status.message().to_owned())),
    };
    if listed.is_empty() {
        // It does not tell; what is known is what it was configured for.
        let patterns = server.upstream.patterns().iter().map(Pattern::to_string);
        let known = patterns.map(|service| Listed {
            service,
            reason: reason.clone(),
        });
        return known.collect();
    }
    let listed = listed.into_iter();
    listed
        .map(|service| Listed {
            service,
            reason: None,
        })
        .collect()
}

impl Server {
    /// Asks its reflection, of either version.
    pub(super) async fn reflect(
        self: &Arc<Self>,
        request: MessageRequest,
    ) -> Result<MessageResponse, Status> {
        let connection = self.connection().await?;
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        let key = request.encode_to_vec();
        if let Some(known) = connection.known.get(&key) {
            return known.message_response.ok_or_else(nothing);
        }
        let asked = async {
            match self.ask(request.clone(), None).await {
                Err(status) if status.code() == Code::Unimplemented => {
                    self.ask(request, Some(V1ALPHA)).await
                }
                answer => answer,
            }
        };
        let answer = timeout(UPSTREAM_ASK_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| self.unavailable("its reflection does not answer"))??;
        connection.known.add(key, &answer);
        answer.message_response.ok_or_else(nothing)
    }

    async fn ask(
        self: &Arc<Self>,
        request: ServerReflectionRequest,
        path: Option<&'static str>,
    ) -> Result<ServerReflectionResponse, Status> {
        let callee = Callee {
            server: Arc::clone(self),
            path,
        };
        let mut client =
            ServerReflectionClient::new(callee).max_decoding_message_size(MAX_MESSAGE_REFLECTION);
        let answers = client
            .server_reflection_info(stream::iter([request]))
            .await?;
        answers.into_inner().message().await?.ok_or_else(nothing)
    }
}

fn nothing() -> Status {
    Status::internal("reflection gave no answer")
}

// === impl Known ===

impl Known {
    fn get(&self, key: &[u8]) -> Option<ServerReflectionResponse> {
        self.lock().answers.get(key).cloned()
    }

    /// When so much is remembered, nothing further is: it can be asked for again.
    fn add(&self, key: Vec<u8>, answer: &ServerReflectionResponse) {
        let is_error = matches!(
            answer.message_response,
            Some(MessageResponse::ErrorResponse(_))
        );
        let mut kept = self.lock();
        let bytes = kept.bytes + key.len() + answer.encoded_len();
        // What is not there may be asked for under any name.
        if bytes > MAX_UPSTREAM_KNOWN || is_error || kept.answers.contains_key(&key) {
            return;
        }
        kept.bytes = bytes;
        kept.answers.insert(key, answer.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing that holds it can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Callee ===

impl Callee {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            path: None,
        }
    }
}

impl Service<Request<Body>> for Callee {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(path) = self.path {
            *request.uri_mut() = Uri::from_static(path);
        }
        let call = self.server.call(request);
        Box::pin(async move { Ok(call.await) })
    }
}
