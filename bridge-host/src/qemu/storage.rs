//! `Storage`: file systems, disks, trimming; standstills are in `freeze`.

use std::{collections::HashSet, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;
use vbridge_api::guest::v1 as api;

pub(super) use super::freeze::{freeze, freeze_status, thaw};
use super::{
    agent::{Agent, text},
    refusal::{cannot_field, invalid, too_many},
};
use crate::error::harmless;

/// File systems, as `storage.proto` promises.
const MAX_FILESYSTEMS: usize = 256;

/// Disks, as `storage.proto` promises.
const MAX_DISKS: usize = 1024;

/// Devices that one is made of, as `storage.proto` promises.
const MAX_SLAVES: usize = 256;

/// File systems that were trimmed, in one answer. The rest is left out.
const MAX_TRIMMED: usize = 1024;

/// A mounted file system, as the agent tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Filesystem {
    pub(super) mountpoint: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "type", default)]
    kind: String,
    used_bytes: Option<u64>,
    /// Without what is kept for root.
    total_bytes: Option<u64>,
    /// All; since QEMU 9.1.
    total_bytes_privileged: Option<u64>,
    #[serde(default)]
    disk: Vec<Address>,
}

/// Where a disk is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Address {
    #[serde(default)]
    bus_type: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    dev: String,
    pci_controller: Option<Pci>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Pci {
    domain: i64,
    bus: i64,
    slot: i64,
    function: i64,
}

pub(super) async fn list_filesystems(
    agent: Arc<Agent>,
    _: api::StorageListFilesystemsRequest,
) -> Result<api::StorageListFilesystemsResponse, Status> {
    let found: Vec<Filesystem> = agent.ask("guest-get-fsinfo", Value::Null).await?;
    let found = found.into_iter().take(MAX_FILESYSTEMS).map(filesystem);
    Ok(api::StorageListFilesystemsResponse {
        filesystems: found.collect(),
    })
}

fn filesystem(found: Filesystem) -> api::Filesystem {
    let used = found.used_bytes.unwrap_or_default();
    let for_all = found.total_bytes.unwrap_or_default();
    let mut disks: Vec<String> = Vec::new();
    for disk in found.disk.into_iter().take(MAX_SLAVES) {
        let name = base(&disk.dev).to_owned();
        if !name.is_empty() && !disks.contains(&name) {
            disks.push(text(name));
        }
    }
    api::Filesystem {
        mount_point: text(found.mountpoint),
        source: text(found.name),
        r#type: text(found.kind),
        total_bytes: found.total_bytes_privileged.unwrap_or(for_all),
        used_bytes: used,
        available_bytes: for_all.saturating_sub(used),
        disks,
        ..api::Filesystem::default()
    }
}

/// The name of a device without its folder.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Found {
    name: String,
    #[serde(default)]
    partition: bool,
    #[serde(default)]
    dependencies: Vec<String>,
    address: Option<Address>,
    alias: Option<String>,
}

pub(super) async fn list_disks(
    agent: Arc<Agent>,
    _: api::StorageListDisksRequest,
) -> Result<api::StorageListDisksResponse, Status> {
    let mut found: Vec<Found> = agent.ask("guest-get-disks", Value::Null).await?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let disks = found.into_iter().take(MAX_DISKS).map(disk);
    Ok(api::StorageListDisksResponse {
        disks: disks.collect(),
    })
}

fn disk(found: Found) -> api::Disk {
    let made_of = found.dependencies.iter().take(MAX_SLAVES);
    let mut made_of: Vec<String> = made_of.map(|path| text(base(path).to_owned())).collect();
    // What a part depends on is what it is a part of.
    let parent = match found.partition && !made_of.is_empty() {
        true => made_of.remove(0),
        false => String::new(),
    };
    let address = found.address.filter(|_| !found.partition);
    let pci = address.as_ref().and_then(|address| address.pci_controller);
    let (bus, serial) = address.map_or_else(Default::default, |address| {
        (text(address.bus_type), text(address.serial))
    });
    api::Disk {
        name: text(base(&found.name).to_owned()),
        partition: found.partition,
        parent,
        slaves: made_of,
        serial,
        bus: match bus.as_str() {
            // The agent's word for one that it does not know.
            "unknown" => String::new(),
            _ => bus,
        },
        pci_address: pci.and_then(pci_address).unwrap_or_default(),
        aliases: found.alias.into_iter().map(text).collect(),
        path: text(found.name),
        ..api::Disk::default()
    }
}

/// Nothing where the agent does not know: its numbers are -1 then.
fn pci_address(pci: Pci) -> Option<String> {
    let fits = |number: i64, most: i64| (0..=most).contains(&number).then_some(number);
    let domain = fits(pci.domain, 0xffff_ffff)?;
    let bus = fits(pci.bus, 0xff)?;
    let slot = fits(pci.slot, 0x1f)?;
    let function = fits(pci.function, 7)?;
    Some(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function}"))
}

#[derive(Debug, Deserialize)]
struct Trimmed {
    #[serde(default)]
    paths: Vec<TrimmedPath>,
}

#[derive(Debug, Deserialize)]
struct TrimmedPath {
    path: String,
    trimmed: Option<u64>,
    error: Option<String>,
}

pub(super) async fn trim(
    agent: Arc<Agent>,
    request: api::StorageTrimRequest,
) -> Result<api::StorageTrimResponse, Status> {
    if !request.mount_points.is_empty() {
        return Err(cannot_field(
            "mount_points",
            "trims all that can be trimmed, or nothing",
        ));
    }
    if i64::try_from(request.minimum_bytes).is_err() {
        return Err(invalid("minimum_bytes", "must be less than 2^63"));
    }
    let Ok(_alone) = agent.trimming.try_lock() else {
        return Err(too_many("trims", 1));
    };
    let arguments = match request.minimum_bytes {
        0 => Value::Null,
        minimum => json!({ "minimum": minimum }),
    };
    let trimmed: Trimmed = agent.ask("guest-fstrim", arguments).await?;
    // A file system that is mounted twice is told once.
    let mut seen: HashSet<String> = HashSet::new();
    let results = trimmed.paths.into_iter().take(MAX_TRIMMED);
    let results = results.filter(|result| seen.insert(result.path.clone()));
    let results = results.map(|result| api::TrimResult {
        mount_point: text(result.path),
        trimmed_bytes: result.trimmed.unwrap_or_default(),
        error: result.error.as_deref().map(harmless).unwrap_or_default(),
    });
    Ok(api::StorageTrimResponse {
        results: results.collect(),
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1::storage_client::StorageClient;

    use super::*;
    use crate::qemu::script::Script;

    async fn filesystems(answer: Value) -> Result<Vec<api::Filesystem>, Status> {
        let script = Script::fixed([("guest-get-fsinfo", answer)]);
        let mut client = StorageClient::new(script.serve());
        let request = api::StorageListFilesystemsRequest {};
        Ok(client
            .list_filesystems(request)
            .await?
            .into_inner()
            .filesystems)
    }

    #[tokio::test]
    async fn file_systems_have_sizes_and_disks() {
        let pci = json!({ "domain": 0, "bus": 0, "slot": 4, "function": 0 });
        let disk = json!({ "pci-controller": pci, "bus-type": "virtio", "bus": 0, "target": 0, "unit": 0, "dev": "/dev/vda" });
        let answer = json!([
            { "name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 10, "total-bytes": 90,
              "total-bytes-privileged": 100, "disk": [disk.clone(), disk] },
            { "name": "old", "mountpoint": "/old", "type": "xfs", "disk": [] }
        ]);
        let found = filesystems(answer).await.unwrap();
        assert_eq!(found[0].disks, ["vda"]);
        let sizes = (
            found[0].total_bytes,
            found[0].used_bytes,
            found[0].available_bytes,
        );
        assert_eq!(sizes, (100, 10, 80));
        assert_eq!(found[1].total_bytes, 0);
    }

    #[tokio::test]
    async fn strange_file_systems_are_one_clear_error_or_are_cut_off() {
        for wrong in [
            json!({}),
            json!([{ "name": "x" }]),
            json!([{ "mountpoint": "/", "used-bytes": -1 }]),
            json!([{ "mountpoint": "/", "disk": [{ "pci-controller": { "domain": 1e30 } }] }]),
        ] {
            assert_eq!(filesystems(wrong).await.unwrap_err().code(), Code::Internal);
        }
        let odd = json!({ "mountpoint": "/", "used-bytes": u64::MAX, "total-bytes": 1 });
        let many = filesystems(Value::Array(vec![odd; MAX_FILESYSTEMS + 1])).await;
        let many = many.unwrap();
        assert_eq!((many.len(), many[0].available_bytes), (MAX_FILESYSTEMS, 0));
    }

    #[tokio::test]
    async fn a_part_of_a_disk_leaves_to_the_disk_what_is_the_disks() {
        let pci = |slot| json!({ "domain": 0, "bus": 1, "slot": slot, "function": 0 });
        let address =
            |slot| json!({ "pci-controller": pci(slot), "bus-type": "virtio", "serial": "s1" });
        let script = Script::fixed([(
            "guest-get-disks",
            json!([
                { "name": "/dev/vda1", "partition": true, "dependencies": ["/dev/vda"], "address": address(4) },
                { "name": "/dev/vda", "partition": false, "address": address(4) },
                { "name": "/dev/dm-0", "partition": false, "dependencies": ["/dev/vda1"], "alias": "/dev/mapper/x" },
                { "name": "/dev/vdb", "partition": false, "address": address(-1) }
            ]),
        )]);
        let mut client = StorageClient::new(script.serve());
        let disks = client.list_disks(api::StorageListDisksRequest {}).await;
        let disks = disks.unwrap().into_inner().disks;
        let named = |name| disks.iter().find(|disk| disk.name == name).unwrap();
        assert_eq!(named("vda").pci_address, "0000:01:04.0");
        assert_eq!(
            (named("vda").bus.as_str(), named("vda").serial.as_str()),
            ("virtio", "s1")
        );
        assert_eq!(
            (named("vda1").parent.as_str(), named("vda1").serial.as_str()),
            ("vda", "")
        );
        assert_eq!(named("dm-0").slaves, ["vda1"]);
        assert_eq!(named("dm-0").aliases, ["/dev/mapper/x"]);
        assert_eq!(named("vdb").pci_address, "");
    }

    #[tokio::test]
    async fn all_that_can_is_trimmed_and_what_can_not_says_why() {
        let script = Script::fixed([(
            "guest-fstrim",
            json!({ "paths": [
                { "path": "/", "trimmed": 5, "minimum": 0 },
                { "path": "/", "trimmed": 5 },
                { "path": "/boot", "error": "\u{1b}no" }
            ] }),
        )]);
        let mut client = StorageClient::new(script.serve());
        let mut request = api::StorageTrimRequest {
            mount_points: Vec::new(),
            minimum_bytes: 4096,
        };
        let results = client
            .trim(request.clone())
            .await
            .unwrap()
            .into_inner()
            .results;
        assert_eq!(results.len(), 2);
        assert_eq!(
            (results[0].trimmed_bytes, results[1].error.as_str()),
            (5, "\\u{1b}no")
        );
        assert_eq!(script.last("guest-fstrim"), json!({ "minimum": 4096 }));
        request.mount_points.push("/".to_owned());
        let status = client.trim(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
