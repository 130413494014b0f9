//! Takes a domain through its life: defines, starts, suspends and resumes it, sets it back to a snapshot where the
//! hypervisor can do that, shuts it down and forgets it. Events are printed as they come.
//!
//! ```text
//! cargo run -p libvirt --example life_cycle -- test:///default
//! cargo run -p libvirt --example life_cycle -- qemu:///system
//! ```

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use libvirt::events::{DomainEvent, DomainEventId, DomainEventKind};
use libvirt::raw::api::{
    DomainCreateFlags, DomainDefineFlags, DomainDestroyFlagsValues, DomainEventType,
    DomainShutdownFlagValues, DomainSnapshotCreateFlags, DomainSnapshotDeleteFlags,
    DomainSnapshotRevertFlags, DomainUndefineFlagsValues,
};
use libvirt::{Connect, Domain, Error, Events, Notice};

const NAME: &str = "libvirt-rs-life-cycle";

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor; without one: LIBVIRT_DEFAULT_URI, or whatever the daemon finds.
    #[arg(default_value = "", hide_default_value = true)]
    uri: String,
    /// The seconds that the guest has to shut down before it is stopped.
    #[arg(long, default_value_t = 3)]
    patience: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let connect = Connect::builder(&arguments.uri)
        .deadline(Duration::from_secs(60))
        .open()
        .await?;
    // Before anything happens; what comes before it is read waits in the subscription.
    let events = connect
        .domain_events(&[DomainEventId::Lifecycle], None, None)
        .await?;

    let xml = definition(&connect.driver().await?);
    let domain = connect
        .define_domain(&xml, DomainDefineFlags::empty())
        .await?;
    println!("defined {} with UUID {}", domain.name(), domain.uuid());
    let printer = tokio::spawn(print_until_undefined(events, domain.clone()));

    // Whatever happens in between: it goes as it came.
    let lived = live(&domain, Duration::from_secs(arguments.patience)).await;
    let forgotten = forget(&domain).await;
    lived?;
    forgotten?;
    printer.await??;
    connect.close().await;
    Ok(())
}

/// A machine without a disk: its firmware finds nothing to boot, and waits.
fn definition(driver: &str) -> String {
    let (kind, system) = match driver {
        "TEST" => ("test", "<type>hvm</type>"),
        // Software emulation, which needs nothing of the host.
        _ => ("qemu", "<type arch='x86_64'>hvm</type>"),
    };
    format!(
        "<domain type='{kind}'>
           <name>{NAME}</name>
           <memory unit='MiB'>64</memory>
           <os>{system}</os>
           <features><acpi/></features>
         </domain>"
    )
}

async fn live(domain: &Domain, patience: Duration) -> Result<()> {
    domain.start(DomainCreateFlags::empty()).await?;
    println!("started; it is {}", domain.state().await?.state);
    domain.suspend().await?;
    println!("suspended; it is {}", domain.state().await?.state);
    domain.resume().await?;
    println!("resumed; it is {}", domain.state().await?.state);
    keep_and_revert(domain).await?;

    let mut events = domain
        .connect()
        .domain_events(&[DomainEventId::Lifecycle], Some(domain), None)
        .await?;
    domain.shutdown(DomainShutdownFlagValues::empty()).await?;
    println!("asked it to shut down");
    match tokio::time::timeout(patience, stopped(&mut events)).await {
        Ok(stopped) => stopped?,
        Err(_) => {
            println!("it did not within {patience:?}; stopping it");
            domain.destroy(DomainDestroyFlagsValues::empty()).await?;
        }
    }
    println!("it is {}", domain.state().await?.state);
    Ok(())
}

async fn keep_and_revert(domain: &Domain) -> Result<()> {
    let xml = "<domainsnapshot><name>before</name></domainsnapshot>";
    let flags = DomainSnapshotCreateFlags::empty();
    let snapshot = match domain.create_snapshot(xml, flags).await {
        Ok(snapshot) => snapshot,
        // QEMU keeps a snapshot in a disk's image, and this domain has no disk.
        Err(Error::Libvirt(why)) => {
            println!("no snapshot: {why}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    println!("made snapshot {}", snapshot.name());
    snapshot.revert(DomainSnapshotRevertFlags::empty()).await?;
    println!("set back to it; it is {}", domain.state().await?.state);
    snapshot.delete(DomainSnapshotDeleteFlags::empty()).await?;
    Ok(())
}

async fn forget(domain: &Domain) -> Result<(), Error> {
    if domain.is_active().await? {
        domain.destroy(DomainDestroyFlagsValues::empty()).await?;
    }
    domain
        .undefine(DomainUndefineFlagsValues::SNAPSHOTS_METADATA)
        .await?;
    println!("undefined");
    Ok(())
}

/// Waits until the domain has stopped.
async fn stopped(events: &mut Events<DomainEvent>) -> Result<(), Error> {
    while let Some(notice) = events.next().await {
        if let Notice::Event(event) = notice?
            && happened(&event.kind) == Some(DomainEventType::Stopped)
        {
            break;
        }
    }
    Ok(())
}

async fn print_until_undefined(
    mut events: Events<DomainEvent>,
    domain: Domain,
) -> Result<(), Error> {
    while let Some(notice) = events.next().await {
        match notice? {
            Notice::Event(event) if event.domain.uuid() == domain.uuid() => {
                println!("    event: {:?}", event.kind);
                if happened(&event.kind) == Some(DomainEventType::Undefined) {
                    break;
                }
            }
            // Another domain's; and nothing is missed or interrupted in so short a time.
            _ => {}
        }
    }
    Ok(())
}

/// What a lifecycle event says, if this crate knows libvirt's number for it.
fn happened(kind: &DomainEventKind) -> Option<DomainEventType> {
    match kind {
        DomainEventKind::Lifecycle { event } => event.event().known(),
        _ => None,
    }
}
