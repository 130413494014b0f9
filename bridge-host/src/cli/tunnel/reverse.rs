//! A guest that listens for this end.
//!
//! ```text
//!                  the guest listens                  the call has ended: said
//!     Listening ─────────────────────▶ Serving ────────────────────────────────▶ Waiting
//!         ▲                                                                         │
//!         └──────────────────── LISTEN_RETRY_FIRST to LISTEN_RETRY_MAX ─────────────┘
//! ```
//!
//! Only the first time a guest that refuses ends the command: later it may be booting.

use std::{io, sync::Arc};

use bridge_host::limits::{LISTEN_RETRY_FIRST, LISTEN_RETRY_MAX};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tonic::Streaming;
use vbridge_api::guest::v1::{
    TunnelListenRequest, TunnelListenResponse, tunnel_client::TunnelClient,
    tunnel_listen_response::Message,
};

use super::{
    host::{self, Stream},
    spec::{Endpoint, Forward},
};
use crate::cli::{client::Client, failure::Failure, output::printable, say};

/// A guest that listens.
pub(super) struct Reverse {
    client: Arc<Client>,
    forward: Arc<Forward>,
    /// Connections that may go on at once.
    places: Arc<Semaphore>,
    calls: Streaming<TunnelListenResponse>,
    listening: String,
}

impl Reverse {
    /// Has the guest listen.
    pub(super) async fn start(
        client: Arc<Client>,
        forward: Forward,
        places: Arc<Semaphore>,
    ) -> Result<Self, Failure> {
        let (calls, listening) = listen(&client, &forward.listen).await?;
        Ok(Self {
            client,
            forward: Arc::new(forward),
            places,
            calls,
            listening,
        })
    }

    /// Where it listens.
    pub(super) fn listening(&self) -> &str {
        &self.listening
    }

    /// Serves for ever.
    pub(super) async fn serve(mut self) {
        let mut pause = LISTEN_RETRY_FIRST;
        loop {
            let why = self.take_all().await;
            let there = printable(&self.listening);
            say(&format!(
                "{there} of {}: {why}; listening there again when it is possible",
                printable(self.client.name())
            ));
            loop {
                sleep(pause).await;
                match listen(&self.client, &self.forward.listen).await {
                    Ok((calls, listening)) => {
                        self.calls = calls;
                        self.listening = listening;
                        pause = LISTEN_RETRY_FIRST;
                        break;
                    }
                    // It was told why, and it may last.
                    Err(_) => pause = (pause * 2).min(LISTEN_RETRY_MAX),
                }
            }
            let there = printable(&self.listening);
            say(&format!(
                "{there} of {}: listening again",
                printable(self.client.name())
            ));
        }
    }

    /// Takes what comes, until the call ends; why it did.
    async fn take_all(&mut self) -> String {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return "the command ends".into();
            };
            let incoming = match self.calls.message().await {
                Ok(Some(TunnelListenResponse {
                    message: Some(Message::Incoming(incoming)),
                })) => incoming,
                Ok(Some(_)) => continue,
                Ok(None) => return "the guest has ended the call".into(),
                Err(status) => return self.client.sentence(&status),
            };
            let client = Arc::clone(&self.client);
            let forward = Arc::clone(&self.forward);
            let there = self.listening.clone();
            tokio::spawn(async move {
                let _place = place;
                if let Some(sentence) = one(&client, incoming.id, &forward.target).await {
                    say(&format!("{}: {sentence}", printable(&there)));
                }
            });
        }
    }
}

/// Has the guest listen, and waits until it does.
async fn listen(
    client: &Client,
    endpoint: &Endpoint,
) -> Result<(Streaming<TunnelListenResponse>, String), Failure> {
    let request = client.request(TunnelListenRequest {
        address: Some(endpoint.to_guest()),
    });
    let mut tunnel = TunnelClient::new(client.channel());
    let mut calls = client.answer(tunnel.listen(request)).await?;
    let first = client
        .next(&mut calls, Some(std::time::Duration::ZERO))
        .await?;
    match first.and_then(|first| first.message) {
        Some(Message::Listening(listening)) => Ok((calls, listening)),
        _ => Err(Failure::new(client.sentence(&super::strange()))),
    }
}

/// One connection; what is to be told of it.
async fn one(client: &Client, id: String, target: &Endpoint) -> Option<String> {
    let call = match super::accept(client, id).await {
        Ok(call) => call,
        Err(sentence) => return Some(sentence),
    };
    match dial(client, target).await {
        Ok(stream) => stream.join(call).await.err()?.sentence(client),
        Err(error) => {
            call.abort().await;
            Some(format!("can't connect to {target} here: {error}"))
        }
    }
}

async fn dial(client: &Client, target: &Endpoint) -> io::Result<Stream> {
    match timeout(client.limit(), host::connect(target)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
