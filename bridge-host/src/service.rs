//! The bridge's own service, `vbridge.host.v1.Bridge`.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use vbridge_api::host::v1::{
    GetGuestRequest, GetGuestResponse, Guest as GuestMessage, GuestState, ListGuestsRequest,
    ListGuestsResponse, WatchGuestsRequest, WatchGuestsResponse,
    bridge_server::Bridge as BridgeService,
};

use crate::{
    access::Viewer,
    front::Seen,
    guest::Guest,
    guests::{Change, Guests},
    routing::{self, Names as _, name_key},
};

/// Answers from the bridge's table of guests.
pub(crate) struct Service {
    pub(crate) guests: Guests,
}

impl Service {
    /// A guest that they do not see is none.
    fn find(&self, viewer: &Viewer, name: &str) -> Result<Arc<Guest>, Status> {
        let guests = &self.guests;
        let seen = Seen { guests, viewer };
        let guest = routing::find(&seen, name)?;
        match viewer.sees(guest.name()) {
            true => Ok(guest),
            false => Err(routing::not_found(&seen, name)),
        }
    }
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchGuestsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl BridgeService for Service {
    async fn list_guests(
        &self,
        request: Request<ListGuestsRequest>,
    ) -> Result<Response<ListGuestsResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let guests = self.guests.all();
        let guests = guests.iter().filter(|guest| viewer.sees(guest.name()));
        let guests = guests.map(|guest| guest.message()).collect();
        Ok(Response::new(ListGuestsResponse { guests }))
    }

    async fn get_guest(
        &self,
        request: Request<GetGuestRequest>,
    ) -> Result<Response<GetGuestResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let guest = self.find(&viewer, &request.into_inner().name)?;
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
        let viewer = Viewer::of(&request)?;
        let mut wanted = HashSet::new();
        for name in request.into_inner().names {
            self.find(&viewer, &name)?;
            wanted.insert(name_key(&name));
        }
        let is_wanted = move |name: &str, uuid: &str| {
            let is = |name| wanted.contains(&name_key(name));
            let is_named = wanted.is_empty() || is(name) || !uuid.is_empty() && is(uuid);
            is_named && viewer.sees(name)
        };
        // Subscribed before the snapshot is taken: a change in between is told twice rather than never.
        let mut changes = guests.changes();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let message = |guest, snapshot, removed| {
            Ok(WatchGuestsResponse {
                guest: Some(guest),
                snapshot,
                removed,
            })
        };
        tokio::spawn(async move {
            // Of whom the reader knows.
            let mut told = HashSet::new();
            let mut snapshot = true;
            loop {
                if snapshot {
                    let before = std::mem::take(&mut told);
                    for guest in guests.all() {
                        if is_wanted(guest.name(), guest.uuid()) {
                            told.insert(guest.name().to_owned());
                            let message = message(guest.message(), true, false);
                            if sender.send(message).await.is_err() {
                                return;
                            }
                        }
                    }
                    for name in before.difference(&told) {
                        let gone = GuestMessage {
                            name: name.clone(),
                            state: GuestState::Off.into(),
                            ..GuestMessage::default()
                        };
                        if sender.send(message(gone, true, true)).await.is_err() {
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
                let (guest, removed) = match change {
                    // One that has gone meanwhile is told as removed.
                    Ok(Change::State(name)) => match guests.find(&name) {
                        Some(guest) if is_wanted(guest.name(), guest.uuid()) => {
                            told.insert(name);
                            (guest.message(), false)
                        }
                        _ => continue,
                    },
                    Ok(Change::Removed(guest)) if is_wanted(&guest.name, &guest.uuid) => {
                        told.remove(&guest.name);
                        (GuestMessage::clone(&guest), true)
                    }
                    Ok(Change::Removed(_)) => continue,
                    // Too slow: the state of all guests instead of what was missed.
                    Err(RecvError::Lagged(_)) => {
                        snapshot = true;
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                };
                if sender.send(message(guest, false, removed)).await.is_err() {
                    return;
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }
}
