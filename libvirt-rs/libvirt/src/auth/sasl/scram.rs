//! What SCRAM lets a server say (RFC 5802, section 7), checked before a mechanism is given it.

use crate::auth::limits::{MAX_ITERATIONS, MIN_ITERATIONS};

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It says that the server does not take the credentials.
    Rejected(String),
    /// It asks for so many rounds.
    Iterations(u64),
    /// It is none.
    Form(&'static str),
}

/// The first message: `r=nonce,s=salt,i=count`.
pub(super) fn check_challenge(message: &[u8]) -> Result<(), Wrong> {
    let text = text(message)?;
    let attributes: Vec<_> = text.split(',').map(attribute).collect::<Result<_, _>>()?;
    let [('r', _), ('s', salt), ('i', count)] = attributes[..] else {
        // Extensions are part of what is signed, and the mechanism would leave them out.
        return Err(Wrong::Form(
            "its first message is not nonce, salt and count",
        ));
    };
    if salt.is_empty() {
        return Err(Wrong::Form("its salt is empty"));
    }
    let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    // A count beyond all numbers is as good as the largest.
    let count = match count.parse::<u64>() {
        Ok(count) if digits => count,
        Err(_) if digits => u64::MAX,
        _ => return Err(Wrong::Form("its count is no number")),
    };
    if !(u64::from(MIN_ITERATIONS)..=u64::from(MAX_ITERATIONS)).contains(&count) {
        return Err(Wrong::Iterations(count));
    }
    Ok(())
}

/// The last message: `v=proof` or `e=error`, and perhaps extensions.
pub(super) fn check_proof(message: &[u8]) -> Result<(), Wrong> {
    let text = text(message)?;
    match text.split(',').next().map(attribute).transpose()? {
        Some(('v', proof)) if !proof.is_empty() => Ok(()),
        _ => Err(Wrong::Form("its last message is no proof")),
    }
}

/// A server's message as text, unless it is an error.
fn text(message: &[u8]) -> Result<&str, Wrong> {
    let text = std::str::from_utf8(message).map_err(|_| Wrong::Form("its message is not text"))?;
    if let Some(('e', error)) = text
        .split(',')
        .next()
        .and_then(|first| attribute(first).ok())
    {
        // It goes into logs and onto terminals, which it must not control.
        let word = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        return Err(Wrong::Rejected(
            error.chars().filter(word).take(64).collect(),
        ));
    }
    Ok(text)
}

/// A letter, `=`, and its value.
fn attribute(text: &str) -> Result<(char, &str), Wrong> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(name), Some('=')) if name.is_ascii_alphabetic() => Ok((name, chars.as_str())),
        _ => Err(Wrong::Form("its message is not of attributes like r=…")),
    }
}

/// A name or password as both ends hash it (SASLprep, RFC 4013).
///
/// One that SASLprep has no form for, such as an emoji, is taken as it is: servers store it so too, or not at all.
pub(super) fn prepared(text: &str) -> String {
    match stringprep::saslprep(text) {
        Ok(prepared) => prepared.into_owned(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_nonce_salt_and_a_sensible_count_make_a_challenge() {
        let form = |text: &str| matches!(check_challenge(text.as_bytes()), Err(Wrong::Form(_)));
        assert_eq!(check_challenge(b"r=abc,s=c2FsdA==,i=4096"), Ok(()));
        for text in [
            "",
            ",",
            "r",
            "r=",
            "r=abc",
            "r=abc,",
            "r=abc,s",
            "r=abc,s=,i=4096",
            "r=abc,s=a,",
            "r=abc,s=a,i",
            "r=abc,s=a,i=",
            "r=abc,s=a,i=x",
            "r=abc,s=a,i=-4096",
            "r=abc,s=a,i=+4096",
            "r=abc,s=a,i=4096,x=1",
            "m=1,r=abc,s=a,i=4096",
            "s=a,r=abc,i=4096",
            "é=1,s=a,i=1",
        ] {
            assert!(form(text), "{text}");
        }
        assert!(matches!(check_challenge(b"r=\xff"), Err(Wrong::Form(_))));
        for (count, asked) in [
            ("0", 0),
            ("4095", 4095),
            ("2000001", 2_000_001),
            ("4294967295", 4_294_967_295),
            ("99999999999999999999999", u64::MAX),
        ] {
            let text = format!("r=abc,s=a,i={count}");
            assert_eq!(
                check_challenge(text.as_bytes()),
                Err(Wrong::Iterations(asked))
            );
        }
    }

    #[test]
    fn only_a_proof_or_an_error_ends_the_exchange() {
        assert_eq!(check_proof(b"v=cHJvb2Y="), Ok(()));
        assert_eq!(check_proof(b"v=cHJvb2Y=,x=1"), Ok(()));
        for text in ["", "v", "v=", "x=1", ",v=a"] {
            assert!(
                matches!(check_proof(text.as_bytes()), Err(Wrong::Form(_))),
                "{text}"
            );
        }
        let rejected = Wrong::Rejected("invalid-proof1m".to_owned());
        assert_eq!(check_proof(b"e=invalid-proof\x1b[1m,x"), Err(rejected));
        let early = Wrong::Rejected("unknown-user".to_owned());
        assert_eq!(check_challenge(b"e=unknown-user"), Err(early));
    }

    #[test]
    fn names_and_passwords_are_prepared() {
        // The examples of RFC 4013, section 3.
        for (text, expected) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
        ] {
            assert_eq!(prepared(text), expected);
        }
        assert_eq!(prepared("\u{1f600}"), "\u{1f600}");
    }

    proptest! {
        #[test]
        fn no_message_makes_the_checks_panic(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check_challenge(&message);
            let _ = check_proof(&message);
        }
    }
}
