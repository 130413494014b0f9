//! Whether a call is signed, in a guest that wants each call signed (`call_key_file`).
//!
//! ```text
//!   a call
//!     │ x-auth-token, x-timestamp, x-nonce: each once, and well-formed ──── no ──▶ CALL_NOT_SIGNED
//!     │ x-timestamp is within CALL_SKEW of the guest's clock ────────────── no ──▶ CALL_EXPIRED
//!     │ x-auth-path, if it is there: an endpoint that leads to the method ─ no ──▶ CALL_SIGNATURE_WRONG
//!     │ x-auth-token is HMAC-SHA256(key, TIMESTAMP\nNONCE\nPATH) ────────── no ──▶ CALL_SIGNATURE_WRONG
//!     │ the nonce: new for this method ──────────────────────────────────── no ──▶ CALL_REPLAYED
//!     │ there is room to remember it ────────────────────────────────────── no ──▶ TOO_MANY, until there is
//!     ▼
//!   the gate, and the nonce: remembered ── its timestamp is older than CALL_SKEW ──▶ forgotten
//! ```
//!
//! PATH is the method's, `/package.Service/Method`. A request of the API in JSON leads to one or two methods and is signed
//! once, for its own path; the bridge passes that on as `x-auth-path`. Whoever sends it without a bridge gains nothing: the signature is
//! over that path, and holds for the methods that the endpoint leads to and for no others.
//!
//! The metadata end here, and no service sees them. Nothing of them is logged.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};
use tonic::Status;
use vbridge_api::json;
use vbridge_link::Key;

use crate::{
    error::{self, Reason},
    limits::{CALL_SKEW, MAX_CALL_NONCE, MAX_SIGNED_CALLS, MIN_CALL_NONCE},
    policy::shown,
};

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-timestamp");
const NONCE: HeaderName = HeaderName::from_static("x-nonce");
const PATH: HeaderName = HeaderName::from_static("x-auth-path");

/// Hexadecimal digits of a token.
const TOKEN_DIGITS: usize = 64;

/// The key, and the calls that were made with it. Clones are the same.
#[derive(Clone)]
pub(crate) struct CallAuth(Arc<Inner>);

struct Inner {
    key: Key,
    seen: Mutex<Seen>,
    /// A refusal was logged, and no call has been let in since.
    is_refusing: AtomicBool,
}

/// A method and a nonce: as much of their digest as makes two of one kind a matter of malice, for which one needs the key.
type Mark = [u8; 16];

/// The calls that must not be made again.
#[derive(Default)]
struct Seen {
    marks: HashSet<Mark>,
    /// The same with the seconds that they were signed in, the first on top.
    by_time: BinaryHeap<Reverse<(u64, Mark)>>,
    /// A call of this second or of an earlier one may have been forgotten, even if the clock says again that it is new.
    forgotten: Option<u64>,
}

/// What a call says of itself.
struct Signed<'a> {
    token: &'a str,
    timestamp: u64,
    nonce: &'a str,
    /// What it was signed for, if not for the method.
    path: Option<&'a str>,
}

type Refusal = (Reason, String);

// === impl CallAuth ===

impl CallAuth {
    pub(crate) fn new(key: Key) -> Self {
        Self(Arc::new(Inner {
            key,
            seen: Mutex::default(),
            is_refusing: AtomicBool::new(false),
        }))
    }

    /// Lets a call of `/package.Service/Method` in, once, and takes its proof from the metadata; or says why not.
    pub(crate) fn admit(&self, path: &str, headers: &mut HeaderMap) -> Result<(), Status> {
        // Before 1970 nothing is signed.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let admitted = self.check(path, headers, now.unwrap_or_default().as_secs());
        for name in [TOKEN, TIMESTAMP, NONCE, PATH] {
            headers.remove(name);
        }
        let was_refusing = self
            .0
            .is_refusing
            .swap(admitted.is_err(), Ordering::Relaxed);
        admitted.inspect_err(|status| {
            // Only the first of many: whoever has no key must not fill the log.
            if !was_refusing {
                let (path, why) = (shown(path), status.message());
                tracing::warn!("a call of {path} was refused: {}", why.escape_debug());
            }
        })
    }

    fn check(&self, path: &str, headers: &HeaderMap, now: u64) -> Result<(), Status> {
        let refused = |(reason, why): Refusal| error::failure(reason, why);
        let signed = Signed::read(headers).map_err(refused)?;
        signed.check_time(now).map_err(refused)?;
        signed.check_token(&self.0.key, path).map_err(refused)?;
        // Nothing that holds it can panic half-way.
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget(now);
        seen.remember(signed.timestamp, mark(path, signed.nonce), now)
    }
}

impl fmt::Debug for CallAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallAuth(..)")
    }
}

// === impl Signed ===

impl<'a> Signed<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let token = only(headers, &TOKEN)?;
        let timestamp = only(headers, &TIMESTAMP)?;
        let nonce = only(headers, &NONCE)?;
        if token.len() != TOKEN_DIGITS || !token.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(not_signed(&TOKEN, "must be 64 hexadecimal digits"));
        }
        let is_number = timestamp.bytes().all(|it| it.is_ascii_digit());
        let timestamp = timestamp.parse().ok().filter(|_| is_number);
        let timestamp =
            timestamp.ok_or_else(|| not_signed(&TIMESTAMP, "must be the seconds since 1970"))?;
        let is_nonce = (MIN_CALL_NONCE..=MAX_CALL_NONCE).contains(&nonce.len())
            && nonce.bytes().all(|it| it.is_ascii_graphic());
        if !is_nonce {
            let rule =
                format!("must be {MIN_CALL_NONCE} to {MAX_CALL_NONCE} visible characters of ASCII");
            return Err(not_signed(&NONCE, &rule));
        }
        let path = match headers.contains_key(PATH) {
            true => Some(only(headers, &PATH)?),
            false => None,
        };
        Ok(Self {
            token,
            timestamp,
            nonce,
            path,
        })
    }

    fn check_time(&self, now: u64) -> Result<(), Refusal> {
        let (off, most) = (now.abs_diff(self.timestamp), CALL_SKEW.as_secs());
        match off <= most {
            true => Ok(()),
            false => Err((
                Reason::CallExpired,
                format!(
                    "{TIMESTAMP} is {off} s off the guest's clock, and {most} s is the most: sign the call anew, or set the clocks"
                ),
            )),
        }
    }

    fn check_token(&self, key: &Key, method: &str) -> Result<(), Refusal> {
        let wrong = |why: String| Err((Reason::CallSignatureWrong, why));
        if let Some(path) = self.path
            && !json::methods(path).contains(&method)
        {
            return wrong(format!(
                "{PATH} is no endpoint that leads to {method}: sign the method's own path, and leave {PATH} out"
            ));
        }
        let path = self.path.unwrap_or(method);
        match key.is_call_signed(self.timestamp, self.nonce, path, self.token) {
            true => Ok(()),
            false => wrong(format!(
                "{TOKEN} is not the HMAC-SHA256 of {TIMESTAMP}, {NONCE} and {path}, a line each, with this guest's key: look at the key and at what is signed"
            )),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Forgets what is too old to be made again.
    fn forget(&mut self, now: u64) {
        while let Some(Reverse((timestamp, mark))) = self.by_time.peek()
            && timestamp.saturating_add(CALL_SKEW.as_secs()) < now
        {
            self.forgotten = self.forgotten.max(Some(*timestamp));
            self.marks.remove(mark);
            self.by_time.pop();
        }
    }

    fn remember(&mut self, timestamp: u64, mark: Mark, now: u64) -> Result<(), Status> {
        if self.marks.contains(&mark) {
            let why = format!(
                "a call of this method with this {NONCE} was made already: sign each call with a nonce of its own"
            );
            return Err(error::failure(Reason::CallReplayed, why));
        }
        if self.forgotten.is_some_and(|until| timestamp <= until) {
            let why = format!(
                "the guest's clock was set back, and a call of this {TIMESTAMP} may have been made already: sign it for a later time"
            );
            return Err(error::failure(Reason::CallExpired, why));
        }
        if self.marks.len() >= MAX_SIGNED_CALLS {
            let first = self
                .by_time
                .peek()
                .map_or(now, |Reverse((first, _))| *first);
            let end = first.saturating_add(CALL_SKEW.as_secs()).saturating_add(1);
            let retry = Duration::from_secs(end.saturating_sub(now).max(1));
            let why = format!(
                "this guest remembers {MAX_SIGNED_CALLS} signed calls, and has no room for one more: call again when the first is too old, and less often"
            );
            return Err(error::failure_for(Reason::TooMany, why, retry));
        }
        self.marks.insert(mark);
        self.by_time.push(Reverse((timestamp, mark)));
        Ok(())
    }
}

/// The one value of a name.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(not_signed(name, "is missing")),
        (Some(value), None) => value
            .to_str()
            .map_err(|_| not_signed(name, "must be visible characters of ASCII")),
        (Some(_), Some(_)) => Err(not_signed(name, "is there twice")),
    }
}

fn not_signed(name: &HeaderName, what: &str) -> Refusal {
    let why = format!(
        "this guest wants each call signed, with {TOKEN}, {TIMESTAMP} and {NONCE}: {name} {what}"
    );
    (Reason::CallNotSigned, why)
}

fn mark(path: &str, nonce: &str) -> Mark {
    // Neither of them has a newline in it.
    let digest = Sha256::digest(format!("{nonce}\n{path}"));
    let mut mark = Mark::default();
    mark.iter_mut()
        .zip(digest)
        .for_each(|(to, byte)| *to = byte);
    mark
}

#[cfg(test)]
mod tests;
