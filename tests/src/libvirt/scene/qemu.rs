//! The scene on QEMU.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{CPU, object, write};
use crate::libvirt::{daemon::Libvirtd, domain::Domain};

/// Where the pool is, as the daemon finds it.
const POOL: &str = "/var/lib/libvirt/images";

/// The secret's UUID, and whom it is for.
const SECRET: (&str, &str) = ("6f70656e-2d73-8573-a16d-652d00000001", "/secret");

/// `open sesame`.
const SECRET_VALUE: &str = "b3BlbiBzZXNhbWU=";

/// A network of its own; the guest does not ask it for an address.
const NETWORK: &str = "<network><name>lan</name><bridge name='virbr7'/>\
     <ip address='192.168.150.1' netmask='255.255.255.0'>\
     <dhcp><range start='192.168.150.2' end='192.168.150.9'/></dhcp></ip></network>";

/// Lets everything pass but what claims another Ethernet address.
const FILTER: &str = "<filter name='quiet' chain='root'>\
     <rule action='drop' direction='out' priority='500'><mac match='no' srcmacaddr='$MAC'/></rule></filter>";

/// What the running domain has beside our usual guest.
const ELEMENTS: [&str; 4] = [
    "<title>The guest of the scene</title>",
    "<description>One of each kind</description>",
    "<metadata><note xmlns='http://vbridge.org/test/1'>kept</note></metadata>",
    "<iothreads>1</iothreads>",
];

const SCREEN: &str = "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>\
     <video><model type='vga' vram='16384' heads='1'/></video>";

/// Makes every object and tells their names.
pub(super) async fn make(daemon: &Libvirtd) -> Result<(Map<String, Value>, Domain)> {
    storage(daemon).await?;
    define(daemon, "net-define", "lan", NETWORK).await?;
    daemon.virsh(&["net-start", "lan"]).await?;
    define(daemon, "nwfilter-define", "quiet", FILTER).await?;
    secret(daemon).await?;
    let guest = guest(daemon).await?;
    resting(daemon).await?;
    guest.up(daemon, 1).await?;
    Ok((names(daemon, &guest).await?, guest))
}

async fn names(daemon: &Libvirtd, guest: &Domain) -> Result<Map<String, Value>> {
    let ask = async |arguments: &'static [&'static str]| -> Result<String> {
        Ok(daemon.virsh(arguments).await?.trim().to_owned())
    };
    let filters = ask(&["nwfilter-list"]).await?;
    let (secret, usage) = SECRET;
    Ok(object(json!({
        "domain": "guest",
        "domain_id": ask(&["domid", "guest"]).await?.parse::<i32>()?,
        "domain_uuid": guest.uuid(),
        "saved_domain": "resting",
        "saved_state": "/var/lib/libvirt/qemu/save/resting.save",
        "snapshot_domain": "resting", "snapshot": "first", "later_snapshot": "second",
        "checkpoint_domain": "guest", "checkpoint": "early", "later_checkpoint": "late",
        "disk": "vda", "raw_disk": "vdb", "nic": "tap0",
        // VIR_DOMAIN_METADATA_TITLE
        "metadata": 1,
        "address": 4096,
        "format": "qemu-argv", "config": "qemu", "xml": guest.xml(), "cpu": CPU, "cpus": [CPU],
        "network": "lan", "network_uuid": ask(&["net-uuid", "lan"]).await?,
        "port": ask(&["net-port-list", "lan", "--uuid"]).await?,
        "interface": "lo", "mac": "00:00:00:00:00:00",
        "pool": "images", "pool_uuid": ask(&["pool-uuid", "images"]).await?, "pool_path": POOL,
        "volume": "guest.qcow2", "volume_path": format!("{POOL}/guest.qcow2"),
        "device": "computer",
        // VIR_SECRET_USAGE_TYPE_VOLUME
        "secret": secret, "secret_usage": usage, "type": 1,
        "filter": "quiet", "filter_uuid": filters.split_whitespace().next(),
        "binding": "tap0",
    })))
}

async fn storage(daemon: &Libvirtd) -> Result<()> {
    std::fs::create_dir_all(daemon.path(POOL))?;
    let define = ["pool-define-as", "images", "dir", "--target", POOL];
    daemon.virsh(&define).await?;
    daemon.virsh(&["pool-start", "images"]).await?;
    // Checkpoints need version 3 of qcow2, which libvirt calls 1.1.
    let qcow2 = "<format type='qcow2'/><compat>1.1</compat>";
    for (name, format) in [
        ("guest.qcow2", qcow2),
        ("resting.qcow2", qcow2),
        ("raw.img", "<format type='raw'/>"),
    ] {
        let volume = format!(
            "<volume><name>{name}</name><capacity unit='MiB'>64</capacity><allocation>0</allocation>\
             <target>{format}</target></volume>"
        );
        let path = write(daemon, name, &volume)?;
        daemon.virsh(&["vol-create", "images", &path]).await?;
    }
    Ok(())
}

async fn secret(daemon: &Libvirtd) -> Result<()> {
    let (uuid, usage) = SECRET;
    let xml = format!(
        "<secret ephemeral='no' private='no'><uuid>{uuid}</uuid>\
         <usage type='volume'><volume>{usage}</volume></usage></secret>"
    );
    define(daemon, "secret-define", "secret", &xml).await?;
    let set = ["secret-set-value", uuid, "--base64", SECRET_VALUE];
    daemon.virsh(&set).await?;
    Ok(())
}

/// The domain that runs.
async fn guest(daemon: &Libvirtd) -> Result<Domain> {
    let raw = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{POOL}/raw.img'/>\
         <target dev='vdb' bus='virtio'/></disk>"
    );
    let mut builder = Domain::builder("guest")
        .disk(format!("{POOL}/guest.qcow2").as_ref())
        .device(raw)
        .network("lan", Some("quiet"))
        .device(SCREEN);
    for element in ELEMENTS {
        builder = builder.element(element);
    }
    let domain = builder.build().await?;
    domain.define(daemon).await?;
    daemon.virsh(&["start", "guest"]).await?;
    for name in ["early", "late"] {
        // A raw image holds no bitmaps.
        let disks = ["--diskspec", "vda", "--diskspec", "vdb,checkpoint=no"];
        let create = [&["checkpoint-create-as", "guest", name][..], &disks].concat();
        daemon.virsh(&create).await?;
    }
    Ok(domain)
}

/// The domain that is shut off, but will go on where it was.
async fn resting(daemon: &Libvirtd) -> Result<()> {
    let builder = Domain::builder("resting").disk(format!("{POOL}/resting.qcow2").as_ref());
    builder.build().await?.define(daemon).await?;
    for name in ["first", "second"] {
        daemon
            .virsh(&["snapshot-create-as", "resting", name])
            .await?;
    }
    daemon.virsh(&["start", "resting", "--paused"]).await?;
    daemon.virsh(&["managedsave", "resting"]).await?;
    Ok(())
}

async fn define(daemon: &Libvirtd, command: &str, name: &str, xml: &str) -> Result<()> {
    let path = write(daemon, name, xml)?;
    daemon.virsh(&[command, &path]).await?;
    Ok(())
}
