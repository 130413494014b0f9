//! Prints what happens on a hypervisor until Ctrl-C, also when its daemon is restarted meanwhile.
//!
//! ```text
//! cargo run -p libvirt --example watch_events -- qemu:///system
//! ```

use anyhow::Result;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use libvirt::{Backoff, Connect, ConnectState, Error, Events, Notice, States};

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor; without one: LIBVIRT_DEFAULT_URI, or whatever the daemon finds.
    #[arg(default_value = "", hide_default_value = true)]
    uri: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let connect = Connect::builder(&arguments.uri)
        .reconnect(Backoff::default())
        .open()
        .await?;
    let mut events = stream::select_all(families(&connect).await?);
    println!("watching {}; Ctrl-C ends it", connect.uri());
    let states = tokio::spawn(print_states(connect.states()));
    loop {
        tokio::select! {
            Some(line) = events.next() => println!("{line}"),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        }
    }
    connect.close().await;
    // They end with the connection.
    states.await?;
    Ok(())
}

async fn print_states(mut states: States) {
    while let Some(state) = states.next().await {
        match state {
            ConnectState::Up => println!("-- connected"),
            ConnectState::Reconnecting { why, .. } => println!("-- not connected: {why}"),
            ConnectState::Ended(why) => println!("-- the end: {why}"),
            _ => {}
        }
    }
}

/// All kinds of all families of events that the hypervisor has, each family as lines.
async fn families(connect: &Connect) -> Result<Vec<BoxStream<'static, String>>, Error> {
    let kinds = connect.supported_domain_events().await?;
    let domains = connect.domain_events(&kinds, None, None).await?;
    let kinds = connect.supported_network_events().await?;
    let networks = connect.network_events(&kinds, None, None).await?;
    let kinds = connect.supported_storage_pool_events().await?;
    let pools = connect.storage_pool_events(&kinds, None, None).await?;
    let kinds = connect.supported_node_device_events().await?;
    let devices = connect.node_device_events(&kinds, None, None).await?;
    let kinds = connect.supported_secret_events().await?;
    let secrets = connect.secret_events(&kinds, None, None).await?;
    let mut families = vec![
        lines("domain", domains, |event| {
            format!("{}: {:?}", event.domain.name(), event.kind)
        }),
        lines("network", networks, |event| {
            format!("{}: {:?}", event.object.name(), event.kind)
        }),
        lines("storage pool", pools, |event| {
            format!("{}: {:?}", event.object.name(), event.kind)
        }),
        lines("device", devices, |event| {
            format!("{}: {:?}", event.object.name(), event.kind)
        }),
        lines("secret", secrets, |event| {
            format!("{}: {:?}", event.object.uuid(), event.kind)
        }),
    ];
    match connect.monitor_events(None, None, None).await {
        Ok(monitors) => families.push(lines("monitor", monitors, |event| {
            let details = event.details.unwrap_or_default();
            format!("{}: {} {details}", event.domain.name(), event.event)
        })),
        Err(Error::UnsupportedEvent { .. }) => println!("this hypervisor is not QEMU"),
        Err(error) => return Err(error),
    }
    Ok(families)
}

/// One family's events, and what else a subscriber should know, as lines.
fn lines<T: std::fmt::Debug + 'static>(
    name: &'static str,
    events: Events<T>,
    describe: fn(T) -> String,
) -> BoxStream<'static, String> {
    let lines = events.map(move |notice| match notice {
        Ok(Notice::Event(event)) => format!("{name} {}", describe(event)),
        Ok(Notice::Missed(count)) => format!("{name}: {count} events came too fast and were lost"),
        Ok(Notice::Reconnected) => format!("{name}: what happened meanwhile is not known"),
        Ok(notice) => format!("{name}: {notice:?}"),
        Err(error) => format!("{name}: no more events: {error}"),
    });
    lines.boxed()
}
