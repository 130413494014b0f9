//! One object of each kind on a daemon, so that every call has something to answer: the same scene for any client.
//!
//! | object | on QEMU | on the test driver |
//! |---|---|---|
//! | running domain | `guest`, with disk, network card, channels, screen, two checkpoints | `test` |
//! | domain that is shut off | `resting`, with two snapshots and a saved state | – |
//! | network, port | `lan` with DHCP, the port of the network card | `default` |
//! | pool, volumes | `images`: `guest.qcow2`, `resting.qcow2` | `default-pool`: `volume` |
//! | secret | for the use of the volume `/secret`, with the value `open sesame` | – |
//! | filter, binding | `quiet`, bound to the network card | – |
//! | interface, node device | `lo`, `computer` | `eth1`, `computer` |

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::{
    client::virsh,
    daemon::Libvirtd,
    domain::Domain,
    reference::{Parameters, Reference},
};

/// Where the pool is, as the daemon finds it.
const POOL: &str = "/var/lib/libvirt/images";

/// What the secret holds, and whom it is for.
const SECRET: (&str, &str) = ("6f70656e2d736573616d652d00000001", "/secret");

/// A CPU that every x86 machine can be compared with.
const CPU: &str = "<cpu match='exact'><arch>x86_64</arch><model>qemu64</model><vendor>AMD</vendor>\
                   <topology sockets='1' cores='1' threads='1'/></cpu>";

/// A network of its own; the guest does not ask it for an address.
const NETWORK: &str = "<network><name>lan</name><bridge name='virbr7'/>\
     <ip address='192.168.150.1' netmask='255.255.255.0'>\
     <dhcp><range start='192.168.150.2' end='192.168.150.9'/></dhcp></ip></network>";

/// Lets everything pass but what claims another Ethernet address.
const FILTER: &str = "<filter name='quiet' chain='root'>\
     <rule action='drop' direction='out' priority='500'><mac match='no' srcmacaddr='$MAC'/></rule></filter>";

/// What the running domain has beside our usual guest.
const ELEMENTS: [&str; 4] = [
    "<title>The scene's guest</title>",
    "<description>One of each kind</description>",
    "<metadata><note xmlns='http://vbridge.org/test/1'>kept</note></metadata>",
    "<iothreads>1</iothreads>",
];

const SCREEN: &str = "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>\
     <video><model type='vga' vram='16384' heads='1'/></video>";

/// The objects of a daemon's driver, by the names of the reference's parameters.
#[derive(Debug)]
pub struct Scene {
    uri: String,
    /// Values by parameter.
    common: Map<String, Value>,
    /// Values by call and parameter, where the parameter alone does not tell.
    special: BTreeMap<&'static str, Value>,
    /// The running domain, on QEMU.
    domain: Option<Domain>,
    /// The test driver forgets everything when its last connection goes.
    _keeper: Reference,
}

// === impl Scene ===

impl Scene {
    /// Makes the scene on a daemon's QEMU driver, and waits until the guest is up.
    ///
    /// # Errors
    /// An object can't be made.
    pub async fn on_qemu(daemon: &Libvirtd) -> Result<Self> {
        let uri = daemon.uri("qemu");
        let keeper = Reference::connect(&uri).await?;
        let make = Maker { daemon };
        make.objects().await.context("the scene's first objects")?;
        let guest = make.guest().await.context("the scene's guest")?;
        make.resting().await.context("the scene's resting domain")?;
        guest.up(daemon, 1).await?;

        let ask = async |arguments: &'static [&'static str]| -> Result<String> {
            Ok(daemon.virsh(arguments).await?.trim().to_owned())
        };
        let network = ask(&["net-uuid", "lan"]).await?;
        let port = ask(&["net-port-list", "lan", "--uuid"]).await?;
        let pool = ask(&["pool-uuid", "images"]).await?;
        let filter = ask(&["nwfilter-list"]).await?;
        let filter = filter
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        let id = ask(&["domid", "guest"]).await?.parse::<i64>()?;
        let (secret, usage) = SECRET;
        let path = format!("{POOL}/guest.qcow2");
        let resting = json!({"domain": "resting"});
        let mut scene = Self {
            uri,
            common: object(json!({
                "domain": "guest", "disk": "vda", "nic": "tap0", "network": "lan", "port": port, "interface": "lo",
                "pool": "images", "volume": "guest.qcow2", "device": "computer", "secret": secret, "filter": "quiet",
                "binding": "tap0", "snapshot": "first", "checkpoint": "early", "xml": CPU, "xmls": [CPU],
            })),
            special: BTreeMap::from([
                ("domain_lookup_by_id", json!({"id": id})),
                ("domain_lookup_by_name", json!({"name": "guest"})),
                ("domain_lookup_by_uuid", json!({"uuid": guest.uuid()})),
                ("domain_get_metadata", json!({"type": 1})),
                ("domain_memory_peek", json!({"offset": 4096})),
                ("domain_managed_save_get_xml_desc", resting.clone()),
                (
                    "domain_save_image_get_xml_desc",
                    json!({"file": "/var/lib/libvirt/qemu/save/resting.save"}),
                ),
                (
                    "connect_domain_xml_from_native",
                    json!({"format": "qemu-argv", "config": "qemu"}),
                ),
                (
                    "connect_domain_xml_to_native",
                    json!({"format": "qemu-argv", "xml": guest.xml()}),
                ),
                ("network_lookup_by_name", json!({"name": "lan"})),
                ("network_lookup_by_uuid", json!({"uuid": network})),
                ("network_port_lookup_by_uuid", json!({"uuid": port})),
                ("network_get_metadata", json!({"type": 0})),
                ("interface_lookup_by_name", json!({"name": "lo"})),
                (
                    "interface_lookup_by_mac_string",
                    json!({"mac": "00:00:00:00:00:00"}),
                ),
                ("storage_pool_lookup_by_name", json!({"name": "images"})),
                ("storage_pool_lookup_by_uuid", json!({"uuid": pool})),
                ("storage_pool_lookup_by_target_path", json!({"path": POOL})),
                ("storage_vol_lookup_by_name", json!({"name": "guest.qcow2"})),
                ("storage_vol_lookup_by_key", json!({"key": path})),
                ("storage_vol_lookup_by_path", json!({"path": path})),
                ("node_device_lookup_by_name", json!({"name": "computer"})),
                ("secret_lookup_by_uuid", json!({"uuid": secret})),
                // 1: for a volume.
                ("secret_lookup_by_usage", json!({"type": 1, "id": usage})),
                ("nwfilter_lookup_by_name", json!({"name": "quiet"})),
                ("nwfilter_lookup_by_uuid", json!({"uuid": filter})),
                (
                    "nwfilter_binding_lookup_by_port_dev",
                    json!({"name": "tap0"}),
                ),
                ("domain_snapshot_lookup_by_name", json!({"name": "first"})),
                ("domain_checkpoint_lookup_by_name", json!({"name": "early"})),
                ("domain_snapshot_get_parent", json!({"snapshot": "second"})),
                (
                    "domain_checkpoint_get_parent",
                    json!({"checkpoint": "late"}),
                ),
            ]),
            domain: Some(guest),
            _keeper: keeper,
        };
        scene.snapshots_of("resting");
        Ok(scene)
    }

    /// Makes the scene on a daemon's test driver. It ends with the last of that driver's connections, the scene's own
    /// among them.
    ///
    /// # Errors
    /// An object can't be made.
    pub async fn on_test_driver(daemon: &Libvirtd) -> Result<Self> {
        let uri = daemon.uri("test");
        let mut keeper = Reference::connect(&uri).await?;
        for arguments in [
            &["snapshot-create-as", "test", "first"][..],
            &["snapshot-create-as", "test", "second"],
            &["checkpoint-create-as", "test", "early"],
            &["vol-create-as", "default-pool", "volume", "1M"],
        ] {
            // A driver of another version may lack one of them: then every client is refused it alike.
            let _ = virsh(&uri, arguments).await?;
        }
        let mut uuids = BTreeMap::new();
        for call in ["domain", "network", "storage_pool"] {
            let name = if call == "domain" { "test" } else { "default" };
            let name = if call == "storage_pool" {
                "default-pool"
            } else {
                name
            };
            let found = keeper
                .value(
                    &format!("{call}_lookup_by_name"),
                    &object(json!({"name": name})),
                )
                .await?;
            uuids.insert(call, found["uuid"].clone());
        }
        let volume = "/default-pool/volume";
        let nowhere = "00000000-0000-0000-0000-000000000001";
        let mut scene = Self {
            uri,
            common: object(json!({
                "domain": "test", "disk": "vda", "nic": "testnet0", "network": "default", "port": nowhere,
                "interface": "eth1", "pool": "default-pool", "volume": "volume", "device": "computer",
                "secret": nowhere, "filter": "quiet", "binding": "testnet0", "snapshot": "first",
                "checkpoint": "early", "xml": CPU, "xmls": [CPU],
            })),
            special: BTreeMap::from([
                ("domain_lookup_by_id", json!({"id": 1})),
                ("domain_lookup_by_name", json!({"name": "test"})),
                ("domain_lookup_by_uuid", json!({"uuid": uuids["domain"]})),
                ("domain_get_metadata", json!({"type": 0})),
                (
                    "domain_save_image_get_xml_desc",
                    json!({"file": "/nowhere"}),
                ),
                (
                    "connect_domain_xml_from_native",
                    json!({"format": "qemu-argv", "config": "qemu"}),
                ),
                (
                    "connect_domain_xml_to_native",
                    json!({"format": "qemu-argv", "xml": "<domain/>"}),
                ),
                ("network_lookup_by_name", json!({"name": "default"})),
                ("network_lookup_by_uuid", json!({"uuid": uuids["network"]})),
                ("network_port_lookup_by_uuid", json!({"uuid": nowhere})),
                ("network_get_metadata", json!({"type": 0})),
                ("interface_lookup_by_name", json!({"name": "eth1"})),
                (
                    "interface_lookup_by_mac_string",
                    json!({"mac": "aa:bb:cc:dd:ee:ff"}),
                ),
                (
                    "storage_pool_lookup_by_name",
                    json!({"name": "default-pool"}),
                ),
                (
                    "storage_pool_lookup_by_uuid",
                    json!({"uuid": uuids["storage_pool"]}),
                ),
                (
                    "storage_pool_lookup_by_target_path",
                    json!({"path": "/default-pool"}),
                ),
                ("storage_vol_lookup_by_name", json!({"name": "volume"})),
                ("storage_vol_lookup_by_key", json!({"key": volume})),
                ("storage_vol_lookup_by_path", json!({"path": volume})),
                ("node_device_lookup_by_name", json!({"name": "computer"})),
                ("secret_lookup_by_uuid", json!({"uuid": nowhere})),
                (
                    "secret_lookup_by_usage",
                    json!({"type": 1, "id": "/secret"}),
                ),
                ("nwfilter_lookup_by_name", json!({"name": "quiet"})),
                ("nwfilter_lookup_by_uuid", json!({"uuid": nowhere})),
                (
                    "nwfilter_binding_lookup_by_port_dev",
                    json!({"name": "testnet0"}),
                ),
                ("domain_snapshot_lookup_by_name", json!({"name": "first"})),
                ("domain_checkpoint_lookup_by_name", json!({"name": "early"})),
                ("domain_snapshot_get_parent", json!({"snapshot": "second"})),
            ]),
            domain: None,
            _keeper: keeper,
        };
        scene.snapshots_of("test");
        Ok(scene)
    }

    /// Where a client finds the scene.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The domain that runs, on QEMU.
    pub fn domain(&self) -> Option<&Domain> {
        self.domain.as_ref()
    }

    /// What a call is to be given here: a value for each parameter that it needs, and for the others where the default
    /// value has no good answer.
    ///
    /// # Errors
    /// The scene lacks something that the call needs.
    pub fn arguments(&self, call: &str, parameters: &Parameters) -> Result<Map<String, Value>> {
        let special = self.special.get(call);
        let mut given = special.map_or_else(Map::new, |value| object(value.clone()));
        for name in &parameters.required {
            if !given.contains_key(name) {
                let value = self.common.get(name);
                let value = value.with_context(|| format!("the scene has no {name} for {call}"))?;
                given.insert(name.clone(), value.clone());
            }
        }
        Ok(given)
    }

    /// All calls about snapshots ask for this domain's.
    fn snapshots_of(&mut self, domain: &str) {
        for call in SNAPSHOT_CALLS {
            let value = self.special.entry(call).or_insert_with(|| json!({}));
            value["domain"] = json!(domain);
        }
    }
}

/// The calls that are about a domain's snapshots.
const SNAPSHOT_CALLS: [&str; 13] = [
    "domain_snapshot_num",
    "domain_snapshot_list_names",
    "domain_list_all_snapshots",
    "domain_snapshot_lookup_by_name",
    "domain_has_current_snapshot",
    "domain_snapshot_current",
    "domain_snapshot_get_xml_desc",
    "domain_snapshot_get_parent",
    "domain_snapshot_num_children",
    "domain_snapshot_list_children_names",
    "domain_snapshot_list_all_children",
    "domain_snapshot_is_current",
    "domain_snapshot_has_metadata",
];

/// Makes the objects on QEMU with virsh.
struct Maker<'a> {
    daemon: &'a Libvirtd,
}

impl Maker<'_> {
    async fn objects(&self) -> Result<()> {
        let daemon = self.daemon;
        std::fs::create_dir_all(daemon.path(POOL))?;
        daemon
            .virsh(&["pool-define-as", "images", "dir", "--target", POOL])
            .await?;
        daemon.virsh(&["pool-start", "images"]).await?;
        for volume in ["guest.qcow2", "resting.qcow2"] {
            let create = [
                "vol-create-as",
                "images",
                volume,
                "64M",
                "--format",
                "qcow2",
            ];
            daemon.virsh(&create).await?;
        }
        self.define("net-define", "lan", NETWORK).await?;
        daemon.virsh(&["net-start", "lan"]).await?;
        self.define("nwfilter-define", "quiet", FILTER).await?;
        let (uuid, usage) = SECRET;
        let secret = format!(
            "<secret ephemeral='no' private='no'><uuid>{uuid}</uuid>\
             <usage type='volume'><volume>{usage}</volume></usage></secret>"
        );
        self.define("secret-define", "secret", &secret).await?;
        // "open sesame"
        let value = "b3BlbiBzZXNhbWU=";
        daemon
            .virsh(&["secret-set-value", uuid, "--base64", value])
            .await?;
        Ok(())
    }

    /// The domain that runs.
    async fn guest(&self) -> Result<Domain> {
        let mut builder = Domain::builder("guest")
            .disk(format!("{POOL}/guest.qcow2").as_ref())
            .network("lan", Some("quiet"))
            .device(SCREEN);
        for element in ELEMENTS {
            builder = builder.element(element);
        }
        let domain = builder.build().await?;
        domain.define(self.daemon).await?;
        self.daemon.virsh(&["start", "guest"]).await?;
        for name in ["early", "late"] {
            self.daemon
                .virsh(&["checkpoint-create-as", "guest", name])
                .await?;
        }
        Ok(domain)
    }

    /// The domain that is shut off, but will go on where it was.
    async fn resting(&self) -> Result<()> {
        let domain = Domain::builder("resting")
            .disk(format!("{POOL}/resting.qcow2").as_ref())
            .build()
            .await?;
        domain.define(self.daemon).await?;
        for name in ["first", "second"] {
            self.daemon
                .virsh(&["snapshot-create-as", "resting", name])
                .await?;
        }
        self.daemon.virsh(&["start", "resting", "--paused"]).await?;
        self.daemon.virsh(&["managedsave", "resting"]).await?;
        Ok(())
    }

    async fn define(&self, command: &str, name: &str, xml: &str) -> Result<()> {
        let path = self.daemon.folder().join(format!("{name}.xml"));
        std::fs::write(&path, xml)?;
        self.daemon
            .virsh(&[command, &path.display().to_string()])
            .await?;
        Ok(())
    }
}

/// The object in a JSON value; empty if it is none.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
