//! `grpc.health.v1.Health`: everything that the agent serves is serving, until it stops. How an upstream is, its own server
//! says, and nobody is there to say it where that has gone.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use crate::{error, upstream::Upstreams};

/// The service. The name "" stands for the agent as a whole.
pub(crate) struct Health {
    names: BTreeSet<String>,
    upstreams: Upstreams,
    stopping: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        upstreams: Upstreams,
    ) -> Arc<Self> {
        Arc::new(Self {
            upstreams,
            names: names.into_iter().chain([""]).map(str::to_owned).collect(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Nothing is serving any more, and watchers are told.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn status(&self, name: &str) -> Option<ServingStatus> {
        let status = if *self.stopping.borrow() {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        };
        self.names.contains(name).then_some(status)
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = HealthWatch;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        let status = match self.status(name) {
            Some(status) => status,
            None => {
                let status = self.upstreams.health(name).await;
                status.ok_or_else(|| error::unknown_health_name(name))??
            }
        };
        Ok(Response::new(answer(status)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthWatch>, Status> {
        let name = &request.get_ref().service;
        let statuses = match self.status(name) {
            Some(status) => unchanged(status),
            // Unknown services are answered too, by the protocol's definition: they may yet appear.
            None => self
                .upstreams
                .watch_health(name)
                .unwrap_or_else(|| unchanged(ServingStatus::ServiceUnknown)),
        };
        let mut stopping = self.stopping.subscribe();
        Ok(Response::new(HealthWatch {
            state: State::Watching,
            statuses,
            stopping: Box::pin(async move {
                // An error means that the agent is gone altogether.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }),
        }))
    }
}

/// It is so, and nothing else comes.
fn unchanged(status: ServingStatus) -> BoxStream<'static, ServingStatus> {
    let once = stream::once(std::future::ready(status));
    once.chain(stream::pending()).boxed()
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// The status now, and each that it changes to; when the agent stops, NOT_SERVING and the end.
pub(crate) struct HealthWatch {
    state: State,
    /// Without end.
    statuses: BoxStream<'static, ServingStatus>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum State {
    Watching,
    /// That the agent stops was told; the call's own end is left.
    Stopped,
    Over,
}

impl Stream for HealthWatch {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.state {
            State::Watching => {
                if self.stopping.as_mut().poll(cx).is_ready() {
                    self.state = State::Stopped;
                    return Poll::Ready(Some(Ok(answer(ServingStatus::NotServing))));
                }
                let status = std::task::ready!(self.statuses.poll_next_unpin(cx));
                Poll::Ready(status.map(|status| Ok(answer(status))))
            }
            State::Stopped => {
                self.state = State::Over;
                Poll::Ready(Some(Err(error::agent_stopping())))
            }
            State::Over => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_health::pb::health_server::Health as _;

    use super::*;

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest {
            service: service.to_owned(),
        })
    }

    #[tokio::test]
    async fn what_is_served_is_serving_and_nothing_else_is_known() {
        let health = Health::new(["a.Service"], Upstreams::default());
        for name in ["", "a.Service"] {
            let status = health
                .check(request(name))
                .await
                .unwrap()
                .into_inner()
                .status();
            assert_eq!(status, ServingStatus::Serving);
        }
        assert_eq!(
            health.check(request("other")).await.unwrap_err().code(),
            Code::NotFound
        );
        let mut watch = health.watch(request("other")).await.unwrap().into_inner();
        assert_eq!(
            watch.next().await.unwrap().unwrap().status(),
            ServingStatus::ServiceUnknown
        );
    }

    #[tokio::test]
    async fn a_watcher_is_told_that_the_agent_stops() {
        let health = Health::new(["a.Service"], Upstreams::default());
        let mut watch = health
            .watch(request("a.Service"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            watch.next().await.unwrap().unwrap().status(),
            ServingStatus::Serving
        );
        health.stop();
        assert_eq!(
            watch.next().await.unwrap().unwrap().status(),
            ServingStatus::NotServing
        );
        assert_eq!(
            watch.next().await.unwrap().unwrap_err().code(),
            Code::Unavailable
        );
        assert!(watch.next().await.is_none());
    }
}
