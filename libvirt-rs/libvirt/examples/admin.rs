//! Shows what a libvirt daemon is at: its servers with their threads and clients, and its logs.
//!
//! ```text
//! cargo run -p libvirt --example admin
//! cargo run -p libvirt --example admin -- virtqemud:///system
//! ```

use anyhow::Result;
use clap::Parser;
use libvirt::Error;
use libvirt::admin::{Client, Daemon, Server};
use libvirt::raw::api::ErrorNumber;

#[derive(Debug, Parser)]
struct Arguments {
    /// The daemon; without one: LIBVIRT_ADMIN_DEFAULT_URI, or libvirtd.
    #[arg(default_value = "", hide_default_value = true)]
    uri: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let daemon = Daemon::open(&arguments.uri).await?;
    println!("libvirt {}", daemon.version().await?);
    for server in daemon.servers().await? {
        show_server(&server).await?;
    }
    for output in daemon.log_outputs().await? {
        println!("logs to {output}");
    }
    for filter in daemon.log_filters().await? {
        println!("logs of {} what is {} or worse", filter.part, filter.level);
    }
    daemon.close().await;
    Ok(())
}

async fn show_server(server: &Server) -> Result<()> {
    let threads = server.thread_pool().await?;
    let limits = server.client_limits().await?;
    println!(
        "server {}: {} of {} clients; {} threads of {}, {} idle, {} for priority; {} calls wait",
        server.name(),
        limits.current,
        limits.max,
        threads.current,
        threads.max,
        threads.idle,
        threads.priority,
        threads.queued,
    );
    for client in server.clients().await? {
        match describe(&client).await {
            Ok(line) => println!("  client {}: {line}", client.id()),
            // It went between the two questions.
            Err(error) if error.is(ErrorNumber::NoClient) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn describe(client: &Client) -> Result<String, Error> {
    let info = client.info().await?;
    let who = match (info.process, info.address) {
        (Some(process), _) => format!("process {} of {}", process.id, process.user),
        (None, Some(address)) => address,
        (None, None) => "unknown".to_owned(),
    };
    let how = client.transport();
    let rights = if info.read_only { ", reads only" } else { "" };
    Ok(format!("{who} over {how}{rights}"))
}
