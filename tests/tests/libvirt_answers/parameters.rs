//! The calls of domains that answer with parameters, statistics and jobs.

use anyhow::Result;
use libvirt::raw::remote::{
    DomainGetCpuStatsArgs, DomainGetDiskErrorsArgs, DomainGetSchedulerParametersArgs,
    DomainGetSchedulerParametersFlagsArgs, DomainGetSchedulerTypeArgs,
};
use serde_json::{Map, Value, json};

use super::{
    Call,
    ask::{Ask, TEXTS},
    by_hand, calls,
    shape::params,
};

/// As many as there are kinds (`VIR_DOMAIN_MEMORY_STAT_NR`); the C library asks for no more.
const MEMORY_STATS: u32 = 13;

/// The kinds by their numbers, as the binding names them.
const MEMORY_STAT_NAMES: [&str; MEMORY_STATS as usize] = [
    "swap_in",
    "swap_out",
    "major_fault",
    "minor_fault",
    "unused",
    "available",
    "actual",
    "rss",
    "usable",
    "last_update",
    "disk_caches",
    "hugetlb_pgalloc",
    "hugetlb_pgfail",
];

pub(super) fn calls() -> Vec<Call> {
    let by_hand = by_hand![
        domain_get_scheduler_parameters,
        domain_get_scheduler_parameters_flags,
        domain_get_cpu_stats,
        domain_get_disk_errors,
    ];
    [&tunables()[..], &statistics(), &jobs(), &by_hand].concat()
}

fn tunables() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_get_scheduler_type(DomainGetSchedulerTypeArgs {})
            |found| json!({"type": found.r#type, "nparams": found.nparams});
        domain_get_memory_parameters[nparams](DomainGetMemoryParametersArgs {
            nparams, flags: ask.flags()? | TEXTS,
        }) |found| params(found.params);
        domain_get_blkio_parameters[nparams](DomainGetBlkioParametersArgs {
            nparams, flags: ask.flags()? | TEXTS,
        }) |found| params(found.params);
        domain_get_numa_parameters[nparams](DomainGetNumaParametersArgs {
            nparams, flags: ask.flags()? | TEXTS,
        }) |found| params(found.params);
        domain_get_block_io_tune[nparams](DomainGetBlockIoTuneArgs {
            disk: ask.get("disk")?, nparams, flags: ask.flags()? | TEXTS,
        }) |found| params(found.params);
        domain_get_interface_parameters[nparams](DomainGetInterfaceParametersArgs {
            device: ask.get("nic")?, nparams, flags: ask.flags()? | TEXTS,
        }) |found| params(found.params);
        domain_get_perf_events(DomainGetPerfEventsArgs { flags: ask.flags()? | TEXTS }) |found| params(found.params);
        domain_get_launch_security_info(DomainGetLaunchSecurityInfoArgs { flags: ask.flags()? | TEXTS })
            |found| params(found.params);
        domain_get_guest_vcpus(DomainGetGuestVcpusArgs { flags: ask.flags()? }) |found| params(found.params);
        domain_get_guest_info(DomainGetGuestInfoArgs { types: ask.get("types")?, flags: ask.flags()? })
            |found| params(found.params);
    })
    .to_vec()
}

fn statistics() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        // A counter that there is not is -1, on the wire as in C.
        domain_block_stats(DomainBlockStatsArgs { path: ask.get("disk")? }) |found| json!({
            "rd_req": found.rd_req, "rd_bytes": found.rd_bytes, "wr_req": found.wr_req, "wr_bytes": found.wr_bytes,
            "errs": found.errs,
        });
        domain_block_stats_flags[nparams](DomainBlockStatsFlagsArgs {
            path: ask.get("disk")?, nparams, flags: ask.flags()? | TEXTS,
        }) |found| params(found.params);
        domain_get_block_info(DomainGetBlockInfoArgs { path: ask.get("disk")?, flags: ask.flags()? })
            |found| json!({
                "capacity": found.capacity, "allocation": found.allocation, "physical": found.physical,
            });
        domain_interface_stats(DomainInterfaceStatsArgs { device: ask.get("nic")? }) |found| json!({
            "rx_bytes": found.rx_bytes, "rx_packets": found.rx_packets, "rx_errs": found.rx_errs,
            "rx_drop": found.rx_drop, "tx_bytes": found.tx_bytes, "tx_packets": found.tx_packets,
            "tx_errs": found.tx_errs, "tx_drop": found.tx_drop,
        });
        domain_memory_stats(DomainMemoryStatsArgs { max_stats: MEMORY_STATS, flags: 0 })
            |found| found.stats.iter()
                .map(|it| (memory_stat(it.tag), json!(it.val)))
                .collect::<Map<_, _>>();
    })
    .to_vec()
}

fn jobs() -> Vec<Call> {
    calls!(ask [dom: ask.domain().await?] {
        domain_get_job_info(DomainGetJobInfoArgs {}) |found| json!({
            "type": found.r#type, "timeElapsed": found.time_elapsed, "timeRemaining": found.time_remaining,
            "dataTotal": found.data_total, "dataProcessed": found.data_processed,
            "dataRemaining": found.data_remaining, "memTotal": found.mem_total, "memProcessed": found.mem_processed,
            "memRemaining": found.mem_remaining, "fileTotal": found.file_total,
            "fileProcessed": found.file_processed, "fileRemaining": found.file_remaining,
        });
        domain_get_job_stats(DomainGetJobStatsArgs { flags: ask.flags()? }) |found| {
            let mut shown = params(found.params);
            shown["type"] = json!(found.r#type);
            shown
        };
        domain_get_block_job_info(DomainGetBlockJobInfoArgs { path: ask.get("disk")?, flags: ask.flags()? }) |found| {
            if found.found == 0 {
                json!({})
            } else {
                json!({
                    "type": found.r#type, "bandwidth": found.bandwidth, "cur": found.cur, "end": found.end,
                })
            }
        };
    })
    .to_vec()
}

/// A kind's name, or its number if it has none.
pub(super) fn memory_stat(tag: i32) -> String {
    let name = usize::try_from(tag)
        .ok()
        .and_then(|tag| MEMORY_STAT_NAMES.get(tag));
    name.map_or_else(|| tag.to_string(), ToString::to_string)
}

/// How many parameters a scheduler has is told by another procedure.
async fn domain_get_scheduler_parameters(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let args = DomainGetSchedulerTypeArgs { dom: dom.clone() };
    let nparams = ask.remote.domain_get_scheduler_type(&args).await?.nparams;
    if nparams == 0 {
        return Ok(json!({}));
    }
    let args = DomainGetSchedulerParametersArgs { dom, nparams };
    let found = ask.remote.domain_get_scheduler_parameters(&args).await?;
    Ok(params(found.params))
}

async fn domain_get_scheduler_parameters_flags(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let args = DomainGetSchedulerTypeArgs { dom: dom.clone() };
    let nparams = ask.remote.domain_get_scheduler_type(&args).await?.nparams;
    if nparams == 0 {
        return Ok(json!({}));
    }
    let args = DomainGetSchedulerParametersFlagsArgs {
        dom,
        nparams,
        flags: ask.flags()? | TEXTS,
    };
    let found = ask.remote.domain_get_scheduler_parameters_flags(&args);
    Ok(params(found.await?.params))
}

/// Without parameters and CPUs the reply's count is that of the host's CPUs, and then that of the parameters.
async fn domain_get_cpu_stats(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let start_cpu: i32 = ask.get("start_cpu")?;
    anyhow::ensure!(
        start_cpu == -1,
        "the reference asks for the total, and so do we"
    );
    let flags = ask.flags()? | TEXTS;
    let args = |nparams, start_cpu, ncpus| DomainGetCpuStatsArgs {
        dom: dom.clone(),
        nparams,
        start_cpu,
        ncpus,
        flags,
    };
    let remote = &ask.remote;
    remote.domain_get_cpu_stats(&args(0, 0, 0)).await?;
    let of_total = remote.domain_get_cpu_stats(&args(0, start_cpu, 1)).await?;
    let args = args(u32::try_from(of_total.nparams)?, start_cpu, 1);
    let found = remote.domain_get_cpu_stats(&args).await?;
    Ok(json!([params(found.params)]))
}

async fn domain_get_disk_errors(ask: &Ask) -> Result<Value> {
    let dom = ask.domain().await?;
    let flags = ask.flags()?;
    let args = |maxerrors| DomainGetDiskErrorsArgs {
        dom: dom.clone(),
        maxerrors,
        flags,
    };
    let count = ask.remote.domain_get_disk_errors(&args(0)).await?.nerrors;
    let count = u32::try_from(count)?;
    if count == 0 {
        return Ok(json!({}));
    }
    let found = ask.remote.domain_get_disk_errors(&args(count)).await?;
    let shown = found
        .errors
        .into_iter()
        .map(|it| (it.disk, json!(it.error)));
    Ok(Value::Object(shown.collect()))
}
