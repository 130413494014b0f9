//! The envelope around every answer, and the headers of each.
//!
//! ```text
//! {"version": "1.0", "code": 0, "message": "success", "data": {…}, "timestamp": 1703654400}
//! ```
//!
//! `X-Request-ID` is the request's own if that is a UUID, else a new one; `X-Response-Time` is in milliseconds.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde_json::Value;
use tonic::body::Body;
use uuid::Uuid;

use super::code::Failure;

/// The version of requests and answers.
pub(super) const VERSION: &str = "1.0";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");

/// What a request has got.
#[derive(Debug)]
pub(super) enum Answer {
    /// A message and `data`.
    Data(&'static str, Value),
    /// A JSON text as it is.
    Document(&'static str),
}

// === impl Answer ===

impl Answer {
    /// What was asked for.
    pub(super) fn success(data: Value) -> Self {
        Self::Data("success", data)
    }
}

/// What an answer repeats of its request.
#[derive(Debug)]
pub(super) struct Head {
    id: HeaderValue,
    begun: Instant,
}

// === impl Head ===

impl Head {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).filter(|id| {
            let id = id.to_str().ok();
            id.is_some_and(|id| Uuid::try_parse(id).is_ok())
        });
        Self {
            id: given.cloned().unwrap_or_else(fresh_id),
            begun: Instant::now(),
        }
    }

    /// The answer as it is sent.
    pub(super) fn respond(self, outcome: Result<Answer, Failure>) -> Response<Body> {
        let (http, headers, text) = match outcome {
            Ok(Answer::Document(text)) => (
                StatusCode::OK,
                HeaderMap::new(),
                Bytes::from_static(text.as_bytes()),
            ),
            Ok(Answer::Data(message, data)) => (
                StatusCode::OK,
                HeaderMap::new(),
                envelope(0, message, &data),
            ),
            Err(failure) => {
                let code = failure.code();
                let (http, headers) = (failure.http(), failure.headers().clone());
                let text = envelope(code.number(), code.message(), &failure.into_data());
                (http, headers, text)
            }
        };
        let mut response = Response::new(Body::new(Full::new(text)));
        *response.status_mut() = http;
        let all = response.headers_mut();
        *all = headers;
        let fixed = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        for (name, value) in fixed {
            all.insert(name, HeaderValue::from_static(value));
        }
        all.insert(REQUEST_ID, self.id);
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        all.insert(RESPONSE_TIME, millis.into());
        response
    }
}

/// Every answer but the document.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    version: &'static str,
    code: u16,
    message: &'a str,
    data: &'a Value,
    timestamp: u64,
}

fn envelope(code: u16, message: &str, data: &Value) -> Bytes {
    let envelope = Envelope {
        version: VERSION,
        code,
        message,
        data,
        timestamp: now(),
    };
    // What has only texts as names always becomes JSON.
    Bytes::from(serde_json::to_vec(&envelope).unwrap_or_default())
}

/// This machine's clock, in seconds since 1970; 0 if it stands before.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn fresh_id() -> HeaderValue {
    let mut bytes = [0; 16];
    // Without random numbers all requests have one id, which is no reason to refuse them.
    let _ = getrandom::fill(&mut bytes);
    let id = uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string();
    // A UUID is letters, digits and dashes.
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: Option<&'static str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(REQUEST_ID, HeaderValue::from_static(given));
        }
        let head = Head::of(&headers);
        head.id.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_requests_id_is_kept_if_it_is_one_and_else_made() {
        let own = "0188F1F2-7e3d-4c9a-9a57-0f6d5e4c3b2a";
        assert_eq!(id_for(Some(own)), own);
        for other in [
            None,
            Some(""),
            Some("1"),
            Some("0188f1f2-7e3d-4c9a-9a57-0f6d5e4c3b2a\u{7e}"),
        ] {
            let made = id_for(other);
            assert_eq!(
                Uuid::parse_str(&made).unwrap().get_version_num(),
                4,
                "{made}"
            );
            assert_ne!(made, id_for(other));
        }
    }
}
