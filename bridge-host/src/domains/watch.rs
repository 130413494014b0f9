//! `WatchDomains`: snapshots, and what happens between them.
//!
//! ```text
//!            ┌─▶ Snapshot ── told ──▶ Waiting ── an event ──▶ told
//!   begin ───┘      ▲                    │
//!                   └────────────────────┘
//!        the reader has fallen behind: of all; a hypervisor's news are not known: of that one
//! ```

use std::sync::Arc;

use tokio::sync::{broadcast::error::RecvError, mpsc};
use tonic::Status;
use vbridge_api::host::v1::{
    Domain as DomainMessage, DomainSelection, DomainsSnapshotEnd, WatchDomainsResponse,
    watch_domains_response::What,
};

use super::{called, list::list};
use crate::{
    access::Viewer,
    guests::Guests,
    hypervisor::{Hypervisor, Hypervisors, News},
};

/// What a reader gets.
pub(super) type Item = Result<WatchDomainsResponse, Status>;

/// One reader.
pub(super) struct Watch {
    pub(super) guests: Guests,
    pub(super) hypervisors: Hypervisors,
    /// Those that it wants to hear of.
    pub(super) of: Vec<Arc<Hypervisor>>,
    /// The UUID of the only domain that it wants to hear of.
    pub(super) uuid: Option<String>,
    /// Whose it is: of other domains it hears nothing.
    pub(super) viewer: Viewer,
    pub(super) reader: mpsc::Sender<Item>,
}

/// The reader has gone, or the bridge ends.
struct Over;

impl Watch {
    /// Until the reader goes or the bridge ends.
    pub(super) async fn run(self) {
        let _: Result<(), Over> = self.tell_all().await;
    }

    async fn tell_all(&self) -> Result<(), Over> {
        // Before the snapshot: what happens in between is told twice rather than never.
        let mut news = self.hypervisors.news();
        self.snapshot(&self.of).await?;
        loop {
            let heard = tokio::select! {
                heard = news.recv() => heard,
                () = self.reader.closed() => return Err(Over),
                () = self.guests.stopping() => return Err(Over),
            };
            match heard {
                Ok(News::Event(event)) => {
                    let domain = event.domain.as_ref();
                    let is_wanted = domain.is_some_and(|domain| {
                        self.of.iter().any(|of| of.uri() == domain.hypervisor)
                            && self.is_wanted(domain)
                    });
                    if is_wanted {
                        self.send(What::Event((*event).clone())).await?;
                    }
                }
                Ok(News::Unknown(uri)) => {
                    let of = self.of.iter().find(|of| of.uri() == &*uri);
                    self.snapshot(of.map(std::slice::from_ref).unwrap_or_default())
                        .await?;
                }
                Err(RecvError::Lagged(_)) => {
                    // What still waits is in the snapshot.
                    news = news.resubscribe();
                    self.snapshot(&self.of).await?;
                }
                Err(RecvError::Closed) => return Err(Over),
            }
        }
    }

    /// How the domains of these are.
    async fn snapshot(&self, of: &[Arc<Hypervisor>]) -> Result<(), Over> {
        if of.is_empty() && !self.of.is_empty() {
            return Ok(());
        }
        let mut hypervisors = Vec::with_capacity(of.len());
        // One after the other: no more than one hypervisor's domains are held for a reader that does not read.
        for hypervisor in of {
            let (hypervisor, domains) = tokio::select! {
                listed = list(hypervisor, DomainSelection::Unspecified) => listed,
                () = self.reader.closed() => return Err(Over),
            };
            hypervisors.push(hypervisor);
            for domain in domains {
                if self.is_wanted(&domain) {
                    self.send(What::Domain(domain)).await?;
                }
            }
        }
        self.send(What::SnapshotEnd(DomainsSnapshotEnd { hypervisors }))
            .await
    }

    fn is_wanted(&self, domain: &DomainMessage) -> bool {
        let is_it = self.uuid.as_ref().is_none_or(|uuid| *uuid == domain.uuid);
        is_it && self.viewer.sees(called(domain))
    }

    async fn send(&self, what: What) -> Result<(), Over> {
        let message = WatchDomainsResponse { what: Some(what) };
        tokio::select! {
            sent = self.reader.send(Ok(message)) => sent.map_err(|_| Over),
            () = self.guests.stopping() => Err(Over),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::Receiver;
    use vbridge_api::host::v1::{Domain, DomainEvent};

    use super::*;
    use crate::limits::WATCH_BACKLOG;

    fn watch(hypervisors: &Hypervisors, uuid: Option<&str>) -> Receiver<Item> {
        let (reader, items) = mpsc::channel(1);
        let watch = Watch {
            guests: Guests::new(),
            hypervisors: hypervisors.clone(),
            of: hypervisors.all().to_vec(),
            uuid: uuid.map(str::to_owned),
            viewer: Viewer::anybody(),
            reader,
        };
        tokio::spawn(watch.run());
        items
    }

    async fn next(items: &mut Receiver<Item>) -> What {
        items.recv().await.unwrap().unwrap().what.unwrap()
    }

    fn event(hypervisors: &Hypervisors, uuid: &str) {
        let hypervisor = hypervisors.all()[0].uri().to_owned();
        let domain = Domain {
            hypervisor,
            uuid: uuid.to_owned(),
            ..Domain::default()
        };
        hypervisors.publish(DomainEvent {
            domain: Some(domain),
            ..DomainEvent::default()
        });
    }

    #[tokio::test]
    async fn a_reader_hears_a_snapshot_then_events_and_of_a_change_of_its_hypervisor_a_snapshot() {
        let mut hypervisors = Hypervisors::new();
        let hypervisor = hypervisors.add("qemu:///system");
        let mut items = watch(&hypervisors, Some("mine"));
        let What::SnapshotEnd(end) = next(&mut items).await else {
            panic!("no snapshot");
        };
        assert_eq!(end.hypervisors[0].uri, "qemu:///system");
        event(&hypervisors, "another");
        event(&hypervisors, "mine");
        let What::Event(told) = next(&mut items).await else {
            panic!("no event");
        };
        assert_eq!(told.domain.unwrap().uuid, "mine");
        hypervisor.is_away("it has died".to_owned());
        let What::SnapshotEnd(end) = next(&mut items).await else {
            panic!("no snapshot");
        };
        assert_eq!(end.hypervisors[0].unreachable, "it has died");
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_gets_a_snapshot_instead() {
        let mut hypervisors = Hypervisors::new();
        hypervisors.add("qemu:///system");
        let mut items = watch(&hypervisors, None);
        assert!(matches!(next(&mut items).await, What::SnapshotEnd(_)));
        for _ in 0..2 * WATCH_BACKLOG {
            event(&hypervisors, "busy");
        }
        let mut events = 0;
        while let What::Event(_) = next(&mut items).await {
            events += 1;
        }
        assert!(
            events < WATCH_BACKLOG,
            "{events} events before the snapshot"
        );
    }
}
