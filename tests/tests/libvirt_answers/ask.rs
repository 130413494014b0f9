//! A question to the Rust client: its arguments, and the objects that they name.

use anyhow::{Context as _, Result};
use libvirt::{
    Connect,
    raw::remote::{
        DomainCheckpointLookupByNameArgs, DomainLookupByNameArgs, DomainSnapshotLookupByNameArgs,
        InterfaceLookupByNameArgs, NetworkLookupByNameArgs, NetworkPortLookupByUuidArgs,
        NodeDeviceLookupByNameArgs, NonnullDomain, NonnullDomainCheckpoint, NonnullDomainSnapshot,
        NonnullInterface, NonnullNetwork, NonnullNetworkPort, NonnullNwfilter,
        NonnullNwfilterBinding, NonnullSecret, NonnullStoragePool, NonnullStorageVol,
        NwfilterBindingLookupByPortDevArgs, NwfilterLookupByNameArgs, Remote,
        SecretLookupByUuidArgs, StoragePoolLookupByNameArgs, StorageVolLookupByNameArgs, Uuid,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// `VIR_TYPED_PARAM_STRING_OKAY`: we understand parameters that are texts. The C library sets it by itself.
pub(super) const TEXTS: u32 = 1 << 2;

/// A question. Objects are looked up by the names that its arguments give, each time anew; so a wrong name is answered
/// with the look-up's error.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) connect: Connect,
    pub(super) remote: Remote,
    arguments: Map<String, Value>,
}

// === impl Ask ===

impl Ask {
    pub(super) fn new(connect: &Connect, arguments: Map<String, Value>) -> Result<Self> {
        Ok(Self {
            connect: connect.clone(),
            remote: connect.raw()?,
            arguments,
        })
    }

    /// An argument, as whatever type its place on the wire has.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.arguments.get(name);
        let value = value.with_context(|| format!("there is no argument {name}"))?;
        T::deserialize(value).with_context(|| format!("the argument {name} is {value}"))
    }

    /// The argument that almost every call has.
    pub(super) fn flags(&self) -> Result<u32> {
        self.get("flags")
    }

    /// An argument that is a UUID's text.
    pub(super) fn uuid(&self, name: &str) -> Result<Uuid> {
        let text: String = self.get(name)?;
        let digits: String = text.chars().filter(|char| *char != '-').collect();
        let number = u128::from_str_radix(&digits, 16);
        let number = number.with_context(|| format!("the argument {name} is {text:?}"))?;
        Ok(number.to_be_bytes())
    }

    /// How many CPUs the host has, whether they are on or not.
    pub(super) async fn host_cpus(&self) -> Result<usize> {
        let args = libvirt::raw::remote::NodeGetCpuMapArgs {
            need_map: 0,
            need_online: 0,
            flags: 0,
        };
        let count = self.remote.node_get_cpu_map(&args).await?.ret;
        Ok(usize::try_from(count)?)
    }
}

macro_rules! look_ups {
    ($($name:ident -> $object:ident = $procedure:ident($args:ident { $field:ident }).$found:ident;)*) => {
        impl Ask {$(
            pub(super) async fn $name(&self) -> Result<$object> {
                let args = $args { $field: self.get(stringify!($name))? };
                Ok(self.remote.$procedure(&args).await?.$found)
            }
        )*}
    };
}

look_ups! {
    domain -> NonnullDomain = domain_lookup_by_name(DomainLookupByNameArgs { name }).dom;
    network -> NonnullNetwork = network_lookup_by_name(NetworkLookupByNameArgs { name }).net;
    interface -> NonnullInterface = interface_lookup_by_name(InterfaceLookupByNameArgs { name }).iface;
    pool -> NonnullStoragePool = storage_pool_lookup_by_name(StoragePoolLookupByNameArgs { name }).pool;
    filter -> NonnullNwfilter = nwfilter_lookup_by_name(NwfilterLookupByNameArgs { name }).nwfilter;
    binding -> NonnullNwfilterBinding
        = nwfilter_binding_lookup_by_port_dev(NwfilterBindingLookupByPortDevArgs { name }).nwfilter;
}

impl Ask {
    pub(super) async fn port(&self) -> Result<NonnullNetworkPort> {
        let args = NetworkPortLookupByUuidArgs {
            network: self.network().await?,
            uuid: self.uuid("port")?,
        };
        Ok(self.remote.network_port_lookup_by_uuid(&args).await?.port)
    }

    pub(super) async fn volume(&self) -> Result<NonnullStorageVol> {
        let args = StorageVolLookupByNameArgs {
            pool: self.pool().await?,
            name: self.get("volume")?,
        };
        Ok(self.remote.storage_vol_lookup_by_name(&args).await?.vol)
    }

    pub(super) async fn secret(&self) -> Result<NonnullSecret> {
        let args = SecretLookupByUuidArgs {
            uuid: self.uuid("secret")?,
        };
        Ok(self.remote.secret_lookup_by_uuid(&args).await?.secret)
    }

    /// A device's bare name, which is all that the wire says of it.
    pub(super) async fn device(&self) -> Result<String> {
        let args = NodeDeviceLookupByNameArgs {
            name: self.get("device")?,
        };
        Ok(self
            .remote
            .node_device_lookup_by_name(&args)
            .await?
            .dev
            .name)
    }

    pub(super) async fn snapshot(&self) -> Result<NonnullDomainSnapshot> {
        let args = DomainSnapshotLookupByNameArgs {
            dom: self.domain().await?,
            name: self.get("snapshot")?,
            flags: 0,
        };
        let found = self.remote.domain_snapshot_lookup_by_name(&args).await?;
        Ok(found.snap)
    }

    pub(super) async fn checkpoint(&self) -> Result<NonnullDomainCheckpoint> {
        let args = DomainCheckpointLookupByNameArgs {
            dom: self.domain().await?,
            name: self.get("checkpoint")?,
            flags: 0,
        };
        let found = self.remote.domain_checkpoint_lookup_by_name(&args).await?;
        Ok(found.checkpoint)
    }
}
