//! What a request proves to a guest whose agent wants each call signed (`call_key_file` there).
//!
//! | the request's header | the call's metadata |
//! |---|---|
//! | `X-Auth-Token`, `X-Timestamp`, `X-Nonce` | the same |
//! | its path, without the query | `x-auth-path`: what was signed |
//!
//! The bridge has no part in it: it neither knows the key nor looks at the signature. A request without a token, which may have
//! a time stamp nevertheless, has none of them passed on.

use http::{HeaderMap, HeaderName, HeaderValue, Request};

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// The others that are passed on as they are.
const BESIDE: [HeaderName; 2] = [
    HeaderName::from_static("x-timestamp"),
    HeaderName::from_static("x-nonce"),
];

const PATH: HeaderName = HeaderName::from_static("x-auth-path");

/// The metadata of all calls that the request leads to.
pub(super) fn proof<B>(request: &Request<B>) -> HeaderMap {
    let mut proof = HeaderMap::new();
    let headers = request.headers();
    // A path that is found among the endpoints is a header's value as well.
    let path = HeaderValue::from_str(request.uri().path());
    if let (true, Ok(path)) = (headers.contains_key(TOKEN), path) {
        proof.insert(PATH, path);
        for name in [TOKEN].iter().chain(&BESIDE) {
            // One that is there twice is the agent's to refuse.
            for value in headers.get_all(name) {
                proof.append(name, value.clone());
            }
        }
    }
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(headers: &[(&str, &str)]) -> Vec<String> {
        let mut request = Request::get("http://localhost/api/v1/file/info?path=/etc/hosts");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let proof = proof(&request.body(()).unwrap());
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = proof.iter().map(line).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn what_was_signed_is_passed_on_with_its_path_and_nothing_else() {
        let all = passed(&[
            ("X-Auth-Token", "00ff"),
            ("X-Timestamp", "1703654400"),
            ("X-Nonce", "n-1"),
            ("X-Request-ID", "7"),
            ("x-auth-path", "/api/v1/shell/exec"),
            ("authorization", "Bearer x"),
        ]);
        let expected = [
            "x-auth-path: /api/v1/file/info",
            "x-auth-token: 00ff",
            "x-nonce: n-1",
            "x-timestamp: 1703654400",
        ];
        assert_eq!(all, expected);
        let twice = passed(&[("x-auth-token", "1"), ("x-auth-token", "2")]);
        assert_eq!(twice.len(), 3, "{twice:?}");
    }

    #[test]
    fn a_request_without_a_token_proves_nothing() {
        let path = ("x-auth-path", "/api/v1/shell/exec");
        assert!(passed(&[("X-Timestamp", "1703654400"), path]).is_empty());
    }
}
