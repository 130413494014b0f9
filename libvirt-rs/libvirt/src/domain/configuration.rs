//! A domain's definition: devices, memory, CPUs, metadata.

use super::Domain;
use crate::connect::Connect;
use crate::node::c_text;
use crate::object::{calls, text};
use crate::params::Params;
use crate::raw::api::{
    DomainDefineFlags, DomainDeviceModifyFlags, DomainGraphicsReloadType, DomainMemoryModFlags,
    DomainMessageType, DomainMetadataType, DomainModificationImpact, DomainSetVcpuFlags,
    DomainVcpuFlags, DomainXmlFlags,
};

/// An I/O thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoThread {
    /// Its number.
    pub id: u32,
    /// The host's CPUs that it may run on, one a bit, the first in the lowest bit of the first byte.
    pub cpus: Vec<u8>,
}

/// How a domain is kept apart from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityLabel {
    /// The label, such as one of SELinux.
    pub label: String,
    /// Whether the host holds it to that.
    pub enforcing: bool,
}

calls!(Connect {
    /// Makes a domain's XML of another format, such as a QEMU command line.
    domain_xml_from_native(format: &str, configuration: &str) -> String
        = connect_domain_xml_from_native(ConnectDomainXmlFromNativeArgs {
            native_format: format.to_owned(), native_config: configuration.to_owned(), flags: 0,
        }) |made| made.domain_xml;
    /// Makes another format, such as a QEMU command line, of a domain's XML.
    domain_xml_to_native(format: &str, xml: &str) -> String
        = connect_domain_xml_to_native(ConnectDomainXmlToNativeArgs {
            native_format: format.to_owned(), domain_xml: xml.to_owned(), flags: 0,
        }) |made| made.native_config;
});

calls!(Domain [dom] {
    /// Its definition.
    xml(flags: DomainXmlFlags) -> String
        = domain_get_xml_desc(DomainGetXmlDescArgs { flags: flags.bits() }) |found| found.xml;
    /// What runs in it: `hvm`, `linux` …
    os_type() -> String = domain_get_os_type(DomainGetOsTypeArgs {}) |found| found.r#type;
    /// Adds a device.
    attach_device(xml: &str, flags: DomainDeviceModifyFlags)
        = domain_attach_device_flags(DomainAttachDeviceFlagsArgs { xml: xml.to_owned(), flags: flags.bits() });
    /// Asks to remove a device; an event tells when it is gone.
    detach_device(xml: &str, flags: DomainDeviceModifyFlags)
        = domain_detach_device_flags(DomainDetachDeviceFlagsArgs { xml: xml.to_owned(), flags: flags.bits() });
    /// As [`detach_device`](Self::detach_device), by the device's alias.
    detach_device_alias(alias: &str, flags: DomainDeviceModifyFlags)
        = domain_detach_device_alias(DomainDetachDeviceAliasArgs { alias: alias.to_owned(), flags: flags.bits() });
    /// Changes a device.
    update_device(xml: &str, flags: DomainDeviceModifyFlags)
        = domain_update_device_flags(DomainUpdateDeviceFlagsArgs { xml: xml.to_owned(), flags: flags.bits() });
    /// The memory that it may have, in KiB.
    max_memory() -> u64 = domain_get_max_memory(DomainGetMaxMemoryArgs {}) |found| found.memory;
    /// Sets its memory in KiB, or with `MAXIMUM` what it may have.
    set_memory(memory: u64, flags: DomainMemoryModFlags)
        = domain_set_memory_flags(DomainSetMemoryFlagsArgs { memory, flags: flags.bits() });
    /// How often the guest tells the balloon its use of memory, in seconds; 0: never.
    set_memory_stats_period(seconds: i32, flags: DomainMemoryModFlags)
        = domain_set_memory_stats_period(DomainSetMemoryStatsPeriodArgs { period: seconds, flags: flags.bits() });
    /// The number of its CPUs, as the flags select it.
    vcpu_count(flags: DomainVcpuFlags) -> i32
        = domain_get_vcpus_flags(DomainGetVcpusFlagsArgs { flags: flags.bits() }) |found| found.num;
    /// Sets the number of its CPUs.
    set_vcpu_count(count: u32, flags: DomainVcpuFlags)
        = domain_set_vcpus_flags(DomainSetVcpusFlagsArgs { nvcpus: count, flags: flags.bits() });
    /// Switches CPUs on or off, listed as in `0,2-3`. Since libvirt 3.1.
    set_vcpu(cpus: &str, on: bool, flags: DomainSetVcpuFlags)
        = domain_set_vcpu(DomainSetVcpuArgs { cpumap: cpus.to_owned(), state: on.into(), flags: flags.bits() });
    /// The most CPUs that it can have.
    max_vcpus() -> i32 = domain_get_max_vcpus(DomainGetMaxVcpusArgs {}) |found| found.num;
    /// Ties a CPU to the host's CPUs whose bits are set.
    pin_vcpu(vcpu: u32, cpus: &[u8], flags: DomainModificationImpact)
        = domain_pin_vcpu_flags(DomainPinVcpuFlagsArgs { vcpu, cpumap: cpus.to_vec(), flags: flags.bits() });
    /// Ties the emulator's threads to the host's CPUs whose bits are set.
    pin_emulator(cpus: &[u8], flags: DomainModificationImpact)
        = domain_pin_emulator(DomainPinEmulatorArgs { cpumap: cpus.to_vec(), flags: flags.bits() });
    /// Adds an I/O thread.
    add_iothread(id: u32, flags: DomainModificationImpact)
        = domain_add_iothread(DomainAddIothreadArgs { iothread_id: id, flags: flags.bits() });
    /// Removes an I/O thread.
    delete_iothread(id: u32, flags: DomainModificationImpact)
        = domain_del_iothread(DomainDelIothreadArgs { iothread_id: id, flags: flags.bits() });
    /// Its I/O threads.
    iothreads(flags: DomainModificationImpact) -> Vec<IoThread>
        = domain_get_iothread_info(DomainGetIothreadInfoArgs { flags: flags.bits() })
        |found| found.info.into_iter()
            .map(|raw| IoThread { id: raw.iothread_id, cpus: raw.cpumap })
            .collect();
    /// Ties an I/O thread to the host's CPUs whose bits are set.
    pin_iothread(id: u32, cpus: &[u8], flags: DomainModificationImpact)
        = domain_pin_iothread(DomainPinIothreadArgs { iothreads_id: id, cpumap: cpus.to_vec(), flags: flags.bits() });
    /// Sets how an I/O thread waits for its work. Since libvirt 4.10.
    set_iothread_parameters(id: u32, params: &Params, flags: DomainModificationImpact)
        = domain_set_iothread_params(DomainSetIothreadParamsArgs {
            iothread_id: id, params: params.to_raw(), flags: flags.bits(),
        });
    /// The memory's limits.
    memory_parameters(flags: DomainModificationImpact) -> Params
        = domain_get_memory_parameters(DomainGetMemoryParametersArgs { nparams: 16, flags: flags.bits() | TEXTS })
        |found| found.params.into();
    /// Sets the memory's limits.
    set_memory_parameters(params: &Params, flags: DomainModificationImpact)
        = domain_set_memory_parameters(DomainSetMemoryParametersArgs { params: params.to_raw(), flags: flags.bits() });
    /// The weights and limits of its I/O.
    blkio_parameters(flags: DomainModificationImpact) -> Params
        = domain_get_blkio_parameters(DomainGetBlkioParametersArgs { nparams: 16, flags: flags.bits() | TEXTS })
        |found| found.params.into();
    /// Sets the weights and limits of its I/O.
    set_blkio_parameters(params: &Params, flags: DomainModificationImpact)
        = domain_set_blkio_parameters(DomainSetBlkioParametersArgs { params: params.to_raw(), flags: flags.bits() });
    /// The scheduler's name, such as `posix`.
    scheduler() -> String = domain_get_scheduler_type(DomainGetSchedulerTypeArgs {}) |found| found.r#type;
    /// The scheduler's shares and limits.
    scheduler_parameters(flags: DomainModificationImpact) -> Params
        = domain_get_scheduler_parameters_flags(DomainGetSchedulerParametersFlagsArgs {
            nparams: 16, flags: flags.bits() | TEXTS,
        }) |found| found.params.into();
    /// Sets the scheduler's shares and limits.
    set_scheduler_parameters(params: &Params, flags: DomainModificationImpact)
        = domain_set_scheduler_parameters_flags(DomainSetSchedulerParametersFlagsArgs {
            params: params.to_raw(), flags: flags.bits(),
        });
    /// Where its memory lies on the host.
    numa_parameters(flags: DomainModificationImpact) -> Params
        = domain_get_numa_parameters(DomainGetNumaParametersArgs { nparams: 16, flags: flags.bits() | TEXTS })
        |found| found.params.into();
    /// Sets where its memory lies on the host.
    set_numa_parameters(params: &Params, flags: DomainModificationImpact)
        = domain_set_numa_parameters(DomainSetNumaParametersArgs { params: params.to_raw(), flags: flags.bits() });
    /// The limits of a network card.
    interface_parameters(device: &str, flags: DomainModificationImpact) -> Params
        = domain_get_interface_parameters(DomainGetInterfaceParametersArgs {
            device: device.to_owned(), nparams: 16, flags: flags.bits() | TEXTS,
        }) |found| found.params.into();
    /// Sets the limits of a network card.
    set_interface_parameters(device: &str, params: &Params, flags: DomainModificationImpact)
        = domain_set_interface_parameters(DomainSetInterfaceParametersArgs {
            device: device.to_owned(), params: params.to_raw(), flags: flags.bits(),
        });
    /// Lets a network card, or without a name all of them, tell the switches around where the guest is. Since libvirt 12.5.
    announce_interface(device: Option<&str>, params: &Params)
        = domain_announce_interface(DomainAnnounceInterfaceArgs {
            device: text(device), params: params.to_raw(), flags: 0,
        });
    /// Lets its displays read their certificates anew. Since libvirt 10.2.
    reload_graphics(kind: DomainGraphicsReloadType)
        = domain_graphics_reload(DomainGraphicsReloadArgs { r#type: kind.as_raw().cast_unsigned(), flags: 0 });
    /// Which performance counters are on.
    perf_events(flags: DomainModificationImpact) -> Params
        = domain_get_perf_events(DomainGetPerfEventsArgs { flags: flags.bits() | TEXTS })
        |found| found.params.into();
    /// Switches performance counters on and off.
    set_perf_events(params: &Params, flags: DomainModificationImpact)
        = domain_set_perf_events(DomainSetPerfEventsArgs { params: params.to_raw(), flags: flags.bits() });
    /// How its memory is protected from the host.
    launch_security_info() -> Params
        = domain_get_launch_security_info(DomainGetLaunchSecurityInfoArgs { flags: TEXTS })
        |found| found.params.into();
    /// Gives a guest whose memory is protected from the host its secrets, before it has run. Since libvirt 8.0.
    set_launch_security_state(params: &Params)
        = domain_set_launch_security_state(DomainSetLaunchSecurityStateArgs { params: params.to_raw(), flags: 0 });
    /// How it is kept apart from other domains, by each of the host's models.
    security_labels() -> Vec<SecurityLabel>
        = domain_get_security_label_list(DomainGetSecurityLabelListArgs {})
        |found| found.labels.into_iter()
            .map(|raw| SecurityLabel { label: c_text(&raw.label), enforcing: raw.enforcing != 0 })
            .collect();
    /// Its title, description, or the metadata of one XML namespace.
    metadata(kind: DomainMetadataType, uri: Option<&str>, flags: DomainModificationImpact) -> String
        = domain_get_metadata(DomainGetMetadataArgs { r#type: kind.as_raw(), uri: text(uri), flags: flags.bits() })
        |found| found.metadata;
    /// Sets or, without `metadata`, removes its title, description, or the metadata of one XML namespace.
    set_metadata(
        kind: DomainMetadataType,
        metadata: Option<&str>,
        key: Option<&str>,
        uri: Option<&str>,
        flags: DomainModificationImpact,
    ) = domain_set_metadata(DomainSetMetadataArgs {
        r#type: kind.as_raw(), metadata: text(metadata), key: text(key), uri: text(uri), flags: flags.bits(),
    });
    /// What libvirt has to say about it, such as that it is tainted, of the kinds that the flags select; without flags: of
    /// all. Since libvirt 7.1.
    messages(which: DomainMessageType) -> Vec<String>
        = domain_get_messages(DomainGetMessagesArgs { flags: which.bits() }) |found| found.msgs;
});

/// `VIR_TYPED_PARAM_STRING_OKAY`: we understand parameters that are texts.
pub(super) const TEXTS: u32 = 1 << 2;

impl Domain {
    /// Defines it anew with other XML; its name and UUID must be the same.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn redefine(
        &self,
        xml: &str,
        flags: DomainDefineFlags,
    ) -> Result<Self, crate::Error> {
        self.connect.define_domain(xml, flags).await
    }
}
