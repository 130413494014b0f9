//! How upstreams are: what their own health services say, and NOT_SERVING where nobody answers.
//!
//! Whoever watches one sees it come and go, without knowing of connections:
//!
//! ```text
//!              there is a connection            it answers
//!    Absent ──────────────────────▶ (asked) ─────────────────▶ Told: what it says is passed on
//!      ▲ │                             │ it has no health            │
//!      │ └─ none: NOT_SERVING          ▼                             │ it says no more
//!      │    after UPSTREAM_RETRY    Mute: SERVING                    │
//!      │                               │ the connection ends         │
//!      └───────────────────────────────┴─────────────────────────────┘
//! ```

use std::sync::Arc;

use futures_util::{StreamExt as _, stream, stream::BoxStream};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::{Connection, Server, Upstreams, ask::Callee};
use crate::limits::{UPSTREAM_ASK_TIMEOUT, UPSTREAM_RETRY};

/// A service of an upstream, watched.
struct Watch {
    server: Arc<Server>,
    service: String,
    state: State,
    /// What was told last; the same is not told twice.
    told: Option<ServingStatus>,
}

enum State {
    /// Nothing was tried yet.
    New,
    /// Nobody answered, or does any more: it is tried again in a while.
    Absent,
    /// It has a health service, and says how it is.
    Told(Box<Streaming<HealthCheckResponse>>),
    /// It has none: it is well as long as it is there.
    Mute(Arc<Connection>),
}

impl Upstreams {
    /// How the server of a service is; `None` if no upstream has it.
    pub(crate) async fn health(&self, service: &str) -> Option<Result<ServingStatus, Status>> {
        let server = self.find(service)?;
        if server.connection().await.is_err() {
            return Some(Ok(ServingStatus::NotServing));
        }
        let mut client = HealthClient::new(Callee::new(server));
        let answer = timeout(UPSTREAM_ASK_TIMEOUT, client.check(request(service))).await;
        Some(match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner().status()),
            // It has no health, and lives.
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(ServingStatus::Serving),
            Ok(Err(status)) if status.code() == Code::Unavailable => Ok(ServingStatus::NotServing),
            Ok(Err(status)) => Err(status),
            Err(_) => Ok(ServingStatus::NotServing),
        })
    }

    /// How the server of a service is from now on, without end; `None` if no upstream has it.
    pub(crate) fn watch_health(&self, service: &str) -> Option<BoxStream<'static, ServingStatus>> {
        let watch = Watch {
            server: Arc::clone(self.find(service)?),
            service: service.to_owned(),
            state: State::New,
            told: None,
        };
        let statuses = stream::unfold(watch, |mut watch| async {
            let status = watch.change().await;
            Some((status, watch))
        });
        Some(statuses.boxed())
    }
}

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

// === impl Watch ===

impl Watch {
    /// The next status that is another one than the last.
    async fn change(&mut self) -> ServingStatus {
        loop {
            let status = self.next().await;
            if self.told.replace(status) != Some(status) {
                return status;
            }
        }
    }

    async fn next(&mut self) -> ServingStatus {
        match std::mem::replace(&mut self.state, State::Absent) {
            State::New => self.ask().await,
            State::Absent => {
                sleep(UPSTREAM_RETRY).await;
                self.ask().await
            }
            State::Told(mut statuses) => match statuses.message().await {
                Ok(Some(answer)) => {
                    self.state = State::Told(statuses);
                    answer.status()
                }
                Err(status) if status.code() == Code::Unavailable => ServingStatus::NotServing,
                // It is there, and may want to be asked again.
                Ok(None) | Err(_) => self.told.unwrap_or(ServingStatus::NotServing),
            },
            State::Mute(connection) => {
                connection.ended().await;
                ServingStatus::NotServing
            }
        }
    }

    /// Asks anew; what is said next comes from the state that this leads to.
    async fn ask(&mut self) -> ServingStatus {
        let Ok(connection) = self.server.connection().await else {
            return ServingStatus::NotServing;
        };
        let mut client = HealthClient::new(Callee::new(&self.server));
        let asked = async {
            let mut statuses = client.watch(request(&self.service)).await?.into_inner();
            let first = statuses.message().await?;
            Ok((first, statuses))
        };
        match timeout(UPSTREAM_ASK_TIMEOUT, asked).await {
            Ok(Ok((Some(first), statuses))) => {
                self.state = State::Told(Box::new(statuses));
                first.status()
            }
            Ok(Err(status)) if Status::code(&status) == Code::Unimplemented => {
                self.state = State::Mute(connection);
                ServingStatus::Serving
            }
            _ => ServingStatus::NotServing,
        }
    }
}
