//! Extended headers: pax's records (POSIX pax(1)) and GNU's long names, which say what has no room in a header.

use rustix::fs::Timespec;
use tar::EntryType;
use tonic::Status;

use super::parse::{damaged, sparse};

/// What extensions say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Long {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) modified: Option<Timespec>,
}

impl Long {
    /// Takes what a whole extended header says.
    pub(super) fn add(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), Status> {
        let until_nul = |bytes: &[u8]| {
            let mut parts = bytes.split(|&byte| byte == 0);
            parts.next().unwrap_or_default().to_vec()
        };
        match kind {
            EntryType::GNULongName => self.path = Some(until_nul(bytes)),
            EntryType::GNULongLink => self.link = Some(until_nul(bytes)),
            _ => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (key, value, others) =
                        split(rest).ok_or_else(|| damaged("extended header"))?;
                    self.record(key, value)?;
                    rest = others;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Status> {
        fn number<N: std::str::FromStr>(value: &[u8]) -> Result<Option<N>, Status> {
            let text = std::str::from_utf8(value).ok();
            let number = text.and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| damaged("extended header"))
        }
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"uname" => self.user = text(),
            b"gname" => self.group = text(),
            b"mtime" => self.modified = Some(time(value).ok_or_else(|| damaged("time"))?),
            key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
            _ => {}
        }
        Ok(())
    }
}

/// The key and the value of the first record, `LENGTH KEY=VALUE\n`, and the others. The crate `tar` reads records as
/// lines, but a value may have several: a name may.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = bytes.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(bytes.get(..digits)?)
        .ok()?
        .parse()
        .ok()?;
    let record = bytes.get(digits + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let (key, value) = record.split_at(equals);
    Some((key, value.get(1..)?, bytes.get(length..)?))
}

/// Seconds with or without a fraction. Before 1970 the fraction counts downwards.
fn time(value: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction.get(..fraction.len().min(9))?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{digits:0<9}").parse().ok()?;
    let (tv_sec, tv_nsec) = match whole.starts_with('-') && nanos > 0 {
        false => (seconds, nanos),
        true => (seconds.checked_sub(1)?, 1_000_000_000 - nanos),
    };
    Some(Timespec { tv_sec, tv_nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says_and_may_have_lines() {
        let (key, value, rest) = split(b"12 path=a\nb\n7 x=yz\n").unwrap();
        assert_eq!((key, value), (&b"path"[..], &b"a\nb"[..]));
        assert_eq!(split(rest), Some((&b"x"[..], &b"yz"[..], &b""[..])));
        for wrong in [
            "", "5", "x a=b\n", "9 a=b\n", "5 a=b", "1 a=b\n", "5 ab\n", "0 \n", "-1 a=b\n",
        ] {
            assert_eq!(split(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let of = |text: &str| time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(of("12"), Some((12, 0)));
        assert_eq!(of("12.5"), Some((12, 500_000_000)));
        assert_eq!(of("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(of("-1.000000001"), Some((-2, 999_999_999)));
        for wrong in ["", "x", "1.x", "1.-5"] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
