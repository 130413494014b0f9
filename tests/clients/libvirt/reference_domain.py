"""The reference's calls of domains, their snapshots and checkpoints."""

from reference_entries import bits, each, fields, reads, received, show_checkpoint, show_domain, show_snapshot, simple

# === Domains: finding and listing ===

simple("connect_num_of_domains", "", lambda c: c.numOfDomains())
simple("connect_num_of_defined_domains", "", lambda c: c.numOfDefinedDomains())
simple("connect_list_domains", "", lambda c: c.listDomainsID())
simple("connect_list_defined_domains", "", lambda c: c.listDefinedDomains())
simple("connect_list_all_domains", "flags=0", lambda c, flags: each(show_domain, c.listAllDomains(flags)))
simple("domain_lookup_by_id", "id", lambda c, id: show_domain(c.lookupByID(id)))
simple("domain_lookup_by_name", "name", lambda c, name: show_domain(c.lookupByName(name)))
simple("domain_lookup_by_uuid", "uuid", lambda c, uuid: show_domain(c.lookupByUUIDString(uuid)))

# === Domains: state and configuration ===

simple(
    "domain_get_info",
    "domain",
    lambda c, domain: fields("state maxMem memory nrVirtCpu cpuTime", domain.info()),
)
simple(
    "domain_get_state", "domain flags=0", lambda c, domain, flags: fields("state reason", domain.state(flags))
)
simple(
    "domain_get_control_info",
    "domain flags=0",
    lambda c, domain, flags: fields("state details stateTime", domain.controlInfo(flags)),
)
simple("domain_get_xml_desc", "domain flags=0", lambda c, domain, flags: domain.XMLDesc(flags))
simple("domain_get_os_type", "domain", lambda c, domain: domain.OSType())
simple("domain_get_autostart", "domain", lambda c, domain: domain.autostart())
simple(
    "domain_get_autostart_once",
    "domain",
    lambda c, domain: domain.autostartOnce(),
    needs="virDomain.autostartOnce",
)
simple("domain_is_active", "domain", lambda c, domain: domain.isActive())
simple("domain_is_persistent", "domain", lambda c, domain: domain.isPersistent())
simple("domain_is_updated", "domain", lambda c, domain: domain.isUpdated())
simple("domain_get_max_memory", "domain", lambda c, domain: domain.maxMemory())
simple("domain_get_max_vcpus", "domain", lambda c, domain: domain.maxVcpus())
simple("domain_get_vcpus_flags", "domain flags=0", lambda c, domain, flags: domain.vcpusFlags(flags))
simple(
    "domain_get_metadata",
    "domain type uri=null flags=0",
    lambda c, domain, type, uri, flags: domain.metadata(type, uri, flags),
)
simple("domain_get_messages", "domain flags=0", lambda c, domain, flags: domain.messages(flags))
simple(
    "domain_has_managed_save_image", "domain flags=0", lambda c, domain, flags: domain.hasManagedSaveImage(flags)
)
simple(
    "domain_managed_save_get_xml_desc",
    "domain flags=0",
    lambda c, domain, flags: domain.managedSaveGetXMLDesc(flags),
)
simple(
    "domain_save_image_get_xml_desc", "file flags=0", lambda c, file, flags: c.saveImageGetXMLDesc(file, flags)
)


@reads("domain_get_security_label", "domain")
def domain_get_security_label(c, domain):
    return fields("label enforcing", domain.securityLabel())


@reads("domain_get_security_label_list", "domain")
def domain_get_security_label_list(c, domain):
    return [fields("label enforcing", label) for label in domain.securityLabelList()]


@reads("domain_get_vcpus", "domain")
def domain_get_vcpus(c, domain):
    infos, maps = domain.vcpus()
    return {
        "info": [fields("number state cpu_time cpu", info) for info in infos],
        "cpumaps": [bits(cpus) for cpus in maps],
    }


simple(
    "domain_get_vcpu_pin_info",
    "domain flags=0",
    lambda c, domain, flags: [bits(cpus) for cpus in domain.vcpuPinInfo(flags)],
)
simple(
    "domain_get_emulator_pin_info",
    "domain flags=0",
    lambda c, domain, flags: bits(domain.emulatorPinInfo(flags)),
)
simple(
    "domain_get_iothread_info",
    "domain flags=0",
    lambda c, domain, flags: [
        {"iothread_id": number, "cpumap": bits(cpus)} for number, cpus in domain.ioThreadInfo(flags)
    ],
)

# === Domains: parameters ===


@reads("domain_get_scheduler_type", "domain")
def domain_get_scheduler_type(c, domain):
    return fields("type nparams", domain.schedulerType())


simple("domain_get_scheduler_parameters", "domain", lambda c, domain: domain.schedulerParameters())
simple(
    "domain_get_scheduler_parameters_flags",
    "domain flags=0",
    lambda c, domain, flags: domain.schedulerParametersFlags(flags),
)
simple("domain_get_memory_parameters", "domain flags=0", lambda c, domain, flags: domain.memoryParameters(flags))
simple("domain_get_blkio_parameters", "domain flags=0", lambda c, domain, flags: domain.blkioParameters(flags))
simple("domain_get_numa_parameters", "domain flags=0", lambda c, domain, flags: domain.numaParameters(flags))
simple(
    "domain_get_block_io_tune", "domain disk flags=0", lambda c, domain, disk, flags: domain.blockIoTune(disk, flags)
)
simple(
    "domain_get_interface_parameters",
    "domain nic flags=0",
    lambda c, domain, nic, flags: domain.interfaceParameters(nic, flags),
)
simple("domain_get_perf_events", "domain flags=0", lambda c, domain, flags: domain.perfEvents(flags))
simple(
    "domain_get_launch_security_info", "domain flags=0", lambda c, domain, flags: domain.launchSecurityInfo(flags)
)

# === Domains: statistics and jobs ===

simple(
    "domain_block_stats",
    "domain disk",
    lambda c, domain, disk: fields("rd_req rd_bytes wr_req wr_bytes errs", domain.blockStats(disk)),
)
simple(
    "domain_block_stats_flags",
    "domain disk flags=0",
    lambda c, domain, disk, flags: domain.blockStatsFlags(disk, flags),
)
simple(
    "domain_get_block_info",
    "domain disk flags=0",
    # The binding tells the capacity first.
    lambda c, domain, disk, flags: fields("capacity allocation physical", domain.blockInfo(disk, flags)),
)
simple(
    "domain_interface_stats",
    "domain nic",
    lambda c, domain, nic: fields(
        "rx_bytes rx_packets rx_errs rx_drop tx_bytes tx_packets tx_errs tx_drop", domain.interfaceStats(nic)
    ),
)
simple("domain_memory_stats", "domain", lambda c, domain: domain.memoryStats())
simple(
    "domain_get_cpu_stats",
    "domain start_cpu=-1 flags=0",
    # The binding asks for the total, or for all CPUs from the first.
    lambda c, domain, start_cpu, flags: domain.getCPUStats(start_cpu < 0, flags),
)
simple("domain_get_disk_errors", "domain flags=0", lambda c, domain, flags: domain.diskErrors(flags))
simple(
    "domain_get_job_info",
    "domain",
    lambda c, domain: fields(
        "type timeElapsed timeRemaining dataTotal dataProcessed dataRemaining memTotal memProcessed memRemaining"
        " fileTotal fileProcessed fileRemaining",
        domain.jobInfo(),
    ),
)
simple("domain_get_job_stats", "domain flags=0", lambda c, domain, flags: domain.jobStats(flags))
simple(
    "domain_get_block_job_info",
    "domain disk flags=0",
    lambda c, domain, disk, flags: domain.blockJobInfo(disk, flags),
)
simple("domain_backup_get_xml_desc", "domain flags=0", lambda c, domain, flags: domain.backupGetXMLDesc(flags))
simple(
    "domain_migrate_get_max_speed", "domain flags=0", lambda c, domain, flags: domain.migrateGetMaxSpeed(flags)
)
simple(
    "domain_migrate_get_max_downtime",
    "domain flags=0",
    lambda c, domain, flags: domain.migrateGetMaxDowntime(flags),
)
simple(
    "domain_migrate_get_compression_cache",
    "domain flags=0",
    lambda c, domain, flags: domain.migrateGetCompressionCache(flags),
)

# === Domains: what is in them ===

simple(
    "domain_block_peek",
    "domain disk offset=0 size=512 flags=0",
    lambda c, domain, disk, offset, size, flags: domain.blockPeek(disk, offset, size, flags).hex(),
)
simple(
    "domain_memory_peek",
    # 1: the address is virtual, 2: it is physical.
    "domain offset=0 size=512 flags=2",
    lambda c, domain, offset, size, flags: domain.memoryPeek(offset, size, flags).hex(),
)


@reads("domain_screenshot", "domain screen=0 flags=0")
def domain_screenshot(c, domain, screen, flags):
    stream = c.newStream()
    mime = domain.screenshot(stream, screen, flags)
    return {"mime": mime, "stream": received(stream)}


simple(
    "domain_interface_addresses",
    "domain source=0 flags=0",
    lambda c, domain, source, flags: domain.interfaceAddresses(source, flags),
)
simple("domain_get_hostname", "domain flags=0", lambda c, domain, flags: domain.hostname(flags))
simple("domain_get_time", "domain flags=0", lambda c, domain, flags: domain.getTime(flags))
simple("domain_get_guest_vcpus", "domain flags=0", lambda c, domain, flags: domain.guestVcpus(flags))
simple(
    "domain_get_guest_info", "domain types=0 flags=0", lambda c, domain, types, flags: domain.guestInfo(types, flags)
)
simple(
    "domain_get_fsinfo",
    "domain flags=0",
    lambda c, domain, flags: [
        fields("mountpoint name fstype dev_aliases", system) for system in domain.fsInfo(flags)
    ],
)
simple(
    "domain_authorized_ssh_keys_get",
    'domain user="root" flags=0',
    lambda c, domain, user, flags: domain.authorizedSSHKeysGet(user, flags),
)

# === Snapshots and checkpoints ===

simple("domain_snapshot_num", "domain flags=0", lambda c, domain, flags: domain.snapshotNum(flags))
simple("domain_snapshot_list_names", "domain flags=0", lambda c, domain, flags: domain.snapshotListNames(flags))
simple(
    "domain_list_all_snapshots",
    "domain flags=0",
    lambda c, domain, flags: each(show_snapshot, domain.listAllSnapshots(flags)),
)
simple(
    "domain_snapshot_lookup_by_name",
    "domain name flags=0",
    lambda c, domain, name, flags: show_snapshot(domain.snapshotLookupByName(name, flags)),
)
simple(
    "domain_has_current_snapshot", "domain flags=0", lambda c, domain, flags: domain.hasCurrentSnapshot(flags)
)
simple(
    "domain_snapshot_current", "domain flags=0", lambda c, domain, flags: show_snapshot(domain.snapshotCurrent(flags))
)
simple(
    "domain_snapshot_get_xml_desc",
    "domain snapshot flags=0",
    lambda c, domain, snapshot, flags: snapshot.getXMLDesc(flags),
)


@reads("domain_snapshot_get_parent", "domain snapshot flags=0")
def domain_snapshot_get_parent(c, domain, snapshot, flags):
    return show_snapshot(snapshot.getParent(flags))


simple(
    "domain_snapshot_num_children",
    "domain snapshot flags=0",
    lambda c, domain, snapshot, flags: snapshot.numChildren(flags),
)
simple(
    "domain_snapshot_list_children_names",
    "domain snapshot flags=0",
    lambda c, domain, snapshot, flags: snapshot.listChildrenNames(flags),
)


@reads("domain_snapshot_list_all_children", "domain snapshot flags=0")
def domain_snapshot_list_all_children(c, domain, snapshot, flags):
    return each(show_snapshot, snapshot.listAllChildren(flags))


simple(
    "domain_snapshot_is_current",
    "domain snapshot flags=0",
    lambda c, domain, snapshot, flags: snapshot.isCurrent(flags),
)
simple(
    "domain_snapshot_has_metadata",
    "domain snapshot flags=0",
    lambda c, domain, snapshot, flags: snapshot.hasMetadata(flags),
)
simple(
    "domain_list_all_checkpoints",
    "domain flags=0",
    lambda c, domain, flags: each(show_checkpoint, domain.listAllCheckpoints(flags)),
)
simple(
    "domain_checkpoint_lookup_by_name",
    "domain name flags=0",
    lambda c, domain, name, flags: show_checkpoint(domain.checkpointLookupByName(name, flags)),
)
simple(
    "domain_checkpoint_get_xml_desc",
    "domain checkpoint flags=0",
    lambda c, domain, checkpoint, flags: checkpoint.getXMLDesc(flags),
)


@reads("domain_checkpoint_get_parent", "domain checkpoint flags=0")
def domain_checkpoint_get_parent(c, domain, checkpoint, flags):
    return show_checkpoint(checkpoint.getParent(flags))


@reads("domain_checkpoint_list_all_children", "domain checkpoint flags=0")
def domain_checkpoint_list_all_children(c, domain, checkpoint, flags):
    return each(show_checkpoint, checkpoint.listAllChildren(flags))
