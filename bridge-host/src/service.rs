//! The bridge's own service, `vbridge.host.v1.Bridge`.

use std::{collections::HashSet, pin::Pin};

use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use vbridge_api::host::v1::{
    GetGuestRequest, GetGuestResponse, ListGuestsRequest, ListGuestsResponse, WatchGuestsRequest,
    WatchGuestsResponse, bridge_server::Bridge as BridgeService,
};

use crate::{bridge::Guests, routing};

/// Answers from the bridge's table of guests.
pub(crate) struct Service {
    pub(crate) guests: Guests,
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchGuestsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl BridgeService for Service {
    async fn list_guests(
        &self,
        _: Request<ListGuestsRequest>,
    ) -> Result<Response<ListGuestsResponse>, Status> {
        let guests = self.guests.iter().map(|guest| guest.message()).collect();
        Ok(Response::new(ListGuestsResponse { guests }))
    }

    async fn get_guest(
        &self,
        request: Request<GetGuestRequest>,
    ) -> Result<Response<GetGuestResponse>, Status> {
        let guest = routing::find(&self.guests, &request.into_inner().name)?;
        Ok(Response::new(GetGuestResponse {
            guest: Some(guest.message()),
        }))
    }

    type WatchGuestsStream = WatchStream;

    async fn watch_guests(
        &self,
        request: Request<WatchGuestsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let guests = self.guests.clone();
        let mut wanted = HashSet::new();
        for name in request.into_inner().names {
            wanted.insert(routing::find(&guests, &name)?.name().to_owned());
        }
        let is_wanted = move |name: &str| wanted.is_empty() || wanted.contains(name);
        // Subscribed before the snapshot is taken: a change in between is told twice rather than never.
        let mut changes = guests.changes();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut snapshot = true;
            loop {
                if snapshot {
                    for guest in guests.iter().filter(|guest| is_wanted(guest.name())) {
                        let message = WatchGuestsResponse {
                            guest: Some(guest.message()),
                            snapshot: true,
                            removed: false,
                        };
                        if sender.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                    snapshot = false;
                }
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = sender.closed() => return,
                    () = guests.stopping() => return,
                };
                match change {
                    Ok(name) if is_wanted(&name) => {
                        if let Some(guest) = guests.get(&name) {
                            let message = WatchGuestsResponse {
                                guest: Some(guest.message()),
                                snapshot: false,
                                removed: false,
                            };
                            if sender.send(Ok(message)).await.is_err() {
                                return;
                            }
                        }
                    }
                    Ok(_) => {}
                    // Too slow: the state of all guests instead of what was missed.
                    Err(RecvError::Lagged(_)) => snapshot = true,
                    Err(RecvError::Closed) => return,
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }
}
