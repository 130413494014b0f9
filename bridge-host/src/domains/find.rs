//! Which domain a caller means.
//!
//! Every hypervisor is asked. A domain may be meant in three ways, and the first goes before the others, whoever has it:
//!
//! 1. by what it is called at this bridge: its guest's name, or its own if it is no guest; or by its UUID;
//! 2. by `NAME@HOST`, though it is called something else;
//! 3. by its own name, though it is a guest under another.
//!
//! So a guest's name always means what it means to calls, unless a domain that is no guest is called the same. Where two are
//! meant in the same way, none is: a caller that stops a domain must not be guessed at.

use std::sync::Arc;

use futures_util::StreamExt as _;
use libvirt::{Connect, Domain, Error, raw::api::ErrorNumber};
use tokio::time::timeout;
use tonic::Status;
use uuid::Uuid;

use super::refusal::{refusal, unreachable};
use crate::{
    error::{Reason, harmless as shown},
    hypervisor::{Hypervisor, Hypervisors},
    limits::{HYPERVISOR_LOOK, HYPERVISORS_AT_ONCE, MAX_DOMAIN_NAME},
};

/// Domains that an error names at most.
const MAX_NAMES: usize = 20;

/// A domain, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) hypervisor: Arc<Hypervisor>,
    /// On the connection that reads.
    pub(super) domain: Domain,
}

/// How well a domain fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is called that here.
    Called,
    /// It is its own name and its host's.
    AtHost,
    /// It is its own name, and it is a guest under another.
    OwnName,
}

/// The hypervisor with that URI, or all.
pub(super) fn hypervisors(
    hypervisors: &Hypervisors,
    only: &str,
) -> Result<Vec<Arc<Hypervisor>>, Status> {
    if only.is_empty() {
        return Ok(hypervisors.all().to_vec());
    }
    if let Some(hypervisor) = hypervisors.by_uri(only) {
        return Ok(vec![Arc::clone(hypervisor)]);
    }
    let all = hypervisors.all().iter().map(|it| shown(it.uri()));
    let message = format!(
        "the bridge follows no hypervisor \"{}\"; {}",
        shown(only),
        listed("it follows", &all.collect::<Vec<_>>())
    );
    Err(Reason::HypervisorNotFound.about([("hypervisor", only)], message))
}

/// The domain that is meant.
pub(super) async fn find(all: &Hypervisors, name: &str, only: &str) -> Result<Found, Status> {
    if name.is_empty() || name.len() > MAX_DOMAIN_NAME {
        let message = format!("a domain is named by 1 to {MAX_DOMAIN_NAME} bytes");
        return Err(Reason::DomainNotFound.about([], message));
    }
    let asked = hypervisors(all, only)?;
    let answers = futures_util::stream::iter(asked).map(|hypervisor| async move {
        let fits = timeout(HYPERVISOR_LOOK, fitting(&hypervisor, name)).await;
        let fits = fits.unwrap_or_else(|_| {
            let why = format!("no answer within {HYPERVISOR_LOOK:?}");
            Err(unreachable(&hypervisor, &why))
        });
        (hypervisor, fits)
    });
    let answers = answers.buffered(HYPERVISORS_AT_ONCE).collect::<Vec<_>>();
    let (mut found, mut trouble) = (Vec::new(), None);
    for (hypervisor, fits) in answers.await {
        match fits {
            Ok(fits) => found.extend(fits.into_iter().map(|(fit, domain)| {
                let hypervisor = Arc::clone(&hypervisor);
                (fit, Found { hypervisor, domain })
            })),
            Err(status) => trouble = trouble.or(Some(status)),
        }
    }
    choose(name, found).and_then(|found| match (found, trouble) {
        (Some(found), _) => Ok(found),
        // It may be where nobody answers.
        (None, Some(trouble)) => Err(trouble),
        (None, None) => Err(not_found(all, name)),
    })
}

/// The domains of a hypervisor that may be meant, each once.
async fn fitting(hypervisor: &Hypervisor, name: &str) -> Result<Vec<(Fit, Domain)>, Status> {
    let connect = hypervisor
        .reading()
        .map_err(|why| unreachable(hypervisor, &why))?;
    let mut fits: Vec<(Fit, Domain)> = Vec::new();
    let mut add =
        |fit: Fit, domain: Domain| match fits.iter_mut().find(|(_, it)| it.uuid() == domain.uuid())
        {
            Some((before, _)) => *before = fit.min(*before),
            None => fits.push((fit, domain)),
        };
    let looked = async {
        let guest = hypervisor.domain_of(name);
        for uuid in [guest.as_deref(), Some(name)].into_iter().flatten() {
            if let Ok(uuid) = Uuid::parse_str(uuid)
                && let Some(domain) = there(connect.domain_by_uuid(uuid).await)?
            {
                add(Fit::Called, domain);
            }
        }
        if let Some(name) = without_host(name, &hypervisor.host())
            && let Some(domain) = by_name(&connect, name).await?
        {
            add(Fit::AtHost, domain);
        }
        if let Some(domain) = by_name(&connect, name).await? {
            let guest = hypervisor.guest(&domain.uuid().to_string());
            let is_called = guest.is_none_or(|guest| guest.eq_ignore_ascii_case(name));
            add(if is_called { Fit::Called } else { Fit::OwnName }, domain);
        }
        Ok(())
    };
    match looked.await {
        Ok(()) => Ok(fits),
        Err(error) => Err(refusal(hypervisor, "", &error)),
    }
}

async fn by_name(connect: &Connect, name: &str) -> Result<Option<Domain>, Error> {
    there(connect.domain_by_name(name).await)
}

/// That there is none is no trouble.
fn there(looked: Result<Domain, Error>) -> Result<Option<Domain>, Error> {
    match looked {
        Ok(domain) => Ok(Some(domain)),
        Err(error) if error.is(ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `NAME` of `NAME@HOST`.
fn without_host<'a>(name: &'a str, host: &str) -> Option<&'a str> {
    let (name, of) = name.rsplit_once('@')?;
    (!name.is_empty() && !host.is_empty() && of.eq_ignore_ascii_case(host)).then_some(name)
}

/// Of those that fit best, the only one.
fn choose(name: &str, found: Vec<(Fit, Found)>) -> Result<Option<Found>, Status> {
    let Some(best) = found.iter().map(|(fit, _)| *fit).min() else {
        return Ok(None);
    };
    let mut best: Vec<Found> = found
        .into_iter()
        .filter_map(|(fit, found)| (fit == best).then_some(found))
        .collect();
    if best.len() == 1 {
        return Ok(best.pop());
    }
    let names = best.iter().map(|found| {
        let (uri, host) = (found.hypervisor.uri(), found.hypervisor.host());
        shown(&format!("{}@{host} at {uri}", found.domain.name()))
    });
    let message = format!(
        "\"{}\" may mean several domains; {}; say which, by NAME@HOST, by its UUID or with its hypervisor's URI",
        shown(name),
        listed("they are", &names.collect::<Vec<_>>())
    );
    Err(Reason::DomainAmbiguous.about([("domain", name)], message))
}

fn not_found(hypervisors: &Hypervisors, name: &str) -> Status {
    let message = match hypervisors.all() {
        [] => "this bridge follows no hypervisor; start it with --libvirt URI".to_owned(),
        all => {
            let uris: Vec<_> = all.iter().map(|it| shown(it.uri())).collect();
            format!(
                "no domain is called \"{}\"; {}",
                shown(name),
                listed("the hypervisors are", &uris)
            )
        }
    };
    Reason::DomainNotFound.about([("domain", name)], message)
}

fn listed(are: &str, names: &[String]) -> String {
    match names.len() {
        0 => format!("{are} none"),
        len if len <= MAX_NAMES => format!("{are}: {}", names.join(", ")),
        len => format!(
            "{are}: {} and {} more",
            names[..MAX_NAMES].join(", "),
            len - MAX_NAMES
        ),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_host_behind_a_name_is_its_hypervisors_or_a_part_of_the_name() {
        assert_eq!(without_host("web@far", "far"), Some("web"));
        assert_eq!(without_host("a@b@FAR", "far"), Some("a@b"));
        for (name, host) in [
            ("web", "far"),
            ("web@near", "far"),
            ("web@", ""),
            ("@far", "far"),
        ] {
            assert_eq!(without_host(name, host), None, "{name} {host}");
        }
    }

    #[tokio::test]
    async fn without_a_hypervisor_there_is_no_domain_and_one_that_is_away_is_named() {
        let mut all = Hypervisors::new();
        let status = find(&all, "web", "").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("--libvirt URI"), "{status}");
        all.add("qemu:///system");
        let status = find(&all, "web", "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("qemu:///system"), "{status}");
        let status = find(&all, "web", "qemu:///session").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("qemu:///system"), "{status}");
        let status = find(&all, "", "").await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
    }
}
