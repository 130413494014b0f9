//! The connection to a bridge, on which each call may be signed.
//!
//! | metadata | what it is |
//! |---|---|
//! | `x-timestamp` | when the call was made, in seconds since 1970 |
//! | `x-nonce` | 32 random hexadecimal digits, others for each attempt |
//! | `x-auth-token` | what [`Key::sign_call`] makes of both and of the method's path |
//!
//! It is done here and not with an interceptor, for which a call has no path. See `proto/link/src/auth.rs` for what it proves.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::{body::Body, transport::Channel};
use tower_service::Service;
use vbridge_link::Key;

const TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");
const NONCE: HeaderName = HeaderName::from_static("x-nonce");
const SIGNATURE: HeaderName = HeaderName::from_static("x-auth-token");

/// Random bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// A connection to a bridge.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Wire {
    channel: Channel,
    key: Option<Arc<Key>>,
}

// === impl Wire ===

impl Wire {
    /// Signs each call with the key, if there is one.
    pub(super) fn new(channel: Channel, key: Option<Arc<Key>>) -> Self {
        Self { channel, key }
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(key) = &self.key {
            let path = request.uri().path().to_owned();
            sign(key, &path, SystemTime::now(), request.headers_mut());
        }
        self.channel.call(request)
    }
}

/// Signs one call. Without random numbers or a clock the signature stays away, and whoever wants one refuses the call.
fn sign(key: &Key, path: &str, now: SystemTime, headers: &mut HeaderMap) {
    let mut nonce = [0; NONCE_BYTES];
    let (Ok(()), Ok(since)) = (getrandom::fill(&mut nonce), now.duration_since(UNIX_EPOCH)) else {
        return;
    };
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    let timestamp = since.as_secs();
    let signature = key.sign_call(timestamp, &nonce, path);
    headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
    for (name, digits) in [(NONCE, nonce), (SIGNATURE, signature)] {
        // Digits are always a value.
        if let Ok(mut value) = HeaderValue::try_from(digits) {
            value.set_sensitive(name == SIGNATURE);
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_attempt_is_signed_anew_for_its_path_and_its_time() {
        let key = Key::from_bytes(*b"0123456789abcdef0123456789abcdef").unwrap();
        let path = "/vbridge.guest.v1.System/Ping";
        let now = UNIX_EPOCH + Duration::from_secs(1_703_654_400);
        let signed = || {
            let mut headers = HeaderMap::new();
            sign(&key, path, now, &mut headers);
            let text = |name| headers[name].to_str().unwrap().to_owned();
            [text(TIMESTAMP), text(NONCE), text(SIGNATURE)]
        };
        let [timestamp, nonce, signature] = signed();
        assert_eq!(timestamp, "1703654400");
        assert_eq!(nonce.len(), 32);
        assert!(nonce.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert!(key.is_call_signed(1_703_654_400, &nonce, path, &signature));
        let [_, other, signature] = signed();
        assert_ne!(other, nonce);
        assert!(!key.is_call_signed(1_703_654_400, &nonce, path, &signature));
    }
}
