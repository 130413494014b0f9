//! `vbridge forward`: listens here and connects in a guest, or the other way round.

use std::sync::Arc;

use bridge_host::limits::{MAX_TUNNELS, TUNNEL_ACCEPT_PAUSE};
use clap::Args;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Semaphore,
    task::JoinSet,
};
use vbridge_api::guest::v1::{PingRequest, system_client::SystemClient};

use super::{
    host::{self, Listener, Stream},
    reverse::Reverse,
    spec::{Endpoint, Forward},
    udp,
};
use crate::cli::{
    client::{Client, NamedGuestOptions},
    failure::Failure,
    output::printable,
    say,
};

/// What a shell reports for a program that Ctrl-C has ended: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// The same for SIGTERM.
const TERMINATED: u8 = 143;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vbridge forward web 8080:80                        port 8080 here is port 80 of the guest
  vbridge forward web 127.0.0.1:8080:db.local:80     a port of another machine, as the guest reaches it
  vbridge forward web ./mysql.sock:/run/mysqld/mysqld.sock
  vbridge forward web udp:5353:53
  vbridge forward web -R 9000:3000                   port 9000 of the guest is port 3000 here

Where no address is named it is the loopback address; * is every address.")]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    guest: NamedGuestOptions,
    // Not links: it is what --help shows.
    #[allow(rustdoc::broken_intra_doc_links)]
    /// Listen here, connect in the guest: [BIND:]PORT:[HOST:]PORT, with a socket's path in place of
    /// either, and udp: in front for UDP; may be given again
    #[arg(value_name = "FORWARD", required_unless_present = "reverse")]
    forwards: Vec<Forward>,
    /// Listen in the guest, connect here: written the same way, but not for UDP; may be given again
    #[arg(long, short = 'R', value_name = "FORWARD", value_parser = reverse)]
    reverse: Vec<Forward>,
}

fn reverse(text: &str) -> Result<Forward, String> {
    match text.parse()? {
        Forward {
            listen: Endpoint::Udp(_),
            ..
        } => Err("a guest listens on TCP and on Unix sockets, and not on UDP".into()),
        forward => Ok(forward),
    }
}

/// Forwards until a signal comes.
pub(in crate::cli) async fn run(options: Options) -> Result<(), Failure> {
    // Before the first line is out: whoever reads it may send a signal at once.
    let stop = Stop::new()?;
    let client = Arc::new(Client::named_guest(&options.guest).await?);
    let forwarding = forward(options.forwards, options.reverse, &client);
    tokio::select! {
        failed = forwarding => failed,
        status = stop.wait() => Err(Failure::Status(status)),
    }
}

/// Forwards for ever.
async fn forward(
    forwards: Vec<Forward>,
    reverse: Vec<Forward>,
    client: &Arc<Client>,
) -> Result<(), Failure> {
    // A guest that is not there is told now, and not with the first connection.
    let mut system = SystemClient::new(client.channel());
    let ping = client.ask(PingRequest::default(), async |request| {
        system.ping(request).await
    });
    ping.await?;
    let guest = printable(client.name());
    let places = Arc::new(Semaphore::new(MAX_TUNNELS));
    let mut files = Vec::new();
    let mut tasks = JoinSet::new();
    let mut lines = Vec::new();
    for Forward { listen, target } in forwards {
        let (listener, local, file) = host::listen(&listen).await.map_err(Failure::new)?;
        files.extend(file);
        lines.push(format!("forwarding {local} to {target} of {guest}"));
        let client = Arc::clone(client);
        let places = Arc::clone(&places);
        match listener {
            Listener::Udp(socket) => tasks.spawn(udp::serve(client, socket, local, target)),
            listener => tasks.spawn(serve(client, listener, local, target, places)),
        };
    }
    for forward in reverse {
        let target = forward.target.clone();
        let reverse = Reverse::start(Arc::clone(client), forward, Arc::clone(&places)).await?;
        let there = printable(reverse.listening());
        lines.push(format!("forwarding {there} of {guest} to {target}"));
        tasks.spawn(reverse.serve());
    }
    for line in lines {
        say(&line);
    }
    // None of them ends by itself.
    while tasks.join_next().await.is_some() {}
    Err(Failure::new("the forwarding has ended"))
}

/// Accepts for ever.
async fn serve(
    client: Arc<Client>,
    listener: Listener,
    local: String,
    target: Endpoint,
    places: Arc<Semaphore>,
) {
    let about: Arc<(String, Endpoint)> = Arc::new((local, target));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(stream) => {
                let client = Arc::clone(&client);
                let about = Arc::clone(&about);
                tokio::spawn(async move {
                    let _place = place;
                    let (local, target) = &*about;
                    if let Some(sentence) = one(&client, stream, target).await {
                        say(&format!("{local}: {sentence}"));
                    }
                });
            }
            Err(error) => {
                say(&format!("{}: can't accept a connection: {error}", about.0));
                tokio::time::sleep(TUNNEL_ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection; what is to be told of it.
async fn one(client: &Client, stream: Stream, target: &Endpoint) -> Option<String> {
    match super::connect(client, target).await {
        Ok(call) => stream.join(call).await.err()?.sentence(client),
        Err(sentence) => {
            stream.refuse();
            Some(sentence)
        }
    }
}

/// The signals that end it.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(format!("can't handle signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// The exit status for the one that comes.
    async fn wait(mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }
}
