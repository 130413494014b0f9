//! What a decoder of replies is measured beside: one that goes byte by byte, and one by hand that is as fast as safe code
//! gets. `cargo xtask bench libvirt` takes this file as well, for the types that are generated from libvirt's protocol.
//!
//! `struct { domain domains<16384>; unsigned int ret; }`, a domain being
//! `struct { string name<4194304>; opaque uuid[16]; int id; }`: each peer is told how a domain is made of these.

/// Makes a domain of its name, UUID and number.
pub(crate) trait Make<D>: Fn(String, [u8; 16], i32) -> D {}
impl<D, F: Fn(String, [u8; 16], i32) -> D> Make<D> for F {}

const NAME_MAX: u32 = 4_194_304;
const DOMAINS_MAX: u32 = 16_384;

/// So many domains, with names as people give them, of 4 to 24 bytes.
pub(crate) fn domains<D>(count: u16, make: impl Make<D>) -> Vec<D> {
    let domains = (0..count).map(|index| {
        let [high, low] = index.to_be_bytes();
        let name = format!(
            "vm-{index}{}",
            &"-production-webserver"[..usize::from(index % 18)]
        );
        let uuid = [
            high, low, 7, 3, 0xab, 0xcd, 1, 9, high, low, 7, 3, 0xef, 0, 1, 9,
        ];
        make(name, uuid, i32::from(index))
    });
    domains.collect()
}

/// The decoder that does the same checks, and takes one byte after the other.
pub(crate) struct ByteByByte<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> ByteByByte<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// The domains, and the number behind them.
    pub(crate) fn reply<D>(&mut self, make: impl Make<D>) -> Result<(Vec<D>, u32), String> {
        let length = self.length(DOMAINS_MAX)?;
        let mut domains = Vec::new();
        for _ in 0..length {
            domains.push(self.domain(&make)?);
        }
        Ok((domains, self.word()?))
    }

    fn domain<D>(&mut self, make: &impl Make<D>) -> Result<D, String> {
        let length = self.length(NAME_MAX)?;
        let name = self.bytes(length)?;
        let name = String::from_utf8(name).map_err(|error| error.to_string())?;
        let uuid = self.bytes(16)?.try_into().map_err(|_| "uuid")?;
        Ok(make(name, uuid, self.word()?.cast_signed()))
    }

    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.input.get(self.at).ok_or("the input ends")?;
        self.at += 1;
        Ok(*byte)
    }

    fn word(&mut self) -> Result<u32, String> {
        let mut word = 0;
        for _ in 0..4 {
            word = word << 8 | u32::from(self.byte()?);
        }
        Ok(word)
    }

    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for _ in 0..len {
            bytes.push(self.byte()?);
        }
        while !self.at.is_multiple_of(4) {
            if self.byte()? != 0 {
                return Err("padding".into());
            }
        }
        Ok(bytes)
    }

    fn length(&mut self, max: u32) -> Result<u32, String> {
        let length = self.word()?;
        if length <= max {
            Ok(length)
        } else {
            Err(format!("{length} of {max}"))
        }
    }
}

/// Without serde, as fast as safe code gets: what there is to win at all.
pub(crate) fn by_hand<D>(mut input: &[u8], make: impl Make<D>) -> Option<(Vec<D>, u32)> {
    fn word(input: &mut &[u8]) -> Option<u32> {
        let (word, rest) = input.split_first_chunk()?;
        *input = rest;
        Some(u32::from_be_bytes(*word))
    }
    fn domain<D>(input: &mut &[u8], make: &impl Make<D>) -> Option<D> {
        let len = word(input).filter(|&len| len <= NAME_MAX)? as usize;
        let (name, rest) = input.split_at_checked(len)?;
        let (padding, rest) = rest.split_at_checked(len.wrapping_neg() % 4)?;
        let name = str::from_utf8(name)
            .ok()
            .filter(|_| padding.iter().all(|&byte| byte == 0))?;
        let (uuid, rest) = rest.split_first_chunk()?;
        *input = rest;
        Some(make(name.to_owned(), *uuid, word(input)?.cast_signed()))
    }
    let count = word(&mut input).filter(|&count| count <= DOMAINS_MAX)? as usize;
    let mut domains = Vec::with_capacity(count.min(input.len() / 24));
    for _ in 0..count {
        domains.push(domain(&mut input, &make)?);
    }
    let ret = word(&mut input)?;
    Some((domains, ret))
}
