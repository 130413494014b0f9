//! What a domain's CPUs do, and on which of the host's.
//!
//! A map of the host's CPUs has one a bit, the first in the lowest bit of the first byte. The daemon must be told how long its
//! maps may be, and for how many virtual CPUs: so these methods ask first how many there are.

use super::Domain;
use super::configuration::TEXTS;
use crate::code::Code;
use crate::connect::Connect;
use crate::error::Error;
use crate::object::calls;
use crate::params::Params;
use crate::raw::api::{DomainModificationImpact, DomainVcpuFlags, ErrorNumber, VcpuState};
use crate::raw::remote::{
    DomainGetCpuStatsArgs, DomainGetEmulatorPinInfoArgs, DomainGetInfoArgs,
    DomainGetVcpuPinInfoArgs, DomainGetVcpusArgs, DomainGetVcpusFlagsArgs, NodeGetCpuMapArgs,
    REMOTE_DOMAIN_GET_CPU_STATS_MAX, REMOTE_DOMAIN_GET_CPU_STATS_NCPUS_MAX,
};

/// A virtual CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vcpu {
    /// Its number.
    pub number: u32,
    /// Whether it runs.
    pub state: Code<VcpuState>,
    /// The time that it has used, in nanoseconds.
    pub cpu_time: u64,
    /// The host's CPU that it is on; `None` when that is not known.
    pub cpu: Option<u32>,
    /// The host's CPUs that it may run on, one a bit, the first in the lowest bit of the first byte.
    pub cpus: Vec<u8>,
}

/// The host's CPUs in one question about what a domain has used of them: as many as the protocol allows.
const CPUS_AT_ONCE: u32 = REMOTE_DOMAIN_GET_CPU_STATS_NCPUS_MAX;
/// The values of each of them, so that the reply has room for all.
const VALUES: u32 = REMOTE_DOMAIN_GET_CPU_STATS_MAX / CPUS_AT_ONCE;

calls!(Domain [dom] {
    /// What its CPUs have used in sum.
    cpu_stats() -> Params
        = domain_get_cpu_stats(DomainGetCpuStatsArgs { nparams: VALUES, start_cpu: -1, ncpus: 1, flags: TEXTS })
        |found| found.params.into();
});

impl Domain {
    /// Its virtual CPUs, while it runs.
    ///
    /// # Errors
    /// It does not run; what else the daemon reports, or the end of the connection.
    pub async fn vcpus(&self) -> Result<Vec<Vcpu>, Error> {
        let remote = self.remote()?;
        let info = DomainGetInfoArgs {
            dom: self.raw.clone(),
        };
        let args = DomainGetVcpusArgs {
            dom: self.raw.clone(),
            maxinfo: remote.domain_get_info(&info).await?.nr_virt_cpu.into(),
            maplen: map_length(&self.connect).await?,
        };
        let found = remote.domain_get_vcpus(&args).await?;
        let maps = maps(&found.cpumaps, args.maplen);
        Ok(found
            .info
            .into_iter()
            .zip(maps.chain(std::iter::repeat(Vec::new())))
            .map(|(vcpu, cpus)| Vcpu {
                number: vcpu.number,
                state: Code::new(vcpu.state),
                cpu_time: vcpu.cpu_time,
                cpu: u32::try_from(vcpu.cpu).ok(),
                cpus,
            })
            .collect())
    }

    /// For each virtual CPU that it may have, by number, the host's CPUs that it is tied to with
    /// [`pin_vcpu`](Self::pin_vcpu): one a bit, the first in the lowest bit of the first byte.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn vcpu_pins(&self, flags: DomainModificationImpact) -> Result<Vec<Vec<u8>>, Error> {
        let remote = self.remote()?;
        let count = DomainGetVcpusFlagsArgs {
            dom: self.raw.clone(),
            flags: flags.bits() | DomainVcpuFlags::MAXIMUM.bits(),
        };
        let args = DomainGetVcpuPinInfoArgs {
            dom: self.raw.clone(),
            ncpumaps: remote.domain_get_vcpus_flags(&count).await?.num,
            maplen: map_length(&self.connect).await?,
            flags: flags.bits(),
        };
        let found = remote.domain_get_vcpu_pin_info(&args).await?;
        let count = usize::try_from(found.num).unwrap_or(0);
        Ok(maps(&found.cpumaps, args.maplen).take(count).collect())
    }

    /// The host's CPUs that the emulator's threads are tied to with [`pin_emulator`](Self::pin_emulator): one a bit, the
    /// first in the lowest bit of the first byte.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn emulator_pin(&self, flags: DomainModificationImpact) -> Result<Vec<u8>, Error> {
        let remote = self.remote()?;
        let args = DomainGetEmulatorPinInfoArgs {
            dom: self.raw.clone(),
            maplen: map_length(&self.connect).await?,
            flags: flags.bits(),
        };
        Ok(remote.domain_get_emulator_pin_info(&args).await?.cpumaps)
    }

    /// What it has used of each of the host's CPUs, by number; empty for one of which nothing is known.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn cpu_stats_by_cpu(&self) -> Result<Vec<Params>, Error> {
        let remote = self.remote()?;
        let args = |nparams, start_cpu, ncpus| DomainGetCpuStatsArgs {
            dom: self.raw.clone(),
            nparams,
            start_cpu,
            ncpus,
            flags: TEXTS,
        };
        // With everything 0 it is asked how many CPUs there are.
        let count = remote.domain_get_cpu_stats(&args(0, 0, 0)).await?.nparams;
        let mut all = Vec::new();
        let mut first = 0;
        while first < count {
            let ncpus = (count - first).unsigned_abs().min(CPUS_AT_ONCE);
            let found = remote
                .domain_get_cpu_stats(&args(VALUES, first, ncpus))
                .await?;
            // Each has as many, one behind the other; the last ones may be missing.
            let each = usize::try_from(found.nparams).unwrap_or(0).max(1);
            all.extend(found.params.chunks(each).map(|of| of.to_vec().into()));
            first += ncpus.cast_signed();
            all.resize_with(usize::try_from(first).unwrap_or(0), Params::new);
        }
        Ok(all)
    }
}

/// The bytes of a map of the host's CPUs.
async fn map_length(connect: &Connect) -> Result<i32, Error> {
    let args = NodeGetCpuMapArgs {
        need_map: 0,
        need_online: 0,
        flags: 0,
    };
    let cpus = match connect.raw()?.node_get_cpu_map(&args).await {
        Ok(found) => found.ret,
        // What has no map counts them by their places.
        Err(error) if error.is(ErrorNumber::NoSupport) => {
            let host = connect.node_info().await?;
            host.nodes
                .saturating_mul(host.sockets)
                .saturating_mul(host.cores)
                .saturating_mul(host.threads)
        }
        Err(error) => return Err(error),
    };
    Ok(cpus.max(1).cast_unsigned().div_ceil(8).cast_signed())
}

/// The single maps of several.
fn maps(of_all: &[u8], length: i32) -> impl Iterator<Item = Vec<u8>> {
    let length = usize::try_from(length).unwrap_or(0).max(1);
    of_all.chunks(length).map(<[u8]>::to_vec)
}
