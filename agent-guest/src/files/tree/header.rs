//! The headers of a tar archive's entries.

use rustix::fs::Timespec;
use tar::{EntryType, Header};

use super::{BLOCK, padding};

/// What ustar's fields hold at most: 100 bytes of a name, 7 octal digits of an id, 11 of a size or time, 32 bytes of an
/// owner's name with its NUL.
const MAX_NAME: usize = 100;
const MAX_ID: u32 = 0o7_777_777;
const MAX_NUMBER: u64 = 0o77_777_777_777;
const MAX_OWNER: usize = 31;

/// What an archive says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryType,
    /// Its path, which a slash ends if it is a directory.
    pub(crate) path: Vec<u8>,
    /// Where a link leads.
    pub(crate) link: Vec<u8>,
    /// Bytes of content that follow.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The owner's name; empty if there is none.
    pub(crate) user: String,
    pub(crate) group: String,
    pub(crate) modified: Timespec,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
}

impl Entry {
    /// Adds its header to an archive.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut header = Header::new_ustar();
        let mut extension = Extension::default();
        let name = extension.text("path", &self.path, MAX_NAME);
        let link = extension.text("linkpath", &self.link, MAX_NAME);
        let user = extension.text("uname", self.user.as_bytes(), MAX_OWNER);
        let group = extension.text("gname", self.group.as_bytes(), MAX_OWNER);
        if let Some(ustar) = header.as_ustar_mut() {
            fill(&mut ustar.name, name);
            fill(&mut ustar.linkname, link);
            fill(&mut ustar.uname, user);
            fill(&mut ustar.gname, group);
        }
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(extension.number("uid", self.uid, MAX_ID).into());
        header.set_gid(extension.number("gid", self.gid, MAX_ID).into());
        header.set_size(self.size);
        if self.size > MAX_NUMBER {
            extension.record("size", self.size.to_string().as_bytes());
        }
        let Timespec { tv_sec, tv_nsec } = self.modified;
        let seconds = u64::try_from(tv_sec).unwrap_or(0).min(MAX_NUMBER);
        header.set_mtime(seconds);
        if tv_nsec != 0 || i64::try_from(seconds) != Ok(tv_sec) {
            extension.record("mtime", decimal(tv_sec, tv_nsec).as_bytes());
        }
        // These fail only for the old format.
        let _ = header.set_device_major(self.device.0);
        let _ = header.set_device_minor(self.device.1);
        header.set_cksum();
        extension.write(name, out);
        out.extend_from_slice(header.as_bytes());
    }
}

/// A time as pax writes it. Before 1970 the fraction counts downwards.
fn decimal(seconds: i64, nanos: i64) -> String {
    match seconds < 0 && nanos > 0 {
        false => format!("{seconds}.{nanos:09}"),
        true => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Records of pax: what does not fit into a header.
#[derive(Debug, Default)]
struct Extension {
    records: Vec<u8>,
}

impl Extension {
    /// A text, or as much of it as its field has room for.
    fn text<'a>(&mut self, key: &str, text: &'a [u8], most: usize) -> &'a [u8] {
        if text.len() <= most && text.is_ascii() {
            return text;
        }
        self.record(key, text);
        text.get(..most).unwrap_or(text)
    }

    /// A number, or 0 if it has no room in its field.
    fn number(&mut self, key: &str, number: u32, most: u32) -> u32 {
        if number <= most {
            return number;
        }
        self.record(key, number.to_string().as_bytes());
        0
    }

    /// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
    fn record(&mut self, key: &str, value: &[u8]) {
        let rest = key.len() + value.len() + " =\n".len();
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.records
            .extend_from_slice(format!("{length} {key}=").as_bytes());
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }

    fn write(&self, name: &[u8], out: &mut Vec<u8>) {
        if self.records.is_empty() {
            return;
        }
        let mut header = Header::new_ustar();
        if let Some(ustar) = header.as_ustar_mut() {
            let shown: Vec<u8> = b"PaxHeaders/".iter().chain(name).copied().collect();
            fill(&mut ustar.name, &shown);
        }
        let size = self.records.len() as u64;
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&self.records);
        out.resize(out.len() + padding(size), 0);
    }
}

/// The end of an archive.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
