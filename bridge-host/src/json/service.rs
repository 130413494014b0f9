//! `service/control`: a unit of the guest's systemd.

use serde_json::json;
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
    let mut services = ServicesClient::with_origin(guest.clone(), Inside::origin());
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
    use super::*;
    use crate::json::endpoint::What;

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
