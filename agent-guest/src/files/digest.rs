//! Digests: SHA-256 and MD5.

use std::{fs::File, io::Read as _};

use md5::Md5;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use vbridge_api::guest::v1::{Digest, DigestAlgorithm};

use super::{
    failure::{errno, failed},
    path::GuestPath,
    work::{Step, Work},
};
use crate::{
    error,
    limits::{FILE_PIECE, FILE_STEP},
};

/// Zeros, to make digests of holes.
static ZEROS: [u8; 4096] = [0; 4096];

/// A digest that is being made.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Md5(Md5),
}

impl Hasher {
    /// For the algorithm in the field `field`.
    pub(crate) fn new(field: &str, algorithm: i32) -> Result<Self, Status> {
        match DigestAlgorithm::try_from(algorithm) {
            Ok(DigestAlgorithm::Unspecified | DigestAlgorithm::Sha256) => {
                Ok(Self::Sha256(Sha256::new()))
            }
            Ok(DigestAlgorithm::Md5) => Ok(Self::Md5(Md5::new())),
            Err(_) => Err(error::invalid_field(field, "is no digest that there is")),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn zeros(&mut self, count: u64) {
        zeros(count, |bytes| self.update(bytes));
    }

    pub(crate) fn finish(&self) -> Digest {
        match self.clone() {
            Self::Sha256(hasher) => Digest {
                algorithm: DigestAlgorithm::Sha256.into(),
                value: hasher.finalize().to_vec(),
            },
            Self::Md5(hasher) => Digest {
                algorithm: DigestAlgorithm::Md5.into(),
                value: hasher.finalize().to_vec(),
            },
        }
    }
}

/// Both digests at once, as an upload has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Both {
    sha256: Sha256,
    md5: Md5,
}

impl Both {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.md5.update(bytes);
    }

    pub(crate) fn zeros(&mut self, count: u64) {
        zeros(count, |bytes| self.update(bytes));
    }

    /// SHA-256 and MD5.
    pub(crate) fn finish(&self) -> (Vec<u8>, Vec<u8>) {
        let both = self.clone();
        (
            both.sha256.finalize().to_vec(),
            both.md5.finalize().to_vec(),
        )
    }
}

fn zeros(count: u64, mut update: impl FnMut(&[u8])) {
    let mut left = count;
    while left > 0 {
        let bytes = piece(left, ZEROS.len());
        update(ZEROS.get(..bytes).unwrap_or_default());
        left = left.saturating_sub(bytes as u64);
    }
}

/// How much of `left` goes into `most`.
pub(crate) fn piece(left: u64, most: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(most)
}

/// Whether a digest of a caller has the length that it must have.
pub(crate) fn check(field: &str, digest: &Digest) -> Result<(), Status> {
    let hasher = Hasher::new(&format!("{field}.algorithm"), digest.algorithm)?;
    let length = match hasher {
        Hasher::Sha256(_) => 32,
        Hasher::Md5(_) => 16,
    };
    match digest.value.len() == length {
        true => Ok(()),
        false => Err(error::invalid_field(
            format!("{field}.value"),
            format!(
                "has {} bytes, and this digest has {length}",
                digest.value.len()
            ),
        )),
    }
}

/// The digest of a part of a file.
#[derive(Debug)]
pub(crate) struct Checksum {
    pub(crate) file: File,
    pub(crate) path: GuestPath,
    pub(crate) hasher: Hasher,
    /// Bytes that count at most from here on.
    pub(crate) left: u64,
    /// Bytes that have counted.
    pub(crate) size: u64,
}

impl Work for Checksum {
    type Piece = (Digest, u64);

    fn step(&mut self) -> Result<Step<Self::Piece>, Status> {
        let mut buffer = vec![0; FILE_PIECE];
        for _ in 0..FILE_STEP / FILE_PIECE {
            let want = piece(self.left, buffer.len());
            let read = self
                .file
                .read(buffer.get_mut(..want).unwrap_or_default())
                .map_err(|error| failed("read", &self.path, errno(&error)))?;
            if read == 0 {
                return Ok(Step::Piece((self.hasher.finish(), self.size)));
            }
            self.hasher.update(buffer.get(..read).unwrap_or_default());
            self.left = self.left.saturating_sub(read as u64);
            self.size = self.size.saturating_add(read as u64);
        }
        Ok(Step::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_the_digest_of_zeros() {
        let count = FILE_PIECE + 7;
        for algorithm in [0, 1, 2] {
            let mut plain = Hasher::new("digest", algorithm).unwrap();
            let mut hole = plain.clone();
            plain.update(&vec![0; count]);
            hole.zeros(count as u64);
            assert_eq!(plain.finish(), hole.finish());
            check("digest", &plain.finish()).unwrap();
        }
        assert!(Hasher::new("digest", 3).is_err());
    }

    #[test]
    fn a_digest_has_its_length() {
        let mut digest = Hasher::new("digest", 2).unwrap().finish();
        digest.value.push(0);
        let status = check("digest", &digest).unwrap_err();
        assert!(
            status.message().contains("17 bytes"),
            "{}",
            status.message()
        );
    }
}
