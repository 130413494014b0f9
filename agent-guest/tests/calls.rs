//! Calls through the whole agent: socket, link, HTTP/2, services.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use common::{Running, within};
use tonic::{Code, Request, body::Body, server::NamedService};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    GetInfoRequest, GetStatusRequest, MetricGroup, MetricsGetRequest, MetricsWatchRequest,
    PingRequest, metrics_client::MetricsClient, system_client::SystemClient,
};

#[tokio::test]
async fn a_ping_of_every_size_comes_back() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut system = SystemClient::new(host.channel().await);
    for (sequence, size) in (1_u64..).zip([0, 1, 1000, 16 * 1024, 64 * 1024]) {
        let payload = vec![0x5a; size];
        let answer = within(system.ping(PingRequest {
            payload: payload.clone(),
        }))
        .await
        .unwrap()
        .into_inner();
        assert_eq!(
            (answer.payload == payload, answer.sequence),
            (true, sequence)
        );
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_an_invalid_argument_however_far_over() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut system = SystemClient::new(host.channel().await);
    for size in [64 * 1024 + 1, 65 * 1024 + 500, 1024 * 1024] {
        let status = within(system.ping(PingRequest {
            payload: vec![0; size],
        }))
        .await
        .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{size}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().expect("a reason").domain, "vbridge");
    }
    within(system.ping(PingRequest::default())).await.unwrap();
}

#[tokio::test]
async fn info_lists_every_method_that_is_served() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut system = SystemClient::new(host.channel().await);
    let info = within(system.get_info(GetInfoRequest {}))
        .await
        .unwrap()
        .into_inner();
    let agent = info.agent.unwrap();
    assert_eq!(
        (agent.name.as_str(), agent.pid),
        ("vbridge-agent", std::process::id())
    );
    let methods: BTreeSet<_> = info
        .methods
        .iter()
        .map(|method| method.name.as_str())
        .collect();
    for method in [
        "vbridge.guest.v1.System/Ping",
        "vbridge.guest.v1.System/GetInfo",
        "vbridge.guest.v1.System/GetStatus",
        "vbridge.guest.v1.Metrics/Get",
        "vbridge.guest.v1.Metrics/Watch",
        "grpc.health.v1.Health/Check",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        assert!(methods.contains(method), "{method}");
    }
    assert!(within(system.get_status(GetStatusRequest {})).await.is_ok());
}

#[tokio::test]
async fn metrics_are_read_once_or_watched() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut metrics = MetricsClient::new(host.channel().await);
    let groups = vec![MetricGroup::Memory.into()];
    let sample = within(metrics.get(MetricsGetRequest { groups }))
        .await
        .unwrap()
        .into_inner()
        .sample
        .unwrap();
    assert!(sample.memory.unwrap().total_bytes > 0);
    assert!(sample.cpu.is_none());
    let request = MetricsWatchRequest {
        groups: vec![MetricGroup::Cpu.into()],
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
    };
    let mut watch = within(metrics.watch(request)).await.unwrap().into_inner();
    for sequence in 1..=3 {
        let message = within(watch.message()).await.unwrap().unwrap();
        let sample = message.sample.unwrap();
        assert_eq!((sample.sequence, message.dropped), (sequence, 0));
        let busy = sample.cpu.unwrap().busy_percent;
        assert_eq!(busy.is_some(), sequence > 1);
        assert!(busy.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
    }
}

#[tokio::test]
async fn a_wrong_request_names_its_field() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut metrics = MetricsClient::new(host.channel().await);
    let request = MetricsWatchRequest {
        groups: Vec::new(),
        interval: Some(prost_types::Duration::default()),
    };
    let status = within(metrics.watch(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(
        details
            .bad_request()
            .expect("it names the field")
            .field_violations[0]
            .field,
        "interval"
    );
    let status = within(metrics.get(MetricsGetRequest { groups: vec![99] }))
        .await
        .unwrap_err();
    assert_eq!(
        status
            .get_error_details()
            .bad_request()
            .unwrap()
            .field_violations[0]
            .field,
        "groups[0]"
    );
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut metrics = MetricsClient::new(host.channel().await);
    let mut request = Request::new(MetricsWatchRequest::default());
    // Written by hand: with `set_timeout` the client would end it by itself.
    request
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let mut watch = within(metrics.watch(request)).await.unwrap().into_inner();
    let status = loop {
        match within(watch.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn everything_served_is_healthy() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut health = HealthClient::new(host.channel().await);
    for service in [
        "",
        "vbridge.guest.v1.System",
        "vbridge.guest.v1.Metrics",
        "grpc.reflection.v1.ServerReflection",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = within(health.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
}

/// A service of an embedding program, which answers "ok" to anything.
#[derive(Clone)]
struct Embedded;

impl NamedService for Embedded {
    const NAME: &'static str = "example.Embedded";
}

impl tower::Service<http::Request<Body>> for Embedded {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(tonic::Status::already_exists("embedded").into_http()))
    }
}

#[tokio::test]
async fn an_added_service_is_served_listed_and_healthy() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let agent = Running::start_with(|builder| builder.add_service(Embedded));
    let mut host = agent.host().await;
    let channel = host.channel().await;

    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PingRequest, PingRequest>::default();
    let path = http::uri::PathAndQuery::from_static("/example.Embedded/Any");
    let status = within(client.unary(Request::new(PingRequest::default()), path, codec))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::AlreadyExists, "embedded")
    );

    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = within(
        ServerReflectionClient::new(channel.clone())
            .server_reflection_info(tokio_stream::iter([request])),
    )
    .await
    .unwrap()
    .into_inner();
    let answer = within(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list");
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "example.Embedded",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "vbridge.guest.v1.Accounts",
            "vbridge.guest.v1.Events",
            "vbridge.guest.v1.Exec",
            "vbridge.guest.v1.Files",
            "vbridge.guest.v1.Hardware",
            "vbridge.guest.v1.Metrics",
            "vbridge.guest.v1.Network",
            "vbridge.guest.v1.Power",
            "vbridge.guest.v1.Services",
            "vbridge.guest.v1.Storage",
            "vbridge.guest.v1.System",
            "vbridge.guest.v1.Time",
            "vbridge.guest.v1.Tunnel",
        ]
    );

    let request = HealthCheckRequest {
        service: "example.Embedded".to_owned(),
    };
    assert!(
        within(HealthClient::new(channel).check(request))
            .await
            .is_ok()
    );
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let builder = || agent_guest::Agent::builder().add_service(Embedded);
    assert!(builder().build().is_ok());
    let error = builder().add_service(Embedded).build().unwrap_err();
    assert!(error.to_string().contains("example.Embedded"), "{error}");
    let error = builder()
        .descriptor_set(b"\xff".to_vec())
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("FileDescriptorSet"), "{error}");
}

#[tokio::test]
async fn an_unknown_method_says_what_was_asked_for() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let mut client = tonic::client::Grpc::new(host.channel().await);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PingRequest, PingRequest>::default();
    let path = http::uri::PathAndQuery::from_static("/nobody.Knows/This");
    let status = within(client.unary(Request::new(PingRequest::default()), path, codec))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(
        status.message().contains("/nobody.Knows/This"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn a_thousand_calls_are_under_way_at_once() {
    let agent = Running::start();
    let mut host = agent.host().await;
    let channel = host.channel().await;
    let mut watches = Vec::new();
    for _ in 0..1000 {
        let request = MetricsWatchRequest {
            groups: vec![MetricGroup::Memory.into()],
            interval: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
        };
        let mut watch = within(MetricsClient::new(channel.clone()).watch(request))
            .await
            .unwrap()
            .into_inner();
        within(watch.message()).await.unwrap().unwrap();
        watches.push(watch);
    }
    let ping = SystemClient::new(channel)
        .ping(PingRequest::default())
        .await;
    assert!(
        tokio::time::timeout(Duration::from_secs(5), async { ping })
            .await
            .unwrap()
            .is_ok()
    );
}
