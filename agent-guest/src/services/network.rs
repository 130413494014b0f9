//! `vbridge.guest.v1.Network`: interfaces and routes, to look at.

use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    NetworkListInterfacesRequest, NetworkListInterfacesResponse, NetworkListRoutesRequest,
    NetworkListRoutesResponse, network_server,
};

use crate::{
    error::{self, Reason},
    source::netlink::{self, NetlinkError},
};

/// The service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network;

#[tonic::async_trait]
impl network_server::Network for Network {
    async fn list_interfaces(
        &self,
        _: Request<NetworkListInterfacesRequest>,
    ) -> Result<Response<NetworkListInterfacesResponse>, Status> {
        let interfaces = netlink::interfaces()
            .await
            .map_err(|error| failed(&error))?;
        Ok(Response::new(NetworkListInterfacesResponse { interfaces }))
    }

    async fn list_routes(
        &self,
        request: Request<NetworkListRoutesRequest>,
    ) -> Result<Response<NetworkListRoutesResponse>, Status> {
        let routes = netlink::routes(request.into_inner().table).await;
        let (routes, truncated) = routes.map_err(|error| failed(&error))?;
        Ok(Response::new(NetworkListRoutesResponse {
            routes,
            truncated,
        }))
    }
}

fn failed(error: &NetlinkError) -> Status {
    error::failure(Reason::SourceUnavailable, error.to_string())
}
