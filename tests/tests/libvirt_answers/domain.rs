//! The calls of domains: finding them, their state, configuration and what is in them.

use anyhow::Result;
use libvirt::raw::remote::{
    DomainGetEmulatorPinInfoArgs, DomainGetInfoArgs, DomainGetVcpuPinInfoArgs, DomainGetVcpusArgs,
    NonnullDomain,
};
use serde_json::{Value, json};

use super::{
    Call,
    ask::Ask,
    by_hand, calls,
    shape::{Show as _, c_text, each, hex, maps, received},
};

pub(super) fn calls() -> Vec<Call> {
    let by_hand = by_hand![
        domain_get_vcpus,
        domain_get_vcpu_pin_info,
        domain_get_emulator_pin_info,
    ];
    [
        &lists()[..],
        &state(),
        &configuration(),
        &guest(),
        &content(),
        &by_hand,
    ]
    .concat()
}

fn lists() -> Vec<Call> {
    calls!(ask {
        connect_num_of_domains() |found| found.num;
        connect_num_of_defined_domains() |found| found.num;
        connect_list_domains(ConnectListDomainsArgs {
            maxids: ask.remote.connect_num_of_domains().await?.num,
        }) |found| found.ids;
        connect_list_defined_domains(ConnectListDefinedDomainsArgs {
            maxnames: ask.remote.connect_num_of_defined_domains().await?.num,
        }) |found| found.names;
        connect_list_all_domains(ConnectListAllDomainsArgs { need_results: 1, flags: ask.flags()? })
            |found| each(&found.domains);
        domain_lookup_by_id(DomainLookupByIdArgs { id: ask.get("id")? }) |found| found.dom.show();
        domain_lookup_by_name(DomainLookupByNameArgs { name: ask.get("name")? }) |found| found.dom.show();
        domain_lookup_by_uuid(DomainLookupByUuidArgs { uuid: ask.uuid("uuid")? }) |found| found.dom.show();
        domain_save_image_get_xml_desc(DomainSaveImageGetXmlDescArgs { file: ask.get("file")?, flags: ask.flags()? })
            |found| found.xml;
    })
    .to_vec()
}

fn state() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_get_info(DomainGetInfoArgs {}) |found| json!({
            "state": found.state, "maxMem": found.max_mem, "memory": found.memory, "nrVirtCpu": found.nr_virt_cpu,
            "cpuTime": found.cpu_time,
        });
        domain_get_state(DomainGetStateArgs { flags: ask.flags()? })
            |found| json!({"state": found.state, "reason": found.reason});
        domain_get_control_info(DomainGetControlInfoArgs { flags: ask.flags()? })
            |found| json!({"state": found.state, "details": found.details, "stateTime": found.state_time});
        domain_is_active(DomainIsActiveArgs {}) |found| found.active;
        domain_is_persistent(DomainIsPersistentArgs {}) |found| found.persistent;
        domain_is_updated(DomainIsUpdatedArgs {}) |found| found.updated;
        domain_get_autostart(DomainGetAutostartArgs {}) |found| found.autostart;
        domain_get_autostart_once(DomainGetAutostartOnceArgs {}) |found| found.autostart;
        domain_get_messages(DomainGetMessagesArgs { flags: ask.flags()? }) |found| found.msgs;
        domain_has_managed_save_image(DomainHasManagedSaveImageArgs { flags: ask.flags()? }) |found| found.result;
        domain_get_security_label(DomainGetSecurityLabelArgs {})
            |found| json!({"label": c_text(&found.label), "enforcing": found.enforcing != 0});
        domain_get_security_label_list(DomainGetSecurityLabelListArgs {})
            |found| found.labels.iter()
                .map(|it| json!({"label": c_text(&it.label), "enforcing": it.enforcing != 0}))
                .collect::<Vec<_>>();
    })
    .to_vec()
}

fn configuration() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_get_xml_desc(DomainGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        domain_managed_save_get_xml_desc(DomainManagedSaveGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        domain_backup_get_xml_desc(DomainBackupGetXmlDescArgs { flags: ask.flags()? }) |found| found.xml;
        domain_get_os_type(DomainGetOsTypeArgs {}) |found| found.r#type;
        domain_get_max_memory(DomainGetMaxMemoryArgs {}) |found| found.memory;
        domain_get_max_vcpus(DomainGetMaxVcpusArgs {}) |found| found.num;
        domain_get_vcpus_flags(DomainGetVcpusFlagsArgs { flags: ask.flags()? }) |found| found.num;
        domain_get_metadata(DomainGetMetadataArgs {
            r#type: ask.get("type")?, uri: ask.get("uri")?, flags: ask.flags()?,
        }) |found| found.metadata;
        domain_get_iothread_info(DomainGetIothreadInfoArgs { flags: ask.flags()? })
            |found| found.info.iter()
                .map(|it| json!({"iothread_id": it.iothread_id, "cpumap": hex(&it.cpumap)}))
                .collect::<Vec<_>>();
        domain_migrate_get_max_speed(DomainMigrateGetMaxSpeedArgs { flags: ask.flags()? }) |found| found.bandwidth;
        domain_migrate_get_max_downtime(DomainMigrateGetMaxDowntimeArgs { flags: ask.flags()? })
            |found| found.downtime;
        domain_migrate_get_compression_cache(DomainMigrateGetCompressionCacheArgs { flags: ask.flags()? })
            |found| found.cache_size;
    })
    .to_vec()
}

/// What the guest or its agent has to tell.
fn guest() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_interface_addresses(DomainInterfaceAddressesArgs { source: ask.get("source")?, flags: ask.flags()? })
            |found| found.ifaces.into_iter()
                .map(|it| {
                    let addresses = it.addrs.iter()
                        .map(|it| json!({"type": it.r#type, "addr": it.addr, "prefix": it.prefix}))
                        .collect::<Vec<_>>();
                    // The binding has nothing where there is none.
                    let addresses = (!addresses.is_empty()).then_some(addresses);
                    (it.name, json!({"hwaddr": it.hwaddr, "addrs": addresses}))
                })
                .collect::<serde_json::Map<_, _>>();
        domain_get_hostname(DomainGetHostnameArgs { flags: ask.flags()? }) |found| found.hostname;
        domain_get_time(DomainGetTimeArgs { flags: ask.flags()? })
            |found| json!({"seconds": found.seconds, "nseconds": found.nseconds});
        domain_get_fsinfo(DomainGetFsinfoArgs { flags: ask.flags()? })
            |found| found.info.iter()
                .map(|it| json!({
                    "mountpoint": it.mountpoint, "name": it.name, "fstype": it.fstype, "dev_aliases": it.dev_aliases,
                }))
                .collect::<Vec<_>>();
        domain_authorized_ssh_keys_get(DomainAuthorizedSshKeysGetArgs {
            user: ask.get("user")?, flags: ask.flags()?,
        }) |found| found.keys;
    })
    .to_vec()
}

fn content() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_block_peek(DomainBlockPeekArgs {
            path: ask.get("disk")?, offset: ask.get("offset")?, size: ask.get("size")?, flags: ask.flags()?,
        }) |found| hex(&found.buffer);
        domain_memory_peek(DomainMemoryPeekArgs {
            offset: ask.get("offset")?, size: ask.get("size")?, flags: ask.flags()?,
        }) |found| hex(&found.buffer);
        domain_screenshot(DomainScreenshotArgs { screen: ask.get("screen")?, flags: ask.flags()? })
            |found| json!({"mime": found.0.mime, "stream": received(found.1).await?});
    })
    .to_vec()
}

// The C library does not tell how many CPUs a domain or its host has: its users count them first.

async fn count_vcpus(ask: &Ask, dom: &NonnullDomain) -> Result<i32> {
    let args = DomainGetInfoArgs { dom: dom.clone() };
    let info = ask.remote.domain_get_info(&args).await?;
    Ok(info.nr_virt_cpu.into())
}

async fn domain_get_vcpus(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let length = ask.host_cpus().await?.div_ceil(8);
    let args = DomainGetVcpusArgs {
        maxinfo: count_vcpus(ask, &dom).await?,
        maplen: i32::try_from(length)?,
        dom,
    };
    let found = ask.remote.domain_get_vcpus(&args).await?;
    let info = found.info.iter().map(
        |it| json!({"number": it.number, "state": it.state, "cpu_time": it.cpu_time, "cpu": it.cpu}),
    );
    Ok(json!({"info": info.collect::<Vec<_>>(), "cpumaps": maps(&found.cpumaps, length)}))
}

async fn domain_get_vcpu_pin_info(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let length = ask.host_cpus().await?.div_ceil(8);
    let args = DomainGetVcpuPinInfoArgs {
        ncpumaps: count_vcpus(ask, &dom).await?,
        maplen: i32::try_from(length)?,
        flags: ask.flags()?,
        dom,
    };
    let found = ask.remote.domain_get_vcpu_pin_info(&args).await?;
    Ok(json!(maps(&found.cpumaps, length)))
}

async fn domain_get_emulator_pin_info(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let length = ask.host_cpus().await?.div_ceil(8);
    let args = DomainGetEmulatorPinInfoArgs {
        maplen: i32::try_from(length)?,
        flags: ask.flags()?,
        dom,
    };
    let found = ask.remote.domain_get_emulator_pin_info(&args).await?;
    Ok(json!(hex(&found.cpumaps)))
}
