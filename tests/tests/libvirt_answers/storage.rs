//! The calls of storage pools, their volumes, and secrets.

use serde_json::json;

use super::{
    Call, calls,
    shape::{Show as _, each, hex, received},
};

pub(super) fn calls() -> Vec<Call> {
    [&lists()[..], &pools(), &volumes(), &secrets()].concat()
}

fn lists() -> Vec<Call> {
    calls!(ask {
        connect_num_of_storage_pools() |found| found.num;
        connect_num_of_defined_storage_pools() |found| found.num;
        connect_list_storage_pools(ConnectListStoragePoolsArgs {
            maxnames: ask.remote.connect_num_of_storage_pools().await?.num,
        }) |found| found.names;
        connect_list_defined_storage_pools(ConnectListDefinedStoragePoolsArgs {
            maxnames: ask.remote.connect_num_of_defined_storage_pools().await?.num,
        }) |found| found.names;
        connect_list_all_storage_pools(ConnectListAllStoragePoolsArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.pools);
        connect_find_storage_pool_sources(ConnectFindStoragePoolSourcesArgs {
            r#type: ask.get("type")?, src_spec: ask.get("spec")?, flags: ask.flags()?,
        }) |found| found.xml;
        connect_get_storage_pool_capabilities(ConnectGetStoragePoolCapabilitiesArgs { flags: ask.flags()? })
            |found| found.capabilities;
        storage_pool_lookup_by_name(StoragePoolLookupByNameArgs { name: ask.get("name")? }) |found| found.pool.show();
        storage_pool_lookup_by_uuid(StoragePoolLookupByUuidArgs { uuid: ask.uuid("uuid")? })
            |found| found.pool.show();
        storage_pool_lookup_by_target_path(StoragePoolLookupByTargetPathArgs { path: ask.get("path")? })
            |found| found.pool.show();
        storage_vol_lookup_by_key(StorageVolLookupByKeyArgs { key: ask.get("key")? }) |found| found.vol.show();
        storage_vol_lookup_by_path(StorageVolLookupByPathArgs { path: ask.get("path")? }) |found| found.vol.show();
    })
    .to_vec()
}

fn pools() -> Vec<Call> {
    calls!(ask [pool: ask.pool().await?] {
        storage_pool_get_info(StoragePoolGetInfoArgs {}) |found| json!({
            "state": found.state, "capacity": found.capacity, "allocation": found.allocation,
            "available": found.available,
        });
        storage_pool_get_xml_desc(StoragePoolGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        storage_pool_get_autostart(StoragePoolGetAutostartArgs {}) |found| found.autostart;
        storage_pool_is_active(StoragePoolIsActiveArgs {}) |found| found.active;
        storage_pool_is_persistent(StoragePoolIsPersistentArgs {}) |found| found.persistent;
        storage_pool_num_of_volumes(StoragePoolNumOfVolumesArgs {}) |found| found.num;
        storage_pool_list_volumes(StoragePoolListVolumesArgs {
            maxnames: {
                let args = libvirt::raw::remote::StoragePoolNumOfVolumesArgs { pool: ask.pool().await? };
                ask.remote.storage_pool_num_of_volumes(&args).await?.num
            },
        }) |found| found.names;
        storage_pool_list_all_volumes(StoragePoolListAllVolumesArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.vols);
        storage_vol_lookup_by_name(StorageVolLookupByNameArgs { name: ask.get("name")? }) |found| found.vol.show();
    })
    .to_vec()
}

fn volumes() -> Vec<Call> {
    calls!(ask [vol: ask.volume().await?] {
        storage_pool_lookup_by_volume(StoragePoolLookupByVolumeArgs {}) |found| found.pool.show();
        storage_vol_get_info(StorageVolGetInfoArgs {}) |found| json!({
            "type": found.r#type, "capacity": found.capacity, "allocation": found.allocation,
        });
        storage_vol_get_info_flags(StorageVolGetInfoFlagsArgs { flags: ask.flags()? }) |found| json!({
            "type": found.r#type, "capacity": found.capacity, "allocation": found.allocation,
        });
        storage_vol_get_xml_desc(StorageVolGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        // The reply's field has the name of another reply's.
        storage_vol_get_path(StorageVolGetPathArgs {}) |found| found.name;
        storage_vol_download(StorageVolDownloadArgs {
            offset: ask.get("offset")?, length: ask.get("length")?, flags: ask.flags()?,
        }) |found| received(found).await?;
    })
    .to_vec()
}

fn secrets() -> Vec<Call> {
    let lists = calls!(ask {
        connect_num_of_secrets() |found| found.num;
        connect_list_secrets(ConnectListSecretsArgs {
            maxuuids: ask.remote.connect_num_of_secrets().await?.num,
        }) |found| found.uuids;
        connect_list_all_secrets(ConnectListAllSecretsArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.secrets);
        secret_lookup_by_uuid(SecretLookupByUuidArgs { uuid: ask.uuid("uuid")? }) |found| found.secret.show();
        secret_lookup_by_usage(SecretLookupByUsageArgs { usage_type: ask.get("type")?, usage_id: ask.get("id")? })
            |found| found.secret.show();
    });
    let of_secrets = calls!(ask [secret: ask.secret().await?] {
        secret_get_xml_desc(SecretGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        secret_get_value(SecretGetValueArgs { flags: ask.flags()? }) |found| hex(&found.value);
    });
    [&lists[..], &of_secrets].concat()
}
