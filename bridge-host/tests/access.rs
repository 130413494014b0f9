//! Who may call what: tokens, certificates, users, rules, rates, the audit log, and all of it changed while calls go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bridge_host::{
    Bridge, BridgeBuilder, BridgeError, Control, GuestSpec, ListenAddress,
    access::{AccessSpec, CallerSpec, Proof, Rule, TlsFiles, TokenHash, trusted},
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use support::{GuestProcess, guest_with, socket};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status,
    body::Body,
    server::NamedService,
    transport::{Channel, Endpoint, Uri},
};
use tower_service::Service;
use vbridge_api::host::v1::{
    GetGuestRequest, ListGuestsRequest, WatchGuestsRequest, bridge_client::BridgeClient,
};

const TOKEN: &str = "the operators' token";
const COUNT: &str = "/test.Counter/Count";

/// A service of the guest that counts its calls, and keeps the tokens that it gets to see.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl NamedService for Counter {
    const NAME: &'static str = "test.Counter";
}

impl Service<http::Request<Body>> for Counter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let status = match request.headers().get(http::header::AUTHORIZATION) {
            Some(_) => Status::data_loss("a token has reached the guest"),
            None => Status::ok(""),
        };
        ready(Ok(status.into_http()))
    }
}

/// A bridge with the guests `web` and `db`, which count their calls.
struct Running {
    addresses: Vec<ListenAddress>,
    control: Control,
    task: JoinHandle<()>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    counts: [Counter; 2],
    _guests: [GuestProcess; 2],
    dir: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    async fn start(describe: impl FnOnce(BridgeBuilder, &Path) -> BridgeBuilder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let counts = [Counter::default(), Counter::default()];
        let paths = ["web", "db"].map(|name| (name, socket(dir.path(), name)));
        let mut builder = Bridge::builder()
            .listen(ListenAddress::Tcp(([127, 0, 0, 1], 0).into()))
            .listen(ListenAddress::Unix(dir.path().join("bridge.sock")));
        for (name, path) in &paths {
            builder = builder.guest(GuestSpec::new(*name, path));
        }
        let bound = describe(builder, dir.path()).build().unwrap();
        let bound = bound.bind().await.unwrap();
        let [(_, web), (_, db)] = paths;
        let guests = [
            guest_with(&web, counts[0].clone()),
            guest_with(&db, counts[1].clone()),
        ];
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let addresses = bound.addresses().to_vec();
        let control = bound.control();
        let task = tokio::spawn(async move {
            let stopped = async {
                // Dropped, it never comes.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            bound.serve(stopped).await.unwrap();
        });
        Self {
            addresses,
            control,
            task,
            stop: Some(stop),
            counts,
            _guests: guests,
            dir,
        }
    }

    fn port(&self) -> std::net::SocketAddr {
        let ListenAddress::Tcp(address) = self.addresses[0] else {
            panic!("not TCP")
        };
        address
    }

    fn plain(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.port()));
        endpoint.unwrap().connect_lazy()
    }

    fn unix(&self) -> Channel {
        let path = self.dir.path().join("bridge.sock");
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(
            move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            },
        ))
    }

    fn encrypted(&self, client: rustls::ClientConfig) -> Channel {
        let port = self.port();
        let connector = TlsConnector::from(Arc::new(client));
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(
            move |_: Uri| {
                let connector = connector.clone();
                async move {
                    let stream = TcpStream::connect(port).await?;
                    let name = "bridge.example".try_into().unwrap();
                    connector.connect(name, stream).await.map(TokioIo::new)
                }
            },
        ))
    }

    /// How often the guests were called.
    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|guest| self.counts[guest].0.load(Ordering::Relaxed))
    }

    /// What was written, after an end that nothing has held up.
    async fn audited(&mut self) -> Vec<serde_json::Value> {
        self.stop.take().unwrap().send(()).unwrap();
        let begun = tokio::time::Instant::now();
        (&mut self.task).await.unwrap();
        assert!(begun.elapsed() < bridge_host::limits::AUDIT_END);
        let text = std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A call to a guest's method.
async fn call(
    channel: &Channel,
    guest: &str,
    path: &str,
    token: Option<&str>,
) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.to_string()))?;
    let mut request = Request::new(());
    let metadata = request.metadata_mut();
    metadata.insert("x-vbridge-guest", guest.parse().unwrap());
    metadata.insert("x-vbridge-wait", "10s".parse().unwrap());
    if let Some(token) = token {
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client
        .server_streaming(request, path.parse().unwrap(), codec)
        .await
        .map(drop)
}

fn spec() -> AccessSpec {
    AccessSpec {
        callers: vec![
            CallerSpec::new("ops", [Proof::Token(TokenHash::of(TOKEN))]),
            CallerSpec::new("web-team", [Proof::Token(TokenHash::of("the web team's"))]),
            CallerSpec::new("client", [Proof::Certificate("client.example".to_owned())]),
            CallerSpec::new("me", [Proof::Uid(rustix::process::geteuid().as_raw())]),
        ],
        rules: vec![
            Rule::allow("all", ["ops", "client", "me"], ["*"], ["*"]),
            Rule::allow("web", ["web-team"], ["web"], ["test.Counter/*"]),
            Rule::allow(
                "lists",
                ["web-team"],
                ["bridge"],
                ["vbridge.host.v1.Bridge/*"],
            ),
        ],
    }
}

#[tokio::test]
async fn callers_get_the_right_status_and_those_that_may_not_touch_nothing() {
    let mut bridge =
        Running::start(|builder, dir| builder.access(spec()).audit(dir.join("audit.jsonl"))).await;
    let channel = bridge.plain();
    let refused = [
        ("web", COUNT, None, Code::Unauthenticated),
        ("web", COUNT, Some("another token"), Code::Unauthenticated),
        (
            "bridge",
            "/vbridge.host.v1.Bridge/ListGuests",
            None,
            Code::Unauthenticated,
        ),
        ("nobody", COUNT, None, Code::Unauthenticated),
        (
            "nobody",
            COUNT,
            Some("the web team's"),
            Code::PermissionDenied,
        ),
        ("db", COUNT, Some("the web team's"), Code::PermissionDenied),
        (
            "web",
            "/grpc.health.v1.Health/Check",
            Some("the web team's"),
            Code::PermissionDenied,
        ),
    ];
    for (guest, path, token, code) in refused {
        let status = call(&channel, guest, path, token).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    assert_eq!(bridge.counts(), [0, 0]);
    call(&channel, "web", COUNT, Some("the web team's"))
        .await
        .unwrap();
    call(&channel, "db", COUNT, Some(TOKEN)).await.unwrap();
    call(&bridge.unix(), "db", COUNT, None).await.unwrap();
    assert_eq!(bridge.counts(), [1, 2]);

    let lines = bridge.audited().await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| ["caller", "guest", "status"].map(|key| line[key].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ["anonymous", "web", "UNAUTHENTICATED"],
            ["", "", "UNAUTHENTICATED"],
            ["anonymous", "bridge", "UNAUTHENTICATED"],
            ["anonymous", "", "UNAUTHENTICATED"],
            ["web-team", "", "PERMISSION_DENIED"],
            ["web-team", "db", "PERMISSION_DENIED"],
            ["web-team", "web", "PERMISSION_DENIED"],
            ["web-team", "web", "OK"],
            ["ops", "db", "OK"],
            ["me", "db", "OK"],
        ]
    );
    assert!(lines[9]["peer"].as_str().unwrap().starts_with("uid:"));
    assert!(lines.iter().all(|line| !line.to_string().contains(TOKEN)));
}

#[tokio::test]
async fn a_caller_sees_the_guests_that_it_may_call_and_no_others() {
    let bridge = Running::start(|builder, _| builder.access(spec())).await;
    let with_token = |mut request: Request<()>| {
        let token = "Bearer the web team's".parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        Ok(request)
    };
    let mut client = BridgeClient::with_interceptor(bridge.plain(), with_token);
    let guests = client
        .list_guests(ListGuestsRequest {})
        .await
        .unwrap()
        .into_inner()
        .guests;
    let names: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
    assert_eq!(names, ["web"]);
    let get = |name: &str| GetGuestRequest {
        name: name.to_owned(),
    };
    let hidden = client.get_guest(get("db")).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);
    let missing = client.get_guest(get("xx")).await.unwrap_err();
    assert_eq!(hidden.message().replace("db", "xx"), missing.message());
    let team = Some("the web team's");
    let hidden = call(&bridge.plain(), "db", COUNT, team).await.unwrap_err();
    let missing = call(&bridge.plain(), "xx", COUNT, team).await.unwrap_err();
    assert_eq!(
        (hidden.message(), hidden.details()),
        (missing.message(), missing.details())
    );
    let mut watch = client
        .watch_guests(WatchGuestsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.guest.unwrap().name, "web");
    // The only one that it sees need not be named.
    let mut request = tonic::client::Grpc::new(bridge.plain());
    request.ready().await.unwrap();
    let mut call = Request::new(());
    call.metadata_mut()
        .insert("authorization", "Bearer the web team's".parse().unwrap());
    call.metadata_mut()
        .insert("x-vbridge-wait", "10s".parse().unwrap());
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    request
        .server_streaming(call, COUNT.parse().unwrap(), codec)
        .await
        .unwrap();
    assert_eq!(bridge.counts(), [1, 0]);
}

#[tokio::test]
async fn what_was_loaded_again_counts_for_new_calls_and_streams_go_on() {
    let bridge = Running::start(|builder, _| builder.access(spec())).await;
    let channel = bridge.unix();
    let mut client = BridgeClient::new(channel.clone());
    let mut watch = client
        .watch_guests(WatchGuestsRequest::default())
        .await
        .unwrap()
        .into_inner();
    call(&channel, "web", COUNT, None).await.unwrap();
    let mut less = spec();
    less.rules[0] = Rule::allow("all", ["ops"], ["*"], ["*"]);
    bridge.control.reload(&less, None).unwrap();
    let status = call(&channel, "web", COUNT, None).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut told = Vec::new();
    while !told.iter().any(|name| name == "db") {
        told.push(watch.message().await.unwrap().unwrap().guest.unwrap().name);
    }
    let error = bridge
        .control
        .reload(&AccessSpec::default(), None)
        .unwrap_err();
    assert!(matches!(error, BridgeError::NeedsRestart(_)), "{error}");
    assert!(call(&channel, "web", COUNT, None).await.is_err());
}

#[tokio::test]
async fn a_caller_that_calls_too_often_is_told_when_to_come_again() {
    let mut slow = spec();
    slow.callers[0].rates.per_minute = NonZeroU32::new(2);
    let bridge = Running::start(|builder, _| builder.access(slow)).await;
    let channel = bridge.plain();
    for _ in 0..2 {
        call(&channel, "web", COUNT, Some(TOKEN)).await.unwrap();
    }
    let status = call(&channel, "web", COUNT, Some(TOKEN)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.message().contains("2 calls within a minute"),
        "{status:?}"
    );
    // Others are not slowed down by it.
    call(&channel, "web", COUNT, Some("the web team's"))
        .await
        .unwrap();
    assert_eq!(bridge.counts(), [3, 0]);
}

#[tokio::test]
async fn prometheus_needs_a_token_where_others_do() {
    let bridge = Running::start(|builder, _| builder.access(spec())).await;
    // Prometheus names the machine as the network does.
    let scrape = async |headers: &str| {
        let mut stream = TcpStream::connect(bridge.port()).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: hv1.example:7411\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = scrape("").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
    let answer = scrape("Authorization: Bearer the web team's\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && !answer.contains("vbridge_"),
        "{answer}"
    );
    let answer = scrape(&format!("Authorization: Bearer {TOKEN}\r\n")).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("vbridge_"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_page_of_another_site_gets_no_metrics_where_nobody_has_to_prove_anything() {
    let bridge = Running::start(|builder, _| builder).await;
    let scrape = async |headers: &str| {
        let mut stream = TcpStream::connect(bridge.port()).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\n{headers}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for headers in [
        "Host: rebound.example",
        "Host: localhost\r\nSec-Fetch-Site: cross-site",
        "Host: localhost\r\nOrigin: http://another.example",
    ] {
        let answer = scrape(headers).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && !answer.contains("vbridge_"),
            "{answer}"
        );
    }
    assert!(scrape("Host: localhost").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_rules_for_methods_hold_for_the_same_in_json() {
    let mut bridge =
        Running::start(|builder, dir| builder.access(spec()).audit(dir.join("audit.jsonl"))).await;
    let get = async |host: &str, token: &str| {
        let mut stream = TcpStream::connect(bridge.port()).await.unwrap();
        let request = format!(
            "GET /api/v1/ping HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = get("web.localhost", "another").await;
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("\"code\":4001"),
        "{answer}"
    );
    for host in ["web.localhost", "db.localhost", "nobody.localhost"] {
        let answer = get(host, "the web team's").await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"code\":4001"),
            "{answer}"
        );
    }
    // Here the guest has no such service, which it says itself.
    let answer = get("web.localhost", TOKEN).await;
    assert!(
        answer.starts_with("HTTP/1.1 5") && !answer.contains("4001"),
        "{answer}"
    );
    let lines = bridge.audited().await;
    let told = lines
        .iter()
        .map(|line| ["caller", "guest", "status"].map(|key| line[key].as_str().unwrap()));
    let told: Vec<_> = told.collect();
    assert_eq!(told[0], ["", "", "UNAUTHENTICATED"]);
    assert_eq!(told[1], ["web-team", "web", "PERMISSION_DENIED"]);
    assert_eq!(told[4][..2], ["ops", "web"]);
}

#[test]
fn what_other_machines_reach_needs_rules_and_tls() {
    let everywhere = || {
        let guest = GuestSpec::new("web", "/nowhere/web.sock");
        let builder = Bridge::builder().guest(guest);
        builder.listen("0.0.0.0:0".parse().unwrap())
    };
    let error = everywhere().build().unwrap_err();
    assert!(matches!(error, BridgeError::Exposed(_)), "{error}");
    let error = everywhere().access(spec()).build().unwrap_err();
    assert!(matches!(error, BridgeError::Plain(_)), "{error}");
    let pki = Pki::new();
    let tls = pki.bridge(false, true);
    assert!(everywhere().access(spec()).tls(tls.clone()).build().is_ok());
    let error = everywhere().tls(tls).build().unwrap_err();
    assert!(matches!(error, BridgeError::Exposed(_)), "{error}");
    let mut guest = GuestSpec::new("web", "/nowhere/web.sock");
    guest.listen = Some("[::]:0".parse().unwrap());
    let error = Bridge::builder().guest(guest).build().unwrap_err();
    assert!(matches!(error, BridgeError::Exposed(_)), "{error}");
}

// === certificates ===

/// An authority, and what it has signed, in a folder.
struct Pki {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        let pki = Self {
            issuer: Issuer::new(params, key),
            dir,
        };
        pki.sign("bridge", ExtendedKeyUsagePurpose::ServerAuth, false);
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes NAME.pem and NAME.key, a certificate for NAME.example.
    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose, expired: bool) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        params.extended_key_usages = vec![purpose];
        if expired {
            params.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn bridge(&self, with_clients: bool, require_client: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.path("bridge.pem"),
            key: self.path("bridge.key"),
            client_ca: with_clients.then(|| self.path("ca.pem")),
            require_client,
        }
    }

    /// A client that trusts this authority, and has a certificate of `own`, by its name.
    fn client(&self, own: Option<(&Self, &str)>) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted(&self.path("ca.pem")).unwrap());
        let mut client = match own {
            None => builder.with_no_client_auth(),
            Some((pki, name)) => {
                let chain = CertificateDer::from_pem_file(pki.path(&format!("{name}.pem")));
                let key = PrivateKeyDer::from_pem_file(pki.path(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(vec![chain.unwrap()], key.unwrap())
                    .unwrap()
            }
        };
        client.alpn_protocols = vec![b"h2".to_vec()];
        client
    }
}

#[tokio::test]
async fn a_certificate_proves_who_calls_and_a_wrong_or_expired_one_gets_no_connection() {
    let (pki, other) = (Pki::new(), Pki::new());
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    pki.sign("client", client.clone(), false);
    pki.sign("unknown", client.clone(), false);
    pki.sign("old", client.clone(), true);
    other.sign("client", client, false);
    let tls = pki.bridge(true, true);
    let bridge = Running::start(|builder, _| builder.access(spec()).tls(tls)).await;
    let code = async |own, token| {
        let channel = bridge.encrypted(pki.client(own));
        call(&channel, "web", COUNT, token)
            .await
            .map_err(|status| status.code())
    };
    // It comes from the right authority, and is nobody that is known.
    let unknown = Some((&pki, "unknown"));
    assert_eq!(code(unknown, None).await, Err(Code::Unauthenticated));
    for own in [None, Some((&pki, "old")), Some((&other, "client"))] {
        assert!(matches!(
            code(own, Some(TOKEN)).await,
            Err(Code::Unknown | Code::Unavailable)
        ));
    }
    let plain = call(&bridge.plain(), "web", COUNT, Some(TOKEN)).await;
    assert!(plain.is_err());
    assert_eq!(bridge.counts(), [0, 0]);
    assert_eq!(code(Some((&pki, "client")), None).await, Ok(()));
    assert_eq!(code(unknown, Some(TOKEN)).await, Ok(()));
    assert_eq!(bridge.counts(), [2, 0]);
}

#[tokio::test]
async fn new_certificates_are_for_new_connections_and_wrong_ones_change_nothing() {
    let pki = Pki::new();
    pki.sign("client", ExtendedKeyUsagePurpose::ClientAuth, false);
    let tls = pki.bridge(true, false);
    let bridge = Running::start(|builder, _| builder.access(spec()).tls(tls.clone())).await;
    let before = bridge.encrypted(pki.client(Some((&pki, "client"))));
    let mut client = BridgeClient::new(before.clone());
    let mut watch = client
        .watch_guests(WatchGuestsRequest::default())
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap().unwrap();

    std::fs::write(pki.path("bridge.key"), "no key").unwrap();
    let error = bridge
        .control
        .reload(&spec(), Some(&tls))
        .unwrap_err()
        .to_string();
    assert!(error.contains("bridge.key"), "{error}");
    // A token is enough where no certificate is required.
    let channel = bridge.encrypted(pki.client(None));
    call(&channel, "web", COUNT, Some(TOKEN)).await.unwrap();

    let new = Pki::new();
    for name in ["bridge.pem", "bridge.key"] {
        std::fs::copy(new.path(name), pki.path(name)).unwrap();
    }
    bridge.control.reload(&spec(), Some(&tls)).unwrap();
    assert!(
        call(
            &bridge.encrypted(pki.client(None)),
            "web",
            COUNT,
            Some(TOKEN)
        )
        .await
        .is_err()
    );
    let channel = bridge.encrypted(new.client(None));
    call(&channel, "web", COUNT, Some(TOKEN)).await.unwrap();
    call(&before, "web", COUNT, None).await.unwrap();
}
