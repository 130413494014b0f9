//! All domains of hypervisors.

use std::sync::Arc;

use futures_util::{StreamExt as _, future::try_join_all};
use libvirt::{
    Connect, Error,
    raw::api::{
        ConnectGetAllDomainStatsFlags as Flags, ConnectListAllDomainsFlags, DomainStatsTypes,
        ErrorNumber,
    },
};
use tokio::time::timeout;
use vbridge_api::host::v1::{
    Domain as DomainMessage, DomainSelection, Hypervisor as HypervisorMessage,
};

use crate::{
    error::harmless as shown,
    hypervisor::Hypervisor,
    limits::{HYPERVISOR_LOOK, HYPERVISOR_QUESTIONS, HYPERVISORS_AT_ONCE},
};

/// A hypervisor, and its domains by name: none if it can't be asked, and why.
pub(super) type Listed = (HypervisorMessage, Vec<DomainMessage>);

/// The domains of all of these, each hypervisor for itself: one that does not answer costs no others.
pub(super) async fn list_all(
    hypervisors: Vec<Arc<Hypervisor>>,
    selection: DomainSelection,
) -> Vec<Listed> {
    let listing = futures_util::stream::iter(hypervisors)
        .map(|hypervisor| async move { list(&hypervisor, selection).await });
    listing.buffered(HYPERVISORS_AT_ONCE).collect().await
}

/// The domains of one.
pub(super) async fn list(hypervisor: &Hypervisor, selection: DomainSelection) -> Listed {
    let listing = async {
        let connect = hypervisor.reading()?;
        let listed = ask(hypervisor, &connect, selection).await;
        listed.map_err(|error| error.to_string())
    };
    let listed = timeout(HYPERVISOR_LOOK, listing).await;
    match listed.unwrap_or_else(|_| Err(format!("no answer within {HYPERVISOR_LOOK:?}"))) {
        Ok(mut domains) => {
            domains.sort_by(|one, other| one.name.cmp(&other.name));
            (hypervisor.message(""), domains)
        }
        Err(why) => (hypervisor.message(shown(&why)), Vec::new()),
    }
}

async fn ask(
    hypervisor: &Hypervisor,
    connect: &Connect,
    selection: DomainSelection,
) -> Result<Vec<DomainMessage>, Error> {
    let (flags, fallback) = match selection {
        DomainSelection::Unspecified => (Flags::empty(), ConnectListAllDomainsFlags::empty()),
        DomainSelection::Active => (Flags::ACTIVE, ConnectListAllDomainsFlags::ACTIVE),
        DomainSelection::Inactive => (Flags::INACTIVE, ConnectListAllDomainsFlags::INACTIVE),
    };
    // One question for all. It waits for no domain that is busy.
    let asked = connect.all_domain_stats(&[], DomainStatsTypes::STATE, flags | Flags::NOWAIT);
    match asked.await {
        Ok(stats) => Ok(stats
            .iter()
            .map(|stats| hypervisor.describe(&stats.domain, stats.state()))
            .collect()),
        Err(error) if error.is(ErrorNumber::NoSupport) => {
            one_by_one(hypervisor, connect, fallback).await
        }
        Err(error) => Err(error),
    }
}

/// Of a hypervisor's driver that has no answer for all of them.
async fn one_by_one(
    hypervisor: &Hypervisor,
    connect: &Connect,
    flags: ConnectListAllDomainsFlags,
) -> Result<Vec<DomainMessage>, Error> {
    let domains = connect.domains(flags).await?;
    let mut listed = Vec::with_capacity(domains.len());
    for some in domains.chunks(HYPERVISOR_QUESTIONS) {
        let some = some.iter().map(|domain| async {
            match domain.state().await {
                Ok(state) => Ok(Some(hypervisor.describe(domain, Some(state)))),
                // It has gone meanwhile.
                Err(error) if error.is(ErrorNumber::NoDomain) => Ok(None),
                Err(error) => Err(error),
            }
        });
        listed.extend(try_join_all(some).await?.into_iter().flatten());
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::Hypervisors;

    #[tokio::test]
    async fn a_hypervisor_that_is_away_is_listed_with_why() {
        let mut hypervisors = Hypervisors::new();
        let hypervisor = hypervisors.add("qemu:///system");
        hypervisor.is_away("it is\ngone".to_owned());
        let all = hypervisors.all().to_vec();
        let listed = list_all(all, DomainSelection::Unspecified).await;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].0.unreachable, "it is\\ngone");
        assert!(listed[0].1.is_empty());
    }
}
