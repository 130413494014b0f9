//! Who may call what.
//!
//! ```text
//!   connection: certificate, user ──▶ Peer ─┐
//!                                           ├─ callers ─▶ Caller ─ rules ─▶ allowed ─ rates ─▶ the call
//!   request: bearer token ──────────────────┘     │                 │                   │
//!                                          UNAUTHENTICATED   PERMISSION_DENIED   RESOURCE_EXHAUSTED
//! ```
//!
//! A token goes before a certificate, and this before the user at the other end of a Unix socket. Whoever proves nothing is
//! the caller [`ANONYMOUS`]; a token that is wrong, or has expired, is never nothing. The first rule that names caller,
//! guest and method decides, and where none does the call is refused.
//!
//! Without callers and rules everybody may call everything: then the bridge listens on this machine only.
//!
//! | module | what it is |
//! |---|---|
//! | `callers` | who is known, and how they prove it |
//! | `rules` | what they may call |
//! | `rates` | how often, and how much at once |
//! | `tls` | certificates: the bridge's own, and whose it takes |

mod callers;
mod rates;
mod rules;
mod tls;

use std::{fmt, net::SocketAddr, sync::Arc, time::SystemTime};

use http::{HeaderMap, header};
use tokio::sync::watch;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::error::Reason;

pub(crate) use callers::Caller;
use callers::Callers;
pub use callers::{ANONYMOUS, CallerSpec, Proof, TokenHash};
pub(crate) use rates::Place;
pub use rates::Rates;
pub use rules::Rule;
use rules::{Rules, Verdict};
pub(crate) use tls::{Acceptor, names};
pub use tls::{TlsError, TlsFiles, private_key, trusted};

/// Callers and rules, as the operator wrote them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessSpec {
    /// Who is known.
    pub callers: Vec<CallerSpec>,
    /// What they may call; the first that fits decides.
    pub rules: Vec<Rule>,
}

impl AccessSpec {
    /// Whether anybody may call anything.
    pub fn is_open(&self) -> bool {
        self.callers.is_empty() && self.rules.is_empty()
    }
}

/// Why callers and rules can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Two callers have one name.
    #[error("two callers are named \"{0}\"; give each a name of its own")]
    DuplicateCaller(String),
    /// Two callers would be told apart by nothing.
    #[error(
        "the callers \"{0}\" and \"{1}\" prove who they are by the same {2}; give each its own"
    )]
    SameProof(String, String, &'static str),
    /// A caller's name can't be used.
    #[error(
        "\"{0}\" can't be a caller's name; it has 1 to 64 letters, digits, dots, dashes, underscores and @, and is not \"{ANONYMOUS}\""
    )]
    BadName(String),
    /// A caller can't prove who it is.
    #[error(
        "the caller \"{0}\" has nothing to be known by; give it token_file, token_sha256, certificate or uid"
    )]
    NoProof(String),
    /// A certificate's name can't be one.
    #[error("the caller \"{caller}\" can't be known by the certificate \"{name}\": {why}")]
    BadCertificate {
        /// The caller.
        caller: String,
        /// What should be in its certificate.
        name: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// A rule names a caller that there is not.
    #[error(
        "rule {rule} names the caller \"{caller}\", and there is none like it; add a [[caller]] or correct the rule"
    )]
    UnknownCaller {
        /// The rule, counted from one, or its name.
        rule: String,
        /// Whom it names.
        caller: String,
    },
    /// There are callers and nothing that they may do.
    #[error("there are callers and no rules, so nobody may call anything; add a [[rule]]")]
    NoRules,
    /// More than a bridge takes.
    #[error(
        "there are {count} {what}, and the limit is {limit}; put some together, with stars in their lists"
    )]
    TooMany {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Where a TCP connection comes from.
    pub(crate) address: Option<SocketAddr>,
    /// The user at the other end of a Unix socket.
    pub(crate) uid: Option<u32>,
    /// What its certificate, which was checked, says who it is.
    pub(crate) names: Vec<String>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.uid) {
            (Some(address), _) => address.fmt(f),
            (None, Some(uid)) => write!(f, "uid:{uid}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// What is allowed now.
#[derive(Debug, Clone)]
pub(crate) struct Access(Arc<watch::Sender<Arc<Policy>>>);

/// What is allowed, from one loading to the next; everything, if it is empty.
#[derive(Debug, Default)]
pub(crate) struct Policy(Option<Ruled>);

#[derive(Debug)]
struct Ruled {
    callers: Callers,
    rules: Rules,
}

impl Access {
    pub(crate) fn new(spec: &AccessSpec) -> Result<Self, AccessError> {
        let policy = Policy::new(spec, &Policy::default())?;
        Ok(Self(Arc::new(watch::Sender::new(Arc::new(policy)))))
    }

    /// What is allowed for a call that comes now.
    pub(crate) fn now(&self) -> Arc<Policy> {
        Arc::clone(&self.0.borrow())
    }

    /// Has other callers and rules from now on. Calls under way go on.
    pub(crate) fn replace(&self, spec: &AccessSpec) -> Result<(), AccessError> {
        let policy = Policy::new(spec, &self.now())?;
        self.0.send_replace(Arc::new(policy));
        Ok(())
    }
}

impl Policy {
    /// Who was there before keeps the count of its calls.
    fn new(spec: &AccessSpec, before: &Self) -> Result<Self, AccessError> {
        if spec.is_open() {
            return Ok(Self(None));
        }
        let known = before.0.as_ref().map(|ruled| &ruled.callers);
        let callers = Callers::new(&spec.callers, known)?;
        let rules = Rules::new(&spec.rules, &callers)?;
        Ok(Self(Some(Ruled { callers, rules })))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Who calls. Takes the token out of the headers: it is not for the guest.
    pub(crate) fn caller(
        &self,
        peer: &Peer,
        headers: &mut HeaderMap,
    ) -> Result<Arc<Caller>, Status> {
        match &self.0 {
            None => Ok(Caller::anybody()),
            Some(ruled) => {
                let tokens: Vec<_> = headers
                    .get_all(header::AUTHORIZATION)
                    .iter()
                    .cloned()
                    .collect();
                headers.remove(header::AUTHORIZATION);
                ruled.callers.find(peer, &tokens, SystemTime::now())
            }
        }
    }

    /// Whether a caller may call all of these methods, which stand for one call.
    fn check(&self, caller: &Caller, guest: &str, methods: &[&str]) -> Result<(), Status> {
        let Some(Ruled { rules, .. }) = &self.0 else {
            return Ok(());
        };
        for method in methods {
            let why = match rules.verdict(caller.name(), guest, method) {
                Verdict::Allowed => continue,
                Verdict::Denied(rule) => format!("rule {rule} refuses it"),
                Verdict::NotNamed => "no rule allows it".to_owned(),
            };
            let method = shown(method);
            if caller.is_anonymous() {
                return Err(unknown(&method));
            }
            let name = caller.name();
            // The same for guests that there are and for others.
            if !rules.sees(name, guest) {
                let message = format!(
                    "caller \"{name}\" may not call {method} of that guest, nor anything else, whether there is one or not: no rule allows it"
                );
                return Err(Reason::CallerRefused.status("", message));
            }
            let message = format!("caller \"{name}\" may not call {method} of \"{guest}\": {why}");
            return Err(Reason::CallerRefused.status(guest, message));
        }
        Ok(())
    }

    /// Whether rules let somebody call who proves nothing.
    pub(crate) fn lets_anybody(&self) -> bool {
        let ruled = self.0.as_ref();
        ruled.is_none_or(|ruled| ruled.rules.lets_anybody())
    }

    /// Whether a caller may call anything of a guest. Of others it need not know.
    fn sees(&self, caller: &Caller, guest: &str) -> bool {
        let ruled = self.0.as_ref();
        ruled.is_none_or(|ruled| ruled.rules.sees(caller.name(), guest))
    }
}

/// A method's name as a caller made it up.
fn shown(method: &str) -> String {
    const MAX: usize = 200;
    let method = method.chars().take(MAX);
    method.flat_map(char::escape_debug).collect()
}

fn unknown(method: &str) -> Status {
    let message = format!(
        "{method} is not for everybody: send a token in the metadata `authorization: Bearer TOKEN`, or have a certificate that this bridge knows"
    );
    Reason::CallerUnknown.status("", message)
}

/// Who asks, and what they may: the bridge's own services find it among a request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    policy: Arc<Policy>,
    caller: Arc<Caller>,
}

impl Viewer {
    pub(crate) fn new(policy: Arc<Policy>, caller: Arc<Caller>) -> Self {
        Self { policy, caller }
    }

    /// Who sends a request. The front says so.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let viewer = request.extensions().get::<Self>().cloned();
        viewer.ok_or_else(|| Status::internal("the bridge does not know who asks"))
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether all guests are their business.
    pub(crate) fn sees_all(&self) -> bool {
        self.policy.is_open()
    }

    /// Whether this guest is any of their business.
    pub(crate) fn sees(&self, guest: &str) -> bool {
        self.policy.sees(&self.caller, guest)
    }

    /// Whether they may call all of these methods, which stand for one call, of a guest.
    pub(crate) fn may(&self, guest: &str, methods: &[&str]) -> Result<(), Status> {
        self.policy.check(&self.caller, guest, methods)
    }

    /// Whoever may not call a guest is not told either that there is none of that name.
    pub(crate) fn hide(&self, methods: &[&str], status: Status) -> Status {
        let details = status.get_details_error_info();
        let name = details.as_ref().and_then(|info| info.metadata.get("guest"));
        match name {
            Some(name) => self.may(name, methods).err().unwrap_or(status),
            None if self.caller.is_anonymous() => {
                unknown(&shown(methods.first().copied().unwrap_or_default()))
            }
            None => status,
        }
    }

    /// Everybody, who may everything.
    #[cfg(test)]
    pub(crate) fn anybody() -> Self {
        Self::new(Arc::default(), Caller::anybody())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tonic::Code;

    use super::*;

    fn spec() -> AccessSpec {
        let caller = |name: &str, proof| CallerSpec::new(name, [proof]);
        AccessSpec {
            callers: vec![
                caller("ops", Proof::Token(TokenHash::of("the operators' token"))),
                caller("web", Proof::Certificate("web.example".to_owned())),
                caller("root", Proof::Uid(0)),
            ],
            rules: vec![
                Rule::deny("no-shells", ["web"], ["*"], ["vbridge.guest.v1.Exec/*"]),
                Rule::allow("all", ["ops", "root"], ["*"], ["*"]),
                Rule::allow("", ["web"], ["web-*"], ["*"]),
                Rule::allow("", [ANONYMOUS], ["bridge"], ["grpc.health.v1.Health/*"]),
            ],
        }
    }

    fn policy() -> Policy {
        Policy::new(&spec(), &Policy::default()).unwrap()
    }

    fn bearer(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn web() -> Peer {
        Peer {
            names: vec!["web.example".to_owned()],
            ..Peer::default()
        }
    }

    const PING: &[&str] = &["/vbridge.guest.v1.System/Ping"];

    #[test]
    fn a_caller_is_known_by_token_then_certificate_then_user() {
        let policy = policy();
        let mut peer = web();
        peer.uid = Some(0);
        let name = |peer: &Peer, mut headers: HeaderMap| {
            let caller = policy.caller(peer, &mut headers).unwrap();
            assert!(!headers.contains_key(header::AUTHORIZATION));
            caller.name().to_owned()
        };
        assert_eq!(name(&peer, bearer("the operators' token")), "ops");
        assert_eq!(name(&peer, HeaderMap::new()), "web");
        peer.names.clear();
        assert_eq!(name(&peer, HeaderMap::new()), "root");
        assert_eq!(name(&Peer::default(), HeaderMap::new()), ANONYMOUS);
    }

    #[test]
    fn a_wrong_token_is_refused_even_with_a_certificate() {
        let policy = policy();
        for mut headers in [
            bearer("the operators' toke"),
            bearer(""),
            HeaderMap::from_iter([(
                header::AUTHORIZATION,
                HeaderValue::from_static("Basic eA=="),
            )]),
        ] {
            let status = policy.caller(&web(), &mut headers).unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(!status.message().contains("toke\""), "{status:?}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_is_named() {
        let policy = policy();
        let web = policy.caller(&web(), &mut HeaderMap::new()).unwrap();
        assert!(policy.check(&web, "web-1", PING).is_ok());
        let run = ["/vbridge.guest.v1.Exec/Run"];
        let status = policy.check(&web, "web-1", &run).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("rule no-shells refuses it"));
        // Of one that it may not call at all it hears the same, whether it is there or not.
        let status = policy.check(&web, "db", PING).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(!status.message().contains("db"), "{status:?}");
        let other = policy.check(&web, "nobody", PING).unwrap_err();
        assert_eq!(
            (status.message(), status.details()),
            (other.message(), other.details())
        );
        let both = [PING[0], run[0]];
        assert!(policy.check(&web, "web-1", &both).is_err());
    }

    #[test]
    fn who_proves_nothing_is_asked_to_but_for_what_is_everybodys() {
        let policy = policy();
        let nobody = policy
            .caller(&Peer::default(), &mut HeaderMap::new())
            .unwrap();
        let status = policy.check(&nobody, "web-1", PING).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        let health = ["/grpc.health.v1.Health/Check"];
        assert!(policy.check(&nobody, "bridge", &health).is_ok());
    }

    #[test]
    fn a_guest_is_seen_by_whom_it_answers_at_all() {
        let policy = policy();
        let web = policy.caller(&web(), &mut HeaderMap::new()).unwrap();
        assert!(policy.sees(&web, "web-1") && !policy.sees(&web, "db"));
    }

    #[test]
    fn without_callers_and_rules_everybody_may_call_everything() {
        let policy = Policy::new(&AccessSpec::default(), &Policy::default()).unwrap();
        // Here a token may be one of a guest's own.
        let mut headers = bearer("for the guest");
        let caller = policy.caller(&Peer::default(), &mut headers).unwrap();
        assert!(headers.contains_key(header::AUTHORIZATION));
        assert!(policy.check(&caller, "web-1", PING).is_ok() && policy.sees(&caller, "db"));
    }

    #[test]
    fn what_was_loaded_last_counts_and_what_is_wrong_changes_nothing() {
        let access = Access::new(&spec()).unwrap();
        let mut wrong = spec();
        wrong
            .rules
            .push(Rule::allow("", ["nobody-like-this"], ["*"], ["*"]));
        let error = access.replace(&wrong).unwrap_err().to_string();
        assert!(
            error.contains("rule 5") && error.contains("nobody-like-this"),
            "{error}"
        );
        let ops = |access: &Access| {
            access
                .now()
                .caller(&Peer::default(), &mut bearer("the operators' token"))
        };
        assert!(ops(&access).is_ok());
        let mut less = spec();
        less.callers.remove(0);
        less.rules[1] = Rule::allow("all", ["root"], ["*"], ["*"]);
        access.replace(&less).unwrap();
        assert!(ops(&access).is_err());
    }
}
