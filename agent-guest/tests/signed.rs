//! Calls to a guest that wants each call signed, through the whole agent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::{
    convert::Infallible,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use agent_guest::{Key, limits::CALL_SKEW};
use common::{Host, Running, within};
use http::Request as HttpRequest;
use tonic::{
    Code, Request, Status, body::Body, codegen::http, server::NamedService, transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt as _;
use vbridge_api::guest::v1::{
    MetricsGetRequest, PingRequest, metrics_client::MetricsClient, system_client::SystemClient,
};

const PING: &str = "/vbridge.guest.v1.System/Ping";
const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

fn key() -> Key {
    Key::from_bytes(*KEY).unwrap()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn nonce() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("nonce-{:08}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request with a proof.
fn proven<T>(message: T, token: &str, timestamp: u64, nonce: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-auth-token", token.parse().unwrap());
    metadata.insert("x-timestamp", timestamp.to_string().parse().unwrap());
    metadata.insert("x-nonce", nonce.parse().unwrap());
    request
}

/// A request that is signed for this path, now.
fn signed<T>(message: T, path: &str) -> Request<T> {
    let (nonce, now) = (nonce(), now());
    proven(message, &key().sign_call(now, &nonce, path), now, &nonce)
}

async fn ping(channel: &Channel, request: Request<PingRequest>) -> Result<(), Status> {
    let mut system = SystemClient::new(channel.clone());
    within(system.ping(request)).await.map(drop)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, reason: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let details = status.get_error_details();
    assert_eq!(
        details.error_info().expect("a reason").reason,
        reason,
        "{status}"
    );
}

/// A service of an embedding program's, which tells which metadata it has seen.
#[derive(Clone)]
struct Own;

impl NamedService for Own {
    const NAME: &'static str = "test.Own";
}

impl tower::Service<HttpRequest<Body>> for Own {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let seen = request
            .headers()
            .keys()
            .filter(|it| it.as_str().starts_with("x-"));
        let seen: Vec<_> = seen.map(ToString::to_string).collect();
        std::future::ready(Ok(Status::aborted(seen.join(",")).into_http()))
    }
}

struct Scene {
    _agent: Running,
    _host: Host,
    channel: Channel,
}

impl Scene {
    async fn new() -> Self {
        let agent = Running::start_with(|builder| builder.call_key(key()).add_service(Own));
        let mut host = agent.host().await;
        let channel = host.channel().await;
        Self {
            _agent: agent,
            _host: host,
            channel,
        }
    }

    async fn own(&self, request: Request<PingRequest>) -> Status {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        within(client.ready()).await.unwrap();
        let codec = tonic_prost::ProstCodec::<PingRequest, PingRequest>::default();
        let path = http::uri::PathAndQuery::from_static("/test.Own/Any");
        let call = client.unary(request, path, codec);
        within(call).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_signed_call_is_answered_once_and_every_other_is_refused_for_its_reason() {
    let scene = Scene::new().await;
    let call = async |request| ping(&scene.channel, request).await;
    let empty = PingRequest::default;
    refused(call(Request::new(empty())).await, "CALL_NOT_SIGNED");
    let (nonce, now) = (nonce(), now());
    let token = key().sign_call(now, &nonce, PING);
    let foreign = Key::from_bytes(*b"another key of the right length!").unwrap();
    let foreign = foreign.sign_call(now, &nonce, PING);
    let wrong = proven(empty(), &foreign, now, &nonce);
    refused(call(wrong).await, "CALL_SIGNATURE_WRONG");
    let path = "/vbridge.guest.v1.System/GetInfo";
    refused(call(signed(empty(), path)).await, "CALL_SIGNATURE_WRONG");
    for off in [
        now - CALL_SKEW.as_secs() - 30,
        now + CALL_SKEW.as_secs() + 30,
    ] {
        let token = key().sign_call(off, &nonce, PING);
        refused(
            call(proven(empty(), &token, off, &nonce)).await,
            "CALL_EXPIRED",
        );
    }
    call(proven(empty(), &token, now, &nonce)).await.unwrap();
    let again = proven(empty(), &token, now, &nonce);
    refused(call(again).await, "CALL_REPLAYED");
    call(signed(empty(), PING)).await.unwrap();
}

#[tokio::test]
async fn every_service_asks_for_it_and_none_sees_it() {
    let scene = Scene::new().await;
    let mut health = HealthClient::new(scene.channel.clone());
    let check = HealthCheckRequest::default;
    refused(within(health.check(check())).await, "CALL_NOT_SIGNED");
    let request = signed(check(), "/grpc.health.v1.Health/Check");
    within(health.check(request)).await.unwrap();
    let mut reflection = ServerReflectionClient::new(scene.channel.clone());
    let list = || {
        tokio_stream::iter([ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        }])
    };
    let call = reflection.server_reflection_info(list());
    refused(within(call).await, "CALL_NOT_SIGNED");
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let call = reflection.server_reflection_info(signed(list(), path));
    assert!(within(call).await.is_ok());
    let own = scene.own(Request::new(PingRequest::default())).await;
    refused::<()>(Err(own), "CALL_NOT_SIGNED");
    let mut request = signed(PingRequest::default(), "/test.Own/Any");
    request
        .metadata_mut()
        .insert("x-mine", "1".parse().unwrap());
    let own = scene.own(request).await;
    assert_eq!((own.code(), own.message()), (Code::Aborted, "x-mine"));
}

#[tokio::test]
async fn what_is_signed_for_an_endpoint_leads_to_its_methods_and_to_no_others() {
    let scene = Scene::new().await;
    let endpoint = "/api/v1/ping";
    let (nonce, now) = (nonce(), now());
    let token = key().sign_call(now, &nonce, endpoint);
    fn at<T>(mut request: Request<T>, path: &str) -> Request<T> {
        let metadata = request.metadata_mut();
        metadata.insert("x-auth-path", path.parse().unwrap());
        request
    }
    let mut metrics = MetricsClient::new(scene.channel.clone());
    let sample = || proven(MetricsGetRequest::default(), &token, now, &nonce);
    let asked = || proven(PingRequest::default(), &token, now, &nonce);
    // Both methods of the endpoint, each once.
    let alone = ping(&scene.channel, asked()).await;
    refused(alone, "CALL_SIGNATURE_WRONG");
    ping(&scene.channel, at(asked(), endpoint)).await.unwrap();
    within(metrics.get(at(sample(), endpoint))).await.unwrap();
    let again = ping(&scene.channel, at(asked(), endpoint)).await;
    refused(again, "CALL_REPLAYED");
    let other = within(metrics.get(at(sample(), "/api/v1/system/info"))).await;
    refused(other, "CALL_SIGNATURE_WRONG");
    for path in ["/api/v1/shell/exec", "/api/v1/nothing", PING] {
        let request = at(signed(PingRequest::default(), path), path);
        refused(ping(&scene.channel, request).await, "CALL_SIGNATURE_WRONG");
    }
}

#[tokio::test]
async fn the_program_takes_the_key_from_its_file_and_logs_nothing_of_it_or_of_the_calls() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("calls.key"), KEY).unwrap();
    fs::set_permissions(at("calls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "security: {{enable_auth: true, auth_key_file: {}}}\nlogging: {{level: DEBUG, file: {}}}\n",
        at("calls.key").display(),
        at("agent.log").display()
    );
    fs::write(at("agent.yaml"), config).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vbridge-agent"))
        .env_clear()
        .arg(format!("--listen=unix:{}", at("agent.sock").display()))
        .arg("--config")
        .arg(at("agent.yaml"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(at("stderr")).unwrap())
        .spawn()
        .unwrap();
    let mut host = Host::connect(&at("agent.sock")).await;
    let channel = host.channel().await;
    let (nonce, now) = (nonce(), now());
    let token = key().sign_call(now, &nonce, PING);
    let request = || proven(PingRequest::default(), &token, now, &nonce);
    ping(&channel, request()).await.unwrap();
    refused(ping(&channel, request()).await, "CALL_REPLAYED");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let log = fs::read_to_string(at("agent.log")).unwrap();
    let refusal = "a call of /vbridge.guest.v1.System/Ping was refused: a call of this method";
    assert!(log.contains(refusal), "{log}");
    for secret in [token.as_str(), &nonce, "0123456789abcdef"] {
        assert!(!log.contains(secret), "{log}");
    }
    assert_eq!(fs::read_to_string(at("stderr")).unwrap(), "");
}
