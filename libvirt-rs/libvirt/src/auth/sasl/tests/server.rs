//! A server of SCRAM, written from RFC 5802 alone.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256, Sha512};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) & 63;
            text.push(if at <= chunk.len() {
                ALPHABET[index as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

pub(super) fn unbase64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let digits = text.trim_end_matches('=').bytes();
    let digits: Vec<_> = digits
        .map(|digit| ALPHABET.iter().position(|&each| each == digit).unwrap())
        .collect();
    for chunk in digits.chunks(4) {
        let bits = chunk.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - chunk.len()));
        for at in 0..chunk.len() - 1 {
            bytes.push(u8::try_from((bits >> (16 - 8 * at)) & 0xff).unwrap());
        }
    }
    bytes
}

#[derive(Clone, Copy)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let message = parts.concat();
        match self {
            Self::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
                mac.chain_update(&message).finalize().into_bytes().to_vec()
            }
            Self::Sha512 => {
                let mac = Hmac::<Sha512>::new_from_slice(key).unwrap();
                mac.chain_update(&message).finalize().into_bytes().to_vec()
            }
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    /// RFC 5802's Hi().
    fn salted(self, password: &str, salt: &[u8], count: u32) -> Vec<u8> {
        let mut last = self.mac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()]);
        let mut all = last.clone();
        for _ in 1..count {
            last = self.mac(password.as_bytes(), &[&last]);
            all = xor(&all, &last);
        }
        all
    }
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter()
        .zip(right)
        .map(|(left, right)| left ^ right)
        .collect()
}

/// A server of RFC 5802 that knows one password.
pub(super) struct Server {
    hash: Hash,
    password: &'static str,
    pub(super) salt: Vec<u8>,
    count: u32,
    pub(super) nonce: &'static str,
    /// The client's first message without its header, and this server's answer.
    said: String,
}

impl Server {
    pub(super) fn new(hash: Hash, password: &'static str) -> Self {
        Self {
            hash,
            password,
            salt: b"salt of this user".to_vec(),
            count: 4096,
            nonce: "%of-server",
            said: String::new(),
        }
    }

    pub(super) fn challenge(&mut self, first: &[u8]) -> String {
        let first = std::str::from_utf8(first).unwrap();
        // The header: no channel binding, and whom to act as.
        let bare = first.splitn(3, ',').nth(2).unwrap();
        let (_, nonce) = bare.split_once(",r=").unwrap();
        let salt = base64(&self.salt);
        let answer = format!("r={nonce}{},s={salt},i={}", self.nonce, self.count);
        self.said = format!("{bare},{answer}");
        answer
    }

    /// Its proof, if the client's is right.
    pub(super) fn proof(&self, last: &[u8]) -> Option<String> {
        let last = std::str::from_utf8(last).unwrap();
        let (without, proof) = last.split_once(",p=").unwrap();
        let signed = format!("{},{without}", self.said);
        let salted = self.hash.salted(self.password, &self.salt, self.count);
        let client = self.hash.mac(&salted, &[b"Client Key"]);
        let stored = self.hash.digest(&client);
        let signature = self.hash.mac(&stored, &[signed.as_bytes()]);
        if self.hash.digest(&xor(&unbase64(proof), &signature)) != stored {
            return None;
        }
        let server = self.hash.mac(&salted, &[b"Server Key"]);
        Some(format!(
            "v={}",
            base64(&self.hash.mac(&server, &[signed.as_bytes()]))
        ))
    }
}
