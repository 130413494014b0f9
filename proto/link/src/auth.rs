//! Authentication by a pre-shared key: each end proves that it knows the key, for this session only.
//!
//! ```text
//! proof = HMAC-SHA256(key, "vbridge-link" ‖ role ‖ version ‖ session ‖ nonce of host ‖ nonce of guest ‖ windows)
//! ```
//!
//! Each end contributes a nonce, so that neither a recorded greeting nor a recorded answer is of use; the role keeps
//! one end's proof from being sent back as the other's; the rest ties the proof to what was agreed. It authenticates
//! the ends at the session's beginning. It does not encrypt or sign what follows: that would be for TLS on top.

use std::{fmt, io, path::Path};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    limits::{MAX_KEY, MIN_KEY},
    record::SessionId,
};

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 32;

/// A key that both ends of a link know.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// Takes the bytes as they are: any, [`MIN_KEY`] to [`MAX_KEY`] of them, from a good source of randomness.
    ///
    /// # Errors
    /// Too few or too many bytes.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            MIN_KEY..=MAX_KEY => Ok(Self(bytes)),
            length => Err(KeyError::Length(length)),
        }
    }

    /// Reads a key file. White space at its end does not count, so that an editor's newline does no harm.
    ///
    /// # Errors
    /// The file can't be read, or holds too few or too many bytes.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let mut file = io::Read::take(std::fs::File::open(path)?, MAX_KEY as u64 + 2);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        Self::from_bytes(bytes)
    }

    /// What proves one call to an agent that wants each call proven: HMAC-SHA256 over `TIMESTAMP\nNONCE\nPATH` in lowercase
    /// hexadecimal digits. `timestamp` is in seconds since 1970; `path` is the gRPC method's, or that of the JSON API.
    ///
    /// It says who calls, and when. It does not cover what is sent: that is what TLS is for.
    pub fn sign_call(&self, timestamp: u64, nonce: &str, path: &str) -> String {
        let mac = self.call_mac(timestamp, nonce, path).finalize();
        let digits = mac.into_bytes();
        digits.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether this is what [`Key::sign_call`] says. It takes as long for a wrong one as for a right one.
    pub fn is_call_signed(&self, timestamp: u64, nonce: &str, path: &str, digits: &str) -> bool {
        let digit = |byte: u8| (byte as char).to_digit(16);
        let pair = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(pair).collect();
        let mac = self.call_mac(timestamp, nonce, path);
        bytes.is_some_and(|bytes| mac.verify_slice(&bytes).is_ok())
    }

    fn call_mac(&self, timestamp: u64, nonce: &str, path: &str) -> Hmac<Sha256> {
        // HMAC takes keys of any length: the only error of `new_from_slice` can't happen.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap_or_else(|_| unreachable!());
        mac.update(format!("{timestamp}\n{nonce}\n{path}").as_bytes());
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Too short or too long.
    #[error("a key has {MIN_KEY} to {MAX_KEY} bytes, and this one has {0}")]
    Length(usize),
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whose proof it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Host,
    Guest,
}

/// What both ends have agreed on when they prove the key.
#[derive(Debug, Clone)]
pub(crate) struct Transcript {
    pub(crate) version: u32,
    pub(crate) session: SessionId,
    pub(crate) host_nonce: Vec<u8>,
    pub(crate) guest_nonce: Vec<u8>,
    pub(crate) host_window: u32,
    pub(crate) guest_window: u32,
}

impl Transcript {
    fn mac(&self, key: &Key, role: Role) -> Hmac<Sha256> {
        // HMAC takes keys of any length: the only error of `new_from_slice` can't happen.
        let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).unwrap_or_else(|_| unreachable!());
        mac.update(b"vbridge-link");
        mac.update(match role {
            Role::Host => b"host.",
            Role::Guest => b"guest",
        });
        mac.update(&self.version.to_be_bytes());
        mac.update(&self.session.0);
        for nonce in [&self.host_nonce, &self.guest_nonce] {
            mac.update(&u64::try_from(nonce.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(nonce);
        }
        mac.update(&self.host_window.to_be_bytes());
        mac.update(&self.guest_window.to_be_bytes());
        mac
    }

    pub(crate) fn prove(&self, key: &Key, role: Role) -> Vec<u8> {
        self.mac(key, role).finalize().into_bytes().to_vec()
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, key: &Key, role: Role, proof: &[u8]) -> bool {
        self.mac(key, role).verify_slice(proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_signed_as_any_other_hmac_sha256_does_it_and_nothing_else_is_taken_for_it() {
        let key = Key::from_bytes(*b"0123456789abcdef0123456789abcdef").unwrap();
        let path = "/vbridge.guest.v1.System/Ping";
        // printf '1703654400\nn-1\n/vbridge.guest.v1.System/Ping' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let signed = "469f6b2ad423394fade66fb6d021567d43dd059f52dbbb64c22f1d70670c46cc";
        assert_eq!(key.sign_call(1_703_654_400, "n-1", path), signed);
        let holds = |timestamp, nonce, path, digits: &str| {
            key.is_call_signed(timestamp, nonce, path, digits)
        };
        assert!(holds(1_703_654_400, "n-1", path, signed));
        assert!(!holds(1_703_654_401, "n-1", path, signed));
        assert!(!holds(1_703_654_400, "n-2", path, signed));
        assert!(!holds(1_703_654_400, "n-1", "/", signed));
        for wrong in ["", "4", "xy", "é9", &signed[2..], &signed.replace('4', "5")] {
            assert!(!holds(1_703_654_400, "n-1", path, wrong), "{wrong}");
        }
    }

    fn transcript() -> Transcript {
        Transcript {
            version: 1,
            session: SessionId([7; 16]),
            host_nonce: vec![1; NONCE],
            guest_nonce: vec![2; NONCE],
            host_window: 3,
            guest_window: 4,
        }
    }

    #[test]
    fn a_proof_holds_for_its_key_its_role_and_its_greeting_only() {
        let key = Key::from_bytes(*b"0123456789abcdef").unwrap();
        let proof = transcript().prove(&key, Role::Guest);
        assert!(transcript().verify(&key, Role::Guest, &proof));
        assert!(!transcript().verify(&key, Role::Host, &proof));
        let other = Key::from_bytes(*b"0123456789abcdeF").unwrap();
        assert!(!transcript().verify(&other, Role::Guest, &proof));
        for change in [
            |t: &mut Transcript| t.version = 2,
            |t: &mut Transcript| t.session.0[15] = 0,
            |t: &mut Transcript| t.host_nonce[0] = 0,
            |t: &mut Transcript| t.guest_nonce.truncate(31),
            |t: &mut Transcript| t.host_window = 4,
            |t: &mut Transcript| t.guest_window = 3,
        ] {
            let mut changed = transcript();
            change(&mut changed);
            assert!(!changed.verify(&key, Role::Guest, &proof), "{changed:?}");
        }
        assert!(!transcript().verify(&key, Role::Guest, &proof[..31]));
        assert!(!transcript().verify(&key, Role::Guest, b""));
    }

    #[test]
    fn a_key_is_neither_too_short_nor_too_long_and_never_printed() {
        assert!(Key::from_bytes(vec![1; MIN_KEY - 1]).is_err());
        assert!(Key::from_bytes(vec![1; MAX_KEY + 1]).is_err());
        let key = Key::from_bytes(*b"0123456789abcdef").unwrap();
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
