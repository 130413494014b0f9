//! One object of each kind on a daemon, so that every call has something to answer: the same scene for any client.
//!
//! | object | on QEMU | on the test driver |
//! |---|---|---|
//! | running domain | `guest`, with disks, network card, channels, screen | `test` |
//! | snapshots `first`, `second` | of `resting`, which is shut off and has a saved state | of `test` |
//! | checkpoints `early`, `late` | of `guest` | of `marked` |
//! | network, port | `lan` with DHCP, the port of the network card | `default` |
//! | pool, volumes | `images`: `guest.qcow2`, `resting.qcow2`, `raw.img` | `default-pool`: `volume` |
//! | secret | for the use of the volume `/secret`, with the value `open sesame` | – |
//! | filter, binding | `quiet`, bound to the network card | – |
//! | interface, node device | `lo`, `computer` | `eth1`, `computer` |

mod qemu;
mod test_driver;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::{
    daemon::Libvirtd,
    domain::Domain,
    reference::{Parameters, Reference},
};

/// Which object a call's parameter means, where its name alone does not tell: `(call, parameter, object)`.
const MEANT: [(&str, &str, &str); 34] = [
    ("domain_lookup_by_id", "id", "domain_id"),
    ("domain_lookup_by_name", "name", "domain"),
    ("domain_lookup_by_uuid", "uuid", "domain_uuid"),
    ("domain_get_metadata", "type", "metadata"),
    ("domain_block_peek", "disk", "raw_disk"),
    ("domain_memory_peek", "offset", "address"),
    ("domain_managed_save_get_xml_desc", "domain", "saved_domain"),
    ("domain_save_image_get_xml_desc", "file", "saved_state"),
    ("domain_snapshot_lookup_by_name", "name", "snapshot"),
    ("domain_snapshot_get_parent", "snapshot", "later_snapshot"),
    ("domain_checkpoint_lookup_by_name", "name", "checkpoint"),
    (
        "domain_checkpoint_get_parent",
        "checkpoint",
        "later_checkpoint",
    ),
    ("connect_compare_cpu", "xml", "cpu"),
    ("connect_compare_hypervisor_cpu", "xml", "cpu"),
    ("connect_baseline_cpu", "xmls", "cpus"),
    ("connect_baseline_hypervisor_cpu", "xmls", "cpus"),
    ("connect_find_storage_pool_sources", "type", "source_type"),
    ("network_lookup_by_name", "name", "network"),
    ("network_lookup_by_uuid", "uuid", "network_uuid"),
    ("network_get_metadata", "type", "metadata"),
    ("network_port_lookup_by_uuid", "uuid", "port"),
    ("interface_lookup_by_name", "name", "interface"),
    ("storage_pool_lookup_by_name", "name", "pool"),
    ("storage_pool_lookup_by_uuid", "uuid", "pool_uuid"),
    ("storage_pool_lookup_by_target_path", "path", "pool_path"),
    ("storage_vol_lookup_by_name", "name", "volume"),
    ("storage_vol_lookup_by_key", "key", "volume_path"),
    ("storage_vol_lookup_by_path", "path", "volume_path"),
    ("node_device_lookup_by_name", "name", "device"),
    ("secret_lookup_by_uuid", "uuid", "secret"),
    ("secret_lookup_by_usage", "id", "secret_usage"),
    ("nwfilter_lookup_by_name", "name", "filter"),
    ("nwfilter_lookup_by_uuid", "uuid", "filter_uuid"),
    ("nwfilter_binding_lookup_by_port_dev", "name", "binding"),
];

/// A CPU that every x86 machine can be compared with.
const CPU: &str = "<cpu><arch>x86_64</arch><model>qemu64</model><vendor>AMD</vendor>\
                   <topology sockets='1' cores='1' threads='1'/></cpu>";

/// The objects of a daemon's driver.
#[derive(Debug)]
pub struct Scene {
    uri: String,
    /// Values by the names of [`MEANT`], or else of the parameters themselves.
    objects: Map<String, Value>,
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
        let (objects, domain) = qemu::make(daemon).await.context("the scene on QEMU")?;
        Ok(Self {
            uri,
            objects,
            domain: Some(domain),
            _keeper: keeper,
        })
    }

    /// Makes the scene on a daemon's test driver. It ends with the last of that driver's connections, the scene's own
    /// among them.
    ///
    /// # Errors
    /// An object can't be made.
    pub async fn on_test_driver(daemon: &Libvirtd) -> Result<Self> {
        let uri = daemon.uri("test");
        let mut keeper = Reference::connect(&uri).await?;
        let objects = test_driver::make(daemon, &mut keeper).await;
        Ok(Self {
            uri,
            objects: objects.context("the scene on the test driver")?,
            domain: None,
            _keeper: keeper,
        })
    }

    /// Where a client finds the scene.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The domain that runs, on QEMU.
    pub fn domain(&self) -> Option<&Domain> {
        self.domain.as_ref()
    }

    /// What a call is to be given here: a value for each parameter that it needs, and for others if the scene has a
    /// better one than the default value.
    ///
    /// # Errors
    /// The scene lacks something that the call needs.
    pub fn arguments(&self, call: &str, parameters: &Parameters) -> Result<Map<String, Value>> {
        let mut arguments = Map::new();
        for name in &parameters.required {
            let object = meant(call, name).unwrap_or(name);
            let value = self.objects.get(object);
            let value = value.with_context(|| format!("the scene has no {object} for {call}"))?;
            arguments.insert(name.clone(), value.clone());
        }
        for name in parameters.defaults.keys() {
            if let Some(value) = meant(call, name).and_then(|object| self.objects.get(object)) {
                arguments.insert(name.clone(), value.clone());
            }
        }
        Ok(arguments)
    }
}

/// The name of the object that a call's parameter means.
fn meant(call: &str, parameter: &str) -> Option<&'static str> {
    let found = MEANT
        .iter()
        .find(|(of, name, _)| *of == call && *name == parameter);
    match (found, parameter) {
        (Some((_, _, object)), _) => Some(object),
        (None, "domain") if call.contains("snapshot") => Some("snapshot_domain"),
        (None, "domain") if call.contains("checkpoint") => Some("checkpoint_domain"),
        _ => None,
    }
}

/// Writes XML into a file that virsh can be given.
fn write(daemon: &Libvirtd, name: &str, xml: &str) -> Result<String> {
    let path = daemon.folder().join(format!("scene-{name}.xml"));
    std::fs::write(&path, xml)?;
    Ok(path.display().to_string())
}

/// The object in a JSON value; empty if it is none.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
