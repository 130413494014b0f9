//! Which endpoints there are. The contract's crate has the gRPC methods that each stands for ([`super::methods`]): who may not
//! call each of them may not use it.

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    PREFIX,
    code::{Code, Failure},
};

/// The one type of body that is taken.
const JSON: &str = "application/json";

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Document,
    Ping,
    Info,
    Status,
    Exec,
    Upload,
    Download,
    Stat,
    Control,
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Behind [`PREFIX`].
    pub(super) path: &'static str,
    pub(super) method: Method,
    pub(super) what: What,
}

/// All there are.
pub(super) static ENDPOINTS: [Endpoint; 9] = [
    get("openapi.json", What::Document),
    get("ping", What::Ping),
    get("system/info", What::Info),
    get("system/status", What::Status),
    post("shell/exec", What::Exec),
    post("file/upload", What::Upload),
    post("file/download", What::Download),
    get("file/info", What::Stat),
    post("service/control", What::Control),
];

const fn get(path: &'static str, what: What) -> Endpoint {
    let method = Method::GET;
    Endpoint { path, method, what }
}

const fn post(path: &'static str, what: What) -> Endpoint {
    let method = Method::POST;
    Endpoint { path, method, what }
}

fn at(path: &str) -> Option<&'static Endpoint> {
    let path = path.strip_prefix(PREFIX)?;
    ENDPOINTS.iter().find(|endpoint| endpoint.path == path)
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint at a path, for a method that it has.
    pub(super) fn find(path: &str, method: &Method) -> Result<&'static Self, Failure> {
        let Some(endpoint) = at(path) else {
            let detail = format!(
                "there is no such endpoint: GET {PREFIX}openapi.json describes those that there are"
            );
            return Err(Failure::new(Code::EndpointNotFound, detail));
        };
        if endpoint.method == method {
            return Ok(endpoint);
        }
        let allowed = endpoint.method.as_str();
        let detail = format!("{path} takes {allowed} alone");
        Err(Failure::new(Code::EndpointNotFound, detail)
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(header::ALLOW, allowed))
    }

    /// Whether what it needs stands in a body, and not in the query.
    pub(super) fn has_body(&self) -> bool {
        self.method == Method::POST
    }

    /// A body must be called JSON: a page of another site can send other types without asking first, but not this one.
    pub(super) fn check_body(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if !self.has_body() || headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
            return Ok(());
        }
        let detail =
            format!("the body must be JSON and say so: send the header Content-Type: {JSON}");
        Err(Failure::new(Code::InvalidParams, detail).status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    }
}

/// Whether a content type is JSON's, whatever its parameters (RFC 8259 defines none).
fn is_json(value: &header::HeaderValue) -> bool {
    let kind = value.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(JSON)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::methods;

    #[test]
    fn every_endpoint_but_the_document_leads_to_methods_of_the_guest() {
        for endpoint in &ENDPOINTS {
            let path = format!("{PREFIX}{}", endpoint.path);
            let is_document = endpoint.what == What::Document;
            assert_eq!(methods(&path).is_empty(), is_document, "{path}");
        }
    }

    #[test]
    fn a_method_that_does_not_fit_is_told_which_one_does() {
        for method in ["GET", "PUT", "HEAD", "OPTIONS", "TRACE", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let failure = Endpoint::find("/api/v1/shell/exec", &method).unwrap_err();
            assert_eq!(failure.http(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(failure.headers()[header::ALLOW], "POST");
        }
        for path in ["/api/v1/", "/api/v1/Ping", "/api/v1/ping/", "/api/v1//ping"] {
            let failure = Endpoint::find(path, &Method::GET).unwrap_err();
            assert_eq!(
                (failure.http(), failure.code()),
                (StatusCode::NOT_FOUND, Code::EndpointNotFound)
            );
        }
    }

    #[test]
    fn a_body_must_be_called_json() {
        let exec = at("/api/v1/shell/exec").unwrap();
        let check = |kind: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            exec.check_body(&headers)
        };
        for kind in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(check(Some(kind)).is_ok(), "{kind}");
        }
        for kind in [
            None,
            Some("text/plain"),
            Some("text/plain; application/json"),
            Some("application/x-www-form-urlencoded"),
            Some("multipart/form-data; boundary=x"),
            Some("application/json-seq"),
        ] {
            let failure = check(kind).unwrap_err();
            assert_eq!(failure.http(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
    }
}
