use std::collections::BTreeSet;

use http::header::CONTENT_TYPE;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower_service::Service as _;

use super::*;
use crate::qemu::script::{ALL, Script, info};

/// All methods of the guest's API.
fn described() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(vbridge_api::DESCRIPTOR_SET).unwrap();
    let files = set.file.iter();
    let files = files.filter(|file| file.package() == "vbridge.guest.v1");
    files
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            let methods = service.method.iter();
            methods.map(move |method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

async fn status(script: &Arc<Script>, enabled: &[&str], path: &str) -> Status {
    let mut services = script.serve_with(&info(enabled, &[]));
    // An empty message, as far as it is wanted.
    let body = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
    let request = Request::post(path)
        .header(CONTENT_TYPE, "application/grpc")
        .body(body)
        .unwrap();
    let response = services.call(request).await.unwrap();
    Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok(""))
}

fn reason(status: &Status) -> String {
    let info = status.get_error_details().error_info().cloned();
    info.map(|info| info.reason).unwrap_or_default()
}

#[test]
fn every_method_of_the_api_stands_in_the_table_once() {
    let names: Vec<_> = METHODS
        .iter()
        .map(|method| method.name.to_owned())
        .collect();
    let set: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(set, described());
    assert_eq!(names.len(), set.len());
    let served = METHODS.iter().filter(|method| method.call.is_some());
    let served: BTreeSet<_> = served
        .map(|method| format!("{PACKAGE}{}", method.name.split_once('/').unwrap().0))
        .collect();
    assert!(served.iter().map(String::as_str).eq(services()));
    for method in METHODS {
        assert_eq!(method.call.is_none(), !method.why.is_empty());
        assert!(method.needs.iter().all(|command| ALL.contains(command)));
    }
}

#[tokio::test]
async fn what_nobody_serves_says_why_and_what_helps() {
    let script = Script::fixed([]);
    for method in METHODS.iter().filter(|method| method.call.is_none()) {
        let path = format!("/{}", method.full_name());
        let status = status(&script, &ALL, &path).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(reason(&status), "AGENT_CANNOT");
        assert!(
            status.message().contains("install vbridge-agent"),
            "{status}"
        );
    }
    for path in [
        "/",
        "/x",
        "/vbridge.guest.v1.System/Nothing",
        "/a.B/C",
        "/vbridge.guest.v2.System/Ping",
    ] {
        let status = status(&script, &ALL, path).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    assert!(script.commands().is_empty());
}

#[tokio::test]
async fn without_its_commands_no_method_is_served_and_none_is_asked() {
    let script = Script::fixed([]);
    let served = METHODS.iter().filter(|method| method.call.is_some());
    for method in served.filter(|method| !method.needs.is_empty()) {
        let path = format!("/{}", method.full_name());
        let status = status(&script, &[], &path).await;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        let needed = method
            .needs
            .iter()
            .any(|command| status.message().contains(command));
        assert!(needed, "{status}");
    }
    assert!(script.commands().is_empty());
}

#[tokio::test]
async fn no_method_panics_or_is_lost_when_the_agent_answers_nonsense() {
    use serde_json::json;
    for nonsense in [
        json!(null),
        json!("\u{1b}[2J\u{0}"),
        json!(-1),
        json!(1e308),
        json!({ "keys": 1, "paths": [1], "size": [] }),
        json!([[[[]]]]),
        json!([{ "name": "\u{202e}", "user": {}, "logical-id": 1e99 }]),
        json!({ "exited": 1, "pid": "x" }),
    ] {
        let script = Script::new(move |_, _| Ok(nonsense.clone()));
        for method in METHODS.iter().filter(|method| method.call.is_some()) {
            let path = format!("/{}", method.full_name());
            let status = status(&script, &ALL, &path).await;
            assert!(
                !matches!(status.code(), Code::Unknown | Code::Unimplemented),
                "{path}: {status}"
            );
            assert!(!status.message().chars().any(char::is_control), "{status}");
        }
    }
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    use futures_util::{StreamExt as _, stream};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut client = ServerReflectionClient::new(Script::fixed([]).serve());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = stream::once(std::future::ready(request));
    let answers = client.server_reflection_info(requests).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("a list was asked for");
    };
    let names: BTreeSet<_> = listed.service.into_iter().map(|of| of.name).collect();
    assert!(
        services().all(|service| names.contains(service)),
        "{names:?}"
    );
    assert!(!names.contains("vbridge.guest.v1.Tunnel"));
}
