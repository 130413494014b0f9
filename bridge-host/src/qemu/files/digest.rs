//! Digests: SHA-256 and MD5.

use md5::Md5;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use vbridge_api::guest::v1::{Digest, DigestAlgorithm};

use crate::qemu::refusal::invalid;

/// A digest that is being made.
#[derive(Debug)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Md5(Md5),
}

impl Hasher {
    /// For the algorithm in the field `field`.
    pub(super) fn new(field: &str, algorithm: i32) -> Result<Self, Status> {
        match DigestAlgorithm::try_from(algorithm) {
            Ok(DigestAlgorithm::Unspecified | DigestAlgorithm::Sha256) => {
                Ok(Self::Sha256(Sha256::new()))
            }
            Ok(DigestAlgorithm::Md5) => Ok(Self::Md5(Md5::new())),
            Err(_) => Err(invalid(field, "is no digest that there is")),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        let (algorithm, value) = match self {
            Self::Sha256(hasher) => (DigestAlgorithm::Sha256, hasher.finalize().to_vec()),
            Self::Md5(hasher) => (DigestAlgorithm::Md5, hasher.finalize().to_vec()),
        };
        Digest {
            algorithm: algorithm.into(),
            value,
        }
    }
}

/// Checks a caller's digest: its kind and its length.
pub(super) fn check(field: &str, digest: &Digest) -> Result<(), Status> {
    let hasher = Hasher::new(&format!("{field}.algorithm"), digest.algorithm)?;
    let length = hasher.finish().value.len();
    match digest.value.len() == length {
        true => Ok(()),
        false => {
            let len = digest.value.len();
            let description = format!("has {len} bytes, and this digest has {length}");
            Err(invalid(&format!("{field}.value"), description))
        }
    }
}
