//! `vbridge.guest.v1.Tunnel`: connections into the guest and out of it, each a call.

use tonic::{Request, Response, Status, Streaming};
use vbridge_api::guest::v1::{
    TunnelAcceptRequest, TunnelAcceptResponse, TunnelConnectRequest, TunnelConnectResponse,
    TunnelListenRequest, TunnelListenResponse, tunnel_accept_request, tunnel_connect_request,
    tunnel_server,
};

use crate::{
    error::invalid_field,
    policy::Policy,
    tunnel::{
        AnswerStream, Tunnels,
        address::Address,
        relay::{relay, too_large},
    },
};

/// The service.
#[derive(Debug)]
pub(crate) struct Tunnel {
    tunnels: Tunnels,
    policy: Policy,
}

impl Tunnel {
    pub(crate) fn new(tunnels: Tunnels, policy: Policy) -> Self {
        Self { tunnels, policy }
    }
}

#[tonic::async_trait]
impl tunnel_server::Tunnel for Tunnel {
    type ConnectStream = AnswerStream<TunnelConnectResponse>;
    type ListenStream = AnswerStream<TunnelListenResponse>;
    type AcceptStream = AnswerStream<TunnelAcceptResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<TunnelConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut requests = request.into_inner();
        let tunnels = self.tunnels.clone();
        let rules = self.policy.rules();
        Ok(Response::new(self.tunnels.serve(
            move |answers| async move {
                use tunnel_connect_request::Message;
                let address = match first(&mut requests, "connect").await?.message {
                    Some(Message::Connect(address)) => Address::to_reach(address, "connect")?,
                    _ => return Err(not_first("connect")),
                };
                let _place = tunnels.connection()?;
                let socket = tunnels.connect(&address, rules).await?;
                relay(socket, requests, &answers).await
            },
        )))
    }

    async fn listen(
        &self,
        request: Request<TunnelListenRequest>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let address = request.into_inner().address.unwrap_or_default();
        let address = Address::to_listen(address, "address")?;
        let tunnels = self.tunnels.clone();
        let rules = self.policy.rules();
        Ok(Response::new(self.tunnels.serve(
            move |answers| async move { tunnels.listen(&address, rules, &answers).await },
        )))
    }

    async fn accept(
        &self,
        request: Request<Streaming<TunnelAcceptRequest>>,
    ) -> Result<Response<Self::AcceptStream>, Status> {
        let mut requests = request.into_inner();
        let tunnels = self.tunnels.clone();
        Ok(Response::new(self.tunnels.serve(
            move |answers| async move {
                use tunnel_accept_request::Message;
                let id = match first(&mut requests, "id").await?.message {
                    Some(Message::Id(id)) => id,
                    _ => return Err(not_first("id")),
                };
                let _place = tunnels.connection()?;
                let socket = tunnels.take(&id)?;
                relay(socket, requests, &answers).await
            },
        )))
    }
}

/// What the call is about.
async fn first<Q>(requests: &mut Streaming<Q>, field: &str) -> Result<Q, Status> {
    match super::first(requests, field).await {
        Ok(Some(first)) => Ok(first),
        Ok(None) => Err(not_first(field)),
        Err(status) => Err(too_large(status)),
    }
}

fn not_first(field: &str) -> Status {
    invalid_field(field, "must be in the first message")
}
