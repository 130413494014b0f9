//! Every limit of the libvirt tests, with its reason.

use std::time::Duration;

/// From a daemon's start to its first answer. It takes a tenth of a second; the error quotes its log.
pub const START: Duration = Duration::from_secs(10);

/// For a daemon to end after SIGTERM. It waits for its worker threads, and nothing else.
pub const END: Duration = Duration::from_secs(20);

/// For every thread of a daemon to stand still after SIGSTOP, or to go on after SIGCONT. The kernel does it at once; the
/// limit is for nsenter, which follows on a loaded machine.
pub const FREEZE: Duration = Duration::from_secs(10);

/// In which everything that waits for a daemon has failed after `kill -9`, over whatever transport.
///
/// No clock of the client's runs in it: the kernel closes a dead process's sockets, the client reads the end (over ssh when
/// the helper there has read it, and has ended, and sshd and ssh after it), and tells all who wait in one go. That takes
/// milliseconds. The second is what the client promises, and leaves the rest to a machine that is busy; keepalive, which is
/// for daemons that hang, would take thirty. Where it is not kept, something has waited for a timer.
pub const FAILED: Duration = Duration::from_secs(1);

/// For a daemon to notice that a client has come or gone, which it does as soon as it is scheduled.
pub const NOTICE: Duration = Duration::from_secs(20);

/// For the namespaces to be torn down, with every process in them; then the test fails.
pub const TEAR_DOWN: Duration = Duration::from_secs(10);

/// For one virsh command or one answer of the C library: starting a domain for the first time includes asking QEMU for
/// its capabilities, which takes seconds under software emulation.
pub const CLIENT: Duration = Duration::from_secs(60);

/// From a domain's start to the guest's "up". Three seconds are usual; several domains may boot at once.
pub const BOOT: Duration = Duration::from_secs(90);

/// Lines of a daemon's log that a failure quotes.
pub const LOG_LINES: usize = 60;

/// `sun_path` holds 108 bytes, the last a NUL (unix(7)).
pub const SOCKET_PATH: usize = 107;

/// The largest line that the reference may answer with. The longest are capabilities of a few hundred KiB; an answer
/// beyond the limit is an error.
pub const REFERENCE_ANSWER: u64 = 32 * 1024 * 1024;
