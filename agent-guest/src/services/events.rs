//! `vbridge.guest.v1.Events`: what happens in the guest, as it happens. The events come from [`crate::events`].

use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{EventsSubscribeRequest, events_server};

use crate::events::{self, Hub, Kinds};

/// The service.
pub(crate) struct Events {
    hub: Hub,
}

impl Events {
    pub(crate) fn new(hub: Hub) -> Self {
        Self { hub }
    }
}

#[tonic::async_trait]
impl events_server::Events for Events {
    type SubscribeStream = events::Events;

    async fn subscribe(
        &self,
        request: Request<EventsSubscribeRequest>,
    ) -> Result<Response<events::Events>, Status> {
        let kinds = Kinds::from_request(&request.get_ref().kinds)?;
        Ok(Response::new(self.hub.subscribe(kinds).await?))
    }
}
