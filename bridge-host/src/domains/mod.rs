//! The bridge's service for the domains of hypervisors, `vbridge.host.v1.Domains`.
//!
//! ```text
//!            names a domain            by the connection that reads: lists, looks
//!   caller ────────────────▶ find ──┬────────────────────────────────────────────▶ libvirt
//!                                   └─ act: by the connection that writes ────────▶
//! ```
//!
//! | module | what it decides |
//! |---|---|
//! | this one | what a call does |
//! | `find` | which domain is meant |
//! | `list` | how all of them are |
//! | `watch` | what a reader is told, and when |
//! | `refusal` | how libvirt's errors look to a caller |

mod find;
mod list;
mod refusal;
mod watch;

use std::{pin::Pin, time::Duration};

use libvirt::{
    Domain, Error,
    raw::api::{
        DomainCreateFlags, DomainDestroyFlagsValues, DomainShutdownFlagValues, DomainXmlFlags,
        ErrorNumber,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tracing::info;
use vbridge_api::host::v1::{
    DestroyDomainRequest, DestroyDomainResponse, Domain as DomainMessage, DomainDetails,
    DomainShutdownMode, GetDomainRequest, GetDomainResponse, GetDomainXmlRequest,
    GetDomainXmlResponse, ListDomainsRequest, ListDomainsResponse, ResumeDomainRequest,
    ResumeDomainResponse, ShutdownDomainRequest, ShutdownDomainResponse, StartDomainRequest,
    StartDomainResponse, SuspendDomainRequest, SuspendDomainResponse, WatchDomainsRequest,
    domains_server::Domains as DomainsService,
};

use crate::{
    access::Viewer,
    error::Reason,
    guests::Guests,
    hypervisor::{Hypervisor, Hypervisors},
    limits::{DOMAIN_ACT, MAX_LISTED_DOMAINS},
};
use find::{Found, find};
use refusal::{refusal, wrong_state};

/// Asks the hypervisors, and tells them what to do.
pub(crate) struct Domains {
    pub(crate) guests: Guests,
    pub(crate) hypervisors: Hypervisors,
}

/// What is done to a domain.
#[derive(Debug, Clone, Copy)]
enum Act {
    Start(DomainCreateFlags),
    Shutdown(DomainShutdownFlagValues),
    Destroy(DomainDestroyFlagsValues),
    Suspend,
    Resume,
}

// === impl Act ===

impl Act {
    async fn carry_out(self, domain: &Domain) -> Result<(), Error> {
        match self {
            Self::Start(flags) => domain.start(flags).await,
            Self::Shutdown(flags) => domain.shutdown(flags).await,
            Self::Destroy(flags) => domain.destroy(flags).await,
            Self::Suspend => domain.suspend().await,
            Self::Resume => domain.resume().await,
        }
    }

    /// Whether it failed because the domain runs, or does not. Not every driver has a number of its own for that.
    async fn is_out_of_place(self, domain: &Domain, error: &Error) -> bool {
        let is_start = matches!(self, Self::Start(_));
        // Other errors say more than the state does, or came before anybody looked at it.
        let is_vague = matches!(
            error.kind(),
            Some(ErrorNumber::InternalError | ErrorNumber::OperationFailed)
        );
        is_vague && domain.is_active().await.is_ok_and(|is| is == is_start)
    }

    fn method(self) -> &'static str {
        match self {
            Self::Start(_) => "/vbridge.host.v1.Domains/StartDomain",
            Self::Shutdown(_) => "/vbridge.host.v1.Domains/ShutdownDomain",
            Self::Destroy(_) => "/vbridge.host.v1.Domains/DestroyDomain",
            Self::Suspend => "/vbridge.host.v1.Domains/SuspendDomain",
            Self::Resume => "/vbridge.host.v1.Domains/ResumeDomain",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Shutdown(_) => "shutdown",
            Self::Destroy(_) => "destroy",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }
}

// === impl Domains ===

/// A domain as the rules of callers know it: by its guest's name, or its own.
pub(super) fn called(domain: &DomainMessage) -> &str {
    match domain.guest.as_str() {
        "" => &domain.name,
        guest => guest,
    }
}

impl Domains {
    /// The domain that is meant, if the caller may call that method for it.
    async fn find(
        &self,
        (viewer, method): (&Viewer, &str),
        name: &str,
        hypervisor: &str,
    ) -> Result<Found, Status> {
        let found = find(&self.hypervisors, name, hypervisor).await;
        let found = found.map_err(|status| match viewer.may(name, &[method]) {
            Ok(()) => status,
            Err(refused) => refused,
        })?;
        let domain = found.hypervisor.describe(&found.domain, None);
        viewer.may(called(&domain), &[method])?;
        Ok(found)
    }

    /// Does it, and tells how the domain is then: `None` if it is gone.
    async fn act(
        &self,
        viewer: &Viewer,
        name: &str,
        hypervisor: &str,
        act: Act,
    ) -> Result<Option<DomainMessage>, Status> {
        let found = self.find((viewer, act.method()), name, hypervisor).await?;
        let (hypervisor, name) = (&*found.hypervisor, found.domain.name());
        let refused = |error| refusal(hypervisor, name, &error);
        let connect = hypervisor.writing().await.map_err(refused)?;
        let connect = connect.with_deadline(DOMAIN_ACT);
        let domain = connect.domain_by_uuid(found.domain.uuid()).await;
        let domain = domain.map_err(refused)?;
        info!(
            caller = viewer.caller().name(), domain = %name.escape_debug(), uri = %hypervisor.uri(),
            act = act.name(), "a caller changes a domain"
        );
        if let Err(error) = act.carry_out(&domain).await {
            return Err(match act.is_out_of_place(&domain, &error).await {
                true => wrong_state(hypervisor, name, &error),
                false => refused(error),
            });
        }
        match now(hypervisor, &domain).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.is(ErrorNumber::NoDomain) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }
}

/// A domain as it is now.
async fn now(hypervisor: &Hypervisor, domain: &Domain) -> Result<DomainMessage, Error> {
    let domain = domain.refreshed().await?;
    let state = domain.state().await?;
    Ok(hypervisor.describe(&domain, Some(state)))
}

async fn details(domain: &Domain) -> Result<DomainDetails, Error> {
    const KIB: u64 = 1024;
    let info = domain.info().await?;
    Ok(DomainDetails {
        vcpus: info.vcpus.into(),
        memory_bytes: info.memory.saturating_mul(KIB),
        max_memory_bytes: info.max_memory.saturating_mul(KIB),
        cpu_time: Duration::from_nanos(info.cpu_time).try_into().ok(),
        persistent: domain.is_persistent().await?,
        // A driver may not know how to.
        autostart: domain.autostart().await.unwrap_or_default(),
    })
}

type WatchStream = Pin<Box<dyn Stream<Item = watch::Item> + Send>>;

#[tonic::async_trait]
impl DomainsService for Domains {
    async fn list_domains(
        &self,
        request: Request<ListDomainsRequest>,
    ) -> Result<Response<ListDomainsResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let of = find::hypervisors(&self.hypervisors, &request.hypervisor)?;
        let mut answer = ListDomainsResponse::default();
        for (hypervisor, domains) in list::list_all(of, request.selection()).await {
            answer.hypervisors.push(hypervisor);
            let seen = domains.into_iter().filter(|it| viewer.sees(called(it)));
            answer.domains.extend(seen);
        }
        let count = answer.domains.len();
        if count > MAX_LISTED_DOMAINS {
            let message = format!(
                "there are {count} domains, and a list has at most {MAX_LISTED_DOMAINS}; ask for one hypervisor, or watch them"
            );
            return Err(Reason::TooManyDomains.about([], message));
        }
        Ok(Response::new(answer))
    }

    async fn get_domain(
        &self,
        request: Request<GetDomainRequest>,
    ) -> Result<Response<GetDomainResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let GetDomainRequest { domain, hypervisor } = request.into_inner();
        let about = (&viewer, "/vbridge.host.v1.Domains/GetDomain");
        let found = self.find(about, &domain, &hypervisor).await?;
        let refused = |error| refusal(&found.hypervisor, found.domain.name(), &error);
        let domain = now(&found.hypervisor, &found.domain).await;
        let domain = Some(domain.map_err(refused)?);
        let details = Some(details(&found.domain).await.map_err(refused)?);
        Ok(Response::new(GetDomainResponse { domain, details }))
    }

    async fn start_domain(
        &self,
        request: Request<StartDomainRequest>,
    ) -> Result<Response<StartDomainResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let flags = match request.paused {
            true => DomainCreateFlags::START_PAUSED,
            false => DomainCreateFlags::empty(),
        };
        let act = Act::Start(flags);
        let domain = self
            .act(&viewer, &request.domain, &request.hypervisor, act)
            .await?;
        Ok(Response::new(StartDomainResponse { domain }))
    }

    async fn shutdown_domain(
        &self,
        request: Request<ShutdownDomainRequest>,
    ) -> Result<Response<ShutdownDomainResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let flags = match request.mode() {
            DomainShutdownMode::Unspecified => DomainShutdownFlagValues::empty(),
            DomainShutdownMode::Acpi => DomainShutdownFlagValues::ACPI_POWER_BTN,
            DomainShutdownMode::Agent => DomainShutdownFlagValues::GUEST_AGENT,
        };
        let act = Act::Shutdown(flags);
        let domain = self
            .act(&viewer, &request.domain, &request.hypervisor, act)
            .await?;
        Ok(Response::new(ShutdownDomainResponse { domain }))
    }

    async fn destroy_domain(
        &self,
        request: Request<DestroyDomainRequest>,
    ) -> Result<Response<DestroyDomainResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let flags = match request.graceful {
            true => DomainDestroyFlagsValues::GRACEFUL,
            false => DomainDestroyFlagsValues::empty(),
        };
        let act = Act::Destroy(flags);
        let domain = self
            .act(&viewer, &request.domain, &request.hypervisor, act)
            .await?;
        Ok(Response::new(DestroyDomainResponse { domain }))
    }

    async fn suspend_domain(
        &self,
        request: Request<SuspendDomainRequest>,
    ) -> Result<Response<SuspendDomainResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let SuspendDomainRequest { domain, hypervisor } = request.into_inner();
        let domain = self
            .act(&viewer, &domain, &hypervisor, Act::Suspend)
            .await?;
        Ok(Response::new(SuspendDomainResponse { domain }))
    }

    async fn resume_domain(
        &self,
        request: Request<ResumeDomainRequest>,
    ) -> Result<Response<ResumeDomainResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let ResumeDomainRequest { domain, hypervisor } = request.into_inner();
        let domain = self.act(&viewer, &domain, &hypervisor, Act::Resume).await?;
        Ok(Response::new(ResumeDomainResponse { domain }))
    }

    async fn get_domain_xml(
        &self,
        request: Request<GetDomainXmlRequest>,
    ) -> Result<Response<GetDomainXmlResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let about = (&viewer, "/vbridge.host.v1.Domains/GetDomainXml");
        let found = self
            .find(about, &request.domain, &request.hypervisor)
            .await?;
        let refused = |error| refusal(&found.hypervisor, found.domain.name(), &error);
        // Never those with passwords, which the connection that reads would not give either.
        let flags = match request.inactive {
            true => DomainXmlFlags::INACTIVE,
            false => DomainXmlFlags::empty(),
        };
        let xml = found.domain.xml(flags).await.map_err(refused)?;
        let domain = now(&found.hypervisor, &found.domain).await;
        let domain = Some(domain.map_err(refused)?);
        Ok(Response::new(GetDomainXmlResponse { domain, xml }))
    }

    type WatchDomainsStream = WatchStream;

    async fn watch_domains(
        &self,
        request: Request<WatchDomainsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let viewer = Viewer::of(&request)?;
        let WatchDomainsRequest { domain, hypervisor } = request.into_inner();
        let (of, uuid) = if domain.is_empty() {
            (find::hypervisors(&self.hypervisors, &hypervisor)?, None)
        } else {
            let about = (&viewer, "/vbridge.host.v1.Domains/WatchDomains");
            let found = self.find(about, &domain, &hypervisor).await?;
            (
                vec![found.hypervisor],
                Some(found.domain.uuid().to_string()),
            )
        };
        // What waits for a slow reader waits among the news.
        let (reader, items) = mpsc::channel(1);
        let watch = watch::Watch {
            guests: self.guests.clone(),
            hypervisors: self.hypervisors.clone(),
            of,
            uuid,
            viewer,
            reader,
        };
        tokio::spawn(watch.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(items))))
    }
}
