//! Local gRPC servers of the guest, reached through the agent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../common/mod.rs"]
mod common;
mod server;

use agent_guest::{Agent, Policy, Profile, Rule, Rules, Upstream};
use common::{Host, Running, within};
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message as _;
use server::{Place, Server};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{GetInfoRequest, PingRequest, system_client::SystemClient};

type Codec = tonic_prost::ProstCodec<PingRequest, PingRequest>;

fn upstream(address: &str) -> Upstream {
    Upstream::new("example", ["org.example.*"], address).unwrap()
}

/// An agent that passes calls on to `address`, its host, and a channel to it.
async fn agent(address: &str) -> (Running, Host, Channel) {
    let agent = Running::start_with(|builder| builder.upstream(upstream(address)));
    let mut host = agent.host().await;
    let channel = host.channel().await;
    (agent, host, channel)
}

async fn client(channel: &Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel.clone());
    within(client.ready()).await.unwrap();
    client
}

fn method(name: &str) -> PathAndQuery {
    format!("/org.example.Echo/{name}").parse().unwrap()
}

fn message(payload: &[u8]) -> PingRequest {
    PingRequest {
        payload: payload.to_vec(),
    }
}

async fn unary(channel: &Channel, name: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
    let request = Request::new(message(payload));
    let mut client = client(channel).await;
    let answer = within(client.unary(request, method(name), Codec::default())).await?;
    Ok(answer.into_inner().payload)
}

/// Messages of all sizes, of some megabytes together.
fn messages() -> impl Iterator<Item = PingRequest> {
    (0_u8..40).map(|at| message(&vec![at; usize::from(at) * 5000]))
}

fn digest(messages: impl Iterator<Item = PingRequest>) -> Vec<u8> {
    let mut digest = Sha256::new();
    for message in messages {
        digest.update(message.encode_to_vec());
    }
    digest.finalize().to_vec()
}

async fn every_kind_of_call_passes(place: Place) {
    let server = Server::start(place).await;
    let (_agent, _host, channel) = agent(&server.address()).await;
    assert_eq!(unary(&channel, "Echo", b"hello").await.unwrap(), b"hello");

    let mut client = client(&channel).await;
    let request = Request::new(stream::iter(messages()));
    let answers = within(client.streaming(request, method("Echo"), Codec::default())).await;
    let answers = answers.unwrap().into_inner();
    let answers: Vec<_> = within(answers.map(Result::unwrap).collect()).await;
    assert_eq!(digest(answers.into_iter()), digest(messages()));

    let request = Request::new(stream::iter(messages()));
    within(client.ready()).await.unwrap();
    let answer = client.client_streaming(request, method("Length"), Codec::default());
    let answer = within(answer).await.unwrap().into_inner();
    let framed: usize = messages().map(|it| it.encoded_len() + 5).sum();
    assert_eq!(answer.payload, framed.to_string().into_bytes());

    let request = Request::new(message(&[7; 1000]));
    within(client.ready()).await.unwrap();
    let answers = client.server_streaming(request, method("Many"), Codec::default());
    let answers = within(answers).await.unwrap().into_inner();
    let answers: Vec<_> = within(answers.map(Result::unwrap).collect()).await;
    assert_eq!(answers.len(), server::MANY);
    assert!(answers.iter().all(|answer| *answer == message(&[7; 1000])));
}

#[tokio::test]
async fn every_kind_of_call_passes_over_a_unix_socket() {
    every_kind_of_call_passes(Place::Unix).await;
}

#[tokio::test]
async fn every_kind_of_call_passes_over_tcp() {
    every_kind_of_call_passes(Place::Tcp).await;
}

#[tokio::test]
async fn metadata_and_an_error_with_details_pass() {
    let server = Server::start(Place::Unix).await;
    let (_agent, _host, channel) = agent(&server.address()).await;
    let status = unary(&channel, "Fail", b"").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DataLoss, "lost: 50%")
    );
    assert_eq!(status.details(), b"details");
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
}

#[tokio::test]
async fn a_stream_that_is_reset_is_reset_there_too() {
    let mut server = Server::start(Place::Unix).await;
    let agent = Running::start_with(|builder| builder.upstream(upstream(&server.address())));
    let mut host = agent.host().await;
    // Its own HTTP/2, since a client of tonic's does not reset a stream whose upload goes on.
    let (client, connection) = within(h2::client::handshake(host.take_session()))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = within(client.ready()).await.unwrap();
    let request = http::Request::post("http://guest.test/org.example.Echo/Echo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let mut answer = within(answer).await.unwrap().into_body();
    upload.send_data("some".into(), false).unwrap();
    assert_eq!(within(answer.data()).await.unwrap().unwrap(), "some");
    upload.send_reset(h2::Reason::CANCEL);
    within(server.gone()).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_is_given_up_there_too() {
    let mut server = Server::start(Place::Unix).await;
    let (_agent, _host, channel) = agent(&server.address()).await;
    let given_up = channel.clone();
    let call = tokio::spawn(async move { unary(&given_up, "Hang", b"").await });
    within(server.hangs()).await;
    call.abort();
    within(server.gone()).await;
}

#[tokio::test]
async fn a_deadline_reaches_the_server_and_holds_if_it_does_not_care() {
    let server = Server::start(Place::Unix).await;
    let (_agent, _host, channel) = agent(&server.address()).await;
    let mut client = client(&channel).await;
    // Written by hand: with `set_timeout` the client would end it by itself.
    let deadline = |text: &str| text.parse().unwrap();
    let mut request = Request::new(message(b""));
    request
        .metadata_mut()
        .insert("grpc-timeout", deadline("7S"));
    let call = client.unary(request, method("Timeout"), Codec::default());
    let told = within(call).await.unwrap().into_inner();
    assert_eq!(told.payload, b"7S");

    let mut request = Request::new(stream::pending());
    request
        .metadata_mut()
        .insert("grpc-timeout", deadline("300m"));
    within(client.ready()).await.unwrap();
    let call = client.streaming(request, method("Echo"), Codec::default());
    let mut answers = within(call).await.unwrap().into_inner();
    let status: Status = within(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

fn is_unavailable(status: &Status) -> bool {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    status.code() == Code::Unavailable && reason == Some("UPSTREAM_UNAVAILABLE")
}

#[tokio::test]
async fn a_server_may_come_late_die_and_return() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late.sock");
    let (_agent, _host, channel) = agent(&format!("unix:{}", path.display())).await;
    let status = unary(&channel, "Echo", b"").await.unwrap_err();
    assert!(is_unavailable(&status), "{status:?}");
    let message = status.message();
    assert!(
        message.contains("\"example\"") && message.contains("late.sock"),
        "{message}"
    );

    let mut server = Server::start_at(&path).await;
    assert_eq!(unary(&channel, "Echo", b"1").await.unwrap(), b"1");
    let hanging = channel.clone();
    let call = tokio::spawn(async move { unary(&hanging, "Hang", b"").await });
    within(server.hangs()).await;
    server.die().await;
    let status = within(call).await.unwrap().unwrap_err();
    assert!(is_unavailable(&status), "{status:?}");
    assert!(is_unavailable(
        &unary(&channel, "Echo", b"").await.unwrap_err()
    ));

    std::fs::remove_file(&path).unwrap();
    let _server = Server::start_at(&path).await;
    assert_eq!(unary(&channel, "Echo", b"2").await.unwrap(), b"2");
}

async fn reflect(channel: &Channel, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = within(client.server_reflection_info(stream::iter([request]))).await;
    let answer = within(answers.unwrap().into_inner().message()).await;
    answer.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test]
async fn reflection_finds_the_servers_messages_and_the_agents_own() {
    let server = Server::start(Place::Unix).await;
    let (_agent, _host, channel) = agent(&server.address()).await;
    let all = reflect(&channel, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = all else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.iter().map(|it| it.name.as_str()).collect();
    assert!(names.contains(&"org.example.Echo"), "{names:?}");
    assert!(names.contains(&"vbridge.guest.v1.System"));
    let health = names.iter().filter(|name| name.starts_with("grpc.health"));
    assert_eq!(health.count(), 1, "the agent's own is not listed twice");
    for symbol in ["org.example.Word", "vbridge.guest.v1.PingRequest"] {
        let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let MessageResponse::FileDescriptorResponse(files) = reflect(&channel, question).await
        else {
            panic!("{symbol} is not found");
        };
        assert!(!files.file_descriptor_proto.is_empty());
    }
    let question = MessageRequest::FileContainingSymbol("nobody.Knows".to_owned());
    let answer = reflect(&channel, question).await;
    assert!(matches!(answer, MessageResponse::ErrorResponse(_)));
}

#[tokio::test]
async fn health_is_the_servers_own_and_info_lists_its_services() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let (_agent, _host, channel) = agent(&format!("unix:{}", path.display())).await;
    let check = || async {
        let service = "org.example.Echo".to_owned();
        let mut client = HealthClient::new(channel.clone());
        let answer = within(client.check(HealthCheckRequest { service })).await;
        answer.unwrap().into_inner().status()
    };
    let listed = || async {
        let mut system = SystemClient::new(channel.clone());
        let info = within(system.get_info(GetInfoRequest {})).await.unwrap();
        let methods = info.into_inner().methods.into_iter();
        let example: Vec<_> = methods
            .filter(|method| method.name.starts_with("org.example."))
            .collect();
        assert_eq!(example.len(), 1);
        example[0].clone()
    };
    assert_eq!(check().await, ServingStatus::NotServing);
    let absent = listed().await;
    assert_eq!(
        (absent.name.as_str(), absent.enabled),
        ("org.example.*/*", false)
    );
    assert!(
        absent.reason.contains("can't be reached"),
        "{}",
        absent.reason
    );
    let _server = Server::start_at(&path).await;
    assert_eq!(check().await, ServingStatus::Serving);
    let present = listed().await;
    assert_eq!(
        (present.name.as_str(), present.enabled),
        ("org.example.Echo/*", true)
    );
}

#[tokio::test]
async fn whoever_watches_its_health_sees_it_come_die_and_return() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let (_agent, _host, channel) = agent(&format!("unix:{}", path.display())).await;
    let mut client = HealthClient::new(channel);
    let service = "org.example.Echo".to_owned();
    let watched = within(client.watch(HealthCheckRequest { service })).await;
    let mut statuses = watched.unwrap().into_inner();
    let mut next = async || within(statuses.message()).await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::NotServing);
    let mut server = Server::start_at(&path).await;
    assert_eq!(next().await, ServingStatus::Serving);
    server.die().await;
    assert_eq!(next().await, ServingStatus::NotServing);
    std::fs::remove_file(&path).unwrap();
    let _server = Server::start_at(&path).await;
    assert_eq!(next().await, ServingStatus::Serving);
}

#[tokio::test]
async fn the_policy_holds_for_them_too() {
    let server = Server::start(Place::Unix).await;
    let allowed = Rule::allow("echo", ["org.example.Echo/Echo"]);
    let policy = Policy::new(Rules::new(Profile::Observe).rule(allowed));
    let agent =
        Running::start_with(|builder| builder.upstream(upstream(&server.address())).policy(policy));
    let mut host = agent.host().await;
    let channel = host.channel().await;
    assert!(unary(&channel, "Echo", b"").await.is_ok());
    let status = unary(&channel, "Fail", b"").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[test]
fn a_service_of_the_agents_own_can_not_be_taken_over() {
    let build = |services: &[&str]| {
        let builder =
            services
                .iter()
                .enumerate()
                .fold(Agent::builder(), |builder, (at, service)| {
                    let name = format!("u{at}");
                    builder.upstream(Upstream::new(name, [service], "127.0.0.1:1").unwrap())
                });
        builder.build().map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(build(&["org.example.*", "org.example.Special"]), Ok(()));
    for own in ["vbridge.guest.v1.System", "vbridge.*", "grpc.health.v1.*"] {
        let error = build(&[own]).unwrap_err();
        assert!(
            error.contains(own) && error.contains("agent's own"),
            "{error}"
        );
    }
    let error = build(&["a.*", "a.*"]).unwrap_err();
    assert!(error.contains("u0"), "{error}");
}
