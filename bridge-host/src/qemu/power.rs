//! `Power`: the end of the guest's run, and its sleep. The agent answers neither if it succeeds, so what it can't do is not told.

use std::sync::Arc;

use prost_types::Duration;
use serde_json::{Value, json};
use tonic::Status;
use vbridge_api::guest::v1::{
    PowerShutdownRequest, PowerShutdownResponse, PowerSuspendRequest, PowerSuspendResponse,
    ShutdownMode, SuspendMode,
};

use super::{
    agent::Agent,
    refusal::{cannot_field, invalid},
};

pub(super) async fn shutdown(
    agent: Arc<Agent>,
    request: PowerShutdownRequest,
) -> Result<PowerShutdownResponse, Status> {
    let mode = match ShutdownMode::try_from(request.mode) {
        Ok(ShutdownMode::Unspecified | ShutdownMode::PowerOff) => "powerdown",
        Ok(ShutdownMode::Reboot) => "reboot",
        Ok(ShutdownMode::Halt) => "halt",
        Err(_) => return Err(invalid("mode", "is no way to end that there is")),
    };
    if request.force {
        let why = "shuts down in order only, and libvirt can end the domain by force";
        return Err(cannot_field("force", why));
    }
    let arguments = json!({ "mode": mode });
    let commands = &agent.commands;
    commands
        .execute_unanswered("guest-shutdown", arguments)
        .await?;
    Ok(PowerShutdownResponse {
        delay: Some(Duration::default()),
    })
}

pub(super) async fn suspend(
    agent: Arc<Agent>,
    request: PowerSuspendRequest,
) -> Result<PowerSuspendResponse, Status> {
    let command = match SuspendMode::try_from(request.mode) {
        Ok(SuspendMode::Unspecified | SuspendMode::Ram) => "guest-suspend-ram",
        Ok(SuspendMode::Disk) => "guest-suspend-disk",
        Ok(SuspendMode::Hybrid) => "guest-suspend-hybrid",
        Err(_) => return Err(invalid("mode", "is no way to sleep that there is")),
    };
    agent.require(&[command]).await?;
    let commands = &agent.commands;
    commands.execute_unanswered(command, Value::Null).await?;
    Ok(PowerSuspendResponse {
        delay: Some(Duration::default()),
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1::power_client::PowerClient;

    use super::*;
    use crate::qemu::script::{Script, info};

    #[tokio::test]
    async fn each_way_to_end_is_asked_for_by_its_name() {
        let script = Script::fixed([("guest-shutdown", Value::Null)]);
        let mut client = PowerClient::new(script.serve());
        for (mode, name) in [
            (0, "powerdown"),
            (1, "powerdown"),
            (2, "reboot"),
            (3, "halt"),
        ] {
            let request = PowerShutdownRequest { mode, force: false };
            client.shutdown(request).await.unwrap();
            assert_eq!(script.last("guest-shutdown"), json!({ "mode": name }));
        }
        for (mode, force, code) in [
            (9, false, Code::InvalidArgument),
            (0, true, Code::Unimplemented),
        ] {
            let request = PowerShutdownRequest { mode, force };
            let status = client.shutdown(request).await.unwrap_err();
            assert_eq!(status.code(), code);
        }
        assert_eq!(script.commands().len(), 4);
    }

    #[tokio::test]
    async fn each_way_to_sleep_is_a_command_that_must_be_allowed() {
        let script = Script::fixed([
            ("guest-suspend-ram", Value::Null),
            ("guest-suspend-disk", Value::Null),
        ]);
        let allowed = ["guest-suspend-ram", "guest-suspend-disk"];
        let info = info(&allowed, &["guest-suspend-hybrid"]);
        let mut client = PowerClient::new(script.serve_with(&info));
        for (mode, code) in [
            (0, Code::Ok),
            (2, Code::Ok),
            (3, Code::Unimplemented),
            (9, Code::InvalidArgument),
        ] {
            let answer = client.suspend(PowerSuspendRequest { mode }).await;
            let answer = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(answer, code);
        }
        assert_eq!(script.commands(), allowed);
    }
}
