//! `/proc/self/mountinfo`: which file systems hold data.

use std::collections::{HashMap, HashSet};

use crate::limits::MAX_FILESYSTEMS;

/// Where the kernel tells of them.
pub(crate) const FILE: &str = "proc/self/mountinfo";

/// A mounted file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: String,
    pub(crate) source: String,
    pub(crate) kind: String,
    /// Nothing can be written through this mount.
    pub(crate) read_only: bool,
    /// Nothing can be written at all: the file system itself is read-only.
    pub(crate) sealed: bool,
    /// The device number, as MAJOR:MINOR. Its major number is 0 without a block device.
    pub(crate) device: String,
    /// As mount(8) shows them.
    pub(crate) options: String,
    /// How many were mounted before it.
    pub(crate) order: usize,
}

/// Types that hold the kernel's own objects and no data.
const PSEUDO: &[&str] = &[
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "ipathfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "spufs",
    "sysfs",
    "tracefs",
    "usbfs",
    "usbdevfs",
];

/// Types that live in memory: there is nothing of them on a disk.
const MEMORY: &[&str] = &["ramfs", "rootfs", "tmpfs"];

/// Types whose server may be gone, so that a call on them takes for ever.
const REMOTE: &[&str] = &[
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
    "smbfs",
    "virtiofs",
];

impl Mount {
    /// Whether a server answers for it.
    pub(crate) fn is_remote(&self) -> bool {
        REMOTE.contains(&self.kind.as_str())
            || self.kind == "fuse"
            || self.kind.starts_with("fuse.")
    }

    /// Whether it holds the kernel's own objects and no data.
    pub(crate) fn is_pseudo(&self) -> bool {
        PSEUDO.contains(&self.kind.as_str())
    }

    /// Whether its data is in memory alone.
    pub(crate) fn is_in_memory(&self) -> bool {
        MEMORY.contains(&self.kind.as_str())
    }

    /// Whether it is the same file system as `other`, perhaps elsewhere: a bind mount, a directory of it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.device, &self.kind) == (&other.device, &other.kind)
    }

    fn content(&self) -> (String, String) {
        (self.device.clone(), self.kind.clone())
    }
}

/// Reads the mounts that hold data, in the order in which they were mounted; a file system that is mounted several times
/// counts once, where its path is shortest.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    let mut by_point: HashMap<String, usize> = HashMap::new();
    let mut by_content: HashMap<(String, String), usize> = HashMap::new();
    for mount in text.lines().filter_map(parse_line) {
        let content = mount.content();
        // What was mounted over is out of reach.
        if let Some(&hidden) = by_point.get(&mount.point) {
            by_content.retain(|_, index| *index != hidden);
            by_content.insert(content, hidden);
            mounts[hidden] = mount;
            continue;
        }
        if let Some(&known) = by_content.get(&content) {
            if mount.point.len() < mounts[known].point.len() {
                by_point.remove(&mounts[known].point);
                by_point.insert(mount.point.clone(), known);
                mounts[known] = mount;
            }
            continue;
        }
        by_point.insert(mount.point.clone(), mounts.len());
        by_content.insert(content, mounts.len());
        mounts.push(mount);
    }
    // Only now, since a pseudo file system may hide another.
    mounts.retain(|mount| !mount.is_pseudo());
    mounts.truncate(MAX_FILESYSTEMS);
    number(&mut mounts);
    mounts
}

/// Reads every mount that is in reach, in the order in which they were mounted: the kernel's own, and further mounts of
/// the same file system, too.
pub(crate) fn in_reach(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = text.lines().filter_map(parse_line).collect();
    let mut seen = HashSet::new();
    // Of several at one point the last is on top.
    mounts.reverse();
    mounts.retain(|mount| seen.insert(mount.point.clone()));
    mounts.reverse();
    number(&mut mounts);
    mounts
}

fn number(mounts: &mut [Mount]) {
    for (order, mount) in mounts.iter_mut().enumerate() {
        mount.order = order;
    }
}

fn parse_line(line: &str) -> Option<Mount> {
    // 36 35 98:0 /directory /mnt/point rw,noatime master:1 - ext4 /dev/vda1 rw,errors=continue
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let device = left.next()?.to_owned();
    // A bind mount of a directory is the same file system, with the same space.
    let _directory = left.next()?;
    let point = unescape(left.next()?);
    let options = left.next()?;
    let mut right = right.split(' ');
    let kind = unescape(right.next()?);
    let source = unescape(right.next().unwrap_or_default());
    let super_options = right.next().unwrap_or_default();
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let sealed = is_read_only(super_options);
    let read_only = sealed || is_read_only(options);
    Some(Mount {
        point,
        source,
        kind,
        read_only,
        sealed,
        device,
        options: merge(read_only, options, super_options),
        order: 0,
    })
}

/// Puts the options of a mount and of its file system together, as mount(8) does.
fn merge(read_only: bool, options: &str, super_options: &str) -> String {
    let mut merged = vec![if read_only { "ro" } else { "rw" }];
    for option in options.split(',').chain(super_options.split(',')) {
        if !matches!(option, "" | "ro" | "rw") && !merged.contains(&option) {
            merged.push(option);
        }
    }
    unescape(&merged.join(","))
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(octal);
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_and_the_kernels_own_is_not() {
        let mounts = parse(
            "22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw\n\
             23 28 0:21 / /proc rw,nosuid - proc proc rw\n\
             28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro\n\
             30 28 0:25 / /run rw,nosuid shared:5 master:2 - tmpfs tmpfs rw,size=400k,mode=755\n\
             40 28 0:40 / /srv/my\\040share ro,relatime - nfs4 server:/export rw,vers=4.2\n\
             41 28 11:0 / /media/cd\\134rom rw - iso9660 /dev/sr0 ro\n\
             42 28 0:50 / /home/u/.gvfs rw - fuse.gvfsd-fuse gvfsd-fuse rw\n",
        );
        let points: Vec<_> = mounts.iter().map(|mount| mount.point.as_str()).collect();
        assert_eq!(
            points,
            [
                "/",
                "/run",
                "/srv/my share",
                "/media/cd\\rom",
                "/home/u/.gvfs"
            ]
        );
        assert_eq!(mounts[0].source, "/dev/vda1");
        assert!(!mounts[0].read_only, "errors=remount-ro is not ro");
        assert!(
            mounts[2].read_only && mounts[3].read_only,
            "the mount or the file system"
        );
        let remote: Vec<_> = mounts.iter().map(Mount::is_remote).collect();
        assert_eq!(remote, [false, false, true, false, true]);
    }

    #[test]
    fn a_file_system_counts_once_where_its_path_is_shortest() {
        let mounts = parse(
            "1 0 254:1 /snap /var/lib/long/path rw - ext4 /dev/vda1 rw\n\
             2 0 254:1 / / rw - ext4 /dev/vda1 rw\n\
             3 0 254:1 /home /home rw - ext4 /dev/vda1 rw\n",
        );
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].point, "/");
    }

    #[test]
    fn what_is_mounted_over_is_out_of_reach() {
        let mounts = parse(
            "1 0 0:2 / / rw - rootfs rootfs rw\n\
             2 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
             3 2 254:2 / /data rw - xfs /dev/vda2 rw\n\
             4 2 0:30 / /data rw - autofs systemd-1 rw\n",
        );
        assert_eq!(mounts.len(), 1);
        assert_eq!(
            (mounts[0].kind.as_str(), mounts[0].point.as_str()),
            ("ext4", "/")
        );
    }

    #[test]
    fn options_of_mount_and_file_system_are_put_together() {
        let mounts = parse(
            "1 0 254:1 / / rw,relatime - ext4 /dev/vda1 rw,relatime,errors=remount-ro\n\
             2 1 254:2 / /usr ro,nodev - xfs /dev/vda2 rw,noquota\n\
             3 1 11:0 / /cd rw - iso9660 /dev/sr0 ro\n",
        );
        let told: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.options.as_str(), mount.read_only, mount.sealed))
            .collect();
        assert_eq!(
            told,
            [
                ("rw,relatime,errors=remount-ro", false, false),
                ("ro,nodev,noquota", true, false),
                ("ro", true, true),
            ]
        );
        assert_eq!((mounts[1].device.as_str(), mounts[2].order), ("254:2", 2));
    }

    #[test]
    fn everything_in_reach_is_what_is_on_top_of_each_point() {
        let mounts = in_reach(
            "1 0 0:2 / / rw - rootfs rootfs rw\n\
             2 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
             3 2 0:21 / /proc rw - proc proc rw\n\
             4 2 254:1 /srv /export rw - ext4 /dev/vda1 rw\n",
        );
        let points: Vec<_> = mounts.iter().map(|mount| mount.point.as_str()).collect();
        assert_eq!(points, ["/", "/proc", "/export"]);
        assert!(mounts[0].is_same(&mounts[2]) && !mounts[0].is_same(&mounts[1]));
        assert!(mounts[1].is_pseudo());
    }

    #[test]
    fn torn_lines_are_skipped() {
        assert!(parse("1 2 3\n - \n1 0 0:1 / /x rw -\nxxx - ext4 a b\n").is_empty());
    }

    #[test]
    fn escapes_are_undone_and_others_left() {
        assert_eq!(unescape(r"a\040b\011c\134d"), "a b\tc\\d");
        assert_eq!(unescape(r"end\04"), r"end\04");
        assert_eq!(unescape(r"\999"), r"\999");
    }
}
