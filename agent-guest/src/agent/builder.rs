//! What an embedding program can say of its agent.

use std::{fmt, path::PathBuf, time::Duration};

use vbridge_link::Key;

use super::{
    Agent, BuildError, DEFAULT_CHANNEL,
    assembly::{Own, Shared, own_services},
};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    call_auth::CallAuth,
    deadline::Longest,
    discovery::Descriptors,
    gate::Gate,
    limits::MAX_SMALL_REQUEST,
    policy::Policy,
    port::{Finder, Rebind},
    router::{self, GrpcService},
    serve::Place,
    services::health::Health,
    standstill::Standstill,
    systemd::SystemdPlaces,
    tunnel::TunnelLimits,
    upstream::{Upstream, Upstreams},
};

/// Puts an [`Agent`] together.
pub struct AgentBuilder {
    channel: String,
    port: Option<PathBuf>,
    wait: Option<bool>,
    listen: Option<PathBuf>,
    key: Option<Key>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    call_key: Option<Key>,
    max_request_size: usize,
    request_timeout: Option<Duration>,
    rebind: Rebind,
    policy: Policy,
    systemd: SystemdPlaces,
    tunnel_limits: TunnelLimits,
    standstill: Standstill,
    services: router::Builder,
    upstreams: Vec<Upstream>,
    names: Vec<&'static str>,
    descriptor_sets: Vec<Vec<u8>>,
}

// === impl AgentBuilder ===

impl AgentBuilder {
    pub(super) fn new() -> Self {
        Self {
            channel: DEFAULT_CHANNEL.to_owned(),
            port: None,
            wait: None,
            listen: None,
            key: None,
            #[cfg(feature = "tls")]
            tls: None,
            call_key: None,
            max_request_size: usize::MAX,
            request_timeout: None,
            rebind: Rebind::default(),
            policy: Policy::default(),
            systemd: SystemdPlaces::default(),
            tunnel_limits: TunnelLimits::default(),
            standstill: Standstill::default(),
            services: router::Builder::default(),
            upstreams: Vec::new(),
            names: Vec::new(),
            descriptor_sets: Vec::new(),
        }
    }

    /// The name of the virtio-serial channel. Default: [`DEFAULT_CHANNEL`].
    #[must_use]
    pub fn channel_name(mut self, name: impl Into<String>) -> Self {
        self.channel = name.into();
        self
    }

    /// The port's device, instead of the one that the channel's name leads to. Default: none.
    #[must_use]
    pub fn port_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.port = Some(path.into());
        self
    }

    /// Whether to wait for a port that is not there, may not be opened, or is busy. Default: yes for a channel's name, no
    /// for a path. A path that leads to something else, such as a directory, is always an error, and a port that
    /// was open once is always waited for.
    #[must_use]
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Listens on a Unix socket, as QEMU would, instead of opening a port: for machines without a VM. Default: none.
    #[must_use]
    pub fn listen(mut self, path: impl Into<PathBuf>) -> Self {
        self.listen = Some(path.into());
        self
    }

    /// Serves only hosts that prove this pre-shared key. Default: none, anyone who can open the channel's socket on the
    /// host is served.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Encrypts all sessions, and serves only hosts that do. Default: none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Serves only calls that are signed with this key, [`Key::sign_call`] over their time, nonce and path, whichever service they
    /// are of: the metadata are `x-auth-token`, `x-timestamp` and `x-nonce`. Default: none, a call needs no signature.
    #[must_use]
    pub fn call_key(mut self, key: Key) -> Self {
        self.call_key = Some(key);
        self
    }

    /// Bytes of the largest request message that the agent's own services take, where that is less than they take anyway.
    /// What is larger is INVALID_ARGUMENT. Those of health and reflection stay at
    /// [`limits::MAX_SMALL_REQUEST`](crate::limits::MAX_SMALL_REQUEST), below which this can't be. Default: no such bound.
    #[must_use]
    pub fn max_request_size(mut self, bytes: usize) -> Self {
        self.max_request_size = bytes.max(MAX_SMALL_REQUEST);
        self
    }

    /// How long a call may take that has one request and one answer, whatever its deadline: then it is DEADLINE_EXCEEDED, and
    /// what it does ends as if its caller had gone. Calls with streams, and methods that no descriptor set describes, take as
    /// long as they say. Default: no such bound.
    #[must_use]
    pub fn request_timeout(mut self, longest: Duration) -> Self {
        self.request_timeout = Some(longest);
        self
    }

    /// When a port that is stuck for good may be freed by rebinding its driver. Default: if its device has no other port.
    #[must_use]
    pub fn rebind(mut self, rebind: Rebind) -> Self {
        self.rebind = rebind;
        self
    }

    /// What callers may do. Default: everything. The policy's clones replace its rules while the agent runs.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Where the guest's systemd is. Default: where every system has it.
    #[must_use]
    pub fn systemd(mut self, places: SystemdPlaces) -> Self {
        self.systemd = places;
        self
    }

    /// How many connections into the guest and out of it there may be, and how long they may take. Default: those of
    /// [`limits`](crate::limits).
    #[must_use]
    pub fn tunnel_limits(mut self, limits: TunnelLimits) -> Self {
        self.tunnel_limits = limits;
        self
    }

    /// Where the agent tells that file systems are frozen, for a log or a service that writes to them. Default: nobody is
    /// told.
    #[must_use]
    pub fn standstill(mut self, standstill: Standstill) -> Self {
        self.standstill = standstill;
        self
    }

    /// Serves another gRPC service beside the agent's own. Default: none.
    ///
    /// While file systems are frozen it is called nevertheless, since the agent can't know what it writes to: it can ask
    /// [`standstill`](Self::standstill). Its own limits apply: tonic decodes messages up to 4 MiB unless `max_decoding_message_size` says otherwise, and
    /// [`limits::MAX_MESSAGE`](crate::limits::MAX_MESSAGE) is what the bridge is tested with.
    #[must_use]
    pub fn add_service<S: GrpcService>(mut self, service: S) -> Self {
        self.names.push(S::NAME);
        self.services.add(service);
        self
    }

    /// Passes calls of services that nobody here serves on to a gRPC server in the guest. Default: none.
    ///
    /// They are subject to the policy as all others, and are not held back while file systems are frozen.
    #[must_use]
    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.upstreams.push(upstream);
        self
    }

    /// Describes added services: an encoded `FileDescriptorSet`, for reflection and for the list of methods in
    /// `System.GetInfo`. Default: none; an added service that is not described is listed by name.
    #[must_use]
    pub fn descriptor_set(mut self, set: impl Into<Vec<u8>>) -> Self {
        self.descriptor_sets.push(set.into());
        self
    }

    /// Puts the agent together.
    ///
    /// # Errors
    /// A name is served twice, an upstream has one that is, a descriptor set is none, or two places to serve on are set.
    pub fn build(mut self) -> Result<Agent, BuildError> {
        let mut descriptors = Descriptors::built_in()?;
        for set in &self.descriptor_sets {
            descriptors.add(set)?;
        }
        let place = self.place()?;
        let names = self.served()?;
        let upstreams = Upstreams::new(self.upstreams, &names).map_err(BuildError::Upstream)?;
        let health = Health::new(names.iter().copied(), upstreams.clone());
        let shared = Shared::new(
            self.policy.clone(),
            self.systemd,
            self.tunnel_limits,
            self.standstill.clone(),
        );
        let longest = self
            .request_timeout
            .map(|time| Longest::new(time, descriptors.unary(names.iter().copied())));
        let own = Own {
            methods: descriptors.methods(names),
            most: self.max_request_size,
        };
        shared.serve(&mut self.services, own, &upstreams, &health);
        descriptors.serve(&mut self.services, &upstreams)?;
        let gate = Gate::new(self.policy, self.standstill);
        Ok(Agent {
            place,
            key: self.key,
            #[cfg(feature = "tls")]
            tls: self.tls,
            rebind: self.rebind,
            router: self
                .services
                .build(upstreams, gate)
                .signed(self.call_key.map(CallAuth::new))
                .bounded(longest),
            sampler: shared.sampler,
            systemd: shared.systemd,
            tunnels: shared.tunnels,
            freezer: shared.freezer,
            health,
            processes: shared.processes,
            events: shared.events,
        })
    }

    /// The names of all services, the added ones with the agent's own, in order.
    fn served(&self) -> Result<Vec<&'static str>, BuildError> {
        let mut names = own_services();
        for name in &self.names {
            if names.contains(name) {
                return Err(BuildError::Duplicate(name));
            }
            names.push(name);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn place(&self) -> Result<Place, BuildError> {
        if self.channel.is_empty() || self.channel.contains('/') {
            return Err(BuildError::Channel(self.channel.clone()));
        }
        match (&self.port, &self.listen) {
            (Some(_), Some(_)) => Err(BuildError::TwoPlaces),
            (None, Some(path)) => Ok(Place::Socket(path.clone())),
            (port, None) => {
                let mut finder = Finder::new(&self.channel);
                if let Some(path) = port {
                    finder = finder.path(path);
                }
                if let Some(wait) = self.wait {
                    finder = finder.wait(wait);
                }
                Ok(Place::Device(finder))
            }
        }
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder")
            .field("channel", &self.channel)
            .field("port", &self.port)
            .field("listen", &self.listen)
            .field("services", &self.names)
            .finish_non_exhaustive()
    }
}
