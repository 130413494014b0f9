//! Events of the guest, through the whole agent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use agent_guest::{Policy, Profile, Rules, limits};
use common::{Running, within};
use tonic::{Code, Streaming, transport::Channel};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    Command, EventKind, EventsSubscribeRequest, EventsSubscribeResponse, ExecRunRequest,
    PortProtocol, events_client::EventsClient, events_subscribe_response::Event,
    exec_client::ExecClient,
};

type Events = Streaming<EventsSubscribeResponse>;

async fn subscribe(channel: &Channel, kinds: &[EventKind]) -> Events {
    try_subscribe(channel, kinds).await.unwrap()
}

async fn try_subscribe(channel: &Channel, kinds: &[EventKind]) -> Result<Events, tonic::Status> {
    let request = EventsSubscribeRequest {
        kinds: kinds.iter().map(|&kind| kind.into()).collect(),
    };
    let answer = within(EventsClient::new(channel.clone()).subscribe(request)).await?;
    Ok(answer.into_inner())
}

async fn next(events: &mut Events) -> Event {
    let message = within(events.message()).await.unwrap().unwrap();
    assert!(message.time.is_some());
    message.event.unwrap()
}

async fn run(channel: &Channel, argv: &[&str]) {
    let command = Command {
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
        ..Command::default()
    };
    let request = ExecRunRequest {
        command: Some(command),
        ..ExecRunRequest::default()
    };
    within(ExecClient::new(channel.clone()).run(request))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_first_event_tells_of_the_agent_itself() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut events = subscribe(&channel, &[]).await;
    let Event::AgentStarted(started) = next(&mut events).await else {
        panic!("another event");
    };
    assert_eq!(started.version, env!("CARGO_PKG_VERSION"));
    assert!(started.start_time.is_some());
}

#[tokio::test]
async fn a_port_that_opens_and_closes_is_told() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut events = subscribe(&channel, &[EventKind::ListeningPort]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut listener = Some(listener);
    for expected in [true, false] {
        // Other tests open ports, too.
        let told = loop {
            match next(&mut events).await {
                Event::ListeningPort(told) if told.port == u32::from(port) => break told,
                Event::ListeningPort(_) => {}
                other => panic!("{other:?} was not asked for"),
            }
        };
        assert_eq!(
            (told.address.as_str(), told.listening),
            ("127.0.0.1", expected)
        );
        assert_eq!(told.protocol(), PortProtocol::Tcp);
        assert_eq!(told.pid, std::process::id());
        drop(listener.take());
    }
}

#[tokio::test]
async fn a_process_that_ends_is_told_with_its_code() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut events = subscribe(&channel, &[EventKind::ProcessEnded]).await;
    run(&channel, &["/bin/sh", "-c", "exit 7"]).await;
    run(&channel, &["/bin/sh", "-c", "kill -9 $$"]).await;
    for expected in [7, 137] {
        let Event::ProcessEnded(ended) = next(&mut events).await else {
            panic!("another event");
        };
        assert_eq!(ended.code, expected);
        assert!(!ended.id.is_empty());
    }
}

#[tokio::test]
async fn only_the_kinds_that_were_asked_for_are_told() {
    let policy = Policy::default();
    let same = policy.clone();
    let agent = Running::start_with(|builder| builder.policy(same));
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut events = subscribe(&channel, &[EventKind::PolicyLoaded]).await;
    run(&channel, &["true"]).await;
    policy.replace(Rules::new(Profile::Observe));
    // The process ended first.
    assert_eq!(
        next(&mut events).await,
        Event::PolicyLoaded("observe".to_owned())
    );
}

#[tokio::test]
async fn an_unknown_kind_names_its_field() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let request = EventsSubscribeRequest { kinds: vec![1, 99] };
    let mut client = EventsClient::new(host.channel().await);
    let status = within(client.subscribe(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(
        details.bad_request().unwrap().field_violations[0].field,
        "kinds[1]"
    );
}

#[tokio::test]
async fn a_subscriber_that_never_reads_loses_the_oldest_and_delays_nobody() {
    /// More than wait for it in the agent and on the way.
    const PROCESSES: usize = limits::EVENT_BUFFER + 100;
    let agent = Running::start();
    let mut host = agent.host().await;
    let channel = host
        .channel_with(|endpoint| endpoint.initial_stream_window_size(1024))
        .await;
    let mut stuck = subscribe(&channel, &[EventKind::ProcessEnded]).await;
    let mut reader = subscribe(&channel, &[EventKind::ProcessEnded]).await;
    for _ in 0..PROCESSES {
        run(&channel, &["true"]).await;
        assert!(matches!(next(&mut reader).await, Event::ProcessEnded(_)));
    }
    let (mut seen, mut dropped) = (0, 0);
    while seen + dropped < PROCESSES {
        let message = within(stuck.message()).await.unwrap().unwrap();
        seen += 1;
        dropped += usize::try_from(message.dropped).unwrap();
    }
    assert_eq!(seen + dropped, PROCESSES);
    assert!(
        dropped > 0 && seen >= limits::EVENT_BUFFER,
        "{dropped} of {seen}"
    );
}

#[tokio::test]
async fn too_many_subscribers_are_refused_until_one_goes() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut all = Vec::new();
    for _ in 0..limits::MAX_EVENT_SUBSCRIBERS {
        all.push(subscribe(&channel, &[EventKind::Power]).await);
    }
    let status = try_subscribe(&channel, &[]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_SUBSCRIBERS");
    drop(all.pop());
    // That it has gone is on its way.
    within(async { while try_subscribe(&channel, &[]).await.is_err() {} }).await;
}

#[tokio::test]
async fn that_the_agent_stops_is_told_last() {
    let mut agent = Running::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let kinds = [EventKind::AgentStopping, EventKind::ProcessEnded];
    let mut events = subscribe(&channel, &kinds).await;
    let mut filtered = subscribe(&channel, &[EventKind::Power]).await;
    let running = channel.clone();
    let process = tokio::spawn(async move {
        let command = Command {
            argv: vec!["sleep".to_owned(), "1000".to_owned()],
            ..Command::default()
        };
        let request = ExecRunRequest {
            command: Some(command),
            ..ExecRunRequest::default()
        };
        within(ExecClient::new(running).run(request)).await
    });
    let mut client = ExecClient::new(channel.clone());
    within(async {
        while client
            .list(vbridge_api::guest::v1::ExecListRequest {})
            .await
            .unwrap()
            .into_inner()
            .processes
            .is_empty()
        {}
    })
    .await;
    agent.ask_to_stop();
    assert!(matches!(next(&mut events).await, Event::ProcessEnded(_)));
    assert_eq!(next(&mut events).await, Event::AgentStopping(true));
    for events in [&mut events, &mut filtered] {
        let status = within(events.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "AGENT_STOPPING");
    }
    assert!(process.await.unwrap().is_ok());
}
