//! Disks and partitions in `/sys/class/block`, and their other names in `/dev/disk`
//! (Documentation/ABI/stable/sysfs-block in Linux).
//!
//! A disk may vanish while it is being read: what can't be read any more is left empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use vbridge_api::guest::v1::Disk;

use super::{Reader, links::Links, number};
use crate::limits::{MAX_BLOCK_DEVICES, MAX_DISK_SLAVES};

/// The unit of `size`, whatever a disk's own blocks are.
const SECTOR: u64 = 512;

/// Where a disk's driver may tell its temperature, in thousandths of a degree: the second before Linux 5.5.
const HWMON: [&str; 2] = ["device/hwmon", "device"];

/// Where the kernel tells of disks.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    root: PathBuf,
}

impl Block {
    pub(crate) fn new() -> Self {
        Self::below("/")
    }

    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Disks and partitions by name, [`MAX_BLOCK_DEVICES`] at most. Loop devices and RAM disks without content are left
    /// out; a kernel makes a row of them at boot.
    pub(crate) fn disks(&self) -> Vec<Disk> {
        let links = Links::below(&self.root);
        let names = names(&self.class());
        let disks = names.into_iter().map(|name| self.disk(&name, &links));
        disks
            .filter(|disk| disk.size_bytes > 0 || !is_empty_by_nature(&disk.name))
            .take(MAX_BLOCK_DEVICES)
            .collect()
    }

    fn class(&self) -> PathBuf {
        self.root.join("sys/class/block")
    }

    fn disk(&self, name: &str, links: &Links) -> Disk {
        let folder = self.class().join(name);
        let mut reader = Reader::below(&folder);
        // Where it hangs in the tree of devices; a partition is a folder in that of its disk.
        let place = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        let partition = folder.join("partition").exists();
        let whole = match place.parent() {
            Some(parent) if partition => parent,
            _ => &place,
        };
        let mut queue = Reader::below(whole.join("queue"));
        let mut disk = Disk {
            name: name.to_owned(),
            // The kernel has no slash in its own names.
            path: format!("/dev/{}", name.replace('!', "/")),
            partition,
            slaves: names(&folder.join("slaves")),
            size_bytes: number::<u64>(&reader.line("size")).saturating_mul(SECTOR),
            read_only: reader.line("ro") == "1",
            rotational: queue.line("rotational") == "1",
            logical_block_bytes: number(&queue.line("logical_block_size")),
            device: reader.line("dev"),
            aliases: links.aliases(name),
            ..Disk::default()
        };
        disk.slaves.truncate(MAX_DISK_SLAVES);
        if partition {
            disk.parent = file_name(whole);
        } else {
            disk.model = first([reader.line("device/model"), reader.line("device/name")]);
            disk.serial = serial(&mut reader);
            disk.bus = bus(&folder, &place);
            disk.pci_address = pci_address(&place);
            disk.temperature_celsius = temperature(&folder);
        }
        disk
    }
}

/// The name of the disk with a device number; none if there is none.
pub(crate) fn by_device<'a>(disks: &'a [Disk], device: &str) -> Option<&'a Disk> {
    disks.iter().find(|disk| disk.device == device)
}

/// The disk with a path, by whatever name; none if there is none.
pub(crate) fn by_path<'a>(disks: &'a [Disk], path: &str) -> Option<&'a Disk> {
    disks
        .iter()
        .find(|disk| disk.path == path || disk.aliases.iter().any(|alias| alias == path))
}

/// The whole disks that a disk lies on, by name: itself, what it is a part of, or what it is made of.
pub(crate) fn below(disks: &[Disk], disk: &Disk) -> Vec<String> {
    let by_name: BTreeMap<_, _> = disks.iter().map(|disk| (&*disk.name, disk)).collect();
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    let mut open = vec![disk];
    while let Some(disk) = open.pop() {
        // What the kernel tells has no circles; what is read while it changes may.
        if !seen.insert(&disk.name) {
            continue;
        }
        let parts = disk
            .slaves
            .iter()
            .chain(disk.partition.then_some(&disk.parent));
        let parts: Vec<_> = parts
            .filter_map(|name| by_name.get(name.as_str()).copied())
            .collect();
        if parts.is_empty() {
            found.insert(disk.name.clone());
        }
        open.extend(parts);
    }
    found.into_iter().collect()
}

fn is_empty_by_nature(name: &str) -> bool {
    ["loop", "ram", "zram", "nbd", "fd"]
        .iter()
        .any(|kind| name.strip_prefix(kind).is_some_and(is_number))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn first(texts: [String; 2]) -> String {
    let [one, other] = texts;
    if one.is_empty() { other } else { one }
}

fn serial(reader: &mut Reader) -> String {
    // virtio has it at the disk, NVMe and MMC at the device; SCSI as it came from the disk: four bytes of header, text.
    let told = first([reader.line("serial"), reader.line("device/serial")]);
    if !told.is_empty() {
        return told;
    }
    let page = reader.bytes("device/vpd_pg80").unwrap_or_default();
    let text = String::from_utf8_lossy(page.get(4..).unwrap_or_default());
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
        .to_owned()
}

/// How a disk is connected. SCSI speaks through other buses, which say more.
fn bus(folder: &Path, place: &Path) -> String {
    for part in place.iter().filter_map(|part| part.to_str()) {
        for (prefix, bus) in [("usb", "usb"), ("ata", "sata")] {
            if part.strip_prefix(prefix).is_some_and(is_number) {
                return bus.to_owned();
            }
        }
    }
    let bus = fs::read_link(folder.join("device/subsystem")).unwrap_or_default();
    // A disk with several paths to it has its own name for the same.
    match file_name(&bus).as_str() {
        "nvme-subsystem" => "nvme".to_owned(),
        bus => bus.to_owned(),
    }
}

/// The last PCI device on the way to a disk; those before it are bridges.
fn pci_address(place: &Path) -> String {
    let parts: Vec<_> = place.iter().filter_map(|part| part.to_str()).collect();
    let address = parts.into_iter().rev().find(|part| is_pci_address(part));
    address.unwrap_or_default().to_owned()
}

/// DDDD:BB:DD.F, in hexadecimal digits.
fn is_pci_address(part: &str) -> bool {
    let is_hex = |text: &str, len: usize| {
        text.len() >= len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut numbers = part.split([':', '.']);
    part.len() >= "0000:00:00.0".len()
        && [4, 2, 2, 1]
            .iter()
            .all(|len| numbers.next().is_some_and(|number| is_hex(number, *len)))
        && numbers.next().is_none()
}

fn temperature(folder: &Path) -> Option<f64> {
    let sensors = HWMON.iter().flat_map(|place| {
        let place = folder.join(place);
        let names = names(&place).into_iter();
        names
            .filter(|name| name.strip_prefix("hwmon").is_some_and(is_number))
            .map(move |name| place.join(name).join("temp1_input"))
    });
    let thousandths = sensors
        .filter_map(|sensor| fs::read_to_string(sensor).ok())
        .find_map(|text| text.trim().parse::<i32>().ok());
    Some(f64::from(thousandths?) / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A made-up machine.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(machine.path("sys/class/block")).unwrap();
            machine
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, to: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(to, path).unwrap();
        }

        /// A block device at a place in the tree of devices.
        fn device(&self, place: &str, number: &str, sectors: u64) -> String {
            let name = place.rsplit('/').next().unwrap();
            let folder = format!("sys/devices/{place}");
            self.put(&format!("{folder}/dev"), &format!("{number}\n"));
            self.put(&format!("{folder}/size"), &format!("{sectors}\n"));
            self.put(&format!("{folder}/ro"), "0\n");
            self.link(
                &format!("sys/class/block/{name}"),
                &format!("../../devices/{place}"),
            );
            folder
        }

        fn disks(&self) -> Vec<Disk> {
            Block::below(self.0.path()).disks()
        }
    }

    #[test]
    fn a_virtio_disk_and_its_partition_are_told_apart() {
        let machine = Machine::new();
        let place = "pci0000:00/0000:00:02.0/0000:01:00.0/virtio1/block/vda";
        let vda = machine.device(place, "254:0", 2048);
        machine.put(&format!("{vda}/serial"), "disk-1\n");
        machine.put(&format!("{vda}/queue/rotational"), "1\n");
        machine.put(&format!("{vda}/queue/logical_block_size"), "4096\n");
        machine.link(&format!("{vda}/device/subsystem"), "../../bus/virtio");
        let part = machine.device(&format!("{place}/vda1"), "254:1", 1024);
        machine.put(&format!("{part}/partition"), "1\n");
        machine.put(&format!("{part}/ro"), "1\n");
        machine.link("dev/disk/by-id/virtio-disk-1", "../../vda");
        machine.link("dev/disk/by-label/ROOT", "../../vda1");
        machine.device("virtual/block/loop0", "7:0", 0);
        let disks = machine.disks();
        let names: Vec<_> = disks.iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["vda", "vda1"]);
        assert_eq!(
            disks[0],
            Disk {
                name: "vda".to_owned(),
                path: "/dev/vda".to_owned(),
                size_bytes: 1024 * 1024,
                rotational: true,
                logical_block_bytes: 4096,
                serial: "disk-1".to_owned(),
                bus: "virtio".to_owned(),
                pci_address: "0000:01:00.0".to_owned(),
                device: "254:0".to_owned(),
                aliases: vec!["/dev/disk/by-id/virtio-disk-1".to_owned()],
                ..Disk::default()
            }
        );
        let part = &disks[1];
        assert_eq!((part.partition, part.parent.as_str()), (true, "vda"));
        assert!(part.read_only && part.rotational && part.bus.is_empty());
        assert_eq!(part.aliases, ["/dev/disk/by-label/ROOT"]);
        assert_eq!(below(&disks, part), ["vda"]);
        assert_eq!(by_device(&disks, "254:1"), Some(part));
    }

    #[test]
    fn a_scsi_disk_tells_its_serial_in_a_page_and_its_bus_in_its_place() {
        let machine = Machine::new();
        for (place, bus, number) in [
            (
                "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda",
                "sata",
                "8:0",
            ),
            (
                "pci0000:00/0000:00:14.0/usb2/2-1/host1/target1:0:0/1:0:0:0/block/sdb",
                "usb",
                "8:16",
            ),
            (
                "pci0000:00/0000:00:05.0/virtio3/host2/target2:0:0/2:0:0:1/block/sdc",
                "scsi",
                "8:32",
            ),
        ] {
            let folder = machine.device(place, number, 8);
            machine.put(&format!("{folder}/device/model"), "HARDDISK        \n");
            machine.put(
                &format!("{folder}/device/vpd_pg80"),
                "\0\u{1}\0\u{8}  S/N 1\0",
            );
            machine.put(
                &format!("{folder}/device/hwmon/hwmon3/temp1_input"),
                "38500\n",
            );
            machine.link(&format!("{folder}/device/subsystem"), "../../bus/scsi");
            let disks = machine.disks();
            let disk = by_device(&disks, number).unwrap();
            assert_eq!(disk.bus, bus);
            assert_eq!(
                (disk.model.as_str(), disk.serial.as_str()),
                ("HARDDISK", "S/N 1")
            );
            assert_eq!(disk.temperature_celsius, Some(38.5));
        }
    }

    #[test]
    fn what_lies_on_several_disks_names_them_all() {
        let machine = Machine::new();
        let lv = machine.device("virtual/block/dm-0", "253:0", 64);
        let md = machine.device("virtual/block/md0", "9:0", 64);
        machine.link("dev/mapper/vg-root", "../dm-0");
        for (name, number) in [("sda", 0), ("sdb", 16)] {
            let place = format!("pci0000:00/0000:00:03.0/block/{name}");
            machine.device(&place, &format!("8:{number}"), 64);
            let place = format!("{place}/{name}1");
            let part = machine.device(&place, &format!("8:{}", number + 1), 32);
            machine.put(&format!("{part}/partition"), "1");
            machine.put(&format!("{md}/slaves/{name}1"), "");
        }
        machine.put(&format!("{lv}/slaves/md0"), "");
        let disks = machine.disks();
        let lv = by_device(&disks, "253:0").unwrap();
        assert_eq!(lv.slaves, ["md0"]);
        assert_eq!(lv.aliases, ["/dev/mapper/vg-root"]);
        assert_eq!(below(&disks, lv), ["sda", "sdb"]);
    }

    #[test]
    fn a_circle_ends() {
        let disk = |name: &str, slave: &str| Disk {
            name: name.to_owned(),
            slaves: vec![slave.to_owned()],
            ..Disk::default()
        };
        let disks = [disk("a", "b"), disk("b", "a")];
        assert!(below(&disks, &disks[0]).is_empty());
    }

    #[test]
    fn a_machine_without_disks_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Block::below(dir.path()).disks().is_empty());
    }

    #[test]
    fn a_pci_address_has_four_numbers() {
        for address in ["0000:00:04.0", "10000:e1:1f.7"] {
            assert!(is_pci_address(address), "{address}");
        }
        for other in ["pci0000:00", "0:0:0:0", "0000:00:04", "2-1:1.0", "virtio1"] {
            assert!(!is_pci_address(other), "{other}");
        }
    }
}
