//! `vbridge domain events`: what happens to domains, as it happens.

use clap::Args;
use serde_json::{Value, json};
use vbridge_api::host::v1::{
    DomainEvent, DomainEventKind, WatchDomainsRequest, watch_domains_response::What,
};

use super::{
    At, connect,
    show::{json_domain, json_hypervisors, state, unreachable},
};
use crate::cli::{
    client::ClientOptions,
    failure::Failure,
    output::{Output, print, print_compact, printable},
    say,
    units::{clock, json_time},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only this domain: its guest's name, its own, NAME@HOST or its UUID. All unless said
    #[arg(value_name = "DOMAIN", default_value = "", hide_default_value = true)]
    domain: String,
    #[command(flatten)]
    at: At,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    #[command(flatten)]
    client: ClientOptions,
}

/// Shows every event until it is ended. JSON has the snapshots as well.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let (client, mut domains) = connect(&options.client).await?;
    let wanted = WatchDomainsRequest {
        domain: options.domain.clone(),
        hypervisor: options.at.hypervisor.clone(),
    };
    let watched = client.watch(wanted, async |request| domains.watch_domains(request).await);
    let mut watched = watched.await?;
    let is_json = options.client.output == Output::Json;
    let mut left = options.count;
    let mut snapshots = 0_u64;
    // There may be nothing for days: only the beginning has a time limit.
    while left != Some(0)
        && let Some(message) = client.next(&mut watched, None).await?
    {
        let Some(what) = message.what else {
            continue;
        };
        match &what {
            _ if is_json => print_compact(&json(&what))?,
            What::Event(event) => print(line(event))?,
            What::Domain(_) => {}
            What::SnapshotEnd(end) => {
                let away = end.hypervisors.iter();
                for hypervisor in away.filter(|it| !it.unreachable.is_empty()) {
                    say(&unreachable(hypervisor));
                }
                if snapshots > 0 {
                    say(
                        "something may have happened unheard; `vbridge domain list --all` shows how the domains are",
                    );
                }
            }
        }
        match what {
            What::Event(_) => left = left.map(|left| left - 1),
            What::SnapshotEnd(_) => snapshots += 1,
            What::Domain(_) => {}
        }
    }
    match left {
        Some(0) => Ok(()),
        _ => Err(Failure::new(
            "the bridge has ended the stream; it may be stopping",
        )),
    }
}

/// One event on one line.
fn line(event: &DomainEvent) -> String {
    let domain = event.domain.clone().unwrap_or_default();
    let detail = printable(&event.detail);
    let what = match event.removed {
        true => format!("{detail}; it is gone"),
        false => detail,
    };
    let line = format!(
        "{}  {:<16}  {:<11}  {what}",
        clock(event.time.as_ref()),
        printable(&domain.name),
        kind(event)
    );
    line.trim_end().to_owned()
}

fn json(what: &What) -> Value {
    match what {
        What::Domain(domain) => json!({ "snapshot": json_domain(domain) }),
        What::SnapshotEnd(end) => json!({ "snapshot_end": json_hypervisors(&end.hypervisors) }),
        What::Event(event) => json!({
            "event": kind(event),
            "detail": event.detail,
            "time": json_time(event.time.as_ref()),
            "removed": event.removed,
            "state": state(&event.domain.clone().unwrap_or_default()),
            "domain": event.domain.as_ref().map(json_domain),
        }),
    }
}

/// The event in one word, for people and programs alike.
fn kind(event: &DomainEvent) -> &'static str {
    match event.kind() {
        DomainEventKind::Unspecified => "unknown",
        DomainEventKind::Defined => "defined",
        DomainEventKind::Undefined => "undefined",
        DomainEventKind::Started => "started",
        DomainEventKind::Suspended => "suspended",
        DomainEventKind::Resumed => "resumed",
        DomainEventKind::Stopped => "stopped",
        DomainEventKind::Shutdown => "shutdown",
        DomainEventKind::Pmsuspended => "pmsuspended",
        DomainEventKind::Crashed => "crashed",
    }
}

#[cfg(test)]
mod tests {
    use vbridge_api::host::v1::Domain;

    use super::*;

    #[test]
    fn an_event_is_one_line_and_one_object() {
        let event = DomainEvent {
            domain: Some(Domain {
                name: "web".to_owned(),
                ..Domain::default()
            }),
            kind: DomainEventKind::Stopped.into(),
            detail: "destroyed".to_owned(),
            time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            removed: true,
        };
        assert_eq!(
            line(&event),
            "22:13:20  web               stopped      destroyed; it is gone"
        );
        let object = json(&What::Event(event));
        assert_eq!(
            (&object["event"], &object["removed"]),
            (&json!("stopped"), &json!(true))
        );
        assert_eq!(object["domain"]["name"], "web");
    }
}
