//! What needs the help of the guest, or of its agent.

use std::time::Duration;

use super::Domain;
use crate::connect::Connect;
use crate::error::Error;
use crate::object::{calls, text, texts};
use crate::params::Params;
use crate::raw::api::{
    DomainAuthorizedSshKeysSetFlags, DomainGetHostnameFlags, DomainGuestInfoTypes,
    DomainInterfaceAddressesSource, DomainProcessSignal, DomainQemuMonitorCommandFlags,
    DomainSetTimeFlags, DomainSetUserPasswordFlags, KeycodeSet, NodeSuspendTarget,
};
use crate::raw::qemu::{DomainAgentCommandArgs, DomainMonitorCommandArgs, Qemu};

/// A file system that is mounted in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where.
    pub mountpoint: String,
    /// The guest's name for its device.
    pub name: String,
    /// What it is, such as `ext4`.
    pub kind: String,
    /// The domain's disks that it is on.
    pub disks: Vec<String>,
}

/// A network interface and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInterface {
    /// Its name: the guest's, or the host's, as the source has it.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its addresses, each with the length of the network's prefix.
    pub addresses: Vec<(String, u32)>,
}

/// The guest's clock, since 1970.
pub type GuestTime = Duration;

calls!(Domain [dom] {
    /// The guest's name.
    hostname(flags: DomainGetHostnameFlags) -> String
        = domain_get_hostname(DomainGetHostnameArgs { flags: flags.bits() }) |found| found.hostname;
    /// The guest's clock.
    time() -> GuestTime = domain_get_time(DomainGetTimeArgs { flags: 0 })
        |found| Duration::from_secs(u64::try_from(found.seconds).unwrap_or(0))
            + Duration::from_nanos(found.nseconds.into());
    /// Sets the guest's clock; with `SYNC` to its own hardware clock.
    set_time(time: GuestTime, flags: DomainSetTimeFlags)
        = domain_set_time(DomainSetTimeArgs {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nseconds: time.subsec_nanos(),
            flags: flags.bits(),
        });
    /// The guest's addresses, from the agent, the DHCP server or the host's ARP table.
    interface_addresses(source: DomainInterfaceAddressesSource) -> Vec<GuestInterface>
        = domain_interface_addresses(DomainInterfaceAddressesArgs {
            source: source.as_raw().cast_unsigned(), flags: 0,
        }) |found| found.ifaces.into_iter()
            .map(|raw| GuestInterface {
                name: raw.name,
                mac: raw.hwaddr,
                addresses: raw.addrs.into_iter().map(|raw| (raw.addr, raw.prefix)).collect(),
            })
            .collect();
    /// The guest's mounted file systems.
    file_systems() -> Vec<FileSystem>
        = domain_get_fsinfo(DomainGetFsinfoArgs { flags: 0 })
        |found| found.info.into_iter()
            .map(|raw| FileSystem {
                mountpoint: raw.mountpoint,
                name: raw.name,
                kind: raw.fstype,
                disks: raw.dev_aliases,
            })
            .collect();
    /// What the guest's agent knows: users, system, time zone, host name, file systems, disks, interfaces.
    guest_info(what: DomainGuestInfoTypes) -> Params
        = domain_get_guest_info(DomainGetGuestInfoArgs { types: what.bits(), flags: 0 })
        |found| found.params.into();
    /// The guest's CPUs as it sees them.
    guest_vcpus() -> Params
        = domain_get_guest_vcpus(DomainGetGuestVcpusArgs { flags: 0 }) |found| found.params.into();
    /// Has the guest switch CPUs on or off, listed as in `0,2-3`.
    set_guest_vcpus(cpus: &str, on: bool)
        = domain_set_guest_vcpus(DomainSetGuestVcpusArgs { cpumap: cpus.to_owned(), state: on.into(), flags: 0 });
    /// Freezes the guest's file systems, or those that are named; gives how many.
    freeze(mountpoints: &[&str]) -> i32
        = domain_fsfreeze(DomainFsfreezeArgs { mountpoints: texts(mountpoints), flags: 0 })
        |done| done.filesystems;
    /// Thaws them; gives how many.
    thaw(mountpoints: &[&str]) -> i32
        = domain_fsthaw(DomainFsthawArgs { mountpoints: texts(mountpoints), flags: 0 })
        |done| done.filesystems;
    /// Tells the guest's disks what it does not use, in pieces of at least so many bytes.
    trim(mountpoint: Option<&str>, minimum: u64)
        = domain_fstrim(DomainFstrimArgs { mount_point: text(mountpoint), minimum, flags: 0 });
    /// Sets a user's password in the guest.
    set_user_password(user: &str, password: &str, flags: DomainSetUserPasswordFlags)
        = domain_set_user_password(DomainSetUserPasswordArgs {
            user: Some(user.to_owned()), password: Some(password.to_owned()), flags: flags.bits(),
        });
    /// The keys with which a user may log in over ssh.
    ssh_keys(user: &str) -> Vec<String>
        = domain_authorized_ssh_keys_get(DomainAuthorizedSshKeysGetArgs { user: user.to_owned(), flags: 0 })
        |found| found.keys;
    /// Sets, adds or removes the keys with which a user may log in over ssh.
    set_ssh_keys(user: &str, keys: &[&str], flags: DomainAuthorizedSshKeysSetFlags)
        = domain_authorized_ssh_keys_set(DomainAuthorizedSshKeysSetArgs {
            user: user.to_owned(), keys: texts(keys), flags: flags.bits(),
        });
    /// How long the guest's agent may take for an answer, in seconds; -2: for ever, -1: the default, 0: not at all.
    set_agent_timeout(seconds: i32)
        = domain_agent_set_response_timeout(DomainAgentSetResponseTimeoutArgs { timeout: seconds, flags: 0 })
        |_set| ();
    /// Puts the guest to sleep, for a time or, with zero, until something wakes it.
    suspend_guest(target: NodeSuspendTarget, duration: Duration)
        = domain_pm_suspend_for_duration(DomainPmSuspendForDurationArgs {
            target: target.as_raw().cast_unsigned(), duration: duration.as_secs(), flags: 0,
        });
    /// Wakes a sleeping guest.
    wake_guest() = domain_pm_wakeup(DomainPmWakeupArgs { flags: 0 });
    /// Presses keys together for a time.
    send_keys(codes: KeycodeSet, hold: Duration, keys: &[u32])
        = domain_send_key(DomainSendKeyArgs {
            codeset: codes.as_raw().cast_unsigned(),
            holdtime: u32::try_from(hold.as_millis()).unwrap_or(u32::MAX),
            keycodes: keys.to_vec(),
            flags: 0,
        });
    /// Sends a signal to a process of a guest that shares the host's kernel.
    send_signal(process: i64, signal: DomainProcessSignal)
        = domain_send_process_signal(DomainSendProcessSignalArgs {
            pid_value: process, signum: signal.as_raw().cast_unsigned(), flags: 0,
        });
});

impl Domain {
    /// Says something to QEMU's monitor, and gives its answer: in JSON, or with `HMP` in the text of the human monitor.
    /// libvirt does not support what comes of this.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn qemu_monitor_command(
        &self,
        command: &str,
        flags: DomainQemuMonitorCommandFlags,
    ) -> Result<String, Error> {
        let args = DomainMonitorCommandArgs {
            dom: self.raw.clone(),
            cmd: command.to_owned(),
            flags: flags.bits(),
        };
        let qemu = self.connect.qemu()?;
        Ok(qemu.domain_monitor_command(&args).await?.result)
    }

    /// Says something to the QEMU guest agent in the guest, in JSON, and gives its answer. The timeout is in seconds, or
    /// -2: none, -1: the default, 0: no answer is awaited.
    ///
    /// # Errors
    /// What the daemon reports, or the end of the connection.
    pub async fn qemu_agent_command(
        &self,
        command: &str,
        timeout: i32,
    ) -> Result<Option<String>, Error> {
        let args = DomainAgentCommandArgs {
            dom: self.raw.clone(),
            cmd: command.to_owned(),
            timeout,
            flags: 0,
        };
        let qemu = self.connect.qemu()?;
        Ok(qemu.domain_agent_command(&args).await?.result)
    }
}

impl Connect {
    /// Every procedure of the QEMU program as it is.
    ///
    /// # Errors
    /// The connection is not up.
    pub fn qemu(&self) -> Result<Qemu, Error> {
        Ok(Qemu::new(self.client()?))
    }
}
