//! To another host.

use super::Domain;
use crate::error::Error;
use crate::object::calls;
use crate::params::Params;
use crate::raw::api::{DomainMigrateFlags, DomainMigrateMaxSpeedFlags};
use crate::raw::remote;

impl Domain {
    /// Lets the daemon bring the domain to another one by itself: `to` is that daemon's URI as this daemon sees it, and
    /// `params` are those of `virDomainMigrateToURI3`.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection. The flags must hold `PEER2PEER`.
    pub async fn migrate_to_uri(
        &self,
        to: &str,
        params: &Params,
        flags: DomainMigrateFlags,
    ) -> Result<(), Error> {
        let args = remote::DomainMigratePerform3ParamsArgs {
            dom: self.raw.clone(),
            dconnuri: Some(to.to_owned()),
            params: params.to_raw(),
            cookie_in: Vec::new(),
            flags: (flags | DomainMigrateFlags::PEER2PEER).bits(),
        };
        self.remote()?.domain_migrate_perform3_params(&args).await?;
        Ok(())
    }
}

calls!(Domain [dom] {
    /// The longest that the guest may stand still at the end, in ms. Since libvirt 3.7.
    migration_downtime() -> u64
        = domain_migrate_get_max_downtime(DomainMigrateGetMaxDowntimeArgs { flags: 0 }) |found| found.downtime;
    /// Sets the longest that the guest may stand still at the end, in ms.
    set_migration_downtime(milliseconds: u64)
        = domain_migrate_set_max_downtime(DomainMigrateSetMaxDowntimeArgs { downtime: milliseconds, flags: 0 });
    /// The most that a migration may send, in MiB/s; with `POSTCOPY` once the guest runs at its new host.
    migration_speed(flags: DomainMigrateMaxSpeedFlags) -> u64
        = domain_migrate_get_max_speed(DomainMigrateGetMaxSpeedArgs { flags: flags.bits() }) |found| found.bandwidth;
    /// Limits what a migration may send, in MiB/s; with `POSTCOPY` once the guest runs at its new host, in which case 0 is no
    /// limit.
    set_migration_speed(bandwidth: u64, flags: DomainMigrateMaxSpeedFlags)
        = domain_migrate_set_max_speed(DomainMigrateSetMaxSpeedArgs { bandwidth, flags: flags.bits() });
    /// The bytes in which a migration keeps what it has sent, to send differences.
    migration_cache() -> u64
        = domain_migrate_get_compression_cache(DomainMigrateGetCompressionCacheArgs { flags: 0 })
        |found| found.cache_size;
    /// Sets the bytes in which a migration keeps what it has sent.
    set_migration_cache(bytes: u64)
        = domain_migrate_set_compression_cache(DomainMigrateSetCompressionCacheArgs { cache_size: bytes, flags: 0 });
    /// Lets the guest go on at its new host; what is missing of its memory follows.
    start_post_copy()
        = domain_migrate_start_post_copy(DomainMigrateStartPostCopyArgs { flags: 0 });
});
