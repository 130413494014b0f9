//! Which guest a call is for.
//!
//! In this order:
//!
//! 1. a listener that belongs to one guest;
//! 2. metadata `x-vbridge-guest: NAME`;
//! 3. the host of `:authority`: `NAME`, `NAME.localhost` or `NAME.anything`; names may have dots, the longest fits;
//! 4. an authority that names no guest on purpose (an IP address, `localhost`, this machine's name, a socket path, or `virtio-rpc`,
//!    which clients of the API in JSON were designed to send, where no guest is called that): the only guest there is, for everything but the bridge's own services.
//!
//! The name `bridge` is the bridge itself. Where no guest is meant, the bridge answers its own services.

use std::net::IpAddr;

use http::{HeaderMap, Uri};
use tonic::Status;

use crate::{bridge::MAX_NAME, error::Reason};

/// Metadata that names the guest.
pub const GUEST_HEADER: &str = "x-vbridge-guest";

/// The name of the bridge itself.
pub const BRIDGE_NAME: &str = "bridge";

/// What clients of the API in JSON send as their host, by its design.
pub(crate) const DESIGNED_HOST: &str = "virtio-rpc";

/// Guests that an error message names at most.
const MAX_NAMES: usize = 20;

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<G> {
    Bridge,
    Guest(G),
}

/// The names that can be routed to.
pub(crate) trait Names {
    type Guest;

    /// The guest of that name, in any letter case, or of that UUID.
    fn find(&self, name: &str) -> Option<Self::Guest>;
    /// The only guest there is.
    fn only(&self) -> Option<Self::Guest>;
    /// All names, ordered.
    fn all(&self) -> Vec<String>;
    /// This machine's host name.
    fn machine(&self) -> &str;
}

/// Decides whom a call is for.
pub(crate) fn route<N: Names>(
    names: &N,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Target<N::Guest>, Status> {
    if let Some(name) = headers.get(GUEST_HEADER) {
        let name = name.to_str().map_err(|_| {
            Reason::GuestNotFound.status("", "the metadata x-vbridge-guest is not a name")
        })?;
        return named(names, name);
    }
    match host(uri, headers) {
        Some(host) if !is_nobody(host, names.machine()) && !is_designed(names, host) => {
            by_host(names, host)
        }
        _ if is_own_service(uri.path()) => Ok(Target::Bridge),
        _ => match names.only() {
            Some(guest) => Ok(Target::Guest(guest)),
            None if is_shared_service(uri.path()) => Ok(Target::Bridge),
            None => Err(not_named(names)),
        },
    }
}

/// The host that a request names, without its port.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    // HTTP/2 has `:authority`; some clients send `host` instead.
    match uri.host() {
        Some(host) => Some(host),
        None => headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(host_of),
    }
}

/// What is the same for names that mean the same guest.
pub(crate) fn name_key(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// The guest of that name, or a status that names those that exist.
pub(crate) fn find<N: Names>(names: &N, name: &str) -> Result<N::Guest, Status> {
    names.find(name).ok_or_else(|| not_found(names, name))
}

/// Without a status: one lists the guests, which costs more than all else here.
fn target<N: Names>(names: &N, name: &str) -> Option<Target<N::Guest>> {
    if name.eq_ignore_ascii_case(BRIDGE_NAME) {
        return Some(Target::Bridge);
    }
    names.find(name).map(Target::Guest)
}

fn named<N: Names>(names: &N, name: &str) -> Result<Target<N::Guest>, Status> {
    target(names, name).ok_or_else(|| not_found(names, name))
}

/// The longest run of labels, from the left, that is a name.
fn by_host<N: Names>(names: &N, host: &str) -> Result<Target<N::Guest>, Status> {
    let mut candidate = host;
    loop {
        // A client may send labels by the thousand, and what is longer is no name.
        if candidate.len() <= MAX_NAME
            && let Some(target) = target(names, candidate)
        {
            return Ok(target);
        }
        match candidate.rsplit_once('.') {
            Some((shorter, _)) => candidate = shorter,
            None => return Err(not_found(names, host.split('.').next().unwrap_or(host))),
        }
    }
}

/// Whether a host names no guest on purpose.
pub(crate) fn is_nobody(host: &str, machine: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.is_empty()
        || bare.parse::<IpAddr>().is_ok()
        || bare.eq_ignore_ascii_case("localhost")
        || bare.eq_ignore_ascii_case(machine)
        // What clients make of a Unix socket's path.
        || bare.starts_with('/')
        || bare.starts_with('%')
}

/// Whether it is the design's host, and no guest's name.
fn is_designed<N: Names>(names: &N, host: &str) -> bool {
    host.eq_ignore_ascii_case(DESIGNED_HOST) && names.find(host).is_none()
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn is_own_service(path: &str) -> bool {
    path.starts_with("/vbridge.host.")
}

fn is_shared_service(path: &str) -> bool {
    path.starts_with("/grpc.reflection.") || path.starts_with("/grpc.health.")
}

/// What is said of a name that no guest has.
pub(crate) fn not_found<N: Names>(names: &N, name: &str) -> Status {
    let name: String = name
        .chars()
        .take(100)
        .collect::<String>()
        .escape_debug()
        .collect();
    let message = format!("no guest is named \"{name}\"; {}", existing(names));
    Reason::GuestNotFound.status(&name, message)
}

fn not_named<N: Names>(names: &N) -> Status {
    let message = format!(
        "the call does not say which guest it is for: use NAME.localhost as authority or metadata {GUEST_HEADER}; {}",
        existing(names)
    );
    Reason::GuestNotNamed.status("", message)
}

fn existing<N: Names>(names: &N) -> String {
    let all = names.all();
    match all.len() {
        0 => "this bridge has no guests".to_owned(),
        len if len <= MAX_NAMES => format!("the guests are: {}", all.join(", ")),
        len => format!(
            "the guests are: {} and {} more",
            all[..MAX_NAMES].join(", "),
            len - MAX_NAMES
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http::HeaderValue;

    use super::*;

    struct Guests(&'static [&'static str]);

    impl Names for Guests {
        type Guest = &'static str;

        fn find(&self, name: &str) -> Option<&'static str> {
            self.0
                .iter()
                .copied()
                .find(|guest| guest.eq_ignore_ascii_case(name))
        }

        fn only(&self) -> Option<&'static str> {
            (self.0.len() == 1).then(|| self.0[0])
        }

        fn all(&self) -> Vec<String> {
            self.0.iter().map(ToString::to_string).collect()
        }

        fn machine(&self) -> &str {
            "hypervisor"
        }
    }

    fn to(guests: &'static [&'static str], uri: &str) -> Result<Target<&'static str>, Status> {
        route(&Guests(guests), &uri.parse().unwrap(), &HeaderMap::new())
    }

    const PING: &str = "/vbridge.guest.v1.System/Ping";

    #[test]
    fn an_authority_names_a_guest_by_its_first_labels() {
        for host in [
            "web",
            "web:7411",
            "web.localhost",
            "WEB.localhost:1",
            "web.example.org",
        ] {
            assert_eq!(
                to(&["db", "web"], &format!("http://{host}{PING}")).unwrap(),
                Target::Guest("web")
            );
        }
    }

    #[test]
    fn the_host_that_the_design_writes_means_the_only_guest_unless_one_is_called_that() {
        let uri = "http://virtio-rpc/api/v1/ping";
        assert_eq!(to(&["web"], uri).unwrap(), Target::Guest("web"));
        assert_eq!(
            to(&["web", "virtio-rpc"], uri).unwrap(),
            Target::Guest("virtio-rpc")
        );
        let error = to(&["web", "db"], uri).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
    }

    /// How often something was looked for, and the guests were listed.
    #[derive(Default)]
    struct Counting {
        finds: Cell<usize>,
        lists: Cell<usize>,
    }

    impl Names for Counting {
        type Guest = ();

        fn find(&self, name: &str) -> Option<()> {
            self.finds.set(self.finds.get() + 1);
            (name == "web").then_some(())
        }

        fn only(&self) -> Option<()> {
            None
        }

        fn all(&self) -> Vec<String> {
            self.lists.set(self.lists.get() + 1);
            vec!["web".to_owned()]
        }

        fn machine(&self) -> &str {
            "hypervisor"
        }
    }

    #[test]
    fn guests_are_listed_for_nobody_who_finds_one_and_once_for_who_sends_labels_by_the_thousand() {
        let names = Counting::default();
        let host = "http://web.example.org/a.B/C".parse().unwrap();
        assert_eq!(
            route(&names, &host, &HeaderMap::new()).unwrap(),
            Target::Guest(())
        );
        assert_eq!((names.finds.get(), names.lists.get()), (3, 0));
        let many = format!("http://{}/a.B/C", "a.".repeat(10_000));
        let uri = many.parse().unwrap();
        route(&names, &uri, &HeaderMap::new()).unwrap_err();
        assert_eq!(names.lists.get(), 1);
        assert!(names.finds.get() < 200, "{}", names.finds.get());
    }

    #[test]
    fn the_longest_name_with_dots_wins() {
        let guests: &[&str] = &["vm", "vm.one"];
        assert_eq!(
            to(guests, &format!("http://vm.one{PING}")).unwrap(),
            Target::Guest("vm.one")
        );
        assert_eq!(
            to(guests, &format!("http://vm.one.localhost{PING}")).unwrap(),
            Target::Guest("vm.one")
        );
        assert_eq!(
            to(guests, &format!("http://vm.two{PING}")).unwrap(),
            Target::Guest("vm")
        );
    }

    #[test]
    fn a_single_guest_needs_no_name_and_several_do() {
        for host in [
            "127.0.0.1:7411",
            "[::1]:7411",
            "localhost:7411",
            "hypervisor",
        ] {
            let uri = format!("http://{host}{PING}");
            assert_eq!(to(&["web"], &uri).unwrap(), Target::Guest("web"));
            let status = to(&["db", "web"], &uri).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains("db, web"), "{}", status.message());
        }
    }

    #[test]
    fn an_unknown_guest_is_not_found_and_the_answer_names_those_that_exist() {
        let status = to(&["db", "web"], &format!("http://mail.localhost{PING}")).unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert!(
            status.message().contains("\"mail\""),
            "{}",
            status.message()
        );
        assert!(status.message().contains("db, web"), "{}", status.message());
    }

    #[test]
    fn metadata_goes_before_the_authority() {
        let mut headers = HeaderMap::new();
        headers.insert(GUEST_HEADER, HeaderValue::from_static("db"));
        let uri = format!("http://web.localhost{PING}").parse().unwrap();
        assert_eq!(
            route(&Guests(&["db", "web"]), &uri, &headers).unwrap(),
            Target::Guest("db")
        );
    }

    #[test]
    fn the_bridge_answers_for_itself_where_no_guest_is_meant() {
        let list = "/vbridge.host.v1.Bridge/ListGuests";
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(
            to(&["web"], &format!("http://localhost{list}")).unwrap(),
            Target::Bridge
        );
        assert_eq!(
            to(&["db", "web"], &format!("http://localhost{reflection}")).unwrap(),
            Target::Bridge
        );
        assert_eq!(
            to(&["web"], &format!("http://bridge.localhost{reflection}")).unwrap(),
            Target::Bridge
        );
        assert_eq!(
            to(&["web"], &format!("http://localhost{reflection}")).unwrap(),
            Target::Guest("web")
        );
    }
}
