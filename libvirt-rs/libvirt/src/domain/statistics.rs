//! What a domain uses.

use super::configuration::TEXTS;
use super::{Domain, StateAndReason, StateReason};
use crate::code::Code;
use crate::connect::Connect;
use crate::error::Error;
use crate::object::calls;
use crate::params::Params;
use crate::raw::api::{
    ConnectGetAllDomainStatsFlags, DomainDirtyRateCalcFlags, DomainGetJobStatsFlags, DomainJobType,
    DomainMemoryStatTags, DomainStatsTypes,
};
use crate::raw::remote;

/// All that libvirt counts of one domain, by name: `cpu.time`, `block.0.rd.bytes` …
#[derive(Debug, Clone, PartialEq)]
pub struct DomainStats {
    /// Whose they are.
    pub domain: Domain,
    /// The counters, each named as `virConnectGetAllDomainStats` documents it.
    pub values: Params,
}

/// What went through a disk. A counter that the hypervisor does not have is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStats {
    /// Read requests.
    pub reads: Option<u64>,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Write requests.
    pub writes: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
    /// Errors.
    pub errors: Option<u64>,
}

/// What went through a network card, as the host sees it. A counter that the hypervisor does not have is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Bytes received.
    pub received_bytes: Option<u64>,
    /// Packets received.
    pub received_packets: Option<u64>,
    /// Errors in receiving.
    pub receive_errors: Option<u64>,
    /// Packets dropped in receiving.
    pub receive_drops: Option<u64>,
    /// Bytes sent.
    pub sent_bytes: Option<u64>,
    /// Packets sent.
    pub sent_packets: Option<u64>,
    /// Errors in sending.
    pub send_errors: Option<u64>,
    /// Packets dropped in sending.
    pub send_drops: Option<u64>,
}

/// One number about the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStat {
    /// What it is.
    pub tag: Code<DomainMemoryStatTags>,
    /// The number; most are in KiB.
    pub value: u64,
}

/// A job on a domain: a migration, a save, a dump.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStats {
    /// How it goes.
    pub kind: Code<DomainJobType>,
    /// Its numbers.
    pub values: Params,
}

impl Connect {
    /// What libvirt counts of all domains that the flags select, or of some; one call for all of them.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn all_domain_stats(
        &self,
        of: &[&Domain],
        what: DomainStatsTypes,
        flags: ConnectGetAllDomainStatsFlags,
    ) -> Result<Vec<DomainStats>, Error> {
        let args = remote::ConnectGetAllDomainStatsArgs {
            doms: of.iter().map(|domain| domain.raw.clone()).collect(),
            stats: what.bits(),
            flags: flags.bits(),
        };
        let stats = self.raw()?.connect_get_all_domain_stats(&args).await?;
        Ok(stats
            .ret_stats
            .into_iter()
            .map(|record| DomainStats {
                domain: Domain::new(self, record.dom),
                values: record.params.into(),
            })
            .collect())
    }
}

calls!(Domain [dom] {
    /// What went through a disk, by its target or source; an empty name: all disks.
    block_stats(disk: &str) -> BlockStats
        = domain_block_stats(DomainBlockStatsArgs { path: disk.to_owned() }) |found| BlockStats {
            reads: counter(found.rd_req),
            read_bytes: counter(found.rd_bytes),
            writes: counter(found.wr_req),
            written_bytes: counter(found.wr_bytes),
            errors: counter(found.errs),
        };
    /// All that is counted of a disk.
    block_stats_params(disk: &str) -> Params
        = domain_block_stats_flags(DomainBlockStatsFlagsArgs { path: disk.to_owned(), nparams: 16, flags: TEXTS })
        |found| found.params.into();
    /// What went through a network card, by its device on the host or its hardware address.
    interface_stats(device: &str) -> InterfaceStats
        = domain_interface_stats(DomainInterfaceStatsArgs { device: device.to_owned() }) |found| InterfaceStats {
            received_bytes: counter(found.rx_bytes),
            received_packets: counter(found.rx_packets),
            receive_errors: counter(found.rx_errs),
            receive_drops: counter(found.rx_drop),
            sent_bytes: counter(found.tx_bytes),
            sent_packets: counter(found.tx_packets),
            send_errors: counter(found.tx_errs),
            send_drops: counter(found.tx_drop),
        };
    /// What the guest's balloon tells of its memory.
    memory_stats() -> Vec<MemoryStat>
        = domain_memory_stats(DomainMemoryStatsArgs { max_stats: MEMORY_STATS, flags: 0 })
        |found| found.stats.into_iter()
            .map(|stat| MemoryStat { tag: Code::new(stat.tag), value: stat.val })
            .collect();
    /// Begins to measure for so many seconds how fast the guest changes its memory; [`DomainStatsTypes::DIRTYRATE`] tells the
    /// result. Since libvirt 7.2.
    measure_dirty_rate(seconds: i32, how: DomainDirtyRateCalcFlags)
        = domain_start_dirty_rate_calc(DomainStartDirtyRateCalcArgs { seconds, flags: how.bits() });
    /// The job that runs, or with `COMPLETED` the last one.
    job_stats(flags: DomainGetJobStatsFlags) -> JobStats
        = domain_get_job_stats(DomainGetJobStatsArgs { flags: flags.bits() })
        |found| JobStats { kind: Code::new(found.r#type), values: found.params.into() };
});

impl DomainStats {
    /// How the domain is, and why, if [`DomainStatsTypes::STATE`] was among what was asked for.
    pub fn state(&self) -> Option<StateAndReason> {
        let number = |name| i32::try_from(self.values.number(name)?).ok();
        let state = number("state.state")?;
        Some(StateAndReason {
            state: Code::new(state),
            reason: StateReason::new(state, number("state.reason").unwrap_or_default()),
        })
    }
}

/// As many as the protocol allows in one reply.
const MEMORY_STATS: u32 = 1_024;

/// libvirt says -1 for a counter that there is not.
fn counter(raw: i64) -> Option<u64> {
    u64::try_from(raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::api::{DomainPausedReason, DomainState};

    #[tokio::test]
    async fn the_state_among_the_statistics_is_read_with_its_reason_and_may_be_missing() {
        let raw = remote::NonnullDomain {
            name: "web".to_owned(),
            uuid: [7; 16],
            id: 3,
        };
        let of = |values| DomainStats {
            domain: Domain::new(&Connect::for_test(), raw.clone()),
            values,
        };
        let paused = Params::new()
            .with("state.state", 3_i32)
            .with("state.reason", 1_i32);
        let state = of(paused).state().unwrap();
        assert_eq!(state.state, DomainState::Paused);
        assert_eq!(state.reason, DomainPausedReason::User);
        assert_eq!(of(Params::new()).state(), None);
    }
}
