//! `vbridge.guest.v1.System`: what the guest is and how it does.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prost_types::Timestamp;
use tonic::{Request, Response, Status};
use vbridge_api::guest::v1::{
    Agent, GetInfoRequest, GetInfoResponse, GetStatusRequest, GetStatusResponse,
    GetTimezoneRequest, GetTimezoneResponse, ListUsersRequest, ListUsersResponse, LoadAverage,
    MemoryMetrics, Method, PingRequest, PingResponse, SetHostnameRequest, SetHostnameResponse,
    system_server,
};

use super::{
    aside,
    filesystems::{Filesystems, Measured},
    hostname,
    sampler::Sampler,
    snapshot::Groups,
};
use crate::{
    agent,
    error::{self, Reason},
    limits::{CPU_BASE_MIN_AGE, MAX_PING_PAYLOAD},
    policy::Policy,
    source::{Reader, clock, cpu, memory, os, timezone, users},
    systemd::{Need, Systemd},
    upstream::Upstreams,
};

/// What the status is made of.
const STATUS: Groups = Groups::CPU.union(Groups::MEMORY);

/// Methods that need the kernel's counters.
const NEEDS_PROC: &str = "vbridge.guest.v1.Metrics/";

/// Methods that need systemd, the more special first.
const NEEDS_SYSTEMD: [(&str, Need); 2] = [
    ("vbridge.guest.v1.Services/Logs", Need::Journal),
    ("vbridge.guest.v1.Services/", Need::Bus),
];

/// The service.
pub(crate) struct System {
    sampler: Sampler,
    filesystems: Arc<Filesystems>,
    /// Full names of all methods that the agent serves.
    methods: Arc<[String]>,
    policy: Policy,
    upstreams: Upstreams,
    systemd: Systemd,
    started: Timestamp,
    pings: AtomicU64,
}

impl System {
    pub(crate) fn new(
        sampler: Sampler,
        filesystems: Arc<Filesystems>,
        methods: Arc<[String]>,
        policy: Policy,
        upstreams: Upstreams,
        systemd: Systemd,
    ) -> Self {
        Self {
            sampler,
            filesystems,
            methods,
            policy,
            upstreams,
            systemd,
            started: clock::now(),
            pings: AtomicU64::new(0),
        }
    }

    fn methods(&self, reader: &mut Reader) -> Vec<Method> {
        let without_proc = reader
            .read("proc/loadavg")
            .err()
            .map(|error| error.to_string());
        let rules = self.policy.rules();
        let method = |name: &String| {
            let obstacle = rules.obstacle(name);
            let reason = match rules.decide(name) {
                Err(rule) => format!("the policy refuses it ({rule})"),
                Ok(()) if obstacle.is_some() => obstacle.unwrap_or_default(),
                Ok(()) if name.starts_with(NEEDS_PROC) => without_proc.clone().unwrap_or_default(),
                Ok(()) => NEEDS_SYSTEMD
                    .iter()
                    .find(|(method, _)| name.starts_with(method))
                    .and_then(|(_, need)| self.systemd.missing(*need))
                    .unwrap_or_default(),
            };
            Method {
                name: name.clone(),
                enabled: reason.is_empty(),
                reason,
            }
        };
        self.methods.iter().map(method).collect()
    }

    /// The services of upstreams, whose methods only they know.
    async fn upstreams(&self) -> Vec<Method> {
        let rules = self.policy.rules();
        let listed = self.upstreams.services().await.into_iter();
        let methods = listed.map(|listed| {
            let name = format!("{}/*", listed.service);
            let reason = match rules.decide(&name) {
                Err(rule) => format!("the policy refuses it ({rule})"),
                Ok(()) => listed.reason.unwrap_or_default(),
            };
            Method {
                name,
                enabled: reason.is_empty(),
                reason,
            }
        });
        methods.collect()
    }

    fn agent(&self, reader: &mut Reader) -> Agent {
        Agent {
            name: agent::NAME.to_owned(),
            version: agent::VERSION.to_owned(),
            start_time: Some(self.started),
            pid: std::process::id(),
            resident_bytes: os::resident_bytes(reader),
        }
    }

    /// CPU share, load and memory.
    async fn counters(&self) -> (f64, LoadAverage, MemoryMetrics) {
        let base = self.sampler.cpu_base();
        let Ok(mut now) = self.sampler.read(STATUS) else {
            // Without /proc the kernel still tells this much.
            return (0.0, load_from_sysinfo(), memory::from_sysinfo());
        };
        let base = match base {
            Some(base) => Some(base),
            None => {
                let base = now.cpu.total.clone();
                tokio::time::sleep(CPU_BASE_MIN_AGE).await;
                now = self.sampler.read(STATUS).unwrap_or(now);
                base
            }
        };
        let busy = base
            .as_ref()
            .zip(now.cpu.total.as_ref())
            .and_then(|(base, total)| cpu::busy_percent(base, total));
        let load = LoadAverage {
            one: now.cpu.load_one,
            five: now.cpu.load_five,
            fifteen: now.cpu.load_fifteen,
        };
        (busy.unwrap_or_default(), load, now.memory)
    }
}

#[tonic::async_trait]
impl system_server::System for System {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let payload = request.into_inner().payload;
        if payload.len() > MAX_PING_PAYLOAD {
            let description = format!(
                "has {} bytes, and {MAX_PING_PAYLOAD} is the most",
                payload.len()
            );
            return Err(error::invalid_field("payload", description));
        }
        Ok(Response::new(PingResponse {
            payload,
            time: Some(clock::now()),
            sequence: self.pings.fetch_add(1, Ordering::Relaxed) + 1,
        }))
    }

    async fn get_info(
        &self,
        _: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        let upstreams = self.upstreams().await;
        let mut reader = Reader::new();
        let mut methods = self.methods(&mut reader);
        methods.extend(upstreams);
        let (hostname, kernel, architecture) = os::uname();
        let memory = reader.read("proc/meminfo").map(|text| memory::parse(&text));
        Ok(Response::new(GetInfoResponse {
            hostname,
            os: Some(os::os_release(&mut reader)),
            kernel: Some(kernel),
            architecture,
            boot_id: reader.line("proc/sys/kernel/random/boot_id"),
            machine_id: os::machine_id(&mut reader),
            boot_time: Some(clock::boot_time()),
            uptime: Some(clock::uptime()),
            virtualization: os::virtualization(&mut reader),
            cpu_count: os::cpu_count(&mut reader),
            memory_total_bytes: memory
                .unwrap_or_else(|_| memory::from_sysinfo())
                .total_bytes,
            agent: Some(self.agent(&mut reader)),
            methods,
        }))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        // Counting walks through all of /proc: not on the thread that everybody else waits for.
        let processes = tokio::task::spawn_blocking(os::process_count);
        let status = |measured: Measured| measured.status;
        let ((cpu_percent, load, memory), filesystems, processes) =
            tokio::join!(self.counters(), self.filesystems.read(), processes);
        Ok(Response::new(GetStatusResponse {
            time: Some(clock::now()),
            uptime: Some(clock::uptime()),
            cpu_percent,
            load: Some(load),
            memory: Some(memory::status(&memory)),
            filesystems: filesystems.into_iter().map(status).collect(),
            process_count: processes.unwrap_or_default(),
        }))
    }

    async fn list_users(
        &self,
        _: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let users = aside(|| {
            let mut reader = Reader::new();
            let read = |file: &&str| Some(users::parse(reader.bytes(file).ok()?));
            users::FILES.iter().find_map(read)
        });
        // A system without the file keeps no such record: systemd without it, or a container.
        let users = users.await?.ok_or_else(|| {
            error::failure(
                Reason::Unsupported,
                "the guest keeps no record of who is logged in: there is no /run/utmp",
            )
        })?;
        Ok(Response::new(ListUsersResponse { users }))
    }

    async fn get_timezone(
        &self,
        _: Request<GetTimezoneRequest>,
    ) -> Result<Response<GetTimezoneResponse>, Status> {
        let now = clock::now().seconds;
        let zone = aside(move || timezone::read(Path::new("/"), now));
        Ok(Response::new(zone.await?))
    }

    async fn set_hostname(
        &self,
        request: Request<SetHostnameRequest>,
    ) -> Result<Response<SetHostnameResponse>, Status> {
        let name = request.into_inner().hostname;
        hostname::check(&name).map_err(|why| error::invalid_field("hostname", why))?;
        let (before, ..) = os::uname();
        let set = aside(move || hostname::set(Path::new("/"), &name));
        set.await?.map_err(|error| hostname::status(&error))?;
        Ok(Response::new(SetHostnameResponse { before }))
    }
}

fn load_from_sysinfo() -> LoadAverage {
    // Fixed point with 16 bits of fraction (SI_LOAD_SHIFT in linux/sysinfo.h).
    let [one, five, fifteen] = rustix::system::sysinfo()
        .loads
        .map(|load| f64::from(u32::try_from(load).unwrap_or(u32::MAX)) / 65536.0);
    LoadAverage { one, five, fifteen }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use vbridge_api::guest::v1::system_server::System as _;

    use super::*;
    use crate::systemd::SystemdPlaces;
    use crate::{
        policy::{Rule, Rules},
        services::snapshot::Proc,
    };

    fn system() -> System {
        let methods = [
            "vbridge.guest.v1.Metrics/Get",
            "vbridge.guest.v1.System/Ping",
        ]
        .map(str::to_owned);
        System::new(
            Sampler::new(Proc::new(Reader::new())),
            Arc::new(Filesystems::new()),
            methods.into(),
            Policy::default(),
            Upstreams::default(),
            Systemd::new(SystemdPlaces::default()),
        )
    }

    #[tokio::test]
    async fn a_ping_comes_back_counted_and_bounded() {
        let system = system();
        let ping = |len| {
            system.ping(Request::new(PingRequest {
                payload: vec![7; len],
            }))
        };
        assert_eq!(ping(3).await.unwrap().into_inner().payload, [7, 7, 7]);
        assert_eq!(
            ping(MAX_PING_PAYLOAD).await.unwrap().into_inner().sequence,
            2
        );
        let status = ping(MAX_PING_PAYLOAD + 1).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().starts_with("payload: has 65537 bytes"),
            "{}",
            status.message()
        );
    }

    #[tokio::test]
    async fn info_describes_this_machine() {
        let info = system()
            .get_info(Request::new(GetInfoRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert!(!info.hostname.is_empty());
        assert_eq!(info.kernel.unwrap().name, "Linux");
        assert_eq!(info.architecture, std::env::consts::ARCH);
        assert!(info.cpu_count > 0 && info.memory_total_bytes > 0);
        let agent = info.agent.unwrap();
        assert_eq!(agent.pid, std::process::id());
        assert!(agent.resident_bytes > 0);
        assert!(
            info.methods
                .iter()
                .all(|method| method.enabled && method.reason.is_empty())
        );
        assert_eq!(info.methods.len(), 2);
    }

    #[tokio::test]
    async fn status_describes_this_moment() {
        let system = system();
        for _ in 0..2 {
            let status = system
                .get_status(Request::new(GetStatusRequest {}))
                .await
                .unwrap()
                .into_inner();
            assert!((0.0..=100.0).contains(&status.cpu_percent));
            let memory = status.memory.unwrap();
            assert_eq!(
                memory.used_bytes,
                memory.total_bytes - memory.available_bytes
            );
            assert!(status.process_count > 0);
            assert!(!status.filesystems.is_empty());
            assert!(status.load.is_some() && status.uptime.is_some() && status.time.is_some());
        }
    }

    #[test]
    fn without_proc_methods_that_need_it_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let methods = system().methods(&mut Reader::below(dir.path()));
        assert!(!methods[0].enabled && methods[0].reason.contains("proc/loadavg"));
        assert!(methods[1].enabled);
    }

    #[test]
    fn methods_that_the_policy_refuses_say_which_rule_does() {
        let system = system();
        let rule = Rule::deny("quiet", ["*/Ping"]);
        system.policy.replace(Rules::default().rule(rule));
        let methods = system.methods(&mut Reader::new());
        assert!(methods[0].enabled);
        assert!(!methods[1].enabled && methods[1].reason.contains("quiet"));
    }
}
