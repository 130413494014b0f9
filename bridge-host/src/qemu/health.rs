//! `grpc.health.v1.Health`: what this agent serves is serving while it answers a ping.

use std::{pin::Pin, sync::Arc};

use futures_util::{
    Stream, StreamExt as _,
    stream::{self},
};
use serde_json::Value;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use super::{
    agent::Agent,
    methods,
    refusal::{Reason, shown},
};

/// Its full name.
pub(super) const NAME: &str = "grpc.health.v1.Health";

/// The service. The name "" stands for the guest as a whole.
#[derive(Debug)]
pub(super) struct Health {
    agent: Arc<Agent>,
}

impl Health {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }

    /// Nothing for a service that is not there.
    async fn status(&self, name: &str) -> Option<ServingStatus> {
        let is_served = name.is_empty() || name == NAME || methods::services().any(|of| of == name);
        if !is_served {
            return None;
        }
        // Agents that do not allow it are asked nothing else for this.
        if self.agent.obstacle(&["guest-ping"]).is_some() {
            return Some(ServingStatus::Serving);
        }
        Some(match self.agent.tell("guest-ping", Value::Null).await {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        })
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        let status = self.status(name).await.ok_or_else(|| {
            let message = format!(
                "the guest has no service {}: list its services through reflection",
                shown(name)
            );
            Reason::UnknownHealthName.status(message)
        })?;
        Ok(Response::new(answer(status)))
    }

    /// How it is now, and nothing more: when the agent is lost, so is the call.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = self.status(&request.get_ref().service).await;
        let status = status.unwrap_or(ServingStatus::ServiceUnknown);
        let once = stream::once(std::future::ready(Ok(answer(status))));
        Ok(Response::new(once.chain(stream::pending()).boxed()))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Code;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::qemu::script::{Script, no};

    async fn check(script: &Arc<Script>, service: &str) -> Result<ServingStatus, Status> {
        let mut client = HealthClient::new(script.serve());
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = client.check(request.clone()).await?.into_inner();
        let mut watch = client.watch(request).await?.into_inner();
        assert_eq!(watch.message().await?, Some(answer), "both say the same");
        Ok(answer.status())
    }

    #[tokio::test]
    async fn what_is_served_is_well_while_the_agent_answers() {
        let script = Script::fixed([("guest-ping", json!({}))]);
        for name in ["", "vbridge.guest.v1.Files", NAME] {
            let status = check(&script, name).await.unwrap();
            assert_eq!(status, ServingStatus::Serving, "{name}");
        }
        let status = check(&script, "vbridge.guest.v1.Tunnel").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        let silent = Script::new(|command, _| Err(no(command, "no")));
        let status = check(&silent, "").await.unwrap();
        assert_eq!(status, ServingStatus::NotServing);
    }
}
