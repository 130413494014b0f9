//! What the bridge makes of qemu-guest-agent: nothing yet but asking it.

use std::sync::Arc;

use libvirt::Domain;
use serde_json::Value;

use crate::channel::{AgentInfo, GuestAgent, ProtocolError};

/// Who carries out the commands.
#[derive(Debug, Clone)]
pub(crate) enum Commands {
    /// A channel of its own.
    Channel(Arc<GuestAgent>),
    /// libvirt, which has the channel.
    Domain(Domain),
}

impl Commands {
    pub(crate) async fn execute(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, ProtocolError> {
        match self {
            Self::Channel(agent) => agent.execute(command, arguments).await,
            Self::Domain(domain) => Err(ProtocolError::ParseError(format!(
                "{} can't be asked through libvirt yet",
                domain.name()
            ))),
        }
    }

    pub(crate) async fn info(&self) -> Result<AgentInfo, ProtocolError> {
        let info = self.execute("guest-info", Value::Null).await?;
        serde_json::from_value(info).map_err(|error| ProtocolError::ParseError(error.to_string()))
    }
}

/// The services that it is enough for.
pub(crate) fn services(_: Commands, _: AgentInfo) -> tonic::service::Routes {
    tonic::service::Routes::default()
}
