//! Domains: finding them, and their life.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | identity, life cycle |
//! | `state` | how a domain is, and why |
//! | `configuration` | definition, devices, memory, CPUs, metadata |
//! | `cpus` | what its CPUs do, and on which of the host's |
//! | `statistics` | what a domain uses, now and in sum |
//! | `block` | disks: sizes, limits, jobs |
//! | `guest` | what needs the guest's help, or its agent's |
//! | `saving` | memory in files: save, restore, dump |
//! | `migration` | to another host |
//! | `snapshot`, `checkpoint` | points in a domain's life |
//! | `descriptors` | files for a domain, its displays, its namespaces |
//! | `streams` | channels, consoles, screenshots |

mod block;
mod checkpoint;
mod configuration;
mod cpus;
mod descriptors;
mod guest;
mod migration;
mod saving;
mod snapshot;
mod state;
mod statistics;
mod streams;

use std::time::Duration;

use uuid::Uuid;

pub use block::{BlockInfo, BlockJob, DiskError};
pub use checkpoint::DomainCheckpoint;
pub use configuration::{IoThread, SecurityLabel};
pub use cpus::Vcpu;
pub use guest::{FileSystem, GuestInterface, GuestTime};
pub use snapshot::DomainSnapshot;
pub use state::{StateAndReason, StateReason};
pub use statistics::{BlockStats, DomainStats, InterfaceStats, JobStats, MemoryStat};

use crate::code::Code;
use crate::connect::Connect;
use crate::error::Error;
use crate::object::{calls, object};
use crate::raw::api::{
    ConnectListAllDomainsFlags, DomainAbortJobFlagsValues, DomainControlErrorReason,
    DomainControlState, DomainCreateFlags, DomainDefineFlags, DomainDestroyFlagsValues,
    DomainLifecycle, DomainLifecycleAction, DomainModificationImpact, DomainRebootFlagValues,
    DomainShutdownFlagValues, DomainState, DomainUndefineFlagsValues,
};

object!(
    /// A virtual machine, running or only defined.
    Domain(NonnullDomain)
);

/// How the hypervisor itself is doing, apart from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlInfo {
    /// Whether it takes commands.
    pub state: Code<DomainControlState>,
    /// Why, if it takes none because of an error.
    pub reason: Code<DomainControlErrorReason>,
    /// For how long this has been so.
    pub elapsed: Duration,
}

/// A domain's size and use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainInfo {
    /// How it is.
    pub state: Code<DomainState>,
    /// The memory that it may have, in KiB.
    pub max_memory: u64,
    /// The memory that it has, in KiB.
    pub memory: u64,
    /// Its virtual CPUs.
    pub vcpus: u16,
    /// The CPU time that it has used, in nanoseconds.
    pub cpu_time: u64,
}

calls!(Connect {
    /// All domains that the flags select; without flags: all.
    domains(which: ConnectListAllDomainsFlags) -> Vec<Domain>
        = connect_list_all_domains(ConnectListAllDomainsArgs { need_results: 1, flags: which.bits() })
        |list, connect| list.domains.into_iter().map(|raw| Domain::new(connect, raw)).collect();
    /// The domain of this name, or [`NoDomain`](crate::raw::api::ErrorNumber::NoDomain).
    domain_by_name(name: &str) -> Domain
        = domain_lookup_by_name(DomainLookupByNameArgs { name: name.to_owned() })
        |found, connect| Domain::new(connect, found.dom);
    /// The domain of this UUID, or [`NoDomain`](crate::raw::api::ErrorNumber::NoDomain).
    domain_by_uuid(uuid: Uuid) -> Domain
        = domain_lookup_by_uuid(DomainLookupByUuidArgs { uuid: uuid.into_bytes() })
        |found, connect| Domain::new(connect, found.dom);
    /// The running domain of this number, or [`NoDomain`](crate::raw::api::ErrorNumber::NoDomain).
    domain_by_id(id: i32) -> Domain
        = domain_lookup_by_id(DomainLookupByIdArgs { id })
        |found, connect| Domain::new(connect, found.dom);
    /// Defines a domain, or changes one that is defined.
    define_domain(xml: &str, flags: DomainDefineFlags) -> Domain
        = domain_define_xml_flags(DomainDefineXmlFlagsArgs { xml: xml.to_owned(), flags: flags.bits() })
        |defined, connect| Domain::new(connect, defined.dom);
    /// Starts a domain that is forgotten when it stops.
    create_domain(xml: &str, flags: DomainCreateFlags) -> Domain
        = domain_create_xml(DomainCreateXmlArgs { xml_desc: xml.to_owned(), flags: flags.bits() })
        |created, connect| Domain::new(connect, created.dom);
});

impl Domain {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.raw.uuid)
    }

    /// The same domain with the name and number that it has now.
    ///
    /// # Errors
    /// It is gone; what else the daemon reports, or the end of the connection.
    pub async fn refreshed(&self) -> Result<Self, Error> {
        self.connect.domain_by_uuid(self.uuid()).await
    }

    /// Its number, if it ran when this handle was made.
    pub fn id(&self) -> Option<i32> {
        Some(self.raw.id).filter(|id| *id >= 0)
    }
}

calls!(Domain [dom] {
    /// Starts it.
    start(flags: DomainCreateFlags)
        = domain_create_with_flags(DomainCreateWithFlagsArgs { flags: flags.bits() }) |_started| ();
    /// Asks the guest to shut down; it may take its time, or not do it.
    shutdown(flags: DomainShutdownFlagValues)
        = domain_shutdown_flags(DomainShutdownFlagsArgs { flags: flags.bits() });
    /// Asks the guest to reboot.
    reboot(flags: DomainRebootFlagValues)
        = domain_reboot(DomainRebootArgs { flags: flags.bits() });
    /// Resets it at once, as its button would.
    reset() = domain_reset(DomainResetArgs { flags: 0 });
    /// Stops it at once, as pulling its plug would.
    destroy(flags: DomainDestroyFlagsValues)
        = domain_destroy_flags(DomainDestroyFlagsArgs { flags: flags.bits() });
    /// Pauses it: its CPUs stand still, its memory stays.
    suspend() = domain_suspend(DomainSuspendArgs {});
    /// Lets a paused domain go on.
    resume() = domain_resume(DomainResumeArgs {});
    /// Forgets its definition. If it runs, it does so until it stops.
    undefine(flags: DomainUndefineFlagsValues)
        = domain_undefine_flags(DomainUndefineFlagsArgs { flags: flags.bits() });
    /// How it is, and why.
    state() -> StateAndReason = domain_get_state(DomainGetStateArgs { flags: 0 }) |found| StateAndReason {
        state: Code::new(found.state),
        reason: StateReason::new(found.state, found.reason),
    };
    /// Its size and use.
    info() -> DomainInfo = domain_get_info(DomainGetInfoArgs {}) |info| DomainInfo {
        state: Code::new(info.state.into()),
        max_memory: info.max_mem,
        memory: info.memory,
        vcpus: info.nr_virt_cpu,
        cpu_time: info.cpu_time,
    };
    /// How the hypervisor itself is doing, apart from the guest.
    control_info() -> ControlInfo
        = domain_get_control_info(DomainGetControlInfoArgs { flags: 0 }) |found| ControlInfo {
            state: Code::new(found.state.cast_signed()),
            reason: Code::new(found.details.cast_signed()),
            elapsed: Duration::from_millis(found.state_time),
        };
    /// Whether it runs.
    is_active() -> bool = domain_is_active(DomainIsActiveArgs {}) |found| found.active != 0;
    /// Whether it is defined.
    is_persistent() -> bool
        = domain_is_persistent(DomainIsPersistentArgs {}) |found| found.persistent != 0;
    /// Whether its definition was changed since it was started.
    is_updated() -> bool = domain_is_updated(DomainIsUpdatedArgs {}) |found| found.updated != 0;
    /// Whether it is started with the host.
    autostart() -> bool = domain_get_autostart(DomainGetAutostartArgs {}) |found| found.autostart != 0;
    /// Starts it with the host, or not.
    set_autostart(autostart: bool)
        = domain_set_autostart(DomainSetAutostartArgs { autostart: autostart.into() });
    /// Whether it is started with the host the next time, and only then. Since libvirt 11.2.
    autostart_once() -> bool
        = domain_get_autostart_once(DomainGetAutostartOnceArgs {}) |found| found.autostart != 0;
    /// Starts it with the host the next time, or not. Since libvirt 11.2.
    set_autostart_once(autostart: bool)
        = domain_set_autostart_once(DomainSetAutostartOnceArgs { autostart: autostart.into() });
    /// Gives it another name, while it does not run.
    rename(name: &str) = domain_rename(DomainRenameArgs { new_name: Some(name.to_owned()), flags: 0 })
        |_renamed| ();
    /// What is done when the guest shuts down, reboots or crashes.
    set_lifecycle_action(
        event: DomainLifecycle,
        action: DomainLifecycleAction,
        impact: DomainModificationImpact,
    ) = domain_set_lifecycle_action(DomainSetLifecycleActionArgs {
        r#type: event.as_raw().cast_unsigned(), action: action.as_raw().cast_unsigned(), flags: impact.bits(),
    });
    /// Sends an NMI to the guest.
    inject_nmi() = domain_inject_nmi(DomainInjectNmiArgs { flags: 0 });
    /// Ends the job that runs on it, such as a migration.
    ///
    /// It does not wait for its turn behind calls that wait for the daemon, some of which it may be to end
    /// ([`Builder::calls_at_once`](crate::Builder::calls_at_once)), but only for one that aborts another job on this
    /// connection.
    abort_job() = domain_abort_job(DomainAbortJobArgs {});
    /// As [`abort_job`](Self::abort_job), with flags: a migration whose guest runs at its new host already can only be halted.
    /// Since libvirt 8.5.
    abort_job_with(flags: DomainAbortJobFlagsValues)
        = domain_abort_job_flags(DomainAbortJobFlagsArgs { flags: flags.bits() });
});
