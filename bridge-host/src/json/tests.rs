//! The API without a guest, and its document held to the code.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::Value;

use super::*;
use crate::{
    GuestSpec,
    limits::{
        DEFAULT_JSON_DOWNLOAD, DEFAULT_JSON_TIMEOUT, MAX_JSON_BODY, MAX_JSON_DETAIL,
        MAX_JSON_DIGEST, MAX_JSON_DOWNLOAD, MAX_JSON_OUTPUT, MAX_JSON_TIMEOUT, MIN_JSON_TIMEOUT,
    },
    routing::route,
};

/// An API with one guest, which is not there.
fn api() -> Api {
    let guests = Guests::new();
    let guest = guests.add(GuestSpec::new("web", "/nowhere/web.sock"));
    assert!(guest.is_ok());
    Api::new(guests)
}

async fn send<B>(api: &Api, request: Request<B>) -> (StatusCode, HeaderMap, Value)
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let admit = |_: &[&str], request: &mut Request<B>| {
        Ok(route(&api.guests, request.uri(), request.headers())?)
    };
    let (response, _) = api.serve(true, admit, request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    (parts.status, parts.headers, body)
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://localhost{PREFIX}{path}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://localhost{PREFIX}{path}"))
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn every_answer_is_an_envelope_with_its_headers() {
    let api = api();
    let mut asked = get("nothing");
    let id = "1d3f9c04-95b6-4b4f-8a53-0a1f0d6f9a11";
    asked
        .headers_mut()
        .insert("x-request-id", id.parse().unwrap());
    let (status, headers, body) = send(&api, asked).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(headers["x-request-id"], id);
    let millis: u64 = headers["x-response-time"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(millis < 60_000);
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert!(
        !headers
            .keys()
            .any(|name| name.as_str().starts_with("access-control"))
    );
    assert_eq!(body["version"], "1.0");
    assert_eq!(body["code"], 3001);
    assert_eq!(body["data"]["error_type"], "ENDPOINT_NOT_FOUND");
    assert!(body["timestamp"].as_u64().unwrap() > 1_700_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_not_there_is_5002_as_soon_as_for_other_calls() {
    let begun = tokio::time::Instant::now();
    let (status, headers, body) = send(&api(), get("ping")).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &5002.into())
    );
    assert_eq!(body["data"]["reason"], "GUEST_UNREACHABLE");
    assert_eq!(headers[header::RETRY_AFTER], "1");
    assert!(begun.elapsed() <= crate::limits::DEFAULT_WAIT * 2);
}

#[tokio::test]
async fn which_guest_is_meant_is_told_as_for_other_calls() {
    let api = api();
    let mut other = get("ping");
    let name = GUEST_HEADER;
    other.headers_mut().insert(name, "mail".parse().unwrap());
    let (status, _, body) = send(&api, other).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::NOT_FOUND, &3001.into())
    );
    assert_eq!(body["data"]["reason"], "GUEST_NOT_FOUND");
    let mut bridge = get("ping");
    bridge
        .headers_mut()
        .insert(name, BRIDGE_NAME.parse().unwrap());
    let (status, _, _) = send(&api, bridge).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        api.guests
            .add(GuestSpec::new("db", "/nowhere/db.sock"))
            .is_ok()
    );
    let (status, _, body) = send(&api, get("ping")).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::BAD_REQUEST, &2003.into())
    );
}

#[tokio::test]
async fn a_wrong_request_is_refused_before_any_guest_is_waited_for() {
    let api = api();
    for (request, code) in [
        (post("shell/exec", "{"), 2002),
        (post("shell/exec", "{}"), 2003),
        (
            post("shell/exec", r#"{"command": "ls", "user": "x"}"#),
            2001,
        ),
        (
            post("file/download", r#"{"path": "/a", "length": 1048577}"#),
            2001,
        ),
        (
            post("service/control", r#"{"name": "x", "action": "mask"}"#),
            2001,
        ),
        (get("file/info"), 2003),
        (get("ping?verbose=1"), 2001),
    ] {
        let (status, _, body) = send(&api, request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body["code"], code, "{body}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let api = api();
    let told = post("file/upload", vec![b' '; MAX_JSON_BODY + 1]);
    let (status, _, body) = send(&api, told).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &2001.into())
    );
    let chunk = Bytes::from(vec![b' '; 1024 * 1024]);
    let endless =
        std::iter::repeat(chunk).map(|chunk| Ok::<_, BoxError>(http_body::Frame::data(chunk)));
    let untold = post("file/upload", "").map(|_| StreamBody::new(tokio_stream::iter(endless)));
    let (status, _, body) = send(&api, untold).await;
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &2001.into())
    );
}

#[tokio::test(start_paused = true)]
async fn bodies_that_do_not_come_hold_their_place_only_for_a_while() {
    let api = api();
    let stuck = || {
        let none = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>();
        post("shell/exec", "").map(|_| StreamBody::new(none))
    };
    // Each may turn out to be as large as one may be.
    let fit = MAX_JSON_BODIES / MAX_JSON_BODY;
    let waiting = join_all((0..fit).map(|_| send(&api, stuck())));
    let (waiting, (status, headers, body)) = tokio::join!(waiting, send(&api, stuck()));
    assert_eq!(
        (status, &body["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &5002.into())
    );
    assert_eq!(headers[header::RETRY_AFTER], "1");
    for (status, _, body) in waiting {
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::GATEWAY_TIMEOUT, &6002.into())
        );
    }
    let (status, _, _) = send(&api, post("shell/exec", "{}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_even_before_its_question() {
    let api = api();
    for method in [Method::OPTIONS, Method::POST, Method::GET] {
        let mut request = post("shell/exec", r#"{"command": "true"}"#);
        *request.method_mut() = method;
        let origin = "http://evil.example".parse().unwrap();
        request.headers_mut().insert(header::ORIGIN, origin);
        let (status, headers, body) = send(&api, request).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::FORBIDDEN, &4001.into())
        );
        assert!(
            !headers
                .keys()
                .any(|name| name.as_str().starts_with("access-control"))
        );
    }
}

// === the document ===

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// Every value of a member of that name, however deep.
fn members<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members_of) => {
            for (key, value) in members_of {
                if key == name {
                    found.push(value);
                }
                members(value, name, found);
            }
        }
        Value::Array(values) => {
            for value in values {
                members(value, name, found);
            }
        }
        _ => {}
    }
}

/// What a member of that name may be, wherever a schema says so.
fn choices(name: &str) -> BTreeSet<String> {
    let document = document();
    let mut schemas = Vec::new();
    members(&document, name, &mut schemas);
    let mut choices = BTreeSet::new();
    for schema in schemas {
        if let Some(one) = schema.get("const") {
            choices.insert(one.to_string());
        }
        for one in schema
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            choices.insert(one.to_string());
        }
    }
    choices
}

#[test]
fn the_document_has_the_endpoints_that_there_are() {
    let document = document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served = endpoint::ENDPOINTS.iter().map(|endpoint| {
        (
            format!("{PREFIX}{}", endpoint.path),
            endpoint.method.to_string(),
        )
    });
    assert_eq!(described, served.collect());
}

#[test]
fn the_document_has_the_codes_that_there_are() {
    let numbers = Code::ALL.iter().map(|code| code.number().to_string());
    let numbers = numbers.chain(["0".to_owned()]);
    assert_eq!(choices("code"), numbers.collect());
    let names = Code::ALL.iter().map(|code| format!("\"{}\"", code.name()));
    assert_eq!(choices("error_type"), names.collect());
}

#[test]
fn the_document_has_the_limits_that_there_are() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let number = |schema: &Value, name: &str| schema[name].as_f64().unwrap();
    let timeout = &schemas["Timeout"];
    assert_eq!(number(timeout, "minimum"), MIN_JSON_TIMEOUT.as_secs_f64());
    assert_eq!(number(timeout, "maximum"), MAX_JSON_TIMEOUT.as_secs_f64());
    assert_eq!(
        number(timeout, "default"),
        DEFAULT_JSON_TIMEOUT.as_secs_f64()
    );
    let download = &schemas["Download"]["properties"];
    assert_eq!(download["length"]["maximum"], MAX_JSON_DOWNLOAD);
    assert_eq!(download["length"]["default"], DEFAULT_JSON_DOWNLOAD);
    assert_eq!(download["offset"]["maximum"], files::MAX_OFFSET);
    for (words, number) in [
        (format!("larger than {MAX_JSON_BODY} bytes"), 1),
        (format!("\"maxLength\": {MAX_JSON_DETAIL}"), 2),
        (format!("first {MAX_JSON_OUTPUT} bytes"), 1),
        (format!("at most {} MiB", MAX_JSON_DIGEST / 1024 / 1024), 1),
    ] {
        assert!(DOCUMENT.matches(&words).count() >= number, "{words}");
    }
}
