//! The calls of the connection and the host.

use anyhow::Result;
use libvirt::raw::remote::{NodeGetCpuStatsArgs, NodeGetMemoryStatsArgs};
use serde_json::{Map, Value, json};

use super::{
    Call,
    ask::{Ask, TEXTS},
    by_hand, calls,
    shape::{Show as _, c_text, hex, params},
};

pub(super) fn calls() -> Vec<Call> {
    [
        &connection()[..],
        &cpus(),
        &formats(),
        &node(),
        &statistics(),
    ]
    .concat()
}

fn connection() -> Vec<Call> {
    calls!(ask {
        connect_get_type() |found| found.r#type;
        connect_get_version() |found| found.hv_ver;
        connect_get_lib_version() |found| found.lib_ver;
        connect_get_hostname() |found| found.hostname;
        connect_get_max_vcpus(ConnectGetMaxVcpusArgs { r#type: ask.get("type")? }) |found| found.max_vcpus;
        connect_get_capabilities() |found| found.capabilities;
        connect_get_sysinfo(ConnectGetSysinfoArgs { flags: ask.flags()? }) |found| found.sysinfo;
        connect_get_uri() |found| found.uri;
        connect_supports_feature(ConnectSupportsFeatureArgs { feature: ask.get("feature")? }) |found| found.supported;
        connect_is_secure() |found| found.secure;
        connect_get_all_domain_stats(ConnectGetAllDomainStatsArgs {
            doms: Vec::new(), stats: ask.get("stats")?, flags: ask.flags()?,
        }) |found| found.ret_stats.into_iter()
            .map(|record| json!({"dom": record.dom.show(), "params": params(record.params)}))
            .collect::<Vec<_>>();
    })
    .to_vec()
}

fn cpus() -> Vec<Call> {
    calls!(ask {
        connect_compare_cpu(ConnectCompareCpuArgs { xml: ask.get("xml")?, flags: ask.flags()? }) |found| found.result;
        connect_baseline_cpu(ConnectBaselineCpuArgs { xml_cpus: ask.get("xmls")?, flags: ask.flags()? })
            |found| found.cpu;
        connect_get_cpu_model_names(ConnectGetCpuModelNamesArgs {
            arch: ask.get("arch")?, need_results: 1, flags: ask.flags()?,
        }) |found| found.models;
        connect_get_domain_capabilities(ConnectGetDomainCapabilitiesArgs {
            emulatorbin: ask.get("emulator")?, arch: ask.get("arch")?, machine: ask.get("machine")?,
            virttype: ask.get("virttype")?, flags: ask.flags()?,
        }) |found| found.capabilities;
        connect_compare_hypervisor_cpu(ConnectCompareHypervisorCpuArgs {
            emulator: ask.get("emulator")?, arch: ask.get("arch")?, machine: ask.get("machine")?,
            virttype: ask.get("virttype")?, xml_cpu: ask.get("xml")?, flags: ask.flags()?,
        }) |found| found.result;
        connect_baseline_hypervisor_cpu(ConnectBaselineHypervisorCpuArgs {
            emulator: ask.get("emulator")?, arch: ask.get("arch")?, machine: ask.get("machine")?,
            virttype: ask.get("virttype")?, xml_cpus: ask.get("xmls")?, flags: ask.flags()?,
        }) |found| found.cpu;
    })
    .to_vec()
}

fn formats() -> Vec<Call> {
    calls!(ask {
        connect_domain_xml_from_native(ConnectDomainXmlFromNativeArgs {
            native_format: ask.get("format")?, native_config: ask.get("config")?, flags: ask.flags()?,
        }) |found| found.domain_xml;
        connect_domain_xml_to_native(ConnectDomainXmlToNativeArgs {
            native_format: ask.get("format")?, domain_xml: ask.get("xml")?, flags: ask.flags()?,
        }) |found| found.native_config;
    })
    .to_vec()
}

fn node() -> Vec<Call> {
    calls!(ask {
        node_get_info() |found| json!({
            // The binding has shortened the memory from KiB.
            "model": c_text(&found.model), "memory_mib": found.memory / 1024, "cpus": found.cpus, "mhz": found.mhz,
            "nodes": found.nodes, "sockets": found.sockets, "cores": found.cores, "threads": found.threads,
        });
        node_get_cpu_map(NodeGetCpuMapArgs { need_map: 1, need_online: 1, flags: ask.flags()? })
            |found| json!({"cpumap": hex(&found.cpumap), "online": found.online, "ret": found.ret});
        node_get_free_memory() |found| found.free_mem;
        node_get_cells_free_memory(NodeGetCellsFreeMemoryArgs {
            start_cell: ask.get("start_cell")?, maxcells: ask.get("max_cells")?,
        }) |found| found.cells;
        node_get_free_pages(NodeGetFreePagesArgs {
            pages: ask.get("pages")?, start_cell: ask.get("start_cell")?, cell_count: ask.get("cell_count")?,
            flags: ask.flags()?,
        }) |found| found.counts;
        node_get_security_model()
            |found| json!({"model": c_text(&found.model), "doi": c_text(&found.doi)});
        node_get_memory_parameters[nparams](NodeGetMemoryParametersArgs { nparams, flags: ask.flags()? | TEXTS })
            |found| params(found.params);
        node_get_sev_info[nparams](NodeGetSevInfoArgs { nparams, flags: ask.flags()? | TEXTS })
            |found| params(found.params);
    })
    .to_vec()
}

/// These have lists of names and numbers that are no typed parameters. Each has to be asked for exactly as many as it
/// counts.
fn statistics() -> Vec<Call> {
    by_hand![node_get_cpu_stats, node_get_memory_stats].to_vec()
}

async fn node_get_cpu_stats(ask: &Ask) -> Result<Value> {
    let (cpu_num, flags) = (ask.get("cpu")?, ask.flags()?);
    let args = |nparams| NodeGetCpuStatsArgs {
        cpu_num,
        nparams,
        flags,
    };
    let count = ask.remote.node_get_cpu_stats(&args(0)).await?.nparams;
    let found = ask.remote.node_get_cpu_stats(&args(count)).await?.params;
    let shown = found.into_iter().map(|it| (it.field, json!(it.value)));
    Ok(Value::Object(shown.collect::<Map<_, _>>()))
}

async fn node_get_memory_stats(ask: &Ask) -> Result<Value> {
    let (cell_num, flags) = (ask.get("cell")?, ask.flags()?);
    let args = |nparams| NodeGetMemoryStatsArgs {
        nparams,
        cell_num,
        flags,
    };
    let count = ask.remote.node_get_memory_stats(&args(0)).await?.nparams;
    let found = ask.remote.node_get_memory_stats(&args(count)).await?.params;
    let shown = found.into_iter().map(|it| (it.field, json!(it.value)));
    Ok(Value::Object(shown.collect::<Map<_, _>>()))
}
