//! How a codec tells encoder and decoder its bound: in the name of a newtype.
//!
//! serde's data model has no place for "at most 255 bytes". But every format passes a newtype through and ignores its
//! name. So a codec puts what it bounds into a newtype whose name spells the bound; this crate's encoder and decoder
//! read it, and JSON shows a plain string. The names are constants: where the calls are inlined, the compiler reads
//! them.

/// How long the next string, byte sequence or list may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A length word follows, which says no more than this.
    AtMost(u32),
    /// It is so long, and no length word says so.
    Exactly(u32),
}

impl Bound {
    /// What holds where nothing else is said: a length word can't say more.
    pub(crate) const NONE: Self = Self::AtMost(u32::MAX);

    /// The bound that a newtype's name spells, if it is one of [`AtMost`] or [`Exactly`].
    #[inline(always)]
    pub(crate) fn spelt_by(name: &str) -> Option<Self> {
        let (kind, digits) = name.as_bytes().split_first_chunk()?;
        let digits: &[u8; DIGITS] = digits.try_into().ok()?;
        let length = digits.iter().fold(0, |length, digit| {
            length << 4 | u32::from(digit.wrapping_sub(ZERO))
        });
        match kind {
            AT_MOST => Some(Self::AtMost(length)),
            EXACTLY => Some(Self::Exactly(length)),
            _ => None,
        }
    }
}

/// The name of a newtype around something that is at most `MAX` long.
pub(crate) struct AtMost<const MAX: usize>;

impl<const MAX: usize> AtMost<MAX> {
    const SPELT: [u8; LENGTH] = spell(AT_MOST, MAX);
    pub(crate) const NAME: &'static str = text(&Self::SPELT);
}

/// The name of a newtype around something that is exactly `N` long.
pub(crate) struct Exactly<const N: usize>;

impl<const N: usize> Exactly<N> {
    const SPELT: [u8; LENGTH] = spell(EXACTLY, N);
    pub(crate) const NAME: &'static str = text(&Self::SPELT);
}

/// Neither can begin the name of a Rust type.
type Kind = [u8; 5];
const AT_MOST: &Kind = b"xdr<=";
const EXACTLY: &Kind = b"xdr==";

/// Sixteen letters are the digits, the highest digit comes first.
const DIGITS: usize = 8;
const ZERO: u8 = b'a';
const DIGIT: &[u8; 16] = b"abcdefghijklmnop";

const LENGTH: usize = size_of::<Kind>() + DIGITS;

const fn spell(kind: &Kind, bound: usize) -> [u8; LENGTH] {
    // A length word can't say more, so a larger bound bounds nothing.
    let bound = if bound > u32::MAX as usize {
        u32::MAX as usize
    } else {
        bound
    };
    let mut name = [0; LENGTH];
    let mut at = 0;
    while at < kind.len() {
        name[at] = kind[at];
        at += 1;
    }
    while at < LENGTH {
        name[at] = DIGIT[bound >> (4 * (LENGTH - 1 - at)) & 0xf];
        at += 1;
    }
    name
}

const fn text(spelt: &'static [u8; LENGTH]) -> &'static str {
    match str::from_utf8(spelt) {
        Ok(name) => name,
        // Evaluated when the crate is compiled: `spell` writes ASCII only.
        Err(_) => panic!("a name is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_spells_its_bound() {
        assert_eq!(AtMost::<0>::NAME, "xdr<=aaaaaaaa");
        assert_eq!(AtMost::<0x0123_4567>::NAME, "xdr<=abcdefgh");
        for (name, bound) in [
            (AtMost::<0>::NAME, Bound::AtMost(0)),
            (AtMost::<255>::NAME, Bound::AtMost(255)),
            (AtMost::<4_194_304>::NAME, Bound::AtMost(4_194_304)),
            (AtMost::<0x89ab_cdef>::NAME, Bound::AtMost(0x89ab_cdef)),
            (AtMost::<{ usize::MAX }>::NAME, Bound::NONE),
            (Exactly::<16>::NAME, Bound::Exactly(16)),
        ] {
            assert_eq!(Bound::spelt_by(name), Some(bound), "{name}");
        }
    }

    #[test]
    fn other_names_spell_none() {
        for name in [
            "",
            "Domain",
            "xdr<=",
            "xdr<=aaaaaaa",
            "xdr<=aaaaaaaaa",
            "xdr>=aaaaaaaa",
        ] {
            assert_eq!(Bound::spelt_by(name), None, "{name}");
        }
    }
}
