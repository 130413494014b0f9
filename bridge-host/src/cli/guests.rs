//! `vbridge guests`: who is there, and who is not, and why.

use clap::Args;
use serde_json::{Value, json};
use vbridge_api::host::v1::{
    Guest, GuestState, ListGuestsRequest, WatchGuestsRequest, WatchGuestsResponse,
    bridge_client::BridgeClient,
};

use super::{
    client::{Client, ClientOptions, Wire},
    failure::Failure,
    output::{Output, listing, print, print_compact, print_pretty, printable},
    units::{bytes, clock, date, duration, json_seconds, json_time, milliseconds},
};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Go on and show every change
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// Shows the guests once, or every change until it is ended.
pub(super) async fn run(options: &Options) -> Result<(), Failure> {
    let client = Client::bridge(&options.client).await?;
    let mut bridge = BridgeClient::new(client.channel());
    if options.watch {
        return watch(options, &client, &mut bridge).await;
    }
    let asked = client.ask(ListGuestsRequest {}, async |request| {
        bridge.list_guests(request).await
    });
    let guests = asked.await?.guests;
    match options.client.output {
        Output::Table => print(table(&guests)),
        Output::Json => {
            let guests: Vec<Value> = guests.iter().map(json_guest).collect();
            print_pretty(&json!({ "guests": guests }))
        }
    }
}

async fn watch(
    options: &Options,
    client: &Client,
    bridge: &mut BridgeClient<Wire>,
) -> Result<(), Failure> {
    let all = WatchGuestsRequest { names: Vec::new() };
    let watched = client.watch(all, async |request| bridge.watch_guests(request).await);
    let mut changes = watched.await?;
    // There may be no change for days: only the beginning has a time limit.
    while let Some(change) = client.next(&mut changes, None).await? {
        match options.client.output {
            Output::Table => print(line(&change))?,
            Output::Json => print_compact(&json!({
                "guest": json_guest(&change.guest.clone().unwrap_or_default()),
                "snapshot": change.snapshot,
                "removed": change.removed,
            }))?,
        }
    }
    Err(Failure::new(
        "the bridge has ended the stream; it may be stopping",
    ))
}

fn table(guests: &[Guest]) -> String {
    let header = [
        "NAME",
        "STATE",
        "SINCE",
        "AGENT",
        ">ROUND TRIP",
        ">CALLS",
        ">SENT",
        ">RECEIVED",
        "REASON",
    ];
    let rows = guests.iter().map(|guest| {
        vec![
            printable(&guest.name),
            state(guest).to_owned(),
            date(guest.since.as_ref()),
            printable(&guest.agent),
            duration(guest.round_trip.as_ref())
                .map(milliseconds)
                .unwrap_or_default(),
            guest.active_calls.to_string(),
            bytes(guest.sent_bytes),
            bytes(guest.received_bytes),
            printable(&guest.reason),
        ]
    });
    listing(&header, rows)
}

/// One change on one line.
fn line(change: &WatchGuestsResponse) -> String {
    let guest = change.guest.clone().unwrap_or_default();
    let state = if change.removed {
        "removed"
    } else {
        state(&guest)
    };
    let detail = match guest.reason.is_empty() {
        true => printable(&guest.agent),
        false => printable(&guest.reason),
    };
    let line = format!(
        "{}  {:<16}  {state:<11}  {detail}",
        clock(guest.since.as_ref()),
        printable(&guest.name)
    );
    line.trim_end().to_owned()
}

fn json_guest(guest: &Guest) -> Value {
    json!({
        "name": guest.name,
        "state": state(guest),
        "reason": guest.reason,
        "since": json_time(guest.since.as_ref()),
        "channel": guest.channel,
        "listen": guest.listen,
        "agent": guest.agent,
        "sessions": guest.sessions,
        "active_calls": guest.active_calls,
        "round_trip_seconds": json_seconds(guest.round_trip.as_ref()),
        "sent_bytes": guest.sent_bytes,
        "received_bytes": guest.received_bytes,
        "uuid": guest.uuid,
    })
}

/// The state in one word, for people and programs alike.
fn state(guest: &Guest) -> &'static str {
    match guest.state() {
        GuestState::Unspecified => "unknown",
        GuestState::Unreachable => "unreachable",
        GuestState::Greeting => "greeting",
        GuestState::Rejected => "rejected",
        GuestState::Ready => "ready",
        GuestState::Silent => "silent",
        GuestState::Paused => "paused",
        GuestState::Off => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, state: GuestState) -> Guest {
        Guest {
            name: name.into(),
            state: state.into(),
            since: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            ..Guest::default()
        }
    }

    #[test]
    fn guests_are_listed_with_state_and_reason() {
        let mut away = guest("db", GuestState::Unreachable);
        away.reason = "there is no socket".into();
        let mut here = guest("web", GuestState::Ready);
        here.agent = "vbridge-agent/0.1.0\u{7}".into();
        here.round_trip = Some(prost_types::Duration {
            seconds: 0,
            nanos: 830_000,
        });
        let text = table(&[away, here]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAME"), "{text}");
        assert!(
            lines[1].contains("unreachable") && lines[1].ends_with("there is no socket"),
            "{text}"
        );
        assert!(
            lines[2].contains("0.83 ms") && lines[2].contains("0.1.0\\u{7}"),
            "{text}"
        );
    }

    #[test]
    fn a_change_is_one_line() {
        let change = WatchGuestsResponse {
            guest: Some(guest("web", GuestState::Paused)),
            ..WatchGuestsResponse::default()
        };
        assert_eq!(line(&change), "22:13:20  web               paused");
    }

    #[test]
    fn a_state_of_a_newer_bridge_is_unknown() {
        let guest = Guest {
            state: 99,
            ..Guest::default()
        };
        assert_eq!(json_guest(&guest)["state"], "unknown");
    }
}
