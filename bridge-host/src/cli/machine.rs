//! `vbridge shutdown`, `freeze` and `thaw`: the guest as a machine.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use vbridge_api::guest::v1::{
    PowerShutdownRequest, ShutdownMode, StorageFreezeRequest, StorageFreezeStatusRequest,
    StorageThawRequest, power_client::PowerClient, storage_client::StorageClient,
};

use super::{
    client::{Client, GuestOptions},
    duration,
    failure::Failure,
    output::{Output, print, print_pretty, printable},
    units::{self, json_seconds, long_time},
};

#[derive(Debug, Args)]
pub(super) struct ShutdownOptions {
    #[command(flatten)]
    guest: GuestOptions,
    /// Start it again
    #[arg(long, short = 'r')]
    reboot: bool,
    /// Halt it and leave its power on
    #[arg(long, short = 'H', conflicts_with = "reboot")]
    halt: bool,
    /// At once, without stopping its services; its disks are synchronised
    #[arg(long, short = 'f')]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct FreezeOptions {
    #[command(flatten)]
    guest: GuestOptions,
    /// A mount point to freeze; may be given again. All that can be frozen, unless said
    #[arg(long = "mount", short = 'm', value_name = "PATH")]
    mounts: Vec<String>,
    /// When the guest thaws by itself
    #[arg(long, value_name = "TIME", value_parser = duration)]
    limit: Option<Duration>,
    /// Only show what is frozen
    #[arg(long, conflicts_with_all = ["mounts", "limit"])]
    status: bool,
}

#[derive(Debug, Args)]
pub(super) struct ThawOptions {
    #[command(flatten)]
    guest: GuestOptions,
}

/// Ends the guest, or starts it anew.
pub(super) async fn shutdown(options: &ShutdownOptions) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let (mode, word) = match (options.reboot, options.halt) {
        (true, _) => (ShutdownMode::Reboot, "reboots"),
        (_, true) => (ShutdownMode::Halt, "halts"),
        _ => (ShutdownMode::PowerOff, "powers off"),
    };
    let wanted = PowerShutdownRequest {
        mode: mode.into(),
        force: options.force,
    };
    let mut power = PowerClient::new(client.channel());
    let ordered = client.order(wanted, async |request| power.shutdown(request).await);
    let answer = ordered.await?;
    let delay = units::duration(answer.delay.as_ref()).unwrap_or_default();
    match options.guest.client.output {
        Output::Table => print(format_args!(
            "{} {word} in {}",
            client.name(),
            long_time(delay)
        )),
        Output::Json => print_pretty(&json!({
            "guest": client.name(),
            "delay_seconds": delay.as_secs_f64(),
        })),
    }
}

/// Holds up writing, for a snapshot of the guest's disks.
pub(super) async fn freeze(options: &FreezeOptions) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut storage = StorageClient::new(client.channel());
    let output = options.guest.client.output;
    if options.status {
        let asked = client.ask(StorageFreezeStatusRequest {}, async |request| {
            storage.freeze_status(request).await
        });
        let status = asked.await?;
        let left = units::duration(status.remaining.as_ref()).unwrap_or_default();
        return match output {
            Output::Json => print_pretty(&json!({
                "frozen": status.frozen,
                "remaining_seconds": json_seconds(status.remaining.as_ref()),
                "expired": status.expired,
            })),
            Output::Table if status.frozen.is_empty() && status.expired => {
                print("not frozen; the last time its limit has passed")
            }
            Output::Table if status.frozen.is_empty() => print("not frozen"),
            Output::Table => print(format_args!(
                "frozen for {} more: {}",
                long_time(left),
                names(&status.frozen)
            )),
        };
    }
    let wanted = StorageFreezeRequest {
        mount_points: options.mounts.clone(),
        limit: options.limit.and_then(|limit| limit.try_into().ok()),
    };
    let ordered = client.order(wanted, async |request| storage.freeze(request).await);
    let answer = ordered.await?;
    match output {
        Output::Json => {
            print_pretty(&json!({ "frozen": answer.frozen, "skipped": answer.skipped }))
        }
        Output::Table => {
            for skipped in &answer.skipped {
                super::say(&format!("left as it is: {}", printable(skipped)));
            }
            print(format_args!("frozen: {}", names(&answer.frozen)))
        }
    }
}

/// Lets writing go on.
pub(super) async fn thaw(options: &ThawOptions) -> Result<(), Failure> {
    let client = Client::guest(&options.guest).await?;
    let mut storage = StorageClient::new(client.channel());
    let ordered = client.order(StorageThawRequest {}, async |request| {
        storage.thaw(request).await
    });
    let answer = ordered.await?;
    match options.guest.client.output {
        Output::Json => print_pretty(&json!({ "thawed": answer.thawed })),
        Output::Table if answer.thawed.is_empty() => print("nothing was frozen"),
        Output::Table => print(format_args!("thawed: {}", names(&answer.thawed))),
    }
}

fn names(of: &[String]) -> String {
    let names: Vec<String> = of.iter().map(|name| printable(name)).collect();
    names.join(", ")
}
