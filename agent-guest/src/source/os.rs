//! The installation and the machine: os-release, ids, hypervisor, CPUs.

use vbridge_api::guest::v1::{Kernel, OsRelease};

use super::Reader;

/// The distribution, as os-release(5) tells; empty fields where there is no such file.
pub(crate) fn os_release(reader: &mut Reader) -> OsRelease {
    ["etc/os-release", "usr/lib/os-release"]
        .into_iter()
        .find_map(|path| Some(parse_os_release(&reader.read(path).ok()?)))
        .unwrap_or_default()
}

pub(super) fn parse_os_release(text: &str) -> OsRelease {
    let mut release = OsRelease::default();
    for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
        let field = match key {
            "ID" => &mut release.id,
            "NAME" => &mut release.name,
            "PRETTY_NAME" => &mut release.pretty_name,
            "VERSION" => &mut release.version,
            "VERSION_ID" => &mut release.version_id,
            "VARIANT_ID" => &mut release.variant_id,
            _ => continue,
        };
        *field = unquote(value);
    }
    release
}

/// A value in the shell's syntax: bare, in single quotes, or in double quotes with backslashes.
fn unquote(value: &str) -> String {
    if let Some(literal) = value
        .strip_prefix('\'')
        .and_then(|value| value.strip_suffix('\''))
    {
        return literal.to_owned();
    }
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.extend(chars.next()),
            other => plain.push(other),
        }
    }
    plain
}

/// What uname(2) tells: host name, kernel, architecture.
pub(crate) fn uname() -> (String, Kernel, String) {
    let uname = rustix::system::uname();
    let text = |field: &std::ffi::CStr| field.to_string_lossy().into_owned();
    let kernel = Kernel {
        name: text(uname.sysname()),
        release: text(uname.release()),
        version: text(uname.version()),
    };
    (text(uname.nodename()), kernel, text(uname.machine()))
}

/// Makers of virtual machines, as DMI names them.
const HYPERVISOR_VENDORS: &[&str] = &[
    "QEMU",
    "KVM",
    "Red Hat",
    "oVirt",
    "VMware",
    "innotek GmbH",
    "Xen",
    "Bochs",
    "Parallels",
    "BHYVE",
    "Hyper-V",
    "Amazon EC2",
    "Google",
    "OpenStack",
    "Nutanix",
    "DigitalOcean",
    "Hetzner",
    "Alibaba Cloud",
    "Apple Virtualization",
];

/// The hypervisor as the guest sees it: DMI vendor and product, or the hypervisor's CPU flag; empty if unknown.
pub(crate) fn virtualization(reader: &mut Reader) -> String {
    let vendor = reader.line("sys/class/dmi/id/sys_vendor");
    let product = reader.line("sys/class/dmi/id/product_name");
    let by_cpu = reader
        .read("proc/cpuinfo")
        .is_ok_and(|text| has_hypervisor_flag(&text));
    let by_vendor = HYPERVISOR_VENDORS
        .iter()
        .any(|known| vendor.contains(known))
        || product.contains("Virtual Machine");
    match (by_cpu || by_vendor, vendor.is_empty() && product.is_empty()) {
        (true, false) => format!("{vendor} {product}").trim().to_owned(),
        (true, true) => "hypervisor".to_owned(),
        // A real machine has a vendor too. Xen without DMI tells by a file of its own.
        (false, _) => reader.line("sys/hypervisor/type"),
    }
}

fn has_hypervisor_flag(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| {
            flags
                .split_ascii_whitespace()
                .any(|flag| flag == "hypervisor")
        })
}

/// CPUs that are online.
pub(crate) fn cpu_count(reader: &mut Reader) -> u32 {
    let listed = reader
        .read("sys/devices/system/cpu/online")
        .map(|list| count_cpus(&list));
    match listed {
        Ok(count) if count > 0 => count,
        // What this process may use is the next best.
        _ => std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
    }
}

/// Counts a list such as `0-3,5`.
pub(super) fn count_cpus(list: &str) -> u32 {
    list.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .fold(0, u32::saturating_add)
}

/// The installation's id; empty where there is none, or none yet.
pub(crate) fn machine_id(reader: &mut Reader) -> String {
    let id = reader.line("etc/machine-id");
    // What systemd writes into images (machine-id(5)).
    if id == "uninitialized" {
        String::new()
    } else {
        id
    }
}

/// Processes that exist; 0 without /proc.
pub(crate) fn process_count() -> u32 {
    let is_process =
        |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let count = std::fs::read_dir("/proc")
        .map(|entries| {
            entries
                .flatten()
                .filter(|entry| is_process(&entry.file_name()))
                .count()
        })
        .unwrap_or_default();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Memory that this process holds resident, in bytes; 0 without /proc.
pub(crate) fn resident_bytes(reader: &mut Reader) -> u64 {
    let Ok(text) = reader.read("proc/self/statm") else {
        return 0;
    };
    let pages: u64 = text
        .split_ascii_whitespace()
        .nth(1)
        .map(super::number)
        .unwrap_or_default();
    pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Reader) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let reader = Reader::below(dir.path());
        (dir, reader)
    }

    #[test]
    fn os_release_is_read_with_every_kind_of_quotes() {
        let release = parse_os_release(
            "# comment\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME='Debian GNU/Linux'\nID=debian\n\
             VERSION_ID=\"12\"\n  VERSION=\"12 \\\"book\\$worm\\\"\"\nVARIANT_ID=\nHOME_URL=https://x.example/?a=b\nbroken line\n",
        );
        assert_eq!(release.pretty_name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(release.name, "Debian GNU/Linux");
        assert_eq!(release.id, "debian");
        assert_eq!(release.version_id, "12");
        assert_eq!(release.version, "12 \"book$worm\"");
        assert_eq!(release.variant_id, "");
    }

    #[test]
    fn os_release_has_a_second_place_and_may_be_missing() {
        let (_dir, mut reader) = root(&[("usr/lib/os-release", "ID=fedora")]);
        assert_eq!(os_release(&mut reader).id, "fedora");
        let (_dir, mut reader) = root(&[]);
        assert_eq!(os_release(&mut reader), OsRelease::default());
    }

    #[test]
    fn a_virtual_machine_is_told_from_a_real_one() {
        let dmi = |vendor: &'static str, product: &'static str| {
            [
                ("sys/class/dmi/id/sys_vendor", vendor),
                ("sys/class/dmi/id/product_name", product),
            ]
        };
        let (_dir, mut reader) = root(&dmi("QEMU\n", "Standard PC (i440FX + PIIX, 1996)\n"));
        assert_eq!(
            virtualization(&mut reader),
            "QEMU Standard PC (i440FX + PIIX, 1996)"
        );
        let (_dir, mut reader) = root(&dmi("Dell Inc.\n", "PowerEdge R740\n"));
        assert_eq!(virtualization(&mut reader), "");
        let (_dir, mut reader) = root(&[(
            "proc/cpuinfo",
            "processor\t: 0\nflags\t\t: fpu hypervisor lm\n",
        )]);
        assert_eq!(virtualization(&mut reader), "hypervisor");
        let (_dir, mut reader) = root(&[("sys/hypervisor/type", "xen\n")]);
        assert_eq!(virtualization(&mut reader), "xen");
    }

    #[test]
    fn cpu_lists_are_counted() {
        assert_eq!(count_cpus("0-3,5\n"), 5);
        assert_eq!(count_cpus("0"), 1);
        assert_eq!(count_cpus(""), 0);
        assert_eq!(
            count_cpus("3-1,x,0-4294967295"),
            0,
            "what makes no sense does not count"
        );
        let (_dir, mut reader) = root(&[]);
        assert!(cpu_count(&mut reader) > 0);
    }
}
