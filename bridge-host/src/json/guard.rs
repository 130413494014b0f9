//! What is refused before anything is touched: what a page of another site has a browser send.
//!
//! A browser on this machine reaches the bridge's loopback port, and any page that it shows may try to. Four things stand in the way:
//!
//! 1. A browser says of itself that a request comes from another site (`Sec-Fetch-Site`), or from which (`Origin`).
//! 2. A body must be `application/json`, which it sends to another site only if that has agreed (`OPTIONS`): this one never does.
//! 3. No answer has CORS headers, so that no page of another site can read one.
//! 4. A page can have its own host's name lead here ("DNS rebinding"), and then it is no other site. So the host must be one that
//!    nobody can have in the DNS: an address, this machine, a name without dots, or below `.localhost`; or a guest's whole name.
//!    Where callers have to prove who they are it may be any, for a page has nothing to prove it with.

use http::{HeaderMap, Uri, header};

use super::code::{Code, Failure};
use crate::routing::{GUEST_HEADER, Names, host, is_nobody};

/// Refuses what a page of another site may have caused.
pub(super) fn check<N: Names>(
    names: &N,
    anybody: bool,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Failure> {
    let from_elsewhere = |site: &header::HeaderValue| site != "same-origin" && site != "none";
    if headers.get_all("sec-fetch-site").iter().any(from_elsewhere) {
        return refused("a page of another site has sent this request");
    }
    let authority = authority(uri, headers);
    let is_another = |origin: &header::HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| {
            origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"))
        });
        origin.is_none_or(|origin| !origin.eq_ignore_ascii_case(authority))
    };
    if headers.get_all(header::ORIGIN).iter().any(is_another) {
        return refused("the header Origin names another site than this one");
    }
    match host(uri, headers) {
        Some(host) if anybody && !is_own(names, host) => refused(&format!(
            "the host of the request may be anybody's: name the guest as NAME.localhost, or use an address and the header {GUEST_HEADER}"
        )),
        _ => Ok(()),
    }
}

fn refused(detail: &str) -> Result<(), Failure> {
    Err(Failure::new(Code::PermissionDenied, detail.to_owned()))
}

/// Host and port as the client has them.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    if let Some(authority) = uri.authority() {
        return authority.as_str();
    }
    let host = headers.get(header::HOST);
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// Whether a host is none that a stranger can have.
fn is_own<N: Names>(names: &N, host: &str) -> bool {
    let is_below_localhost = || {
        host.rsplit_once('.')
            .is_some_and(|(_, last)| last.eq_ignore_ascii_case("localhost"))
    };
    is_nobody(host, names.machine())
        || !host.contains('.')
        || is_below_localhost()
        || names.find(host).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Web;

    impl Names for Web {
        type Guest = ();

        fn find(&self, name: &str) -> Option<()> {
            (name == "web" || name == "web.one").then_some(())
        }

        fn only(&self) -> Option<()> {
            Some(())
        }

        fn all(&self) -> Vec<String> {
            vec!["web".to_owned()]
        }

        fn machine(&self) -> &str {
            "hypervisor.example.net"
        }
    }

    fn checked(uri: &'static str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, header::HeaderValue::from_static(value));
        }
        check(&Web, true, &Uri::from_static(uri), &map).is_ok()
    }

    #[test]
    fn a_host_that_somebody_may_own_is_refused_and_others_are_not() {
        for host in [
            "127.0.0.1:7411",
            "[::1]:7411",
            "localhost:7411",
            "web",
            "web:7411",
            "WEB.localhost:7411",
            "virtio-rpc",
            "web.one",
            "hypervisor.example.net:7411",
        ] {
            assert!(checked("/api/v1/ping", &[("host", host)]), "{host}");
        }
        for host in [
            "web.evil.example",
            "evil.example:7411",
            "localhost.evil.example",
        ] {
            assert!(!checked("/api/v1/ping", &[("host", host)]), "{host}");
            let named = [("host", host), (GUEST_HEADER, "web")];
            assert!(!checked("/api/v1/ping", &named), "{host}");
        }
        assert!(!checked("http://web.evil.example/api/v1/ping", &[]));
        assert!(checked("http://web.localhost/api/v1/ping", &[]));
        assert!(checked("/api/v1/ping", &[]));
    }

    #[test]
    fn what_a_page_of_another_site_has_sent_is_refused() {
        let host = ("host", "web.localhost:7411");
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!checked("/api/v1/ping", &[host, ("sec-fetch-site", site)]));
        }
        for site in ["same-origin", "none"] {
            assert!(checked("/api/v1/ping", &[host, ("sec-fetch-site", site)]));
        }
        for origin in [
            "null",
            "http://evil.example",
            "http://web.localhost",
            "http://web.localhost:7412",
            "http://db.localhost:7411",
            "file://",
            "web.localhost:7411",
        ] {
            assert!(
                !checked("/api/v1/ping", &[host, ("origin", origin)]),
                "{origin}"
            );
        }
        let own = ("origin", "http://web.localhost:7411");
        assert!(checked("/api/v1/ping", &[host, own]));
        let two = [host, own, ("origin", "http://evil.example")];
        assert!(!checked("/api/v1/ping", &two));
    }
}
