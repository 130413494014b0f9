//! Prints what happens on a hypervisor until Ctrl-C, also when its daemon is restarted meanwhile.
//!
//! ```text
//! cargo run -p libvirt --example watch_events -- qemu:///system
//! ```

use anyhow::Result;
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use libvirt::events::DomainEventId;
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

/// All families of events that the hypervisor has, each as lines.
async fn families(connect: &Connect) -> Result<Vec<BoxStream<'static, String>>, Error> {
    let kinds = known_kinds(connect).await?;
    let domains = connect.domain_events(&kinds, None, None).await;
    let networks = connect.network_events(None, None).await;
    let pools = connect.storage_pool_events(None, None).await;
    let devices = connect.node_device_events(None, None).await;
    let secrets = connect.secret_events(None, None).await;
    let monitors = connect.monitor_events(None, None, None).await;
    Ok(vec![
        family("domain", domains, |event| {
            format!("{}: {:?}", event.domain.name(), event.kind)
        })?,
        family("network", networks, |event| {
            format!("{}: {:?}", event.object.name(), event.kind)
        })?,
        family("storage pool", pools, |event| {
            format!("{}: {:?}", event.object.name(), event.kind)
        })?,
        family("device", devices, |event| {
            format!("{}: {:?}", event.object.name(), event.kind)
        })?,
        family("secret", secrets, |event| {
            format!("{}: {:?}", event.object.uuid(), event.kind)
        })?,
        family("monitor", monitors, |event| {
            let details = event.details.unwrap_or_default();
            format!("{}: {} {details}", event.domain.name(), event.event)
        })?,
    ])
}

/// The kinds of domain events that this daemon knows: an older one refuses the newest.
async fn known_kinds(connect: &Connect) -> Result<Vec<DomainEventId>, Error> {
    let mut known = Vec::new();
    for &kind in DomainEventId::ALL {
        match connect.domain_events(&[kind], None, None).await {
            Ok(_) => known.push(kind),
            Err(Error::Libvirt(_)) => println!("this daemon knows no events {kind:?}"),
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// The lines of one family; none if the hypervisor does not have it.
fn family<T: std::fmt::Debug + 'static>(
    name: &'static str,
    subscribed: Result<Events<T>, Error>,
    describe: fn(T) -> String,
) -> Result<BoxStream<'static, String>, Error> {
    let events = match subscribed {
        Err(Error::Libvirt(why)) => {
            println!("no {name} events: {why}");
            return Ok(stream::empty().boxed());
        }
        subscribed => subscribed?,
    };
    let lines = events.map(move |notice| match notice {
        Ok(Notice::Event(event)) => format!("{name} {}", describe(event)),
        Ok(Notice::Missed(count)) => format!("{name}: {count} events came too fast and were lost"),
        Ok(Notice::Reconnected) => format!("{name}: what happened meanwhile is not known"),
        Ok(notice) => format!("{name}: {notice:?}"),
        Err(error) => format!("{name}: no more events: {error}"),
    });
    Ok(lines.boxed())
}
