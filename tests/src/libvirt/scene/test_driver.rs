//! The scene on the test driver, which is in memory and has most of its objects from the beginning.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{CPU, object, write};
use crate::libvirt::{client::virsh, daemon::Libvirtd, reference::Reference};

/// A domain that has what a checkpoint needs: a disk, and no snapshot.
const MARKED: &str = "<domain type='test'><name>marked</name><memory>65536</memory><os><type>hvm</type></os>\
     <devices><disk type='file'><source file='/marked'/><target dev='vda'/></disk></devices></domain>";

/// The driver has no secrets, filters and ports: for these, any UUID and name serve.
const NOTHING: &str = "00000000-0000-8000-8000-000000000001";

/// Makes what is missing and tells the names of all.
pub(super) async fn make(
    daemon: &Libvirtd,
    reference: &mut Reference,
) -> Result<Map<String, Value>> {
    let marked = write(daemon, "marked", MARKED)?;
    for arguments in [
        &["snapshot-create-as", "test", "first"][..],
        &["snapshot-create-as", "test", "second"],
        &["create", &marked],
        &["checkpoint-create-as", "marked", "early"],
        &["checkpoint-create-as", "marked", "late"],
        &["vol-create-as", "default-pool", "volume", "1M"],
        &["desc", "test", "one of each kind"],
    ] {
        virsh(&daemon.uri("test"), arguments).await?.ok()?;
    }
    let mut uuid = async |kind: &str, name: &str| -> Result<Value> {
        let call = format!("{kind}_lookup_by_name");
        let found = reference
            .value(&call, &object(json!({"name": name})))
            .await?;
        Ok(found["uuid"].clone())
    };
    Ok(object(json!({
        "domain": "test", "domain_id": 1, "domain_uuid": uuid("domain", "test").await?,
        "saved_domain": "test", "saved_state": "/nowhere",
        "snapshot_domain": "test", "snapshot": "first", "later_snapshot": "second",
        "checkpoint_domain": "marked", "checkpoint": "early", "later_checkpoint": "late",
        "disk": "vda", "raw_disk": "vda", "nic": "testnet0",
        // VIR_DOMAIN_METADATA_DESCRIPTION
        "metadata": 0,
        "address": 4096,
        "format": "qemu-argv", "config": "qemu", "xml": "<domain/>", "cpu": CPU, "cpus": [CPU],
        "source_type": "logical",
        "network": "default", "network_uuid": uuid("network", "default").await?, "port": NOTHING,
        "interface": "eth1", "mac": "aa:bb:cc:dd:ee:ff",
        "pool": "default-pool", "pool_uuid": uuid("storage_pool", "default-pool").await?,
        "pool_path": "/default-pool",
        "volume": "volume", "volume_path": "/default-pool/volume",
        "device": "computer",
        "secret": NOTHING, "secret_usage": "/secret", "type": 1,
        "filter": "quiet", "filter_uuid": NOTHING, "binding": "testnet0",
    })))
}
