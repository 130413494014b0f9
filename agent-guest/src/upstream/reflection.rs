//! The agent's reflection with that of its upstreams: what the agent does not know itself, it asks them.
//!
//! Both versions of the protocol have the same messages on the wire, so that one answers for both.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::{Request, Response, Uri};
use tonic::{Code, Status, body::Body, server::NamedService};
use tonic_reflection::pb::v1::{
    ErrorResponse, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
    server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};
use tower_service::Service;

use super::Upstreams;
use crate::{
    limits::{MAX_MESSAGE_REFLECTION, MAX_SMALL_REQUEST},
    router::GrpcService,
};

/// The method of the older version.
pub(super) const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The service; `S` is the agent's own reflection.
#[derive(Clone)]
pub(crate) struct Merged<S> {
    own: S,
    upstreams: Upstreams,
}

/// The same service under the name of its older version.
#[derive(Clone)]
pub(crate) struct Older<S>(S);

/// Both versions of the agent's reflection, with that of its upstreams.
pub(crate) fn merged<S: GrpcService>(
    own: S,
    upstreams: Upstreams,
) -> (impl GrpcService, impl GrpcService) {
    let server = ServerReflectionServer::new(Merged { own, upstreams })
        .max_decoding_message_size(MAX_SMALL_REQUEST);
    (server.clone(), Older(server))
}

impl<S: GrpcService> Merged<S> {
    async fn answer(&self, request: ServerReflectionRequest) -> Result<MessageResponse, Status> {
        let question = request.message_request.clone();
        let own = self.ask_own(request).await?;
        match (question, own) {
            (_, MessageResponse::ListServicesResponse(mut list)) => {
                let listed = self.upstreams.services().await.into_iter();
                // What only a pattern stands for is no name.
                let names = listed
                    .map(|it| it.service)
                    .filter(|name| !name.ends_with('*'));
                list.service
                    .extend(names.map(|name| ServiceResponse { name }));
                Ok(MessageResponse::ListServicesResponse(list))
            }
            (Some(question), MessageResponse::ErrorResponse(error)) => {
                let answer = self.ask_upstreams(&question).await;
                Ok(answer.unwrap_or(MessageResponse::ErrorResponse(error)))
            }
            (_, own) => Ok(own),
        }
    }

    async fn ask_own(&self, request: ServerReflectionRequest) -> Result<MessageResponse, Status> {
        let mut client = ServerReflectionClient::new(self.own.clone())
            .max_decoding_message_size(MAX_MESSAGE_REFLECTION);
        let answers = client.server_reflection_info(stream::iter([request])).await;
        // What it does not know is a status there, and a message here.
        let answer = match answers {
            Ok(answers) => answers.into_inner().message().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(answer) => Ok(answer
                .and_then(|it| it.message_response)
                .unwrap_or_else(|| {
                    MessageResponse::ErrorResponse(not_found("there is no such thing"))
                })),
            Err(status) if status.code() == Code::NotFound => {
                Ok(MessageResponse::ErrorResponse(not_found(status.message())))
            }
            Err(status) => Err(status),
        }
    }

    /// What the first says that knows it.
    async fn ask_upstreams(&self, question: &MessageRequest) -> Option<MessageResponse> {
        let asked = self.upstreams.servers().iter();
        let asked = asked.map(|server| server.reflect(question.clone()));
        let answers = futures_util::future::join_all(asked).await;
        answers
            .into_iter()
            .flatten()
            .find(|answer| !matches!(answer, MessageResponse::ErrorResponse(_)))
    }
}

fn not_found(message: &str) -> ErrorResponse {
    ErrorResponse {
        error_code: Code::NotFound.into(),
        error_message: message.to_owned(),
    }
}

#[tonic::async_trait]
impl<S: GrpcService> ServerReflection for Merged<S> {
    type ServerReflectionInfoStream = BoxStream<'static, Result<ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: tonic::Request<tonic::Streaming<ServerReflectionRequest>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, Status> {
        let merged = self.clone();
        let answers = request.into_inner().then(move |request| {
            let merged = merged.clone();
            async move {
                let request = request?;
                let answer = merged.answer(request.clone()).await?;
                Ok(ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer),
                })
            }
        });
        Ok(tonic::Response::new(answers.boxed()))
    }
}

impl<S> NamedService for Older<S> {
    const NAME: &'static str = "grpc.reflection.v1alpha.ServerReflection";
}

impl<S: GrpcService> Service<Request<Body>> for Older<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        *request.uri_mut() = Uri::from_static(V1);
        Box::pin(self.0.call(request))
    }
}
