//! How this guest is shut down, and how it sleeps.
//!
//! | guest | in order | at once |
//! |---|---|---|
//! | systemd runs (`/run/systemd/system`) | `systemctl` | the kernel |
//! | busybox's init is the first process | a signal to it | the kernel |
//! | another init | its own `poweroff`, `reboot` or `halt`, if there is one | the kernel |
//!
//! Asking how is apart from doing it: a plan is made of files below a root, and can be looked at by tests, which must
//! never carry one out.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use rustix::{
    process::{Pid, Signal},
    system::RebootCommand,
};
use vbridge_api::guest::v1::{ShutdownMode, SuspendMode};

use super::program::{self, PATH};
use crate::limits::SYNC_TIMEOUT;

/// It exists where systemd is the first process (sd_booted(3)).
const SYSTEMD: &str = "run/systemd/system";

/// What the kernel offers as sleep, and writing one of which does it
/// (Documentation/admin-guide/pm/sleep-states.rst in Linux).
const STATE: &str = "sys/power/state";

/// What the kernel does with an image of memory that it has put on the disk.
const DISK: &str = "sys/power/disk";

/// What is going to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// A program with its arguments is run.
    Run(Vec<String>),
    /// The first process gets a signal.
    Tell(Signal),
    /// Disks are synchronised, and the kernel ends at once.
    End(ShutdownMode),
    /// The kernel sleeps: what is written to its files, in order.
    Sleep(Vec<(&'static str, &'static str)>),
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(words) => f.write_str(&words.join(" ")),
            Self::Tell(signal) => write!(f, "signal {} to the first process", signal.as_raw()),
            Self::End(mode) => write!(f, "{} by the kernel alone", verb(*mode)),
            Self::Sleep(writes) => {
                let last = writes.last().map_or("", |(_, word)| word);
                write!(f, "sleep of the kind {last}")
            }
        }
    }
}

/// Power, as this guest has it.
#[derive(Debug)]
pub(crate) struct Power {
    root: PathBuf,
}

impl Power {
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// How the guest ends; else why it can't.
    pub(crate) fn plan_shutdown(&self, mode: ShutdownMode, force: bool) -> Result<Plan, String> {
        if force {
            return Ok(Plan::End(mode));
        }
        let program = match mode {
            ShutdownMode::Unspecified | ShutdownMode::PowerOff => "poweroff",
            ShutdownMode::Reboot => "reboot",
            ShutdownMode::Halt => "halt",
        };
        if self.is_systemd() {
            return Ok(Plan::Run(words(["systemctl", program])));
        }
        let init = fs::read_link(self.root.join("proc/1/exe")).unwrap_or_default();
        let is_busybox = init.file_name().is_some_and(|name| name == "busybox");
        if is_busybox && self.is_init() {
            // As busybox's own `poweroff`, `reboot` and `halt` do (init/halt.c there).
            return Ok(Plan::Tell(match mode {
                ShutdownMode::Unspecified | ShutdownMode::PowerOff => Signal::USR2,
                ShutdownMode::Reboot => Signal::TERM,
                ShutdownMode::Halt => Signal::USR1,
            }));
        }
        // busybox's programs know how to tell busybox's init, and no other.
        let is_own = |path: &str| {
            let path = self.root.join(path.trim_start_matches('/')).join(program);
            let target = fs::canonicalize(&path).unwrap_or_default();
            target.is_file() && target.file_name().is_some_and(|name| name != "busybox")
        };
        match PATH.into_iter().find(|path| is_own(path)) {
            Some(path) => Ok(Plan::Run(vec![format!("{path}/{program}")])),
            None => Err(format!(
                "the guest's first process is {init:?}, and nothing here can ask it to end the guest: use force"
            )),
        }
    }

    /// How the guest goes to sleep; else why it can't.
    pub(crate) fn plan_suspend(&self, mode: SuspendMode) -> Result<Plan, String> {
        let offered = fs::read_to_string(self.root.join(STATE)).unwrap_or_default();
        let offers = |state: &str| offered.split_whitespace().any(|word| word == state);
        let can_not = |what: &str| {
            let offered = match offered.trim() {
                "" => "nothing",
                offered => offered,
            };
            format!("the guest's kernel can't sleep {what}: {STATE} offers {offered}")
        };
        let (program, writes) = match mode {
            SuspendMode::Unspecified | SuspendMode::Ram => {
                // Without firmware that can, a kernel may still stop all it has, and wait.
                let state = ["mem", "freeze"].into_iter().find(|state| offers(state));
                let state = state.ok_or_else(|| can_not("to memory"))?;
                ("suspend", vec![(STATE, state)])
            }
            SuspendMode::Disk => ("hibernate", vec![(STATE, "disk")]),
            SuspendMode::Hybrid => ("hybrid-sleep", vec![(DISK, "suspend"), (STATE, "disk")]),
        };
        if writes.contains(&(STATE, "disk")) && !offers("disk") {
            return Err(can_not("to the disk"));
        }
        if program == "hybrid-sleep" {
            // The one that is chosen stands in brackets.
            let ways = fs::read_to_string(self.root.join(DISK)).unwrap_or_default();
            let has = |way: &str| way.trim_matches(['[', ']']) == "suspend";
            if !ways.split_whitespace().any(has) {
                let ways = ways.trim();
                return Err(format!(
                    "the guest's kernel can't sleep to both: {DISK} offers {ways}"
                ));
            }
        }
        match self.is_systemd() {
            true => Ok(Plan::Run(words(["systemctl", program]))),
            false => Ok(Plan::Sleep(writes)),
        }
    }

    fn is_systemd(&self) -> bool {
        self.root.join(SYSTEMD).is_dir()
    }

    /// Whether the first process was started as an init, and not as a shell that runs a script.
    fn is_init(&self) -> bool {
        let words = fs::read(self.root.join("proc/1/cmdline")).unwrap_or_default();
        let first = words.split(|&byte| byte == 0).next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        let name = Path::new(first.as_ref()).file_name().unwrap_or_default();
        name == "init" || name == "linuxrc"
    }

    /// Does it.
    pub(crate) fn carry_out(&self, plan: &Plan) -> Result<(), String> {
        match plan {
            Plan::Run(words) => run(words),
            Plan::Tell(signal) => rustix::process::kill_process(Pid::INIT, *signal)
                .map_err(|error| format!("the kernel refuses: {error}")),
            Plan::End(mode) => {
                synchronise();
                let command = match mode {
                    ShutdownMode::Unspecified | ShutdownMode::PowerOff => RebootCommand::PowerOff,
                    ShutdownMode::Reboot => RebootCommand::Restart,
                    ShutdownMode::Halt => RebootCommand::Halt,
                };
                rustix::system::reboot(command)
                    .map_err(|error| format!("the kernel refuses: {error}"))
            }
            Plan::Sleep(writes) => writes.iter().try_for_each(|(file, word)| {
                fs::write(self.root.join(file), word)
                    .map_err(|error| format!("the kernel refuses {word:?} in {file}: {error}"))
            }),
        }
    }
}

fn verb(mode: ShutdownMode) -> &'static str {
    match mode {
        ShutdownMode::Unspecified | ShutdownMode::PowerOff => "power off",
        ShutdownMode::Reboot => "reboot",
        ShutdownMode::Halt => "halt",
    }
}

fn words(words: [&str; 2]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn run(words: &[String]) -> Result<(), String> {
    let Some((first, arguments)) = words.split_first() else {
        return Ok(());
    };
    program::run_alone(first, arguments)
}

/// Writes out what waits for the disks, if they take it in time.
fn synchronise() {
    let (done, waiting) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || {
        rustix::fs::sync();
        // Who waits may have lost patience.
        let _ = done.send(());
    });
    if started.is_ok() {
        let _ = waiting.recv_timeout(SYNC_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MODES: [ShutdownMode; 3] = [
        ShutdownMode::PowerOff,
        ShutdownMode::Reboot,
        ShutdownMode::Halt,
    ];

    struct Guest(tempfile::TempDir);

    impl Guest {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(self, path: &str, text: &str) -> Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn link(self, path: &str, to: &str) -> Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(to, path).unwrap();
            self
        }

        fn systemd(self) -> Self {
            self.put("run/systemd/system/x", "")
        }

        fn power(&self) -> Power {
            Power::below(self.0.path())
        }

        fn plans(&self) -> [Result<String, String>; 3] {
            MODES.map(|mode| {
                let plan = self.power().plan_shutdown(mode, false);
                plan.map(|plan| plan.to_string())
            })
        }
    }

    #[test]
    fn each_init_is_asked_in_its_own_way() {
        let ok = |plans: [&str; 3]| plans.map(|plan| Ok(plan.to_owned()));
        let guest = Guest::new().systemd();
        assert_eq!(
            guest.plans(),
            ok(["systemctl poweroff", "systemctl reboot", "systemctl halt"])
        );
        let guest = Guest::new()
            .link("proc/1/exe", "/bin/busybox")
            .put("proc/1/cmdline", "/sbin/init\0");
        // SIGUSR2, SIGTERM, SIGUSR1.
        assert_eq!(
            guest.plans(),
            [12, 15, 10].map(|number| Ok(format!("signal {number} to the first process")))
        );
        let guest = Guest::new()
            .link("proc/1/exe", "/sbin/openrc-init")
            .put("sbin/poweroff", "")
            .put("sbin/reboot", "")
            .put("sbin/halt", "");
        assert_eq!(
            guest.plans(),
            ok(["/sbin/poweroff", "/sbin/reboot", "/sbin/halt"])
        );
    }

    #[test]
    fn a_shell_as_the_first_process_can_only_be_ended_by_force() {
        let guest = Guest::new()
            .link("proc/1/exe", "/bin/busybox")
            .put("proc/1/cmdline", "/bin/sh\0/init\0")
            .put("bin/busybox", "")
            .link("bin/poweroff", "busybox");
        for plan in guest.plans() {
            let why = plan.unwrap_err();
            assert!(
                why.contains("\"/bin/busybox\"") && why.ends_with("use force"),
                "{why}"
            );
        }
        for mode in MODES {
            let plan = guest.power().plan_shutdown(mode, true);
            assert_eq!(plan, Ok(Plan::End(mode)));
        }
    }

    #[test]
    fn a_guest_sleeps_in_ways_that_its_kernel_offers() {
        let guest = Guest::new()
            .put("sys/power/state", "freeze mem disk\n")
            .put("sys/power/disk", "[shutdown] reboot suspend\n");
        let plan = |guest: &Guest, mode| guest.power().plan_suspend(mode);
        assert_eq!(
            plan(&guest, SuspendMode::Unspecified),
            Ok(Plan::Sleep(vec![(STATE, "mem")]))
        );
        assert_eq!(
            plan(&guest, SuspendMode::Disk),
            Ok(Plan::Sleep(vec![(STATE, "disk")]))
        );
        assert_eq!(
            plan(&guest, SuspendMode::Hybrid),
            Ok(Plan::Sleep(vec![(DISK, "suspend"), (STATE, "disk")]))
        );
        let guest = guest.systemd();
        let told = |mode| plan(&guest, mode).map(|plan| plan.to_string());
        assert_eq!(told(SuspendMode::Ram), Ok("systemctl suspend".to_owned()));
        assert_eq!(
            told(SuspendMode::Hybrid),
            Ok("systemctl hybrid-sleep".to_owned())
        );
    }

    #[test]
    fn sleep_that_the_kernel_does_not_offer_is_refused_with_what_it_does() {
        let guest = Guest::new().systemd().put("sys/power/state", "freeze\n");
        let power = guest.power();
        assert!(
            power.plan_suspend(SuspendMode::Ram).is_ok(),
            "freeze will do"
        );
        let why = power.plan_suspend(SuspendMode::Disk).unwrap_err();
        assert_eq!(
            why,
            "the guest's kernel can't sleep to the disk: sys/power/state offers freeze"
        );
        let none = Guest::new();
        let why = none.power().plan_suspend(SuspendMode::Ram).unwrap_err();
        assert!(why.ends_with("offers nothing"), "{why}");
        let guest = guest
            .put("sys/power/state", "disk\n")
            .put("sys/power/disk", "[platform]\n");
        let why = guest.power().plan_suspend(SuspendMode::Hybrid).unwrap_err();
        assert!(why.ends_with("sys/power/disk offers [platform]"), "{why}");
    }

    #[test]
    fn sleep_is_written_in_order_to_the_kernels_files() {
        let guest = Guest::new()
            .put("sys/power/state", "mem disk\n")
            .put("sys/power/disk", "shutdown suspend\n");
        let plan = guest.power().plan_suspend(SuspendMode::Hybrid).unwrap();
        guest.power().carry_out(&plan).unwrap();
        let read = |path| fs::read_to_string(guest.0.path().join(path)).unwrap();
        assert_eq!(
            (read(STATE), read(DISK)),
            ("disk".to_owned(), "suspend".to_owned())
        );
    }
}
