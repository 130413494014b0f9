//! Bytes that can be told from a seed and a position: a receiver checks any part of a stream without having kept it.

use bytes::{Bytes, BytesMut};

/// Bytes that are told from one number.
const WORD: u64 = 8;

/// The seed of measurements: its content is zeros that cost nothing to make, and nobody compares them.
pub const FREE: u64 = 0;

static ZEROS: [u8; 1024 * 1024] = [0; 1024 * 1024];

/// The content of `seed` from `offset` on.
pub fn bytes(seed: u64, offset: u64, len: usize) -> Bytes {
    if seed == FREE && len <= ZEROS.len() {
        return Bytes::from_static(&ZEROS[..len]);
    }
    let skip = usize::try_from(offset % WORD).expect("less than eight");
    let mut out = BytesMut::zeroed((skip + len).next_multiple_of(8));
    for (chunk, index) in out.chunks_exact_mut(8).zip(offset / WORD..) {
        chunk.copy_from_slice(&word(seed, index).to_le_bytes());
    }
    out.freeze().slice(skip..skip + len)
}

/// Compares bytes with the content of `seed` from `offset` on. Returns the position of the first wrong one.
pub fn first_difference(seed: u64, offset: u64, data: &[u8]) -> Option<u64> {
    if seed == FREE {
        return None;
    }
    let expected = bytes(seed, offset, data.len());
    if expected == data {
        return None;
    }
    let wrong = expected
        .iter()
        .zip(data)
        .position(|(expected, actual)| expected != actual);
    wrong.map(|wrong| offset + wrong as u64)
}

/// A generator of numbers for tests: the same seed, the same numbers. It is splitmix64.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    index: u64,
}

impl Random {
    /// Numbers of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed, index: 0 }
    }

    /// The seed in an environment variable, or a new one. Print it where a test fails.
    pub fn seed_from(variable: &str) -> u64 {
        if let Some(seed) = std::env::var(variable)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            return seed;
        }
        let time = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        u64::from(time.subsec_nanos()) ^ (time.as_secs() << 20)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.index += 1;
        word(self.seed, self.index)
    }

    /// The next number, less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// The next bytes.
    pub fn bytes(&mut self, len: usize) -> Bytes {
        bytes(self.number(), 0, len)
    }
}

/// One step of splitmix64.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_the_same_as_in_the_whole() {
        let whole = bytes(7, 0, 100);
        for from in 0..50 {
            for len in 0..50 {
                assert_eq!(bytes(7, from as u64, len), whole[from..from + len]);
            }
        }
        assert_ne!(bytes(8, 0, 100), whole);
    }

    #[test]
    fn the_first_wrong_byte_is_found() {
        for wrong in 0..40 {
            let mut data = bytes(3, 5, 40).to_vec();
            assert_eq!(first_difference(3, 5, &data), None);
            data[wrong] ^= 1;
            assert_eq!(first_difference(3, 5, &data), Some(5 + wrong as u64));
        }
    }
}
