//! The calls that a method of `Connect`, `Domain` or another handle makes as they are, made so.
//!
//! A handle's method tells the same in better types: these tell it back in the wire's.

use std::{
    error::Error,
    str::FromStr,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use libvirt::{
    DhcpLease, Domain, DomainCheckpoint, DomainSnapshot, Enumeration, Interface, Network,
    NetworkPort, NodeDevice, NwFilter, NwFilterBinding, Secret, StoragePool, StorageVol,
    raw::{
        api::{DomainInterfaceAddressesSource, DomainMemoryFlags},
        remote::DomainGetSchedulerTypeArgs,
    },
};
use serde_json::{Map, Value, json};

use super::{
    Call,
    ask::Ask,
    parameters::memory_stat,
    shape::{Show as _, each, hex, received},
};

/// Writes calls down: `NAME = SHOWN;`. The first word names the question.
macro_rules! handles {
    ($ask:ident { $($name:ident = $shown:expr;)* }) => {
        [$(super::Call {
            name: stringify!($name),
            answer: |$ask| Box::pin(async move { Ok(serde_json::json!($shown)) }),
        }),*]
    };
}

pub(super) fn calls() -> Vec<Call> {
    [
        &connection()[..],
        &host(),
        &domains(),
        &domain_configuration(),
        &domain_statistics(),
        &moments(),
        &networks(),
        &filters(),
        &storage(),
        &devices(),
    ]
    .concat()
}

// === How they are shown ===

/// No flags: the reference's questions have none.
fn none<F: Default>() -> F {
    F::default()
}

/// A counter that there is not is -1 on the wire.
fn counter(value: Option<u64>) -> Value {
    value.map_or_else(|| json!(-1), |value| json!(value))
}

/// Which hypervisor is asked what it can give: the emulator, architecture, machine and kind of domain.
fn of_hypervisor(ask: &Ask) -> Result<[Option<String>; 4]> {
    let [emulator, arch, machine, kind] =
        ["emulator", "arch", "machine", "virttype"].map(|name| ask.optional(name));
    Ok([emulator?, arch?, machine?, kind?])
}

/// A lease, as the wire has it: no time for one that never expires.
fn lease(it: &DhcpLease) -> Value {
    let expires = it.expires.map_or(Duration::ZERO, |at| {
        at.duration_since(UNIX_EPOCH).unwrap_or_default()
    });
    json!({
        "iface": it.interface, "expirytime": expires.as_secs(),
        // The handle does not tell the type, which can be seen: 0 is IPv4, 1 is IPv6.
        "type": it.address.map(|address| i32::from(address.is_ipv6())), "mac": it.mac, "iaid": it.iaid,
        "ipaddr": it.address.map(|address| address.to_string()), "prefix": it.prefix, "hostname": it.hostname,
        "clientid": it.client_id,
    })
}

// === How they are found ===

impl Ask {
    fn text(&self, name: &str) -> Result<String> {
        self.get(name)
    }

    fn optional(&self, name: &str) -> Result<Option<String>> {
        self.get(name)
    }

    /// An argument that is a member of an enumeration.
    fn member<E: Enumeration>(&self, name: &str) -> Result<E> {
        let number = self.get(name)?;
        E::from_raw(number).with_context(|| format!("the argument {name} is {number}"))
    }

    async fn domain_handle(&self) -> Result<Domain> {
        Ok(self.connect.domain_by_name(&self.text("domain")?).await?)
    }

    async fn snapshot_handle(&self) -> Result<DomainSnapshot> {
        let domain = self.domain_handle().await?;
        Ok(domain.snapshot_by_name(&self.text("snapshot")?).await?)
    }

    async fn checkpoint_handle(&self) -> Result<DomainCheckpoint> {
        let domain = self.domain_handle().await?;
        Ok(domain.checkpoint_by_name(&self.text("checkpoint")?).await?)
    }

    async fn network_handle(&self) -> Result<Network> {
        Ok(self.connect.network_by_name(&self.text("network")?).await?)
    }

    async fn port_handle(&self) -> Result<NetworkPort> {
        let network = self.network_handle().await?;
        Ok(network.port_by_uuid(self.parsed("port")?).await?)
    }

    async fn interface_handle(&self) -> Result<Interface> {
        let name = self.text("interface")?;
        Ok(self.connect.interface_by_name(&name).await?)
    }

    async fn pool_handle(&self) -> Result<StoragePool> {
        let name = self.text("pool")?;
        Ok(self.connect.storage_pool_by_name(&name).await?)
    }

    async fn volume_handle(&self) -> Result<StorageVol> {
        let pool = self.pool_handle().await?;
        Ok(pool.volume_by_name(&self.text("volume")?).await?)
    }

    async fn device_handle(&self) -> Result<NodeDevice> {
        let name = self.text("device")?;
        Ok(self.connect.node_device_by_name(&name).await?)
    }

    async fn secret_handle(&self) -> Result<Secret> {
        Ok(self.connect.secret_by_uuid(self.parsed("secret")?).await?)
    }

    async fn filter_handle(&self) -> Result<NwFilter> {
        Ok(self.connect.nwfilter_by_name(&self.text("filter")?).await?)
    }

    async fn binding_handle(&self) -> Result<NwFilterBinding> {
        let port = self.text("binding")?;
        Ok(self.connect.nwfilter_binding_by_port(&port).await?)
    }

    /// An argument that is a UUID.
    fn parsed<T: FromStr<Err: Error + Send + Sync + 'static>>(&self, name: &str) -> Result<T> {
        Ok(self.text(name)?.parse()?)
    }
}

// === The calls ===

fn connection() -> Vec<Call> {
    handles!(ask {
        connect_get_type = ask.connect.driver().await?;
        connect_get_version = ask.connect.hypervisor_version().await?.show();
        connect_get_lib_version = ask.connect.libvirt_version().await?.show();
        connect_get_hostname = ask.connect.hostname().await?;
        connect_get_sysinfo = ask.connect.sysinfo().await?;
        connect_get_capabilities = ask.connect.capabilities().await?;
        connect_get_domain_capabilities = ask.connect.domain_capabilities(None, None, None, None, none()).await?;
        connect_get_cpu_model_names = ask.connect.cpu_models(&ask.text("arch")?).await?;
        connect_compare_cpu = ask.connect.compare_cpu(&ask.text("xml")?, none()).await?.show();
        connect_baseline_cpu = {
            let xmls: Vec<String> = ask.get("xmls")?;
            let xmls: Vec<&str> = xmls.iter().map(String::as_str).collect();
            ask.connect.baseline_cpu(&xmls, none()).await?
        };
        connect_compare_hypervisor_cpu = {
            let [emulator, arch, machine, kind] = of_hypervisor(ask)?;
            let [emulator, arch, machine, kind] = [&emulator, &arch, &machine, &kind].map(Option::as_deref);
            let xml = ask.text("xml")?;
            ask.connect.compare_hypervisor_cpu(emulator, arch, machine, kind, &xml, none()).await?.show()
        };
        connect_baseline_hypervisor_cpu = {
            let [emulator, arch, machine, kind] = of_hypervisor(ask)?;
            let [emulator, arch, machine, kind] = [&emulator, &arch, &machine, &kind].map(Option::as_deref);
            let xmls: Vec<String> = ask.get("xmls")?;
            let xmls: Vec<&str> = xmls.iter().map(String::as_str).collect();
            ask.connect.baseline_hypervisor_cpu(emulator, arch, machine, kind, &xmls, none()).await?
        };
        connect_get_max_vcpus = ask.connect.max_vcpus(ask.optional("type")?.as_deref()).await?;
        connect_get_uri = ask.connect.uri();
        connect_supports_feature = i32::from(ask.connect.supports_feature(ask.get("feature")?).await?);
        connect_is_secure = i32::from(ask.connect.is_secure().await?);
        connect_domain_xml_from_native
            = ask.connect.domain_xml_from_native(&ask.text("format")?, &ask.text("config")?).await?;
        connect_domain_xml_to_native
            = ask.connect.domain_xml_to_native(&ask.text("format")?, &ask.text("xml")?).await?;
        connect_get_all_domain_stats = ask.connect.all_domain_stats(&[], none(), none()).await?.iter()
            .map(|stats| json!({"dom": stats.domain.show(), "params": stats.values.show()}))
            .collect::<Vec<_>>();
    })
    .to_vec()
}

fn host() -> Vec<Call> {
    handles!(ask {
        node_get_info = {
            let info = ask.connect.node_info().await?;
            json!({
                "model": info.model, "memory_mib": info.memory / 1024, "cpus": info.cpus, "mhz": info.mhz,
                "nodes": info.nodes, "sockets": info.sockets, "cores": info.cores, "threads": info.threads,
            })
        };
        node_get_cpu_map = {
            let online = ask.connect.cpu_map().await?.online;
            let mut map = vec![0; online.len().div_ceil(8)];
            for cpu in (0..online.len()).filter(|cpu| online[*cpu]) {
                map[cpu / 8] |= 1 << (cpu % 8);
            }
            let count = online.iter().filter(|online| **online).count();
            json!({"cpumap": hex(&map), "online": count, "ret": online.len()})
        };
        node_get_free_memory = ask.connect.free_memory().await?;
        node_get_cells_free_memory
            = ask.connect.cells_free_memory(ask.get("start_cell")?, ask.get("max_cells")?).await?;
        node_get_cpu_stats = ask.connect.cpu_stats(ask.get("cpu")?).await?.show();
        node_get_memory_stats = ask.connect.memory_stats(ask.get("cell")?).await?.show();
        node_get_memory_parameters = ask.connect.memory_parameters().await?.show();
        node_get_free_pages = {
            let pages: Vec<u32> = ask.get("pages")?;
            ask.connect.free_pages(&pages, ask.get("start_cell")?, ask.get("cell_count")?).await?
        };
        node_get_security_model = {
            let model = ask.connect.security_model().await?;
            json!({"model": model.model, "doi": model.doi})
        };
        node_get_sev_info = ask.connect.sev_info().await?.show();
    })
    .to_vec()
}

fn domains() -> Vec<Call> {
    handles!(ask {
        connect_list_all_domains = each(&ask.connect.domains(none()).await?);
        domain_lookup_by_id = ask.connect.domain_by_id(ask.get("id")?).await?.show();
        domain_lookup_by_name = ask.connect.domain_by_name(&ask.text("name")?).await?.show();
        domain_lookup_by_uuid = ask.connect.domain_by_uuid(ask.parsed("uuid")?).await?.show();
        domain_get_state = {
            let state = ask.domain_handle().await?.state().await?;
            json!({"state": state.state.show(), "reason": state.reason.raw()})
        };
        domain_get_info = {
            let info = ask.domain_handle().await?.info().await?;
            json!({
                "state": info.state.show(), "maxMem": info.max_memory, "memory": info.memory,
                "nrVirtCpu": info.vcpus, "cpuTime": info.cpu_time,
            })
        };
        domain_get_control_info = {
            let info = ask.domain_handle().await?.control_info().await?;
            json!({
                "state": info.state.show(), "details": info.reason.show(),
                "stateTime": u64::try_from(info.elapsed.as_millis())?,
            })
        };
        domain_is_active = i32::from(ask.domain_handle().await?.is_active().await?);
        domain_is_persistent = i32::from(ask.domain_handle().await?.is_persistent().await?);
        domain_is_updated = i32::from(ask.domain_handle().await?.is_updated().await?);
        domain_get_autostart = i32::from(ask.domain_handle().await?.autostart().await?);
        domain_get_messages = ask.domain_handle().await?.messages(none()).await?;
        domain_get_hostname = ask.domain_handle().await?.hostname(none()).await?;
        domain_get_fsinfo = ask.domain_handle().await?.file_systems().await?.into_iter()
            .map(|it| json!({
                "mountpoint": it.mountpoint, "name": it.name, "fstype": it.kind, "dev_aliases": it.disks,
            }))
            .collect::<Vec<_>>();
        domain_get_guest_vcpus = ask.domain_handle().await?.guest_vcpus().await?.show();
        domain_get_guest_info = ask.domain_handle().await?.guest_info(none()).await?.show();
        domain_get_time = {
            let time = ask.domain_handle().await?.time().await?;
            json!({"seconds": time.as_secs(), "nseconds": time.subsec_nanos()})
        };
        domain_interface_addresses = {
            let source = DomainInterfaceAddressesSource::from_raw(ask.get("source")?);
            let source = source.context("there is no such source")?;
            let found = ask.domain_handle().await?.interface_addresses(source).await?;
            found.into_iter()
                .map(|it| {
                    let addresses = it.addresses.iter()
                        // The handle does not tell the type, which can be seen: 0 is IPv4, 1 is IPv6.
                        .map(|(addr, prefix)| json!({
                            "type": i32::from(addr.contains(':')), "addr": addr, "prefix": prefix,
                        }))
                        .collect::<Vec<_>>();
                    (it.name, json!({"hwaddr": it.mac, "addrs": (!addresses.is_empty()).then_some(addresses)}))
                })
                .collect::<Map<_, _>>()
        };
        domain_authorized_ssh_keys_get = ask.domain_handle().await?.ssh_keys(&ask.text("user")?).await?;
        domain_screenshot = {
            let (mime, stream) = ask.domain_handle().await?.screenshot(ask.get("screen")?).await?;
            json!({"mime": mime, "stream": received(stream).await?})
        };
    })
    .to_vec()
}

fn domain_configuration() -> Vec<Call> {
    handles!(ask {
        domain_get_xml_desc = ask.domain_handle().await?.xml(none()).await?;
        domain_get_os_type = ask.domain_handle().await?.os_type().await?;
        domain_get_max_memory = ask.domain_handle().await?.max_memory().await?;
        domain_get_max_vcpus = ask.domain_handle().await?.max_vcpus().await?;
        domain_get_vcpus_flags = ask.domain_handle().await?.vcpu_count(none()).await?;
        domain_get_metadata = ask.domain_handle().await?
            .metadata(ask.member("type")?, ask.optional("uri")?.as_deref(), none()).await?;
        domain_get_memory_parameters = ask.domain_handle().await?.memory_parameters(none()).await?.show();
        domain_get_blkio_parameters = ask.domain_handle().await?.blkio_parameters(none()).await?.show();
        domain_get_numa_parameters = ask.domain_handle().await?.numa_parameters(none()).await?.show();
        domain_get_scheduler_parameters_flags
            = ask.domain_handle().await?.scheduler_parameters(none()).await?.show();
        domain_get_interface_parameters
            = ask.domain_handle().await?.interface_parameters(&ask.text("nic")?, none()).await?.show();
        domain_get_block_io_tune
            = ask.domain_handle().await?.block_io_tune(&ask.text("disk")?, none()).await?.show();
        domain_get_perf_events = ask.domain_handle().await?.perf_events(none()).await?.show();
        domain_get_iothread_info = ask.domain_handle().await?.iothreads(none()).await?.iter()
            .map(|it| json!({"iothread_id": it.id, "cpumap": hex(&it.cpus)}))
            .collect::<Vec<_>>();
        domain_get_scheduler_type = {
            let domain = ask.domain_handle().await?;
            // The handle does not tell how many parameters it has.
            let args = DomainGetSchedulerTypeArgs { dom: domain.raw().clone() };
            let nparams = ask.remote.domain_get_scheduler_type(&args).await?.nparams;
            json!({"type": domain.scheduler().await?, "nparams": nparams})
        };
        domain_get_security_label_list = ask.domain_handle().await?.security_labels().await?.iter()
            .map(|it| json!({"label": it.label, "enforcing": it.enforcing}))
            .collect::<Vec<_>>();
        domain_get_launch_security_info = ask.domain_handle().await?.launch_security_info().await?.show();
        domain_has_managed_save_image = i32::from(ask.domain_handle().await?.has_managed_save().await?);
        domain_save_image_get_xml_desc = ask.connect.saved_domain_xml(&ask.text("file")?, none()).await?;
        domain_managed_save_get_xml_desc = ask.domain_handle().await?.managed_save_xml(none()).await?;
        domain_migrate_get_compression_cache = ask.domain_handle().await?.migration_cache().await?;
        domain_migrate_get_max_downtime = ask.domain_handle().await?.migration_downtime().await?;
        domain_migrate_get_max_speed = ask.domain_handle().await?.migration_speed(none()).await?;
        domain_memory_peek = {
            let flags = DomainMemoryFlags::from_bits_retain(ask.flags()?);
            hex(&ask.domain_handle().await?.memory_peek(ask.get("offset")?, ask.get("size")?, flags).await?)
        };
        domain_backup_get_xml_desc = ask.domain_handle().await?.backup_xml().await?;
    })
    .to_vec()
}

fn domain_statistics() -> Vec<Call> {
    handles!(ask {
        domain_block_stats = {
            let stats = ask.domain_handle().await?.block_stats(&ask.text("disk")?).await?;
            json!({
                "rd_req": counter(stats.reads), "rd_bytes": counter(stats.read_bytes),
                "wr_req": counter(stats.writes), "wr_bytes": counter(stats.written_bytes),
                "errs": counter(stats.errors),
            })
        };
        domain_block_stats_flags = ask.domain_handle().await?.block_stats_params(&ask.text("disk")?).await?.show();
        domain_interface_stats = {
            let stats = ask.domain_handle().await?.interface_stats(&ask.text("nic")?).await?;
            json!({
                "rx_bytes": counter(stats.received_bytes), "rx_packets": counter(stats.received_packets),
                "rx_errs": counter(stats.receive_errors), "rx_drop": counter(stats.receive_drops),
                "tx_bytes": counter(stats.sent_bytes), "tx_packets": counter(stats.sent_packets),
                "tx_errs": counter(stats.send_errors), "tx_drop": counter(stats.send_drops),
            })
        };
        domain_memory_stats = ask.domain_handle().await?.memory_stats().await?.into_iter()
            .map(|it| (memory_stat(it.tag.raw()), json!(it.value)))
            .collect::<Map<_, _>>();
        domain_get_vcpus = {
            let vcpus = ask.domain_handle().await?.vcpus().await?;
            let info = vcpus.iter().map(|it| json!({
                "number": it.number, "state": it.state.show(), "cpu_time": it.cpu_time, "cpu": it.cpu,
            }));
            let maps = vcpus.iter().map(|it| hex(&it.cpus));
            json!({"info": info.collect::<Vec<_>>(), "cpumaps": maps.collect::<Vec<_>>()})
        };
        domain_get_vcpu_pin_info = {
            let pins = ask.domain_handle().await?.vcpu_pins(none()).await?;
            pins.iter().map(|cpus| hex(cpus)).collect::<Vec<_>>()
        };
        domain_get_emulator_pin_info = hex(&ask.domain_handle().await?.emulator_pin(none()).await?);
        domain_get_cpu_stats = [ask.domain_handle().await?.cpu_stats().await?.show()];
        domain_get_job_stats = {
            let stats = ask.domain_handle().await?.job_stats(none()).await?;
            let mut shown = stats.values.show();
            shown["type"] = stats.kind.show();
            shown
        };
        domain_get_disk_errors = ask.domain_handle().await?.disk_errors().await?.into_iter()
            .map(|it| (it.disk, it.error.show()))
            .collect::<Map<_, _>>();
        domain_get_block_info = {
            let info = ask.domain_handle().await?.block_info(&ask.text("disk")?).await?;
            json!({"capacity": info.capacity, "allocation": info.allocation, "physical": info.physical})
        };
        domain_get_block_job_info = {
            let job = ask.domain_handle().await?.block_job(&ask.text("disk")?, none()).await?;
            job.map_or_else(|| Value::Object(Map::new()), |job| json!({
                "type": job.kind.show(), "bandwidth": job.bandwidth, "cur": job.current, "end": job.end,
            }))
        };
        domain_block_peek = hex(&ask.domain_handle().await?
            .block_peek(&ask.text("disk")?, ask.get("offset")?, ask.get("size")?).await?);
    })
    .to_vec()
}

fn moments() -> Vec<Call> {
    handles!(ask {
        domain_list_all_snapshots = each(&ask.domain_handle().await?.snapshots(none()).await?);
        domain_snapshot_lookup_by_name
            = ask.domain_handle().await?.snapshot_by_name(&ask.text("name")?).await?.show();
        domain_snapshot_current = ask.domain_handle().await?.current_snapshot().await?.show();
        domain_has_current_snapshot = i32::from(ask.domain_handle().await?.has_current_snapshot().await?);
        domain_snapshot_get_xml_desc = ask.snapshot_handle().await?.xml(none()).await?;
        domain_snapshot_get_parent = ask.snapshot_handle().await?.parent().await?.show();
        domain_snapshot_is_current = i32::from(ask.snapshot_handle().await?.is_current().await?);
        domain_snapshot_has_metadata = i32::from(ask.snapshot_handle().await?.has_metadata().await?);
        domain_snapshot_list_all_children = each(&ask.snapshot_handle().await?.children(none()).await?);
        domain_list_all_checkpoints = each(&ask.domain_handle().await?.checkpoints(none()).await?);
        domain_checkpoint_lookup_by_name
            = ask.domain_handle().await?.checkpoint_by_name(&ask.text("name")?).await?.show();
        domain_checkpoint_get_xml_desc = ask.checkpoint_handle().await?.xml(none()).await?;
        domain_checkpoint_get_parent = ask.checkpoint_handle().await?.parent().await?.show();
        domain_checkpoint_list_all_children = each(&ask.checkpoint_handle().await?.children(none()).await?);
    })
    .to_vec()
}

fn networks() -> Vec<Call> {
    handles!(ask {
        connect_list_all_networks = each(&ask.connect.networks(none()).await?);
        network_lookup_by_name = ask.connect.network_by_name(&ask.text("name")?).await?.show();
        network_lookup_by_uuid = ask.connect.network_by_uuid(ask.parsed("uuid")?).await?.show();
        network_get_xml_desc = ask.network_handle().await?.xml(none()).await?;
        network_get_bridge_name = ask.network_handle().await?.bridge_name().await?;
        network_get_autostart = i32::from(ask.network_handle().await?.autostart().await?);
        network_get_dhcp_leases
            = ask.network_handle().await?.dhcp_leases(ask.optional("mac")?.as_deref()).await?.iter().map(lease)
                .collect::<Vec<_>>();
        network_is_active = i32::from(ask.network_handle().await?.is_active().await?);
        network_is_persistent = i32::from(ask.network_handle().await?.is_persistent().await?);
        network_list_all_ports = each(&ask.network_handle().await?.ports().await?);
        network_port_lookup_by_uuid
            = ask.network_handle().await?.port_by_uuid(ask.parsed("uuid")?).await?.show();
        network_port_get_xml_desc = ask.port_handle().await?.xml().await?;
        network_port_get_parameters = ask.port_handle().await?.parameters().await?.show();
        connect_list_all_interfaces = each(&ask.connect.interfaces(none()).await?);
        interface_lookup_by_name = ask.connect.interface_by_name(&ask.text("name")?).await?.show();
        interface_lookup_by_mac_string = ask.connect.interface_by_mac(&ask.text("mac")?).await?.show();
        interface_get_xml_desc = ask.interface_handle().await?.xml(none()).await?;
        interface_is_active = i32::from(ask.interface_handle().await?.is_active().await?);
    })
    .to_vec()
}

fn filters() -> Vec<Call> {
    handles!(ask {
        connect_list_all_nwfilters = each(&ask.connect.nwfilters().await?);
        connect_list_all_nwfilter_bindings = each(&ask.connect.nwfilter_bindings().await?);
        nwfilter_lookup_by_name = ask.connect.nwfilter_by_name(&ask.text("name")?).await?.show();
        nwfilter_lookup_by_uuid = ask.connect.nwfilter_by_uuid(ask.parsed("uuid")?).await?.show();
        nwfilter_binding_lookup_by_port_dev
            = ask.connect.nwfilter_binding_by_port(&ask.text("name")?).await?.show();
        nwfilter_get_xml_desc = ask.filter_handle().await?.xml().await?;
        nwfilter_binding_get_xml_desc = ask.binding_handle().await?.xml().await?;
    })
    .to_vec()
}

fn storage() -> Vec<Call> {
    handles!(ask {
        connect_list_all_storage_pools = each(&ask.connect.storage_pools(none()).await?);
        connect_find_storage_pool_sources = ask.connect
            .find_storage_pool_sources(&ask.text("type")?, ask.optional("spec")?.as_deref()).await?;
        connect_get_storage_pool_capabilities = ask.connect.storage_pool_capabilities().await?;
        storage_pool_lookup_by_name = ask.connect.storage_pool_by_name(&ask.text("name")?).await?.show();
        storage_pool_lookup_by_uuid = ask.connect.storage_pool_by_uuid(ask.parsed("uuid")?).await?.show();
        storage_pool_lookup_by_target_path
            = ask.connect.storage_pool_by_target_path(&ask.text("path")?).await?.show();
        storage_pool_lookup_by_volume = ask.volume_handle().await?.pool().await?.show();
        storage_pool_get_info = {
            let info = ask.pool_handle().await?.info().await?;
            json!({
                "state": info.state.show(), "capacity": info.capacity, "allocation": info.allocation,
                "available": info.available,
            })
        };
        storage_pool_get_xml_desc = ask.pool_handle().await?.xml(none()).await?;
        storage_pool_get_autostart = i32::from(ask.pool_handle().await?.autostart().await?);
        storage_pool_is_active = i32::from(ask.pool_handle().await?.is_active().await?);
        storage_pool_is_persistent = i32::from(ask.pool_handle().await?.is_persistent().await?);
        storage_pool_list_all_volumes = each(&ask.pool_handle().await?.volumes().await?);
        storage_vol_lookup_by_name = ask.pool_handle().await?.volume_by_name(&ask.text("name")?).await?.show();
        storage_vol_lookup_by_key = ask.connect.storage_vol_by_key(&ask.text("key")?).await?.show();
        storage_vol_lookup_by_path = ask.connect.storage_vol_by_path(&ask.text("path")?).await?.show();
        storage_vol_get_info_flags = {
            let info = ask.volume_handle().await?.info(none()).await?;
            json!({"type": info.kind.show(), "capacity": info.capacity, "allocation": info.allocation})
        };
        storage_vol_get_xml_desc = ask.volume_handle().await?.xml().await?;
        storage_vol_get_path = ask.volume_handle().await?.path().await?;
        storage_vol_download = received(
            ask.volume_handle().await?.download(ask.get("offset")?, ask.get("length")?, none()).await?
        ).await?;
        connect_list_all_secrets = each(&ask.connect.secrets(none()).await?);
        secret_lookup_by_uuid = ask.connect.secret_by_uuid(ask.parsed("uuid")?).await?.show();
        secret_lookup_by_usage
            = ask.connect.secret_by_usage(ask.member("type")?, &ask.text("id")?).await?.show();
        secret_get_xml_desc = ask.secret_handle().await?.xml().await?;
        secret_get_value = hex(&ask.secret_handle().await?.value().await?);
    })
    .to_vec()
}

fn devices() -> Vec<Call> {
    handles!(ask {
        connect_list_all_node_devices = each(&ask.connect.node_devices(none()).await?);
        node_device_lookup_by_name = ask.connect.node_device_by_name(&ask.text("name")?).await?.show();
        node_device_lookup_scsi_host_by_wwn
            = ask.connect.node_device_by_wwn(&ask.text("wwnn")?, &ask.text("wwpn")?).await?.show();
        node_device_get_xml_desc = ask.device_handle().await?.xml(none()).await?;
        node_device_get_parent = ask.device_handle().await?.parent().await?;
        node_device_list_caps = ask.device_handle().await?.capabilities().await?;
        node_device_get_autostart = i32::from(ask.device_handle().await?.autostart().await?);
        node_device_is_active = i32::from(ask.device_handle().await?.is_active().await?);
        node_device_is_persistent = i32::from(ask.device_handle().await?.is_persistent().await?);
    })
    .to_vec()
}
