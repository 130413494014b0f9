//! Who is known, and how they prove it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use http::HeaderValue;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::{
    AccessError, Peer,
    rates::{Place, Rates, Throttle},
};
use crate::{error::Reason, limits::MAX_CALLERS};

/// Who proves nothing.
pub const ANONYMOUS: &str = "anonymous";

/// What a certificate's fingerprint begins with.
pub(super) const FINGERPRINT: &str = "sha256:";

/// The longest name of a caller.
const MAX_NAME: usize = 64;

/// The SHA-256 of a bearer token: the token itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// That of a token.
    pub fn of(token: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// As `sha256sum` writes it: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut hash = [0; 32];
        if bytes.len() != 64 {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(bytes.chunks(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            let value = digit(*digits.first()?)? * 16 + digit(*digits.last()?)?;
            *byte = u8::try_from(value).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who has it can try tokens for it.
        f.write_str("TokenHash(..)")
    }
}

/// How a caller proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// `authorization: Bearer TOKEN`.
    Token(TokenHash),
    /// A name in its certificate: a DNS name, a URI, or `sha256:` and the certificate's fingerprint in hexadecimal digits.
    Certificate(String),
    /// The user at the other end of a Unix socket.
    Uid(u32),
}

/// A caller as the operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSpec {
    /// What rules and the audit log call it.
    pub name: String,
    /// Each of them is enough.
    pub proofs: Vec<Proof>,
    /// From then on it is not known any more.
    pub expires: Option<SystemTime>,
    /// How often it may call, and how much at once.
    pub rates: Rates,
}

impl CallerSpec {
    /// A caller whose proofs do not expire, and who may call as often as it likes.
    pub fn new(name: impl Into<String>, proofs: impl IntoIterator<Item = Proof>) -> Self {
        Self {
            name: name.into(),
            proofs: proofs.into_iter().collect(),
            expires: None,
            rates: Rates::default(),
        }
    }
}

/// Somebody who calls.
#[derive(Debug)]
pub(crate) struct Caller {
    name: String,
    expires: Option<SystemTime>,
    throttle: Arc<Throttle>,
}

impl Caller {
    /// Everybody, where no rules are.
    pub(super) fn anybody() -> Arc<Self> {
        static ANYBODY: LazyLock<Arc<Caller>> = LazyLock::new(|| Caller::anonymous(String::new()));
        Arc::clone(&ANYBODY)
    }

    fn anonymous(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            expires: None,
            throttle: Arc::new(Throttle::new(Rates::default())),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// A place for a call now.
    pub(crate) fn admit(&self) -> Result<Place, Status> {
        self.throttle.admit(&self.name)
    }
}

/// All that are known.
#[derive(Debug)]
pub(super) struct Callers {
    by_name: HashMap<String, Arc<Caller>>,
    by_token: HashMap<TokenHash, Arc<Caller>>,
    by_certificate: HashMap<String, Arc<Caller>>,
    by_uid: HashMap<u32, Arc<Caller>>,
    nobody: Arc<Caller>,
}

impl Callers {
    pub(super) fn new(specs: &[CallerSpec], before: Option<&Self>) -> Result<Self, AccessError> {
        if specs.len() > MAX_CALLERS {
            return Err(AccessError::TooMany {
                count: specs.len(),
                what: "callers",
                limit: MAX_CALLERS,
            });
        }
        let nobody = before.map(|before| Arc::clone(&before.nobody));
        let mut callers = Self {
            by_name: HashMap::new(),
            by_token: HashMap::new(),
            by_certificate: HashMap::new(),
            by_uid: HashMap::new(),
            nobody: nobody.unwrap_or_else(|| Caller::anonymous(ANONYMOUS.to_owned())),
        };
        for spec in specs {
            callers.add(spec, before)?;
        }
        Ok(callers)
    }

    fn add(&mut self, spec: &CallerSpec, before: Option<&Self>) -> Result<(), AccessError> {
        let name = &spec.name;
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_@".contains(c);
        if name.is_empty()
            || name.len() > MAX_NAME
            || name == ANONYMOUS
            || !name.chars().all(is_allowed)
        {
            return Err(AccessError::BadName(name.escape_debug().to_string()));
        }
        if spec.proofs.is_empty() {
            return Err(AccessError::NoProof(name.clone()));
        }
        let before = before.and_then(|before| before.by_name.get(name));
        let throttle = match before {
            Some(before) if *before.throttle.rates() == spec.rates => Arc::clone(&before.throttle),
            _ => Arc::new(Throttle::new(spec.rates)),
        };
        let caller = Arc::new(Caller {
            name: name.clone(),
            expires: spec.expires,
            throttle,
        });
        if self
            .by_name
            .insert(name.clone(), Arc::clone(&caller))
            .is_some()
        {
            return Err(AccessError::DuplicateCaller(name.clone()));
        }
        for proof in &spec.proofs {
            let caller = Arc::clone(&caller);
            let (other, what) = match proof {
                Proof::Token(hash) => (self.by_token.insert(*hash, caller), "token"),
                Proof::Certificate(it) => {
                    let key = certificate_key(it).map_err(|why| AccessError::BadCertificate {
                        caller: name.clone(),
                        name: it.escape_debug().to_string(),
                        why,
                    })?;
                    (self.by_certificate.insert(key, caller), "certificate")
                }
                Proof::Uid(uid) => (self.by_uid.insert(*uid, caller), "uid"),
            };
            if let Some(other) = other {
                let other = other.name.clone();
                return Err(AccessError::SameProof(other, name.clone(), what));
            }
        }
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    pub(super) fn find(
        &self,
        peer: &Peer,
        tokens: &[HeaderValue],
        now: SystemTime,
    ) -> Result<Arc<Caller>, Status> {
        let known = |caller: &Arc<Caller>| match caller.expires {
            Some(expires) if expires <= now => {
                let at = humantime::format_rfc3339_seconds(expires);
                let message = format!(
                    "caller \"{}\" has expired at {at}; ask for new access",
                    caller.name
                );
                Err(Reason::CallerUnknown.status("", message))
            }
            _ => Ok(Arc::clone(caller)),
        };
        if let Some(token) = tokens.first() {
            // Of scheme and token only the first may be told in an error, or logged.
            let token = token.as_bytes();
            let (scheme, rest) = token.split_at_checked(7).unwrap_or((token, &[]));
            let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
            let hash = TokenHash::of(rest.trim_ascii());
            let is_only = tokens.len() == 1;
            return match self.by_token.get(&hash).filter(|_| is_bearer && is_only) {
                Some(caller) => known(caller),
                None => Err(Reason::CallerUnknown.status(
                    "",
                    "the metadata `authorization` has no token that this bridge knows; it must be `Bearer TOKEN`, once",
                )),
            };
        }
        let mut names = peer.names.iter();
        if let Some(caller) = names.find_map(|name| self.by_certificate.get(name)) {
            return known(caller);
        }
        match peer.uid.and_then(|uid| self.by_uid.get(&uid)) {
            Some(caller) => known(caller),
            None => Ok(Arc::clone(&self.nobody)),
        }
    }
}

/// What a certificate's name is looked for by: each kind looks another way, and is no other's.
fn certificate_key(name: &str) -> Result<String, &'static str> {
    if let Some(digits) = name.strip_prefix(FINGERPRINT) {
        let digits = digits.replace(':', "").to_ascii_lowercase();
        return match TokenHash::parse(&digits) {
            Some(_) => Ok(format!("{FINGERPRINT}{digits}")),
            None => Err("a fingerprint has 64 hexadecimal digits"),
        };
    }
    match name.contains(':') {
        // A URI. Letter case counts in its path.
        true => Ok(name.to_owned()),
        false if name.is_empty() => Err("it is empty"),
        false => Ok(name.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written_by_sha256sum() {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert!(TokenHash::parse(hash) == Some(TokenHash::of("test")));
        assert!(TokenHash::parse(&hash.to_uppercase()) == Some(TokenHash::of("test")));
        for wrong in ["", "9f86", &hash.replace('9', "g"), &format!("{hash}00")] {
            assert!(TokenHash::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn what_has_expired_is_not_known_any_more() {
        let now = SystemTime::now();
        let find = |expires| {
            let mut spec = CallerSpec::new("a", [Proof::Token(TokenHash::of("t"))]);
            spec.expires = Some(expires);
            let callers = Callers::new(&[spec], None).unwrap();
            let token = HeaderValue::from_static("bearer t");
            callers.find(&Peer::default(), &[token], now)
        };
        assert_eq!(find(now + Duration::from_secs(1)).unwrap().name(), "a");
        let status = find(now).unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("expired"), "{status:?}");
    }

    #[test]
    fn callers_that_can_not_be_told_apart_or_known_are_refused() {
        let caller = |name: &str, uid: u32| CallerSpec::new(name, [Proof::Uid(uid)]);
        let error = |specs: &[CallerSpec]| Callers::new(specs, None).unwrap_err().to_string();
        let told = error(&[caller("a", 7), caller("b", 7)]);
        assert!(told.contains("\"a\" and \"b\" prove who they are by the same uid"));
        assert!(error(&[caller("a", 7), caller("a", 8)]).contains("two callers are named \"a\""));
        assert!(error(&[CallerSpec::new("a", [])]).contains("token_file"));
        for name in ["", ANONYMOUS, "a b", "a\u{1b}", &"a".repeat(65)] {
            assert!(error(&[caller(name, 7)]).contains("caller's name"));
        }
    }

    #[test]
    fn a_certificates_fingerprint_is_taken_as_openssl_writes_it() {
        let digits = "ab".repeat(32);
        let pairs = vec!["AB"; 32].join(":");
        let key = format!("sha256:{digits}");
        assert_eq!(certificate_key(&format!("sha256:{pairs}")).unwrap(), key);
        assert_eq!(certificate_key("Ops.Example").unwrap(), "ops.example");
        assert_eq!(certificate_key("urn:Ops").unwrap(), "urn:Ops");
        assert!(certificate_key("sha256:abcd").is_err() && certificate_key("").is_err());
    }
}
