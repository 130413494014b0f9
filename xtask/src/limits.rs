//! Every limit of the developer's commands and of the test guest, with its reason.

use std::time::Duration;

/// From QEMU's start to "up" on the console. Two seconds are usual under software emulation; a loaded
/// machine with several guests at once may need many times that.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(90);

/// The same for a guest with a system on its disk: systemd and everything that it starts take 15 s alone on two processors
/// under software emulation.
pub const SYSTEM_BOOT_DEADLINE: Duration = Duration::from_secs(240);

/// For QEMU's monitor to accept a connection or to answer a command. It answers within milliseconds
/// unless the machine is badly overloaded.
pub const QMP_DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks whether QEMU has created its sockets: nothing tells, and it takes some 20 ms.
pub const SOCKET_POLL: Duration = Duration::from_millis(2);

/// For QEMU to end after `quit`; then it is killed.
pub const QUIT_DEADLINE: Duration = Duration::from_secs(5);

/// What [`Vm::exec`](crate::qemu::Vm::exec) adds to the caller's time-out before it gives up on the
/// guest: the guest keeps the time-out itself, and its answer has to travel.
pub const EXEC_GRACE: Duration = Duration::from_secs(5);

/// Output of a command in the guest that is kept; the rest is cut off and [`Output`] says so.
///
/// [`Output`]: crate::qemu::Output
pub const EXEC_OUTPUT_MAX: usize = 1024 * 1024;

/// The length of a command, escaped. The guest's serial driver buffers input while its shell is busy,
/// and drops what exceeds that buffer.
pub const EXEC_COMMAND_MAX: usize = 32 * 1024;

/// Lines of the console and of QEMU's own messages that an error quotes.
pub const LOG_TAIL_LINES: usize = 40;

/// `sun_path` holds 108 bytes, the last a NUL (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;

/// Initramfs files kept under `target/guest`; the newest win. More than one, since the demo, the tests
/// and the benchmarks have different contents.
pub const INITRAMFS_KEPT: usize = 6;

/// The size of the disk with the guest's system, as mke2fs takes it. The system takes 200 MiB; the rest is for tests, and no
/// more than a hole in the file until then.
pub const SYSTEM_DISK: &str = "1G";

/// Disks kept under `target/guest`: another one is only needed when its recipe changes.
pub const SYSTEM_DISKS_KEPT: usize = 1;

/// For the demo's bridge to listen. It takes milliseconds, but a debug build on a busy machine may not.
pub const PROGRAM_START_DEADLINE: Duration = Duration::from_secs(10);

/// For the demo's bridge and agent to end after SIGTERM, open calls included.
pub const PROGRAM_END_DEADLINE: Duration = Duration::from_secs(10);

/// How long the demo watches the metrics.
pub const DEMO_METRICS: Duration = Duration::from_secs(5);

/// For one command line client of the demo, which itself waits ten seconds for the guest.
pub const CLIENT_DEADLINE: Duration = Duration::from_secs(30);

/// How long each fuzz target runs unless told otherwise. What a change breaks is mostly found within seconds, the seeds
/// being packets and files of every kind; longer runs are for a quiet night.
pub const FUZZ_SECONDS: u64 = 60;

/// For one input of a fuzz target; ordinary ones take a tenth of a millisecond. One that takes longer is a finding.
pub const FUZZ_INPUT_DEADLINE: Duration = Duration::from_secs(10);

/// Resident memory of a fuzz target, in MiB, ten times what it takes. The targets themselves bound what each input may
/// have, and their address space; this catches what is never given back.
pub const FUZZ_MEMORY_MIB: u64 = 512;

/// Bytes of one fuzz input: enough for a payload with some of everything, or a file. Longer ones are slower, and find
/// little more; seeds are cut off there.
pub const FUZZ_INPUT_MAX: usize = 4096;

/// The same where the input is a story, of which two bytes are a step.
pub const FUZZ_STORY_MAX: usize = 512;
