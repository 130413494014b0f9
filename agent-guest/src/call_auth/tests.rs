//! Signatures, and what comes again.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

const NOW: u64 = 1_703_654_400;
const PING: &str = "/vbridge.guest.v1.System/Ping";
const GET: &str = "/vbridge.guest.v1.Metrics/Get";
const RUN: &str = "/vbridge.guest.v1.Exec/Run";

fn key() -> Key {
    Key::from_bytes(*b"0123456789abcdef").unwrap()
}

fn auth() -> CallAuth {
    CallAuth::new(key())
}

/// What a caller sends.
fn signed(timestamp: u64, nonce: &str, path: &str) -> HeaderMap {
    let token = key().sign_call(timestamp, nonce, path);
    let mut headers = HeaderMap::new();
    headers.insert(TOKEN, token.parse().unwrap());
    headers.insert(TIMESTAMP, timestamp.into());
    headers.insert(NONCE, nonce.parse().unwrap());
    headers
}

fn with(mut headers: HeaderMap, name: HeaderName, value: &str) -> HeaderMap {
    headers.insert(name, value.parse().unwrap());
    headers
}

fn reason(result: Result<(), Status>) -> String {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().unwrap().reason.clone();
    let is_shortage = reason == "TOO_MANY";
    let code = match is_shortage {
        true => Code::ResourceExhausted,
        false => Code::Unauthenticated,
    };
    assert_eq!(status.code(), code, "{status}");
    assert_eq!(details.retry_info().is_some(), is_shortage);
    reason
}

#[test]
fn a_call_that_is_signed_for_its_method_is_let_in_once_and_its_proof_goes_no_further() {
    let auth = auth();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut headers = with(
        signed(now, "nonce-01", PING),
        HeaderName::from_static("x-mine"),
        "1",
    );
    let again = headers.clone();
    assert!(auth.admit(PING, &mut headers).is_ok());
    assert_eq!(headers.len(), 1, "{headers:?}");
    assert_eq!(
        reason(auth.admit(PING, &mut again.clone())),
        "CALL_REPLAYED"
    );
    let other = auth.admit(GET, &mut again.clone());
    assert_eq!(reason(other), "CALL_SIGNATURE_WRONG");
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let auth = auth();
    let right = signed(NOW, "nonce-01", PING);
    let check = |headers: &HeaderMap, name: &HeaderName| {
        let result = auth.check(PING, headers, NOW);
        let text = result.clone().unwrap_err().message().to_owned();
        assert_eq!(reason(result), "CALL_NOT_SIGNED", "{text}");
        assert!(text.contains(&format!(": {name} ")), "{text}");
    };
    check(&HeaderMap::new(), &TOKEN);
    for name in [TOKEN, TIMESTAMP, NONCE] {
        let mut headers = right.clone();
        headers.remove(&name);
        check(&headers, &name);
        let mut headers = right.clone();
        headers.append(&name, right[&name].clone());
        check(&headers, &name);
    }
    let long = "x".repeat(MAX_CALL_NONCE + 1);
    for (name, wrong) in [
        (TOKEN, "00"),
        (TOKEN, &"x".repeat(64)),
        (TIMESTAMP, ""),
        (TIMESTAMP, "+1703654400"),
        (TIMESTAMP, "-1"),
        (TIMESTAMP, "1703654400.0"),
        (TIMESTAMP, "99999999999999999999"),
        (NONCE, ""),
        (NONCE, "short"),
        (NONCE, "with a blank"),
        (NONCE, &long),
    ] {
        check(&with(right.clone(), name.clone(), wrong), &name);
    }
    assert!(
        auth.check(PING, &right, NOW).is_ok(),
        "nothing was remembered"
    );
}

#[test]
fn a_signature_of_another_key_time_nonce_or_method_is_wrong_and_uses_up_no_nonce() {
    let auth = auth();
    let right = signed(NOW, "nonce-01", PING);
    let foreign = Key::from_bytes(*b"0123456789abcdeF").unwrap();
    let foreign = foreign.sign_call(NOW, "nonce-01", PING);
    for (path, headers) in [
        (PING, with(right.clone(), TOKEN, &foreign)),
        (PING, with(right.clone(), TIMESTAMP, &(NOW + 1).to_string())),
        (PING, with(right.clone(), NONCE, "nonce-02")),
        (RUN, right.clone()),
    ] {
        assert_eq!(
            reason(auth.check(path, &headers, NOW)),
            "CALL_SIGNATURE_WRONG"
        );
    }
    let upper = right[TOKEN].to_str().unwrap().to_uppercase();
    let right = with(right, TOKEN, &upper);
    assert!(auth.check(PING, &right, NOW).is_ok());
}

#[test]
fn a_time_too_far_from_the_guests_is_refused_however_it_is_signed() {
    let (auth, most) = (auth(), CALL_SKEW.as_secs());
    for (n, off) in [0, 1, most].into_iter().enumerate() {
        let nonces = [format!("before-{n}"), format!("after--{n}")];
        let [before, after] = &nonces;
        assert!(
            auth.check(PING, &signed(NOW - off, before, PING), NOW)
                .is_ok()
        );
        assert!(
            auth.check(PING, &signed(NOW + off, after, PING), NOW)
                .is_ok()
        );
    }
    for timestamp in [0, NOW - most - 1, NOW + most + 1, u64::MAX] {
        let headers = signed(timestamp, "nonce-01", PING);
        assert_eq!(reason(auth.check(PING, &headers, NOW)), "CALL_EXPIRED");
    }
}

#[test]
fn a_request_in_json_is_signed_once_for_the_methods_that_it_leads_to() {
    let auth = auth();
    let ping = with(
        signed(NOW, "nonce-01", "/api/v1/ping"),
        PATH,
        "/api/v1/ping",
    );
    for method in [PING, GET] {
        assert!(auth.check(method, &ping, NOW).is_ok(), "{method}");
        assert_eq!(reason(auth.check(method, &ping, NOW)), "CALL_REPLAYED");
    }
    assert_eq!(reason(auth.check(RUN, &ping, NOW)), "CALL_SIGNATURE_WRONG");
    // Whoever signs for one path and names another has signed for another.
    for (named, path) in [
        ("/api/v1/shell/exec", "/api/v1/ping"),
        ("/api/v1/shell/exec", RUN),
        (RUN, RUN),
        ("", RUN),
    ] {
        let headers = with(signed(NOW, "nonce-02", path), PATH, named);
        let result = auth.check(RUN, &headers, NOW);
        assert_eq!(reason(result), "CALL_SIGNATURE_WRONG", "{named}");
    }
    let mut twice = with(signed(NOW, "nonce-02", RUN), PATH, "/api/v1/ping");
    twice.append(PATH, "/api/v1/shell/exec".parse().unwrap());
    assert_eq!(reason(auth.check(RUN, &twice, NOW)), "CALL_NOT_SIGNED");
}

#[test]
fn a_nonce_is_remembered_until_its_call_is_too_old() {
    let (auth, skew) = (auth(), CALL_SKEW.as_secs());
    let headers = signed(NOW + skew, "nonce-01", PING);
    assert!(auth.check(PING, &headers, NOW).is_ok());
    for later in [0, skew, 2 * skew] {
        let result = auth.check(PING, &headers, NOW + later);
        assert_eq!(reason(result), "CALL_REPLAYED", "{later}");
    }
    let late = NOW + 2 * skew + 1;
    assert_eq!(reason(auth.check(PING, &headers, late)), "CALL_EXPIRED");
    assert!(
        auth.check(PING, &signed(late, "nonce-02", PING), late)
            .is_ok()
    );
    assert_eq!(auth.0.seen.lock().unwrap().marks.len(), 1);
    // A clock that is set back makes no call new again.
    assert_eq!(reason(auth.check(PING, &headers, NOW)), "CALL_EXPIRED");
    assert_eq!(
        reason(auth.check(PING, &signed(late, "nonce-02", PING), late)),
        "CALL_REPLAYED"
    );
}

#[test]
fn with_no_room_left_a_call_is_told_when_to_come_again_and_none_is_forgotten_before() {
    let skew = CALL_SKEW.as_secs();
    let mut seen = Seen::default();
    let mark = |n: usize| mark(PING, &n.to_string());
    for n in 0..MAX_SIGNED_CALLS {
        let timestamp = if n == 7 { NOW - 10 } else { NOW };
        seen.remember(timestamp, mark(n), NOW).unwrap();
    }
    let status = seen.remember(NOW, mark(MAX_SIGNED_CALLS), NOW).unwrap_err();
    let retry = status.get_error_details().retry_info().unwrap().retry_delay;
    assert_eq!(retry, Some(Duration::from_secs(skew - 10 + 1)));
    assert_eq!(reason(Err(status)), "TOO_MANY");
    let replayed = seen.remember(NOW, mark(0), NOW);
    assert_eq!(reason(replayed), "CALL_REPLAYED");
    let later = NOW + skew - 10 + 1;
    seen.forget(later - 1);
    assert_eq!(seen.marks.len(), MAX_SIGNED_CALLS);
    seen.forget(later);
    assert!(seen.remember(later, mark(MAX_SIGNED_CALLS), later).is_ok());
    let full = seen.remember(later, mark(MAX_SIGNED_CALLS + 1), later);
    assert_eq!(reason(full), "TOO_MANY");
}

#[test]
fn neither_key_nor_calls_are_printed() {
    assert_eq!(format!("{:?}", auth()), "CallAuth(..)");
}
