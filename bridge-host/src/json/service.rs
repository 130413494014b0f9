//! `service/control`: a unit of the guest's systemd.

use bytes::Bytes;
use serde_json::json;
use tonic::{body::Body, client::GrpcService, codegen::StdError};
use vbridge_api::guest::v1::{
    ServiceAction, ServicesControlRequest, ServicesGetRequest, Unit,
    services_client::ServicesClient,
};

use super::{
    answer::Answer,
    code::Failure,
    request::{Fields, wrong},
};
use crate::inside::Inside;

/// What is done with a unit.
#[derive(Debug)]
pub(super) struct Control {
    name: String,
    action: String,
    /// None for `status`.
    change: Option<ServiceAction>,
}

pub(super) fn parse(fields: &mut Fields) -> Result<Control, Failure> {
    let name = fields.required("name")?;
    let action = fields.required("action")?;
    let change = match action.as_str() {
        "start" => Some(ServiceAction::Start),
        "stop" => Some(ServiceAction::Stop),
        "restart" => Some(ServiceAction::Restart),
        "enable" => Some(ServiceAction::Enable),
        "disable" => Some(ServiceAction::Disable),
        "status" => None,
        _ => {
            let description = "must be start, stop, restart, status, enable or disable";
            return Err(wrong("action", description));
        }
    };
    Ok(Control {
        name,
        action,
        change,
    })
}

/// Does it, and tells how the unit is when it is done.
pub(super) async fn control(guest: &Inside, control: Control) -> Result<Answer, Failure> {
    let services = ServicesClient::with_origin(guest.clone(), Inside::origin());
    carry_out(services, control).await
}

async fn carry_out<T>(mut services: ServicesClient<T>, control: Control) -> Result<Answer, Failure>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let name = control.name.clone();
    let unit = match control.change {
        Some(action) => {
            let request = ServicesControlRequest {
                name,
                action: action.into(),
                no_wait: false,
            };
            services.control(request).await?.into_inner().unit
        }
        None => {
            let request = ServicesGetRequest { name };
            services.get(request).await?.into_inner().unit
        }
    };
    let unit = unit.unwrap_or_default();
    Ok(Answer::success(json!({
        "name": control.name,
        "action": control.action,
        "status": status(&unit),
        "pid": (unit.main_pid != 0).then_some(unit.main_pid),
    })))
}

/// One word for how a unit is: what an active one does (`running`, `exited` …), else why it does nothing.
fn status(unit: &Unit) -> &str {
    match unit.active_state.as_str() {
        "" => "unknown",
        "active" if !unit.sub_state.is_empty() => &unit.sub_state,
        state => state,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tonic::{Request, Response, Status};
    use vbridge_api::guest::v1::{
        ServicesControlResponse, ServicesGetResponse, ServicesListRequest, ServicesListResponse,
        ServicesLogsRequest, ServicesLogsResponse,
        services_server::{Services, ServicesServer},
    };

    use super::*;
    use crate::json::endpoint::What;

    /// A guest with one unit, which is where the last action has brought it.
    struct Nginx;

    fn nginx(name: &str, action: Option<ServiceAction>) -> Result<Option<Unit>, Status> {
        if name != "nginx" {
            return Err(Status::not_found("there is no such unit"));
        }
        let (active, sub, main_pid) = match action {
            Some(ServiceAction::Stop) => ("inactive", "dead", 0),
            _ => ("active", "running", 1234),
        };
        Ok(Some(Unit {
            name: "nginx.service".to_owned(),
            active_state: active.to_owned(),
            sub_state: sub.to_owned(),
            main_pid,
            ..Unit::default()
        }))
    }

    #[tonic::async_trait]
    impl Services for Nginx {
        type LogsStream =
            Pin<Box<dyn tokio_stream::Stream<Item = Result<ServicesLogsResponse, Status>> + Send>>;

        async fn list(
            &self,
            _: Request<ServicesListRequest>,
        ) -> Result<Response<ServicesListResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn get(
            &self,
            request: Request<ServicesGetRequest>,
        ) -> Result<Response<ServicesGetResponse>, Status> {
            let unit = nginx(&request.get_ref().name, None)?;
            Ok(Response::new(ServicesGetResponse { unit }))
        }

        async fn control(
            &self,
            request: Request<ServicesControlRequest>,
        ) -> Result<Response<ServicesControlResponse>, Status> {
            let request = request.into_inner();
            let unit = nginx(&request.name, Some(request.action()))?;
            Ok(Response::new(ServicesControlResponse {
                unit,
                job_result: "done".to_owned(),
            }))
        }

        async fn logs(
            &self,
            _: Request<ServicesLogsRequest>,
        ) -> Result<Response<Self::LogsStream>, Status> {
            Err(Status::unimplemented("not asked for"))
        }
    }

    async fn asked(name: &str, action: &str) -> Result<serde_json::Value, Failure> {
        let text = json!({"name": name, "action": action}).to_string();
        let mut fields = Fields::of_body(text.as_bytes(), What::Control)?;
        let services = ServicesClient::new(ServicesServer::new(Nginx));
        match carry_out(services, parse(&mut fields)?).await? {
            Answer::Data(_, data) => Ok(data),
            Answer::Document(_) => unreachable!("a unit is no document"),
        }
    }

    #[tokio::test]
    async fn a_unit_is_told_as_it_is_when_its_job_is_done() {
        for action in ["start", "restart", "status", "enable", "disable"] {
            assert_eq!(
                asked("nginx", action).await.unwrap(),
                json!({"name": "nginx", "action": action, "status": "running", "pid": 1234})
            );
        }
        assert_eq!(
            asked("nginx", "stop").await.unwrap(),
            json!({"name": "nginx", "action": "stop", "status": "inactive", "pid": null})
        );
        let missing = asked("apache", "start").await.unwrap_err();
        assert_eq!(missing.code().number(), 3002);
    }

    #[test]
    fn the_six_actions_are_known_and_no_others() {
        let action = |action: &str| {
            let text = format!(r#"{{"name": "nginx", "action": "{action}"}}"#);
            let mut fields = Fields::of_body(text.as_bytes(), What::Control).unwrap();
            parse(&mut fields).map(|control| control.change)
        };
        for known in ["start", "stop", "restart", "enable", "disable"] {
            assert!(action(known).unwrap().is_some());
        }
        assert_eq!(action("status").unwrap(), None);
        for other in ["", "Start", "reload", "mask"] {
            assert!(action(other).is_err());
        }
    }

    #[test]
    fn a_unit_is_told_in_one_word() {
        let unit = |active: &str, sub: &str| Unit {
            active_state: active.to_owned(),
            sub_state: sub.to_owned(),
            ..Unit::default()
        };
        assert_eq!(status(&unit("active", "running")), "running");
        assert_eq!(status(&unit("active", "")), "active");
        assert_eq!(status(&unit("inactive", "dead")), "inactive");
        assert_eq!(status(&unit("failed", "failed")), "failed");
        assert_eq!(status(&unit("", "")), "unknown");
    }
}
