//! Datagrams that come here, and their answers.
//!
//! UDP has no connections: each sender has a call of its own, in which the guest's answers come back, until neither end has said
//! anything for a while.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use bridge_host::limits::{DATAGRAM, MAX_UDP_PEERS, TUNNEL_ACCEPT_PAUSE, UDP_IDLE, UDP_QUEUE};
use tokio::{net::UdpSocket, sync::mpsc, time::sleep};
use vbridge_api::guest::v1::TunnelConnectRequest;

use super::{Answer as _, Event, Request as _, spec::Endpoint, strange};
use crate::cli::{client::Client, say};

/// What all senders share.
struct Shared {
    client: Arc<Client>,
    socket: UdpSocket,
    local: String,
    target: Endpoint,
}

/// Forwards for ever.
pub(super) async fn serve(client: Arc<Client>, socket: UdpSocket, local: String, target: Endpoint) {
    let shared = Arc::new(Shared {
        client,
        socket,
        local,
        target,
    });
    let mut peers: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (len, peer) = match shared.socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // Of a datagram that was sent before.
            Err(_) => {
                sleep(TUNNEL_ACCEPT_PAUSE).await;
                continue;
            }
        };
        let datagram = buffer[..len].to_vec();
        let known = peers.get(&peer).filter(|queue| !queue.is_closed());
        if let Some(queue) = known {
            // Full, it loses it.
            let _ = queue.try_send(datagram);
            continue;
        }
        peers.retain(|_, queue| !queue.is_closed());
        if peers.len() >= MAX_UDP_PEERS {
            continue;
        }
        let (queue, datagrams) = mpsc::channel(UDP_QUEUE);
        // There is room for it.
        let _ = queue.try_send(datagram);
        peers.insert(peer, queue);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(sentence) = one(&shared, peer, datagrams).await {
                say(&format!("{}: {sentence}", shared.local));
            }
        });
    }
}

/// Datagrams of one sender, and what comes back for it.
async fn one(
    shared: &Shared,
    peer: SocketAddr,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
) -> Result<(), String> {
    let client = &shared.client;
    let mut call = super::connect(client, &shared.target).await?;
    loop {
        tokio::select! {
            datagram = datagrams.recv() => {
                let Some(datagram) = datagram else {
                    return Ok(());
                };
                // A call that has ended says why, below.
                let _ = call.requests.send(TunnelConnectRequest::data(datagram)).await;
            }
            answer = call.answers.message() => {
                let Some(answer) = answer.map_err(|status| client.sentence(&status))? else {
                    return Ok(());
                };
                let Some(Event::Data(datagram)) = answer.event() else {
                    return Err(client.sentence(&strange()));
                };
                // A sender that is gone has no use for it.
                let _ = shared.socket.send_to(&datagram, peer).await;
            }
            () = sleep(UDP_IDLE) => return Ok(()),
        }
    }
}
