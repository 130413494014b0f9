//! What becomes of a call.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use prost::Message;
use tonic::{Status, Streaming, body::Body, server::Grpc, service::Routes};
use tonic_health::pb::health_server::HealthServer;
use tonic_prost::ProstCodec;
use tower::service_fn;
use tower_service::Service;
use tracing::error;

use super::{
    Commands,
    agent::Agent,
    health::{self, Health},
    methods::{self, Method},
    refusal,
};
use crate::{channel::AgentInfo, error::harmless};

/// The answer to a call, as it comes about.
pub(super) type CallFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Everything that this agent can serve, with health and reflection, and refusals for everything else: a service over HTTP
/// requests. Clones are the same guest.
#[derive(Clone)]
pub(crate) struct Services {
    agent: Arc<Agent>,
    /// Health and reflection.
    about: Routes,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

/// The services of a guest whose agent is reached through `commands` and has said `info` of itself.
pub(crate) fn services(commands: Commands, info: AgentInfo) -> Services {
    let agent = Agent::new(commands, info);
    let about = Routes::new(HealthServer::new(Health::new(Arc::clone(&agent))));
    let about = described(about.clone()).unwrap_or_else(|cause| {
        // The descriptors are built in.
        error!("a guest's services have no reflection: {cause}");
        about
    });
    Services { agent, about }
}

/// With reflection, in both versions.
fn described(about: Routes) -> Result<Routes, tonic_reflection::server::Error> {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(vbridge_api::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(health::NAME);
        let services = methods::services();
        services.fold(
            builder,
            tonic_reflection::server::Builder::with_service_name,
        )
    };
    Ok(about
        .add_service(builder().build_v1()?)
        .add_service(builder().build_v1alpha()?))
}

impl<B> Service<Request<B>> for Services
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(Body::new);
        let path = request.uri().path();
        if path.starts_with("/grpc.") {
            let mut about = self.about.clone();
            return Box::pin(async move {
                let Ok(()) =
                    std::future::poll_fn(|cx| Service::<Request<Body>>::poll_ready(&mut about, cx))
                        .await;
                about.call(request).await
            });
        }
        let Some(method) = methods::find(path) else {
            let path = harmless(path);
            let why =
                format!("this guest has only qemu-guest-agent, and there is no method {path}");
            let refused = refusal::cannot(why).into_http();
            return Box::pin(std::future::ready(Ok(refused)));
        };
        let agent = Arc::clone(&self.agent);
        Box::pin(async move {
            Ok(match admit(&agent, method).await {
                Ok(call) => call(agent, request).await,
                Err(status) => status.into_http(),
            })
        })
    }
}

/// Who serves the method; an error if nobody does.
async fn admit(agent: &Agent, method: &Method) -> Result<methods::Call, Status> {
    let call = method.call.ok_or_else(|| refusal::cannot(method.why))?;
    if !method.is_served_while_frozen()
        && let Some(remaining) = agent.standstill.remaining()
    {
        return Err(refusal::frozen(Some(remaining)));
    }
    agent.require(method.needs).await?;
    Ok(call)
}

/// A call with one message each way.
pub(super) fn unary<Q, A, F>(
    agent: Arc<Agent>,
    request: Request<Body>,
    serve: impl Fn(Arc<Agent>, Q) -> F + Copy + Send + 'static,
) -> CallFuture
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    noted(agent, request, move |agent, request| async move {
        serve(agent, request).await.map(tonic::Response::new)
    })
}

/// The same with something in the answer's headers.
pub(super) fn noted<Q, A, F>(
    agent: Arc<Agent>,
    request: Request<Body>,
    serve: impl Fn(Arc<Agent>, Q) -> F + Copy + Send + 'static,
) -> CallFuture
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    F: Future<Output = Result<tonic::Response<A>, Status>> + Send + 'static,
{
    Box::pin(async move {
        let service = service_fn(move |request: tonic::Request<Q>| {
            serve(Arc::clone(&agent), request.into_inner())
        });
        let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
        grpc.unary(service, request).await
    })
}

/// A call that is answered with a stream.
pub(super) fn streaming<Q, A, S, F>(
    agent: Arc<Agent>,
    request: Request<Body>,
    serve: impl Fn(Arc<Agent>, Q) -> F + Copy + Send + 'static,
) -> CallFuture
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
    F: Future<Output = Result<S, Status>> + Send + 'static,
{
    Box::pin(async move {
        let service = service_fn(move |request: tonic::Request<Q>| {
            let answered = serve(Arc::clone(&agent), request.into_inner());
            async move { answered.await.map(tonic::Response::new) }
        });
        let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
        grpc.server_streaming(service, request).await
    })
}

/// A call whose request is a stream.
pub(super) fn upload<Q, A, F>(
    agent: Arc<Agent>,
    request: Request<Body>,
    serve: impl Fn(Arc<Agent>, Streaming<Q>) -> F + Copy + Send + 'static,
) -> CallFuture
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
{
    Box::pin(async move {
        let service = service_fn(move |request: tonic::Request<Streaming<Q>>| {
            let answered = serve(Arc::clone(&agent), request.into_inner());
            async move { answered.await.map(tonic::Response::new) }
        });
        let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
        grpc.client_streaming(service, request).await
    })
}
