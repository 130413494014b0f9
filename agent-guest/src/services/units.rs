//! `vbridge.guest.v1.Services`: the guest's services and their logs.
//!
//! What systemd and its journal say comes from [`crate::systemd`]; here it meets gRPC.

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    ServiceAction, ServicesControlRequest, ServicesControlResponse, ServicesGetRequest,
    ServicesGetResponse, ServicesListRequest, ServicesListResponse, ServicesLogsRequest,
    ServicesLogsResponse, services_server,
};

use crate::{
    error::{at_most, invalid_field},
    limits::MAX_UNIT_NAMES,
    systemd::{Need, Pattern, Query, Systemd, UnitName},
};

/// States that a unit may be in (`active_state`).
const STATES: [&str; 8] = [
    "active",
    "reloading",
    "refreshing",
    "inactive",
    "failed",
    "activating",
    "deactivating",
    "maintenance",
];

/// The service.
#[derive(Debug)]
pub(crate) struct Units {
    systemd: Systemd,
}

impl Units {
    pub(crate) fn new(systemd: Systemd) -> Self {
        Self { systemd }
    }

    /// Has something done, unless the agent stops before.
    async fn until_stop<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            done = work => done,
            status = self.systemd.stopping() => Err(status),
        }
    }
}

#[tonic::async_trait]
impl services_server::Services for Units {
    type LogsStream = BoxStream<'static, Result<ServicesLogsResponse, Status>>;

    async fn list(
        &self,
        request: Request<ServicesListRequest>,
    ) -> Result<Response<ServicesListResponse>, Status> {
        let _place = self.systemd.enter(Need::Bus)?;
        let request = request.into_inner();
        let patterns = patterns(&request.patterns)?;
        at_most("active_states", request.active_states.len(), STATES.len())?;
        for (i, state) in request.active_states.iter().enumerate() {
            if !STATES.contains(&state.as_str()) {
                let why = format!("must be one of {}", STATES.join(", "));
                return Err(invalid_field(format!("active_states[{i}]"), why));
            }
        }
        let list = self
            .systemd
            .list(&patterns, &request.active_states, request.all);
        let list = self.until_stop(list).await?;
        Ok(Response::new(ServicesListResponse {
            units: list.units,
            more: list.more,
        }))
    }

    async fn get(
        &self,
        request: Request<ServicesGetRequest>,
    ) -> Result<Response<ServicesGetResponse>, Status> {
        let _place = self.systemd.enter(Need::Bus)?;
        let name = name(&request.into_inner().name)?;
        let unit = Some(self.until_stop(self.systemd.get(&name)).await?);
        Ok(Response::new(ServicesGetResponse { unit }))
    }

    async fn control(
        &self,
        request: Request<ServicesControlRequest>,
    ) -> Result<Response<ServicesControlResponse>, Status> {
        let _place = self.systemd.enter(Need::Bus)?;
        let request = request.into_inner();
        let name = name(&request.name)?;
        let action = match ServiceAction::try_from(request.action) {
            Ok(ServiceAction::Unspecified) => Err("must be said".to_owned()),
            Ok(action) => Ok(action),
            Err(_) => Err(format!("{} is no action", request.action)),
        };
        let action = action.map_err(|why| invalid_field("action", why))?;
        tracing::debug!(unit = %name, action = action.as_str_name(), "on request");
        let control = self.systemd.control(&name, action, request.no_wait);
        let (unit, job_result) = self.until_stop(control).await?;
        Ok(Response::new(ServicesControlResponse {
            unit: Some(unit),
            job_result,
        }))
    }

    async fn logs(
        &self,
        request: Request<ServicesLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let place = self.systemd.enter(Need::Journal)?;
        let query = Query::new(&request.into_inner())?;
        let journal = self.until_stop(self.systemd.journal(query)).await?;
        let systemd = self.systemd.clone();
        // The place and the program go with the stream, which hyper drops when the caller, the link or the deadline ends it.
        let entries = stream::unfold(Some((journal, place)), move |state| {
            let systemd = systemd.clone();
            async move {
                let (mut journal, place) = state?;
                let next = tokio::select! {
                    biased;
                    status = systemd.stopping() => Some(Err(status)),
                    next = journal.next() => next,
                };
                let next = next?;
                let state = next.is_ok().then_some((journal, place));
                Some((next, state))
            }
        });
        Ok(Response::new(entries.boxed()))
    }
}

fn name(text: &str) -> Result<UnitName, Status> {
    UnitName::parse(text).map_err(|why| invalid_field("name", why))
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Status> {
    at_most("patterns", texts.len(), MAX_UNIT_NAMES)?;
    if texts.is_empty() {
        return Ok(vec![Pattern::services()]);
    }
    let parse = |(i, text): (usize, &String)| {
        Pattern::parse(text).map_err(|why| invalid_field(format!("patterns[{i}]"), why))
    };
    texts.iter().enumerate().map(parse).collect()
}
