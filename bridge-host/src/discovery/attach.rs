//! Gives a domain the channel that makes it a guest.

use libvirt::{
    Connect, Domain, Error,
    raw::api::{DomainDeviceModifyFlags, DomainXmlFlags, ErrorNumber},
};
use uuid::Uuid;

use super::domain::{self, Channel};
use crate::limits::HYPERVISOR_ANSWER;

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The domain's name.
    pub domain: String,
    /// Whether the running domain got the channel, had it already, or does not run.
    pub running: Option<Part>,
    /// The same of its definition, which counts from its next start on; `None` for a domain that is forgotten when it stops.
    pub definition: Option<Part>,
}

/// One of a domain's two faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It was added.
    Added,
    /// It was there.
    Present,
    /// The running domain's virtio-serial controllers have no port left, and it gets no other before it is restarted.
    NoPort,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such domain.
    #[error("{uri} has no domain \"{domain}\"", domain = .domain.escape_debug())]
    NoDomain {
        /// The hypervisor.
        uri: String,
        /// The name or UUID.
        domain: String,
    },
    /// The channel is there, and is not one that can be connected.
    #[error(
        "domain \"{domain}\" has a channel {channel} of the type \"{kind}\", which has no socket; remove that one first",
        domain = .domain.escape_debug(), kind = .kind.escape_debug()
    )]
    OtherKind {
        /// The domain.
        domain: String,
        /// The channel's name.
        channel: String,
        /// Its type.
        kind: String,
    },
    /// The domain is forgotten when it stops, and has no port left.
    #[error(
        "domain \"{domain}\" has no free port on its virtio-serial controllers, and no definition that could get one; start it with the channel",
        domain = .0.escape_debug()
    )]
    NoPort(String),
    /// The domain's XML makes no sense.
    #[error("the XML of domain \"{domain}\" can't be read: {source}", domain = .domain.escape_debug())]
    Xml {
        /// The domain.
        domain: String,
        /// Why.
        source: roxmltree::Error,
    },
    /// The running domain got the channel, and its definition did not.
    #[error(
        "domain \"{domain}\" has the channel now, but not from its next start on: {source}",
        domain = .domain.escape_debug()
    )]
    Half {
        /// The domain.
        domain: String,
        /// Why.
        source: Box<AttachError>,
    },
    /// libvirt refused, or can't be reached.
    #[error(transparent)]
    Libvirt(#[from] Error),
}

/// Adds the channel to the running domain and to its definition, where it is not there.
///
/// # Errors
/// As [`AttachError`] says. What was added before stays.
pub async fn attach(uri: &str, domain: &str, channel: &str) -> Result<Attached, AttachError> {
    let connect = Connect::builder(uri)
        .deadline(HYPERVISOR_ANSWER)
        .open()
        .await?;
    let attached = attach_on(&connect, domain, channel).await;
    connect.close().await;
    attached
}

async fn attach_on(connect: &Connect, name: &str, channel: &str) -> Result<Attached, AttachError> {
    let found = match connect.domain_by_name(name).await {
        Err(error) if error.is(ErrorNumber::NoDomain) => match Uuid::parse_str(name) {
            Ok(uuid) => connect.domain_by_uuid(uuid).await,
            Err(_) => Err(error),
        },
        found => found,
    };
    let domain = match found {
        Ok(domain) => domain,
        Err(error) if error.is(ErrorNumber::NoDomain) => {
            return Err(AttachError::NoDomain {
                uri: connect.uri().to_owned(),
                domain: name.to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let mut attached = Attached {
        domain: domain.name().to_owned(),
        running: None,
        definition: None,
    };
    if domain.is_active().await? {
        let flags = (DomainXmlFlags::empty(), DomainDeviceModifyFlags::LIVE);
        attached.running = Some(add(&domain, channel, flags).await?);
    }
    if domain.is_persistent().await? {
        let flags = (DomainXmlFlags::INACTIVE, DomainDeviceModifyFlags::CONFIG);
        let added = add(&domain, channel, flags).await;
        let added = added.map_err(|error| match attached.running {
            Some(Part::Added) => AttachError::Half {
                domain: attached.domain.clone(),
                source: Box::new(error),
            },
            _ => error,
        });
        attached.definition = Some(added?);
    } else if attached.running == Some(Part::NoPort) {
        return Err(AttachError::NoPort(attached.domain));
    }
    Ok(attached)
}

async fn add(
    domain: &Domain,
    name: &str,
    (look, to): (DomainXmlFlags, DomainDeviceModifyFlags),
) -> Result<Part, AttachError> {
    let xml = domain.xml(look).await?;
    let unreadable = |source| AttachError::Xml {
        domain: domain.name().to_owned(),
        source,
    };
    let is_running = to == DomainDeviceModifyFlags::LIVE;
    match domain::channel(&xml, name).map_err(unreadable)? {
        Channel::Absent if is_running && !domain::has_free_port(&xml).map_err(unreadable)? => {
            Ok(Part::NoPort)
        }
        Channel::Absent => {
            domain.attach_device(&domain::new_channel(name), to).await?;
            Ok(Part::Added)
        }
        Channel::Defined | Channel::Socket(_) => Ok(Part::Present),
        Channel::Other(kind) => Err(AttachError::OtherKind {
            domain: domain.name().to_owned(),
            channel: name.to_owned(),
            kind,
        }),
    }
}
