//! Clients that others have written: grpcurl, and generated clients in Python and Node.
//!
//! [`add_tests`] adds the same tests to any suite that has a place with the exercise service.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::process::Command;
use tonic_reflection::pb;
use xtask::{tools, workspace};

use crate::{
    content,
    matrix::unique,
    outside::{generate_python, grpcurl, run, stream_of_json, tool},
    place::Place,
    suite::Suite,
};

/// The services that the test agent offers.
const SERVICES: [&str; 17] = [
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
    "vbridge.test.v1.Exercise",
];

/// What the tests of a suite share, as far as a client sees it.
pub trait World: Send + Sync + 'static {
    /// Where the services are.
    fn place(&self) -> Place;
}

/// Adds a test for each client and each thing it does.
pub fn add_tests<W: World>(suite: &mut Suite<W>) {
    macro_rules! add {
        ($($test:ident,)*) => {$(
            suite.test(stringify!($test), |world: Arc<W>| async move { $test(&world.place()).await });
        )*};
    }
    add! {
        grpcurl_lists_all_services,
        grpcurl_lists_without_naming_the_only_guest,
        grpcurl_describes_services_and_messages_with_their_comments,
        grpcurl_calls_every_kind_of_method,
        grpcurl_sees_metadata_failures_and_deadlines,
        reflection_v1alpha_describes_the_same_as_v1,
        a_python_client_sees_what_it_should,
        a_node_client_sees_what_it_should,
    }
}

// === grpcurl ===

async fn grpcurl_lists_all_services(place: &Place) -> Result<()> {
    let listed = grpcurl(place, &[], &["list"], "").await?.success()?;
    ensure!(listed.lines().eq(SERVICES), "{listed}");
    let methods = grpcurl(place, &[], &["list", "vbridge.test.v1.Exercise"], "")
        .await?
        .success()?;
    ensure!(
        methods.lines().count() == 12 && methods.contains("vbridge.test.v1.Exercise.Bidi"),
        "{methods}"
    );
    Ok(())
}

async fn grpcurl_lists_without_naming_the_only_guest(place: &Place) -> Result<()> {
    let place = place.clone().with_authority(place.address().to_string());
    grpcurl_lists_all_services(&place).await
}

async fn grpcurl_describes_services_and_messages_with_their_comments(place: &Place) -> Result<()> {
    let service = grpcurl(place, &[], &["describe", "vbridge.test.v1.Exercise"], "")
        .await?
        .success()?;
    ensure!(
        service.contains("// Returns each message.") && service.contains("rpc Bidi ( stream"),
        "{service}"
    );
    let message = grpcurl(
        place,
        &[],
        &["describe", "vbridge.guest.v1.MetricsSample"],
        "",
    )
    .await?
    .success()?;
    ensure!(
        message.contains(".google.protobuf.Timestamp time = 1;"),
        "{message}"
    );
    Ok(())
}

async fn grpcurl_calls_every_kind_of_method(place: &Place) -> Result<()> {
    let exercise = |method: &str| format!("vbridge.test.v1.Exercise/{method}");
    let unary = grpcurl(
        place,
        &["-d", r#"{"payload": "aGVsbG8="}"#],
        &[&exercise("Unary")],
        "",
    )
    .await?
    .json()?;
    ensure!(unary == [json!({"payload": "aGVsbG8="})], "{unary:?}");

    let messages = r#"{"payload": "YQ=="} {"payload": "Yg=="} {"payload": "Yw=="}"#;
    let counted = grpcurl(place, &["-d", "@"], &[&exercise("ClientStream")], messages)
        .await?
        .json()?;
    let sha256 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    ensure!(
        counted == [json!({"count": "3", "bytes": "3", "sha256": sha256})],
        "{counted:?}"
    );

    let request = r#"{"count": 3, "size": 8, "seed": 5}"#;
    let sent = grpcurl(
        place,
        &["-d", request, "-emit-defaults"],
        &[&exercise("ServerStream")],
        "",
    )
    .await?
    .json()?;
    let indices: Vec<_> = sent
        .iter()
        .map(|message| message["index"].clone())
        .collect();
    ensure!(indices == [0, 1, 2], "{sent:?}");

    let echoed = grpcurl(
        place,
        &["-d", "@", "-emit-defaults"],
        &[&exercise("Bidi")],
        messages,
    )
    .await?
    .json()?;
    let payloads: Vec<_> = echoed
        .iter()
        .map(|message| message["payload"].clone())
        .collect();
    ensure!(payloads == ["YQ==", "Yg==", "Yw=="], "{echoed:?}");

    let ping = grpcurl(
        place,
        &["-d", r#"{"payload": "cGluZw=="}"#],
        &["vbridge.guest.v1.System/Ping"],
        "",
    )
    .await?;
    let ping = ping.json()?;
    ensure!(
        ping.len() == 1 && ping[0]["payload"] == "cGluZw==",
        "{ping:?}"
    );

    // It ends only by its deadline, with the samples that have come.
    let request = r#"{"interval": "0.2s", "groups": ["METRIC_GROUP_MEMORY"]}"#;
    let watched = grpcurl(
        place,
        &["-max-time", "3", "-d", request],
        &["vbridge.guest.v1.Metrics/Watch"],
        "",
    )
    .await?;
    let samples = stream_of_json(&watched.stdout)?;
    ensure!(
        samples.len() >= 3,
        "{} samples\n{}{}",
        samples.len(),
        watched.stdout,
        watched.stderr
    );
    ensure!(
        samples
            .iter()
            .all(|sample| sample["sample"]["memory"]["totalBytes"].is_string()),
        "{samples:?}"
    );
    ensure!(
        watched.stderr.contains("DeadlineExceeded"),
        "{}",
        watched.stderr
    );

    let health = grpcurl(place, &["-d", "{}"], &["grpc.health.v1.Health/Check"], "")
        .await?
        .json()?;
    ensure!(health == [json!({"status": "SERVING"})], "{health:?}");
    Ok(())
}

async fn grpcurl_sees_metadata_failures_and_deadlines(place: &Place) -> Result<()> {
    let request = r#"{"answer": {
        "headers": [{"key": "x-head", "value": "b25l"}, {"key": "x-head-bin", "value": "AP8="}],
        "trailers": [{"key": "x-tail", "value": "dHdv"}]}}"#;
    let verbose = ["-v", "-H", "x-sent: yes", "-d", request];
    let seen = grpcurl(place, &verbose, &["vbridge.test.v1.Exercise/Unary"], "")
        .await?
        .success()?;
    for line in ["x-head: one", "x-head-bin: AP8=", "x-tail: two"] {
        ensure!(seen.contains(line), "no {line:?} in\n{seen}");
    }
    let echo = grpcurl(
        place,
        &["-H", "x-sent: yes"],
        &["vbridge.test.v1.Exercise/EchoMetadata"],
        "",
    )
    .await?
    .json()?;
    let sent = json!({"key": "x-sent", "value": "eWVz"});
    ensure!(
        echo[0]["metadata"]
            .as_array()
            .context("no list")?
            .contains(&sent),
        "{echo:?}"
    );

    let request = r#"{"answer": {"code": 5, "message": "no such thing"}}"#;
    let failed = grpcurl(
        place,
        &["-d", request],
        &["vbridge.test.v1.Exercise/Unary"],
        "",
    )
    .await?;
    // 64 and the code is how grpcurl ends.
    ensure!(failed.status == Some(64 + 5), "{failed:?}");
    ensure!(
        failed.stderr.contains("NotFound") && failed.stderr.contains("no such thing"),
        "{failed:?}"
    );

    let id = unique("grpcurl");
    let request = json!({ "id": id }).to_string();
    let hung = grpcurl(
        place,
        &["-max-time", "0.5", "-d", &request],
        &["vbridge.test.v1.Exercise/Hang"],
        "",
    )
    .await?;
    ensure!(hung.status == Some(64 + 4), "{hung:?}");
    Ok(())
}

// === Reflection ===

async fn reflection_v1alpha_describes_the_same_as_v1(place: &Place) -> Result<()> {
    let channel = place.channel().await?;
    macro_rules! ask {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let mut client = ServerReflectionClient::new(channel.clone());
            let request = |message| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message),
            };
            let symbol = "vbridge.test.v1.Exercise".to_owned();
            let requests = stream::iter([
                request(MessageRequest::ListServices(String::new())),
                request(MessageRequest::FileContainingSymbol(symbol)),
            ]);
            let mut answers = client.server_reflection_info(requests).await?.into_inner();
            let mut services = Vec::new();
            let mut files = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer?.message_response.context("an empty answer")? {
                    MessageResponse::ListServicesResponse(list) => {
                        services.extend(list.service.into_iter().map(|service| service.name));
                    }
                    MessageResponse::FileDescriptorResponse(found) => {
                        files.extend(found.file_descriptor_proto)
                    }
                    _ => bail!("an answer to another question"),
                }
            }
            services.sort();
            (services, files)
        }};
    }
    let (v1, v1alpha) = (ask!(v1), ask!(v1alpha));
    ensure!(v1.0 == SERVICES, "{:?}", v1.0);
    ensure!(!v1.1.is_empty(), "no file with the service");
    ensure!(v1 == v1alpha, "{v1:?} and {v1alpha:?}");
    Ok(())
}

// === Python and Node ===

async fn a_python_client_sees_what_it_should(place: &Place) -> Result<()> {
    let python = tool(tools::python())?;
    let generated = tempfile::tempdir()?;
    let protos = [
        "vbridge/test/v1/exercise.proto",
        "vbridge/guest/v1/system.proto",
        "vbridge/guest/v1/metrics.proto",
    ];
    generate_python(&proto_folders(), &protos, generated.path()).await?;
    let mut client = Command::new(python);
    client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python/client.py"));
    client
        .arg(generated.path())
        .arg(place.address().to_string())
        .arg(place.authority());
    let seen = run(client, "").await?.json().context("the Python client")?;
    let seen = seen.first().context("it said nothing")?;
    check(seen)?;
    let reflected = &seen["reflection"];
    ensure!(reflected["services"] == json!(SERVICES), "{reflected}");
    ensure!(
        reflected["methods"]
            .as_array()
            .is_some_and(|methods| methods.len() == 12),
        "{reflected}"
    );
    Ok(())
}

async fn a_node_client_sees_what_it_should(place: &Place) -> Result<()> {
    let folder = tools::node_clients();
    tool(folder.join("node_modules/@grpc/grpc-js"))?;
    let node = xtask::command::find_program("node")
        .context("node is missing: run `cargo xtask test`, which installs it")?;
    let protos: Vec<String> = proto_folders()
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    let mut client = Command::new(node);
    client.arg(folder.join("client.js")).arg(protos.join(":"));
    client
        .arg(place.address().to_string())
        .arg(place.authority());
    let seen = run(client, "").await?.json().context("the Node client")?;
    check(seen.first().context("it said nothing")?)
}

fn proto_folders() -> [PathBuf; 2] {
    [
        Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"),
        workspace::root().join("proto/api"),
    ]
}

/// Compares what a client saw with what it should have seen.
fn check(seen: &Value) -> Result<()> {
    // Clients may join the values of one name.
    let text = [json!(["plain", "second"]), json!(["plain, second"])];
    let octets = json!(["0001feff"]);
    let metadata = |of: &Value, prefix: &str| {
        text.contains(&of[format!("{prefix}-text")]) && of[format!("{prefix}-octets-bin")] == octets
    };
    let part = |name: &str| {
        seen.get(name)
            .with_context(|| format!("nothing of {name} in {seen}"))
    };
    macro_rules! holds {
        ($name:literal, |$part:ident| $condition:expr) => {
            let $part = part($name)?;
            ensure!($condition, "{}: {}", $name, $part);
        };
    }
    holds!("unary", |it| it["same"] == true
        && metadata(&it["headers"], "x-head"));
    holds!("unary", |it| metadata(&it["trailers"], "x-tail"));
    holds!("unary_failure", |it| it["code"] == 9
        && it["message"] == "no: 100 % “sure”");
    holds!("unary_failure", |it| metadata(&it["trailers"], "x-tail"));
    holds!(
        "unary_failure",
        |it| it["trailers"]["grpc-status-details-bin"] == json!(["0809"])
    );
    holds!("client_stream", |it| *it
        == json!({"count": 100, "bytes": 247_500, "same": true}));
    let sent = sha256(&content::bytes(1, 0, 200_000));
    holds!("server_stream", |it| *it
        == json!({"indices": true, "sha256": sent}));
    holds!("server_stream_failure", |it| it["count"] == 3
        && it["code"] == 10
        && it["message"] == "enough");
    holds!("server_stream_failure", |it| metadata(
        &it["trailers"],
        "x-tail"
    ));
    holds!("bidi", |it| *it
        == json!({"headers_first": true, "same": true, "code": 0}));
    holds!("echo_metadata", |it| it["x-one"] == json!(["1"])
        && it["x-octets-bin"] == json!(["00ff"]));
    holds!("echo_metadata", |it| it["x-many"] == json!(["a", "b"])
        || it["x-many"] == json!(["a, b"]));
    holds!("deadline", |it| it["code"] == 4
        && it["started"] == 1
        && it["cancelled"] == 1);
    holds!("deadline", |it| it["seconds"]
        .as_f64()
        .is_some_and(|seconds| seconds < 5.0));
    // gRPC's C core rounds a deadline up by up to 1 %.
    holds!("deadline", |it| it["seen_ms"]
        .as_u64()
        .is_some_and(|seen| (10_000..=20_500).contains(&seen)));
    holds!("cancel", |it| *it
        == json!({"code": 1, "started": 1, "cancelled": 1}));
    holds!("compressed", |it| it["same"] == true);
    let size = 64 * 1024 * 1024;
    let sent = sha256(&content::bytes(2, 0, size));
    let large = json!({"received": size, "same": true, "size": size, "sha256": sent});
    holds!("large", |it| *it == large);
    holds!("unknown", |it| it["code"] == 12);
    holds!("system", |it| it["kernel"] == "Linux"
        && it["ping"] == "ping"
        && it["cpus"].as_u64() > Some(0));
    holds!("metrics", |it| it["sequences"] == json!([1, 2, 3, 4, 5])
        && it["uptime_grows"] == true);
    holds!("metrics", |it| it["memory"] == true
        && it["busy"] == json!([true, true, true, true]));
    Ok(())
}

fn sha256(data: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
