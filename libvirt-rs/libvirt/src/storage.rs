//! Storage pools and the volumes in them.

use uuid::Uuid;

use crate::code::Code;
use crate::connect::Connect;
use crate::error::Error;
use crate::object::{calls, object, text};
use crate::raw::api::{
    ConnectListAllStoragePoolsFlags, StoragePoolBuildFlags, StoragePoolCreateFlags,
    StoragePoolDefineFlags, StoragePoolDeleteFlags, StoragePoolState, StorageVolCreateFlags,
    StorageVolDeleteFlags, StorageVolDownloadFlags, StorageVolInfoFlags, StorageVolResizeFlags,
    StorageVolType, StorageVolUploadFlags, StorageVolWipeAlgorithm, StorageXmlFlags,
};
use crate::raw::remote;
use crate::rpc::RawStream;

object!(
    /// A place where volumes are kept.
    StoragePool(NonnullStoragePool)
);

object!(
    /// A disk's image, or whatever a pool holds.
    StorageVol(NonnullStorageVol)
);

/// A pool's state and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoragePoolInfo {
    /// Whether it can be used.
    pub state: Code<StoragePoolState>,
    /// Its size in bytes.
    pub capacity: u64,
    /// What its volumes take, in bytes.
    pub allocation: u64,
    /// What is left, in bytes.
    pub available: u64,
}

/// A volume's kind and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageVolInfo {
    /// What it is.
    pub kind: Code<StorageVolType>,
    /// The size that a guest sees, in bytes.
    pub capacity: u64,
    /// What it takes, in bytes.
    pub allocation: u64,
}

calls!(Connect {
    /// All pools that the flags select; without flags: all.
    storage_pools(which: ConnectListAllStoragePoolsFlags) -> Vec<StoragePool>
        = connect_list_all_storage_pools(ConnectListAllStoragePoolsArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.pools.into_iter().map(|raw| StoragePool::new(connect, raw)).collect();
    /// The pool of this name.
    storage_pool_by_name(name: &str) -> StoragePool
        = storage_pool_lookup_by_name(StoragePoolLookupByNameArgs { name: name.to_owned() })
        |found, connect| StoragePool::new(connect, found.pool);
    /// The pool of this UUID.
    storage_pool_by_uuid(uuid: Uuid) -> StoragePool
        = storage_pool_lookup_by_uuid(StoragePoolLookupByUuidArgs { uuid: uuid.into_bytes() })
        |found, connect| StoragePool::new(connect, found.pool);
    /// The pool that is kept at this path of the host.
    storage_pool_by_target_path(path: &str) -> StoragePool
        = storage_pool_lookup_by_target_path(StoragePoolLookupByTargetPathArgs { path: path.to_owned() })
        |found, connect| StoragePool::new(connect, found.pool);
    /// Defines a pool, or changes one that is defined.
    define_storage_pool(xml: &str, flags: StoragePoolDefineFlags) -> StoragePool
        = storage_pool_define_xml(StoragePoolDefineXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |defined, connect| StoragePool::new(connect, defined.pool);
    /// Starts a pool that is forgotten when it stops.
    create_storage_pool(xml: &str, flags: StoragePoolCreateFlags) -> StoragePool
        = storage_pool_create_xml(StoragePoolCreateXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |created, connect| StoragePool::new(connect, created.pool);
    /// What pools of a kind could be made of what is at hand, as XML.
    find_storage_pool_sources(kind: &str, source: Option<&str>) -> String
        = connect_find_storage_pool_sources(ConnectFindStoragePoolSourcesArgs {
            r#type: kind.to_owned(), src_spec: text(source), flags: 0,
        }) |found| found.xml;
    /// The kinds of pools that the daemon knows, as XML.
    storage_pool_capabilities() -> String
        = connect_get_storage_pool_capabilities(ConnectGetStoragePoolCapabilitiesArgs { flags: 0 })
        |found| found.capabilities;
    /// The volume of this key.
    storage_vol_by_key(key: &str) -> StorageVol
        = storage_vol_lookup_by_key(StorageVolLookupByKeyArgs { key: key.to_owned() })
        |found, connect| StorageVol::new(connect, found.vol);
    /// The volume at this path of the host.
    storage_vol_by_path(path: &str) -> StorageVol
        = storage_vol_lookup_by_path(StorageVolLookupByPathArgs { path: path.to_owned() })
        |found, connect| StorageVol::new(connect, found.vol);
});

impl StoragePool {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.uuid)
    }
}

calls!(StoragePool [pool] {
    /// Starts it.
    start(flags: StoragePoolCreateFlags)
        = storage_pool_create(StoragePoolCreateArgs { flags: flags.bits() });
    /// Makes what it stands on: its directory, its file system.
    build(flags: StoragePoolBuildFlags)
        = storage_pool_build(StoragePoolBuildArgs { flags: flags.bits() });
    /// Stops it; what it holds stays.
    destroy() = storage_pool_destroy(StoragePoolDestroyArgs {});
    /// Deletes what it stands on.
    delete(flags: StoragePoolDeleteFlags)
        = storage_pool_delete(StoragePoolDeleteArgs { flags: flags.bits() });
    /// Forgets its definition.
    undefine() = storage_pool_undefine(StoragePoolUndefineArgs {});
    /// Looks at its volumes anew.
    refresh() = storage_pool_refresh(StoragePoolRefreshArgs { flags: 0 });
    /// Its state and size.
    info() -> StoragePoolInfo = storage_pool_get_info(StoragePoolGetInfoArgs {}) |info| StoragePoolInfo {
        state: Code::new(info.state.into()),
        capacity: info.capacity,
        allocation: info.allocation,
        available: info.available,
    };
    /// Its definition.
    xml(flags: StorageXmlFlags) -> String
        = storage_pool_get_xml_desc(StoragePoolGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// Whether it is started with the host.
    autostart() -> bool
        = storage_pool_get_autostart(StoragePoolGetAutostartArgs {}) |found| found.autostart != 0;
    /// Starts it with the host, or not.
    set_autostart(autostart: bool)
        = storage_pool_set_autostart(StoragePoolSetAutostartArgs { autostart: autostart.into() });
    /// Whether it runs.
    is_active() -> bool
        = storage_pool_is_active(StoragePoolIsActiveArgs {}) |found| found.active != 0;
    /// Whether it is defined.
    is_persistent() -> bool
        = storage_pool_is_persistent(StoragePoolIsPersistentArgs {}) |found| found.persistent != 0;
    /// All its volumes.
    volumes() -> Vec<StorageVol>
        = storage_pool_list_all_volumes(StoragePoolListAllVolumesArgs { need_results: 1, flags: 0 })
        |list, connect| list.vols.into_iter().map(|raw| StorageVol::new(connect, raw)).collect();
    /// The volume of this name.
    volume_by_name(name: &str) -> StorageVol
        = storage_vol_lookup_by_name(StorageVolLookupByNameArgs { name: name.to_owned() })
        |found, connect| StorageVol::new(connect, found.vol);
    /// Makes a volume.
    create_volume(xml: &str, flags: StorageVolCreateFlags) -> StorageVol
        = storage_vol_create_xml(StorageVolCreateXmlArgs { xml: xml.to_owned(), flags: flags.bits() })
        |created, connect| StorageVol::new(connect, created.vol);
    /// Makes a volume with the content of another one.
    create_volume_from(xml: &str, from: &StorageVol, flags: StorageVolCreateFlags) -> StorageVol
        = storage_vol_create_xml_from(StorageVolCreateXmlFromArgs {
            xml: xml.to_owned(), clonevol: from.raw.clone(), flags: flags.bits(),
        }) |created, connect| StorageVol::new(connect, created.vol);
});

calls!(StorageVol [vol] {
    /// The pool that it is in.
    pool() -> StoragePool
        = storage_pool_lookup_by_volume(StoragePoolLookupByVolumeArgs {})
        |found, connect| StoragePool::new(connect, found.pool);
    /// Deletes it.
    delete(flags: StorageVolDeleteFlags)
        = storage_vol_delete(StorageVolDeleteArgs { flags: flags.bits() });
    /// Overwrites its content.
    wipe() = storage_vol_wipe(StorageVolWipeArgs { flags: 0 });
    /// Overwrites its content by a method.
    wipe_with(algorithm: StorageVolWipeAlgorithm)
        = storage_vol_wipe_pattern(StorageVolWipePatternArgs {
            algorithm: algorithm.as_raw().cast_unsigned(), flags: 0,
        });
    /// Changes its size to so many bytes.
    resize(capacity: u64, flags: StorageVolResizeFlags)
        = storage_vol_resize(StorageVolResizeArgs { capacity, flags: flags.bits() });
    /// Its kind and size.
    info(flags: StorageVolInfoFlags) -> StorageVolInfo
        = storage_vol_get_info_flags(StorageVolGetInfoFlagsArgs { flags: flags.bits() })
        |info| StorageVolInfo {
            kind: Code::new(info.r#type.into()),
            capacity: info.capacity,
            allocation: info.allocation,
        };
    /// Its definition.
    xml() -> String = storage_vol_get_xml_desc(StorageVolGetXmlDescArgs { flags: 0 }) |found| found.xml;
    /// Where it is on the host.
    path() -> String = storage_vol_get_path(StorageVolGetPathArgs {}) |found| found.name;
});

impl StorageVol {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Its key, which names it on the whole host.
    pub fn key(&self) -> &str {
        &self.raw.key
    }

    /// The name of its pool.
    pub fn pool_name(&self) -> &str {
        &self.raw.pool
    }

    /// Reads its content from an offset on: so many bytes, or with 0 all of them.
    ///
    /// With `SPARSE_STREAM` the stream has [holes](crate::rpc::Chunk::Hole). Read it to its end, and finish it.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn download(
        &self,
        offset: u64,
        length: u64,
        flags: StorageVolDownloadFlags,
    ) -> Result<RawStream, Error> {
        let args = remote::StorageVolDownloadArgs {
            vol: self.raw.clone(),
            offset,
            length,
            flags: flags.bits(),
        };
        let remote = self.connect.for_stream().await?;
        remote.storage_vol_download(&args).await
    }

    /// Writes its content from an offset on: so many bytes, or with 0 as many as come.
    ///
    /// With `SPARSE_STREAM` holes can be sent. Only when the stream is finished without an error has it been written.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn upload(
        &self,
        offset: u64,
        length: u64,
        flags: StorageVolUploadFlags,
    ) -> Result<RawStream, Error> {
        let args = remote::StorageVolUploadArgs {
            vol: self.raw.clone(),
            offset,
            length,
            flags: flags.bits(),
        };
        let remote = self.connect.for_stream().await?;
        remote.storage_vol_upload(&args).await
    }
}
