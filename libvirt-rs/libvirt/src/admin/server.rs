//! A server of a daemon: what takes clients on some sockets, and serves them with threads.

use super::{Client, Daemon, changes, number};
use crate::error::Error;
use crate::object::calls;
use crate::params::Params;
use crate::raw::admin::{Admin, NonnullServer};

/// A server of a daemon.
#[derive(Debug, Clone)]
pub struct Server {
    daemon: Daemon,
    raw: NonnullServer,
}

/// The threads that serve calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadPool {
    /// How many there are at least.
    pub min: u32,
    /// How many there are at most.
    pub max: u32,
    /// How many there are now, without those with priority.
    pub current: u32,
    /// How many of those have nothing to do.
    pub idle: u32,
    /// How many there are for calls that never wait for a hypervisor.
    pub priority: u32,
    /// Calls that wait for a thread.
    pub queued: u32,
}

/// What is to be another number of threads; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewThreadPool {
    /// How many there are at least.
    pub min: Option<u32>,
    /// How many there are at most.
    pub max: Option<u32>,
    /// How many there are for calls that never wait for a hypervisor.
    pub priority: Option<u32>,
}

/// How many clients there are, and may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// How many there may be.
    pub max: u32,
    /// How many there are.
    pub current: u32,
    /// How many of them may not have said yet who they are.
    pub max_unauthenticated: u32,
    /// How many have not.
    pub unauthenticated: u32,
}

/// What is to be another limit; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewClientLimits {
    /// How many clients there may be.
    pub max: Option<u32>,
    /// How many of them may not have said yet who they are.
    pub max_unauthenticated: Option<u32>,
}

// === impl Server ===

impl Server {
    pub(super) fn new(daemon: &Daemon, raw: NonnullServer) -> Self {
        Self {
            daemon: daemon.clone(),
            raw,
        }
    }

    /// Its name, such as `libvirtd`.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// The daemon that it belongs to.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    // For the macro `calls`.
    fn remote(&self) -> Result<Admin, Error> {
        Ok(self.daemon.raw())
    }

    fn connect(&self) -> &Daemon {
        &self.daemon
    }
}

calls!(Server in admin [srv] {
    /// Its threads.
    thread_pool() -> ThreadPool
        = server_get_threadpool_parameters(ServerGetThreadpoolParametersArgs { flags: 0 })
        |found| ThreadPool::read(&found.params.into())?;
    /// Changes the number of its threads.
    set_thread_pool(new: NewThreadPool)
        = server_set_threadpool_parameters(ServerSetThreadpoolParametersArgs {
            params: changes(&[
                ("minWorkers", new.min),
                ("maxWorkers", new.max),
                ("prioWorkers", new.priority),
            ]),
            flags: 0,
        });
    /// How many clients it has, and may have.
    client_limits() -> ClientLimits
        = server_get_client_limits(ServerGetClientLimitsArgs { flags: 0 })
        |found| ClientLimits::read(&found.params.into())?;
    /// Changes how many clients it may have. Those that it has stay.
    set_client_limits(new: NewClientLimits)
        = server_set_client_limits(ServerSetClientLimitsArgs {
            params: changes(&[
                ("nclients_max", new.max),
                ("nclients_unauth_max", new.max_unauthenticated),
            ]),
            flags: 0,
        });
    /// Its clients.
    clients() -> Vec<Client>
        = server_list_clients(ServerListClientsArgs { need_results: 1, flags: 0 })
        |list, daemon| list.clients.into_iter().map(|raw| Client::new(daemon, raw)).collect();
    /// The client of this number, or [`NoClient`](crate::raw::api::ErrorNumber::NoClient).
    client(id: u64) -> Client
        = server_lookup_client(ServerLookupClientArgs { id, flags: 0 })
        |found, daemon| Client::new(daemon, found.clnt);
    /// Reads its certificates and keys for TLS anew.
    update_tls_files() = server_update_tls_files(ServerUpdateTlsFilesArgs { flags: 0 });
});

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

// === impl ThreadPool ===

impl ThreadPool {
    fn read(params: &Params) -> Result<Self, Error> {
        Ok(Self {
            min: number(params, "minWorkers")?,
            max: number(params, "maxWorkers")?,
            current: number(params, "nWorkers")?,
            idle: number(params, "freeWorkers")?,
            priority: number(params, "prioWorkers")?,
            queued: number(params, "jobQueueDepth")?,
        })
    }
}

// === impl ClientLimits ===

impl ClientLimits {
    fn read(params: &Params) -> Result<Self, Error> {
        Ok(Self {
            max: number(params, "nclients_max")?,
            current: number(params, "nclients")?,
            max_unauthenticated: number(params, "nclients_unauth_max")?,
            unauthenticated: number(params, "nclients_unauth")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_lacks_a_number_is_an_error_that_names_it() {
        let params = Params::new()
            .with("nclients_max", 7_u32)
            .with("nclients", 1_u32);
        let error = ClientLimits::read(&params).unwrap_err().to_string();
        assert!(error.contains("nclients_unauth_max"), "{error}");
    }

    #[test]
    fn only_what_is_to_change_is_sent() {
        let sent = changes(&[("minWorkers", None), ("maxWorkers", Some(9))]);
        let sent = Params::from(sent);
        assert_eq!(sent, Params::new().with("maxWorkers", 9_u32));
    }
}
