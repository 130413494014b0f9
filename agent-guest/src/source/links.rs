//! Other names of disks: the links in `/dev/disk/by-*` and `/dev/mapper` that udev makes.
//!
//! | folder | what a link's name is |
//! |---|---|
//! | `by-label` | the label of the file system |
//! | `by-uuid` | its UUID |
//! | others | any name |

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use crate::limits::{MAX_DISK_ALIASES, MAX_DISK_LINKS};

/// The folder with the folders of links.
const DISK: &str = "dev/disk";

/// The names that LVM and others give.
const MAPPER: &str = "dev/mapper";

/// All links, by the name of the disk that they lead to.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Folder and name of each link.
    by_disk: HashMap<String, Vec<(String, String)>>,
}

impl Links {
    /// Reads them, [`MAX_DISK_LINKS`] at most.
    pub(crate) fn below(root: &Path) -> Self {
        let mut links = Self::default();
        let mut left = MAX_DISK_LINKS;
        let by = entries(&root.join(DISK));
        let by = by.into_iter().map(|folder| format!("{DISK}/{folder}"));
        for folder in by.chain([MAPPER.to_owned()]) {
            for name in entries(&root.join(&folder)).into_iter().take(left) {
                left -= 1;
                // Of anything else but a link there is no telling what it is.
                let Ok(target) = fs::read_link(root.join(&folder).join(&name)) else {
                    continue;
                };
                let disk = disk_name(&folder, &target);
                let known = links.by_disk.entry(disk).or_default();
                known.push((format!("/{folder}"), name));
            }
        }
        links
    }

    /// The paths under which a disk is known as well, in order, [`MAX_DISK_ALIASES`] at most.
    pub(crate) fn aliases(&self, disk: &str) -> Vec<String> {
        let links = self.by_disk.get(disk).map(Vec::as_slice);
        let paths = links.unwrap_or_default().iter();
        let mut paths: Vec<_> = paths
            .map(|(folder, name)| format!("{folder}/{name}"))
            .collect();
        paths.sort_unstable();
        paths.truncate(MAX_DISK_ALIASES);
        paths
    }

    /// The label of what is on a disk; empty if not known.
    pub(crate) fn label(&self, disk: &str) -> String {
        self.name_in("/dev/disk/by-label", disk)
    }

    /// The UUID of what is on a disk; empty if not known.
    pub(crate) fn uuid(&self, disk: &str) -> String {
        self.name_in("/dev/disk/by-uuid", disk)
    }

    fn name_in(&self, folder: &str, disk: &str) -> String {
        let links = self.by_disk.get(disk).map(Vec::as_slice);
        let mut links = links.unwrap_or_default().iter();
        let link = links.find(|(known, _)| known == folder);
        link.map(|(_, name)| unescape(name)).unwrap_or_default()
    }
}

/// The kernel's name of what a link leads to. Links are relative to their folder, and lead to `/dev`.
fn disk_name(folder: &str, target: &Path) -> String {
    let mut path: PathBuf = Path::new("/").join(folder);
    for part in target.iter() {
        match part.to_str() {
            Some("..") => {
                path.pop();
            }
            Some(".") => {}
            // An absolute target begins anew.
            _ => path.push(part),
        }
    }
    let name = path.strip_prefix("/dev").unwrap_or(&path);
    name.to_string_lossy().replace('/', "!")
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).collect()
}

/// Undoes udev's escapes: `\x20` for what must not stand in a file's name.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = rest
            .strip_prefix(b"\\x")
            .and_then(|rest| rest.get(..2))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_found_by_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        for (folder, name, target) in [
            ("dev/disk/by-label", r"my\x20disk", "../../vda1"),
            ("dev/disk/by-uuid", "1-2", "../../vda1"),
            ("dev/disk/by-id", "odd", "../../cciss/c0d0"),
            ("dev/mapper", "vg-a", "/dev/dm-0"),
        ] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            symlink(target, folder.join(name)).unwrap();
        }
        fs::write(dir.path().join("dev/mapper/control"), "").unwrap();
        let links = Links::below(dir.path());
        assert_eq!(links.label("vda1"), "my disk");
        assert_eq!(links.uuid("vda1"), "1-2");
        assert_eq!(links.uuid("vda"), "");
        assert_eq!(
            links.aliases("vda1"),
            [r"/dev/disk/by-label/my\x20disk", "/dev/disk/by-uuid/1-2"]
        );
        assert_eq!(links.aliases("cciss!c0d0"), ["/dev/disk/by-id/odd"]);
        assert_eq!(links.aliases("dm-0"), ["/dev/mapper/vg-a"]);
    }

    #[test]
    fn what_is_no_escape_is_left_as_it_is() {
        assert_eq!(unescape(r"a\x2fb"), "a/b");
        for name in [r"a\x2", r"a\xzz", r"\", "ä"] {
            assert_eq!(unescape(name), name);
        }
    }
}
