//! The hypervisor itself: what it is, what it can do, what is left of it.

use std::time::Duration;

use crate::code::Code;
use crate::connect::Connect;
use crate::error::Error;
use crate::object::{calls, text, texts};
use crate::params::{Params, Value};
use crate::raw::api::{
    ConnectBaselineCpuFlags, ConnectCompareCpuFlags, ConnectGetDomainCapabilitiesFlags,
    CpuCompareResult, NodeAllocPagesFlags, NodeSuspendTarget,
};
use crate::raw::remote::{NodeGetCpuStatsArgs, NodeGetMemoryStatsArgs};

/// The hypervisor's hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The CPU's architecture, such as `x86_64`.
    pub model: String,
    /// The memory in KiB.
    pub memory: u64,
    /// The CPUs that are on.
    pub cpus: i32,
    /// Their frequency in MHz; 0: unknown.
    pub mhz: i32,
    /// NUMA nodes.
    pub nodes: i32,
    /// Sockets a node.
    pub sockets: i32,
    /// Cores a socket.
    pub cores: i32,
    /// Threads a core.
    pub threads: i32,
}

/// A version: major, minor, release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second number.
    pub minor: u64,
    /// The third number.
    pub release: u64,
}

/// What the hypervisor's CPUs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuMap {
    /// For each CPU whether it is on.
    pub online: Vec<bool>,
}

/// How the hypervisor keeps guests apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityModel {
    /// The model, such as `selinux`.
    pub model: String,
    /// Its domain of interpretation.
    pub doi: String,
}

calls!(Connect {
    /// The driver's name, such as `QEMU`.
    driver() -> String = connect_get_type() |found| found.r#type;
    /// The hypervisor's version.
    hypervisor_version() -> Version = connect_get_version() |found| Version::from_number(found.hv_ver);
    /// The daemon's version.
    libvirt_version() -> Version = connect_get_lib_version() |found| Version::from_number(found.lib_ver);
    /// The host's name.
    hostname() -> String = connect_get_hostname() |found| found.hostname;
    /// The host's firmware and hardware, as XML.
    sysinfo() -> String = connect_get_sysinfo(ConnectGetSysinfoArgs { flags: 0 }) |found| found.sysinfo;
    /// What host and guests can do, as XML.
    capabilities() -> String = connect_get_capabilities() |found| found.capabilities;
    /// What a kind of domain can have, as XML. The flags, of libvirt 11.0 and later, say which features of CPUs it names.
    domain_capabilities(
        emulator: Option<&str>,
        architecture: Option<&str>,
        machine: Option<&str>,
        kind: Option<&str>,
        flags: ConnectGetDomainCapabilitiesFlags,
    ) -> String = connect_get_domain_capabilities(ConnectGetDomainCapabilitiesArgs {
        emulatorbin: text(emulator), arch: text(architecture), machine: text(machine), virttype: text(kind),
        flags: flags.bits(),
    }) |found| found.capabilities;
    /// The CPU models that the daemon knows of an architecture.
    cpu_models(architecture: &str) -> Vec<String>
        = connect_get_cpu_model_names(ConnectGetCpuModelNamesArgs {
            arch: architecture.to_owned(), need_results: 1, flags: 0,
        }) |found| found.models;
    /// Whether the host's CPU can do what the XML describes.
    compare_cpu(xml: &str, flags: ConnectCompareCpuFlags) -> Code<CpuCompareResult>
        = connect_compare_cpu(ConnectCompareCpuArgs { xml: xml.to_owned(), flags: flags.bits() })
        |found| Code::new(found.result);
    /// What all these CPUs can do, as XML.
    baseline_cpu(xmls: &[&str], flags: ConnectBaselineCpuFlags) -> String
        = connect_baseline_cpu(ConnectBaselineCpuArgs { xml_cpus: texts(xmls), flags: flags.bits() })
        |found| found.cpu;
    /// Whether the CPU that the hypervisor gives a kind of domain can do what the XML describes. Since libvirt 4.4.
    compare_hypervisor_cpu(
        emulator: Option<&str>,
        architecture: Option<&str>,
        machine: Option<&str>,
        kind: Option<&str>,
        xml: &str,
        flags: ConnectCompareCpuFlags,
    ) -> Code<CpuCompareResult> = connect_compare_hypervisor_cpu(ConnectCompareHypervisorCpuArgs {
        emulator: text(emulator), arch: text(architecture), machine: text(machine), virttype: text(kind),
        xml_cpu: xml.to_owned(), flags: flags.bits(),
    }) |found| Code::new(found.result);
    /// What all these CPUs can do that the hypervisor can give a kind of domain, as XML. Since libvirt 4.4.
    baseline_hypervisor_cpu(
        emulator: Option<&str>,
        architecture: Option<&str>,
        machine: Option<&str>,
        kind: Option<&str>,
        xmls: &[&str],
        flags: ConnectBaselineCpuFlags,
    ) -> String = connect_baseline_hypervisor_cpu(ConnectBaselineHypervisorCpuArgs {
        emulator: text(emulator), arch: text(architecture), machine: text(machine), virttype: text(kind),
        xml_cpus: texts(xmls), flags: flags.bits(),
    }) |found| found.cpu;
    /// The most CPUs that a kind of domain can have.
    max_vcpus(kind: Option<&str>) -> i32
        = connect_get_max_vcpus(ConnectGetMaxVcpusArgs { r#type: text(kind) }) |found| found.max_vcpus;
    /// Whether the driver has a feature, by libvirt's internal number.
    supports_feature(feature: i32) -> bool
        = connect_supports_feature(ConnectSupportsFeatureArgs { feature }) |found| found.supported != 0;
    /// The host's hardware.
    node_info() -> NodeInfo = node_get_info() |info| NodeInfo {
        model: c_text(&info.model),
        memory: info.memory,
        cpus: info.cpus,
        mhz: info.mhz,
        nodes: info.nodes,
        sockets: info.sockets,
        cores: info.cores,
        threads: info.threads,
    };
    /// The host's free memory in bytes.
    free_memory() -> u64 = node_get_free_memory() |found| found.free_mem;
    /// The free memory of NUMA nodes in bytes.
    cells_free_memory(first: i32, most: i32) -> Vec<u64>
        = node_get_cells_free_memory(NodeGetCellsFreeMemoryArgs { start_cell: first, maxcells: most })
        |found| found.cells;
    /// Which of the host's CPUs are on.
    cpu_map() -> CpuMap
        = node_get_cpu_map(NodeGetCpuMapArgs { need_map: 1, need_online: 1, flags: 0 })
        |found| CpuMap {
            online: (0..usize::try_from(found.ret).unwrap_or(0))
                .map(|cpu| found.cpumap.get(cpu / 8).is_some_and(|bits| bits >> (cpu % 8) & 1 == 1))
                .collect(),
        };
    /// How the host shares equal memory of guests.
    memory_parameters() -> Params
        = node_get_memory_parameters(NodeGetMemoryParametersArgs { nparams: 64, flags: 4 })
        |found| found.params.into();
    /// Sets how the host shares equal memory of guests.
    set_memory_parameters(params: &Params)
        = node_set_memory_parameters(NodeSetMemoryParametersArgs { params: params.to_raw(), flags: 0 });
    /// The free pages of each size (in KiB) in NUMA nodes, node by node.
    free_pages(sizes: &[u32], first: i32, cells: u32) -> Vec<u64>
        = node_get_free_pages(NodeGetFreePagesArgs {
            pages: sizes.to_vec(), start_cell: first, cell_count: cells, flags: 0,
        }) |found| found.counts;
    /// Adds to the pages of some sizes (in KiB) in NUMA nodes, or sets how many there are; gives in how many nodes that was
    /// done.
    alloc_pages(pages: &[(u32, u64)], first: i32, cells: u32, flags: NodeAllocPagesFlags) -> i32
        = node_alloc_pages(NodeAllocPagesArgs {
            page_sizes: pages.iter().map(|(size, _)| *size).collect(),
            page_counts: pages.iter().map(|(_, count)| *count).collect(),
            start_cell: first,
            cell_count: cells,
            flags: flags.bits(),
        }) |done| done.ret;
    /// How the host keeps guests apart.
    security_model() -> SecurityModel = node_get_security_model() |found| SecurityModel {
        model: c_text(&found.model),
        doi: c_text(&found.doi),
    };
    /// What the host's AMD SEV can do.
    sev_info() -> Params
        = node_get_sev_info(NodeGetSevInfoArgs { nparams: 16, flags: 4 }) |found| found.params.into();
    /// Puts the host to sleep for a time.
    suspend_node(target: NodeSuspendTarget, duration: Duration)
        = node_suspend_for_duration(NodeSuspendForDurationArgs {
            target: target.as_raw().cast_unsigned(), duration: duration.as_secs(), flags: 0,
        });
});

// The daemon must be asked for exactly as many numbers as it has, which it tells when it is asked for none.
impl Connect {
    /// The use of a CPU, or with -1 of all, in nanoseconds by name.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn cpu_stats(&self, cpu: i32) -> Result<Params, Error> {
        let remote = self.raw()?;
        let args = |nparams| NodeGetCpuStatsArgs {
            cpu_num: cpu,
            nparams,
            flags: 0,
        };
        let count = remote.node_get_cpu_stats(&args(0)).await?.nparams;
        let found = remote.node_get_cpu_stats(&args(count)).await?.params;
        let values = found.into_iter();
        Ok(values
            .map(|param| (param.field, Value::ULong(param.value)))
            .collect())
    }

    /// The use of a NUMA node's memory, or with -1 of all, in KiB by name.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn memory_stats(&self, cell: i32) -> Result<Params, Error> {
        let remote = self.raw()?;
        let args = |nparams| NodeGetMemoryStatsArgs {
            nparams,
            cell_num: cell,
            flags: 0,
        };
        let count = remote.node_get_memory_stats(&args(0)).await?.nparams;
        let found = remote.node_get_memory_stats(&args(count)).await?.params;
        let values = found.into_iter();
        Ok(values
            .map(|param| (param.field, Value::ULong(param.value)))
            .collect())
    }
}

// === impl Version ===

impl Version {
    /// libvirt writes a version as 1,000,000 × major + 1,000 × minor + release.
    pub(crate) fn from_number(number: u64) -> Self {
        Self {
            major: number / 1_000_000,
            minor: number / 1_000 % 1_000,
            release: number % 1_000,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

/// A text as C keeps it in an array of `char`: up to the first zero.
pub(crate) fn c_text(chars: &[i8]) -> String {
    let bytes: Vec<u8> = chars
        .iter()
        .map(|char| char.cast_unsigned())
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
