//! A guest that has only qemu-guest-agent: the bridge itself serves the methods that its commands are enough for.
//!
//! ```text
//!                   guest-info                    HTTP/2 within this process
//!    Unreachable ──────────────▶ what it can do ─────────────────────────────▶ Ready
//!        ▲                                                                       │
//!        └──────────── a guest-ping is not answered, or the channel closes ──────┘
//! ```
//!
//! A call takes the same way as to any other guest, but for the link: what the agent does with it is `qemu`'s business. The
//! agent carries out one command after the other, and so it is asked for a sign of life only now and then; whether the virtual
//! machine is paused or off is known from elsewhere.

use std::future::Future;

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::{
    Guest,
    session::handshake,
    tend::{Parting, stopped},
};
use crate::{
    limits::{ADAPTER_BUFFER, ADAPTER_PING, CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW},
    machine::Machine,
    place::{AgentPlace, Channel, Unconnected},
    qemu,
};

impl Guest {
    /// From the agent's first answer to its silence.
    pub(super) async fn adapt(
        &self,
        place: &AgentPlace,
        channel: &Channel,
        machines: &mut watch::Receiver<Machine>,
        stop: &mut watch::Receiver<bool>,
    ) -> Parting {
        let asking = async {
            let commands = place.commands().await?;
            let info = commands.info().await;
            let info = info.map_err(|failure| place.unanswered(&failure.to_string()))?;
            Ok::<_, Unconnected>((commands, info))
        };
        let (commands, info) = match self.unless(asking, channel, machines, stop).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) => {
                self.unreachable(error);
                return Parting::Closed { heard: false };
            }
            Err(parting) => return parting,
        };
        let agent = format!("qemu-ga/{}", info.version);
        let (near, far) = tokio::io::duplex(ADAPTER_BUFFER);
        let services = TowerToHyperService::new(qemu::services(commands.clone(), info));
        let mut server = JoinSet::new();
        server.spawn(
            http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(MAX_FRAME)
                .serve_connection(TokioIo::new(far), services),
        );
        let (sender, connection) = match handshake(near).await {
            Ok(opened) => opened,
            Err(error) => {
                debug!(guest = %self.name(), %error, "no HTTP/2 to the adapter");
                return Parting::Closed { heard: false };
            }
        };
        let _connection = AbortOnDropHandle::new(connection);
        self.comes_up(sender, None, agent);
        let mut pings = interval(ADAPTER_PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings.reset();
        let silent = async {
            loop {
                pings.tick().await;
                if self.state.borrow().paused {
                    continue;
                }
                if let Err(failure) = commands
                    .execute("guest-ping", serde_json::Value::Null)
                    .await
                    && !self.state.borrow().paused
                {
                    return failure;
                }
            }
        };
        match self.unless(silent, channel, machines, stop).await {
            Ok(failure) => {
                self.unreachable(place.unanswered(&failure.to_string()));
                Parting::Closed { heard: true }
            }
            Err(parting) => parting,
        }
    }

    /// What becomes of it, unless the bridge stops or the machine has another channel before.
    async fn unless<T>(
        &self,
        what: impl Future<Output = T>,
        channel: &Channel,
        machines: &mut watch::Receiver<Machine>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<T, Parting> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return Ok(done),
                () = stopped(stop) => return Err(Parting::Stopped),
                // The sender is a part of this.
                _ = machines.changed() => {
                    if machines.borrow_and_update().channel() != Some(channel) {
                        return Err(Parting::Moved);
                    }
                }
            }
        }
    }
}
