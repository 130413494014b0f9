//! Every limit of the agent, with its reason.
//!
//! The peer of the agent is one bridge, which speaks for many clients; any of them may be hostile. What a limit
//! protects is the guest: its memory, its CPU, and the other clients of the same session.

use std::time::Duration;

// === HTTP/2 ===

/// Calls under way in one session. The bridge promises its clients 1,000 at once; twice that leaves room for streams
/// that are being reset. At the limit the client's HTTP/2 library queues the call.
pub const MAX_CONCURRENT_STREAMS: u32 = 2048;

/// Request bytes that one call may have on their way to a handler that does not read. At the limit the client's
/// sender stops; what is in flight below HTTP/2 is bounded by the link, so this needs only to exceed the link's window.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Request bytes of all calls together: as much as all streams may have, so that clients that stop reading or
/// handlers that stop taking can't starve the others (connection window comes back only when the application has
/// consumed the bytes).
pub const CONNECTION_WINDOW: u32 = connection_window(MAX_CONCURRENT_STREAMS, STREAM_WINDOW);

/// Largest HTTP/2 frame that the agent takes: each costs a turn, and a unary call waits for at most one such frame of
/// each bulk stream.
pub const MAX_FRAME_SIZE: u32 = 32 * 1024;

/// Metadata of one call, by HTTP/2's way of counting (name + value + 32). More is answered with 431 by hyper; a
/// CONTINUATION flood ends the session.
pub const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Calls that were reset before the agent could look at them. A client that cancels a burst of calls causes some, since
/// a whole burst can arrive in one read; at the limit the session ends, so it is generous, and it bounds what a rapid
/// reset can make the agent hold.
pub const MAX_PENDING_RESETS: usize = 1024;

/// Frames that come for calls that the agent has ended and forgotten, and other errors of the peer's that concern one call.
/// Each is answered with a reset; more end the session, which bounds the answers that are held for a host that does not
/// read. Every upload that is refused while its bytes are on their way causes some, and a session may last for months.
pub const MAX_LOCAL_RESETS: usize = 64 * 1024;

/// Response bytes of one call that wait for the channel. At the limit the service is not asked for more. All streams
/// together hold 128 MiB at worst, and only if the bridge opens its windows and then stops reading.
pub const STREAM_SEND_BUFFER: usize = 64 * 1024;

/// Silence after which the agent asks whether the host is still there. The host's end watches the link far more
/// closely; this frees the calls of a host that hangs with the channel open.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// How long the host may take to answer that. Long, because a busy hypervisor is not a dead one.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call of many messages may take to say what it is about, as `tunnel.proto` promises: tunnels, uploads, and what
/// stays with a process. Then it is INVALID_ARGUMENT: a call that says nothing is held for nothing.
pub const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// How long calls may go on after the agent was asked to stop. What has not finished then is cut off.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// What a signed call's time may differ from the guest's clock, and so for how long at most a call is remembered that must not be
/// made again: twice that. Machines whose clocks are set by anything at all differ by less.
pub const CALL_SKEW: Duration = Duration::from_secs(60);

/// Fewest characters of a signed call's nonce: as random ones they do not come twice within [`CALL_SKEW`].
pub const MIN_CALL_NONCE: usize = 8;

/// Most characters of a signed call's nonce: SHA-256 in hexadecimal digits.
pub const MAX_CALL_NONCE: usize = 64;

/// Signed calls that are remembered, so that none is made twice: 500 a second for as long as they must be, in some 4 MiB. At the
/// limit a call is RESOURCE_EXHAUSTED until the first is too old: none is forgotten before.
pub const MAX_SIGNED_CALLS: usize = 64 * 1024;

// === TLS ===

/// How long the handshake with a bridge may take.
#[cfg(feature = "tls")]
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a session is left alone whose host does not encrypt. Closed at once, it would be greeted again at once.
#[cfg(feature = "tls")]
pub const PLAIN_REST: Duration = Duration::from_secs(1);

/// How long a session is kept that was refused because of a certificate. A bridge lets go of it before.
#[cfg(feature = "tls")]
pub const TLS_REFUSED: Duration = Duration::from_secs(60);

// === messages ===

/// Bytes of an error's message. It travels in a header, with up to three bytes for each of its own, and beside details that
/// may repeat it; clients take 8 to 16 KiB of headers. The middle of a longer one is left out.
pub const MAX_ERROR_MESSAGE: usize = 1024;

/// Payload of a Ping, as `system.proto` promises.
pub const MAX_PING_PAYLOAD: usize = 64 * 1024;

/// Largest request of `System`: a Ping whose payload is the largest there is, and room for its framing. More is
/// INVALID_ARGUMENT.
pub const MAX_SYSTEM_REQUEST: usize = MAX_PING_PAYLOAD + 1024;

/// Largest request of `Metrics`, health and reflection, whose requests hold a few names or numbers.
pub const MAX_SMALL_REQUEST: usize = 16 * 1024;

/// Largest request of `Hardware`, which may list all blocks of a large machine's memory.
pub const MAX_HARDWARE_REQUEST: usize = 512 * 1024;

/// Largest request of `Storage`, which may list all file systems by paths of some length.
pub const MAX_STORAGE_REQUEST: usize = 256 * 1024;

/// Largest message that an added service should take or give: what the bridge is tested with, plus framing. A service
/// sets its own limit (`max_decoding_message_size`); tonic's default is 4 MiB.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024 + 1024;

// === metrics ===

/// Shortest interval of a subscription, as `metrics.proto` promises.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Longest interval of a subscription, as `metrics.proto` promises.
pub const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Interval of a subscription that names none.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// Samples that wait for one subscriber. A few seconds of a stalled reader at the usual interval; at the limit the
/// oldest is dropped and counted.
pub const SUBSCRIBER_BUFFER: usize = 16;

/// Subscriptions at once, of all sessions; more are RESOURCE_EXHAUSTED. As many as one session has calls.
pub const MAX_SUBSCRIBERS: usize = MAX_CONCURRENT_STREAMS as usize;

/// Age up to which a reading of the kernel serves another subscriber too. It bounds the sampler at 100 readings a
/// second however many different intervals are asked for; the kernel's own CPU counters move every 10 ms at best.
pub const SAMPLE_FRESHNESS: Duration = Duration::from_millis(10);

/// CPUs in a sample, as `metrics.proto` promises.
pub const MAX_CPUS: usize = 1024;

/// Blocks of memory that are listed or switched in one call: 64 TiB of the kernel's usual 2 GiB for large machines.
pub const MAX_MEMORY_BLOCKS: usize = 32 * 1024;

/// Disks in a sample, as `metrics.proto` promises.
pub const MAX_DISKS: usize = 256;

/// Network interfaces in a sample, as `metrics.proto` promises.
pub const MAX_NETWORKS: usize = 256;

// === events ===

/// Events that wait for the slowest subscriber, as `events.proto` promises. At the limit the oldest is lost to those that have
/// not read it, and counted.
pub const EVENT_BUFFER: usize = 256;

/// Subscriptions to events at once, as `events.proto` promises; more are RESOURCE_EXHAUSTED.
pub const MAX_EVENT_SUBSCRIBERS: usize = 256;

/// Pause between two looks at what the kernel does not tell by itself: ports, OOM kills.
pub const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Ports that are watched, as `events.proto` promises; the others are not.
pub const MAX_LISTENING_PORTS: usize = 4096;

/// Descriptors of processes that are looked at to find out who listens on new ports. Who is not found by then is not told.
pub const MAX_OWNER_LINKS: usize = 64 * 1024;

/// OOM kills that are told of one look, as `events.proto` promises.
pub const MAX_OOM_EVENTS: usize = 16;

/// Records of the kernel's log that are read in one look for the names of killed processes. The rest waits for the next.
pub const MAX_KMSG_RECORDS: usize = 4096;

/// Bytes of such a record; the kernel has none that is larger (`CONSOLE_EXT_LOG_MAX`).
pub const MAX_KMSG_RECORD: usize = 8 * 1024;

/// What the clock may differ without having been set: two clocks can't be read at the same moment.
pub const CLOCK_NOISE: Duration = Duration::from_millis(1);

// === exec ===

/// Processes that run at once, as `exec.proto` promises; more are RESOURCE_EXHAUSTED. Some for each of many callers, and
/// far below what a guest's kernel allows.
pub const MAX_PROCESSES: usize = 256;

/// Processes that have ended and are kept, as `exec.proto` promises; at the limit the oldest is forgotten.
pub const MAX_ENDED_PROCESSES: usize = 64;

/// Bytes of output that all processes may keep, those that have ended included: as much as [`MAX_PROCESSES`] keep if none
/// asks for more than usual. Memory is used for what is there, not for what may be. At the limit the oldest of the ended
/// ones are forgotten, and when there is none a start is RESOURCE_EXHAUSTED.
pub const MAX_OUTPUT_KEPT: usize = MAX_PROCESSES * DEFAULT_OUTPUT_BUFFER;

/// Processes that are being started at once; the others wait for their turn. A program on a dead file system takes for
/// ever, and each holds a thread ([`MAX_BLOCKING_THREADS`]).
pub const MAX_STARTING: usize = 4;

/// Arguments of a command, as `exec.proto` promises.
pub const MAX_ARGUMENTS: usize = 4096;

/// Bytes of one argument or variable: what execve(2) takes (`MAX_ARG_STRLEN`) without its NUL.
pub const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// Bytes of all arguments together, and of all variables, as `exec.proto` promises: half of what the kernel takes of both
/// with the usual stack of 8 MiB.
pub const MAX_ARGUMENTS_TOTAL: usize = 1024 * 1024;

/// Variables of a command, as `exec.proto` promises.
pub const MAX_VARIABLES: usize = 256;

/// Bytes of the name of a user, a group, a variable or a type of terminal.
pub const MAX_NAME: usize = 256;

/// Bytes of a command's label, as `exec.proto` promises.
pub const MAX_LABEL: usize = 256;

/// Bytes of a command's arguments that are listed; the rest is left out, so that a list of all processes fits into a
/// message.
pub const MAX_LISTED_ARGUMENTS: usize = 4096;

/// How long a command of Run may take that does not say.
pub const DEFAULT_RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long any command may take that does say, as `exec.proto` promises.
pub const MAX_EXEC_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Time between SIGTERM and SIGKILL for a command that does not say.
pub const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(2);

/// Most time between SIGTERM and SIGKILL.
pub const MAX_KILL_GRACE: Duration = Duration::from_secs(60);

/// Most time between SIGTERM and SIGKILL when the agent stops: well within [`SHUTDOWN_GRACE`], so that the calls still
/// tell how their processes have ended.
pub const STOP_KILL_GRACE: Duration = Duration::from_secs(1);

/// Pause between two looks at whether the processes of a group have followed their leader.
pub const GROUP_POLL: Duration = Duration::from_millis(50);

/// Bytes of input of a command of Run.
pub const MAX_RUN_STDIN: usize = 1024 * 1024;

/// Bytes of each output of a command of Run.
pub const MAX_RUN_OUTPUT: usize = 1024 * 1024;

/// Fewest bytes of output that can be kept.
pub const MIN_OUTPUT_BUFFER: usize = 4096;

/// Bytes of output that are kept of a process that does not say.
pub const DEFAULT_OUTPUT_BUFFER: usize = 1024 * 1024;

/// Most bytes of output that can be kept.
pub const MAX_OUTPUT_BUFFER: usize = 16 * 1024 * 1024;

/// Bytes of output in one message, and in one reading of a pipe: a frame of HTTP/2.
pub const OUTPUT_CHUNK: usize = MAX_FRAME_SIZE as usize;

/// Bytes that may be on their way when a call ends, and so count as not taken: [`STREAM_SEND_BUFFER`], the bridge's window
/// (256 KiB) and its own send buffer (64 KiB), and some that its client holds. Half of what is kept by default.
pub const MAX_UNSURE_OUTPUT: usize = 512 * 1024;

/// How long after a process's end the pipes of its outputs are waited for that others still hold open. What is in them
/// then is still read.
pub const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Bytes that are read of a pipe at its end, beyond what may be kept: what a user may make a pipe hold
/// (/proc/sys/fs/pipe-max-size). A pipe has 64 KiB as a rule. The rest is lost.
pub const MAX_PIPE_REST: usize = 1024 * 1024;

/// Bytes of input after which the caller is told how many the process has been given, if there is no output to tell it
/// with.
pub const STDIN_TOLD: u64 = 64 * 1024;

/// Largest request of `Exec`: a command of Run with all that it may have.
pub const MAX_EXEC_REQUEST: usize = MAX_RUN_STDIN + 2 * MAX_ARGUMENTS_TOTAL + 256 * 1024;

// === users and time zone ===

/// Sessions of users that are listed, as `system.proto` promises; the rest is left out.
pub const MAX_USER_SESSIONS: usize = 1024;

/// Bytes of the file that describes the time zone. The largest of the IANA database have some 4 KiB; a larger one is
/// none.
pub const MAX_TIMEZONE_FILE: u64 = 256 * 1024;

/// Characters of a host name: the kernel's own limit (`__NEW_UTS_LEN`).
pub const MAX_HOSTNAME: usize = 64;

// === network ===

/// Interfaces that are listed, as `network.proto` promises; the rest is left out.
pub const MAX_INTERFACES: usize = 1024;

/// Addresses of all interfaces together that are listed; the rest is left out.
pub const MAX_INTERFACE_ADDRESSES: usize = 16 * 1024;

/// Routes that are listed, as `network.proto` promises; the answer says if there are more.
pub const MAX_ROUTES: usize = 8192;

// === tunnels ===

/// Bytes of one message to a connection, as `tunnel.proto` promises. More is INVALID_ARGUMENT.
pub const MAX_TUNNEL_DATA: usize = 64 * 1024;

/// Largest request of `Tunnel`: as much data, and room for its framing. More is INVALID_ARGUMENT.
pub const MAX_TUNNEL_REQUEST: usize = MAX_TUNNEL_DATA + 1024;

/// Bytes that are read from a connection at once: a message of so many fills one HTTP/2 frame of the bridge's.
pub const TUNNEL_READ: usize = 32 * 1024;

/// Messages of one connection that wait for the call to take them. With it full nothing is read from the connection, and the
/// guest's kernel stops the sender. Little: what flows on behind it has buffers of its own ([`STREAM_SEND_BUFFER`]).
pub const TUNNEL_QUEUE: usize = 2;

/// Payload of the largest datagram that IPv4 carries. A larger one is INVALID_ARGUMENT.
pub const MAX_DATAGRAM: usize = 65_507;

/// Connections at once, of all sessions; more are RESOURCE_EXHAUSTED. Each takes a descriptor, of which a service usually has
/// 1,024: with the listeners and what waits to be taken they leave some for everything else.
pub const MAX_TUNNELS: usize = 256;

/// Listeners at once, of all sessions; more are RESOURCE_EXHAUSTED.
pub const MAX_TUNNEL_LISTENERS: usize = 32;

/// Connections of one listener that wait to be taken. With so many, no further one is accepted: they wait in the kernel.
pub const MAX_TUNNEL_BACKLOG: usize = 16;

/// How long it may take to look a name up and to connect to what it stands for. Then it is UNAVAILABLE. Less than the 10 s for
/// which a caller usually waits, so that the caller learns the reason.
pub const TUNNEL_CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Pause before a Unix socket is connected again whose backlog was full: the kernel does not say when there is room.
pub const TUNNEL_CONNECT_RETRY: Duration = Duration::from_millis(20);

/// How long a connection waits to be taken, as `tunnel.proto` promises. Then it is reset.
pub const TUNNEL_ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept: most likely the agent is out of descriptors.
pub const TUNNEL_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which a UDP call ends whose caller has nothing more to say.
pub const TUNNEL_UDP_LINGER: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried, in the order in which the guest's resolver gives them.
pub const MAX_TUNNEL_ADDRESSES: usize = 8;

/// Bytes of a host's name: the most that DNS has.
pub const MAX_HOST: usize = 253;

/// Bytes of a Unix socket's path: what the kernel has room for (`sun_path`), with the NUL at its end or in front.
pub const MAX_SOCKET_PATH: usize = 107;

/// Threads that may look names up or make socket files for tunnels. Neither can be stopped: a name server may be silent for
/// half a minute, a file system be frozen. At the limit further ones wait their turn, as long as connecting may take.
pub const MAX_TUNNEL_THREADS: usize = 4;

// === disks and file systems ===

/// Disks and partitions that are listed, as `storage.proto` promises; the rest is left out.
pub const MAX_BLOCK_DEVICES: usize = 1024;

/// Devices below one that are listed: more than RAID makes one of.
pub const MAX_DISK_SLAVES: usize = 256;

/// Other names of one disk that are listed. udev gives some ten, a disk with many paths some more.
pub const MAX_DISK_ALIASES: usize = 32;

/// Links in `/dev/disk` that are looked at; names behind them are not known.
pub const MAX_DISK_LINKS: usize = 16 * 1024;

/// Shortest limit of a standstill, as `storage.proto` promises.
pub const MIN_FREEZE: Duration = Duration::from_millis(100);

/// Longest limit of a standstill, as `storage.proto` promises. Programs that wait for a disk that long are usually
/// restarted by somebody.
pub const MAX_FREEZE: Duration = Duration::from_secs(600);

/// Limit of a standstill that names none.
pub const DEFAULT_FREEZE: Duration = Duration::from_secs(60);

/// Bytes of the record of what is frozen: a thousand of the longest paths. There is no record of more.
pub const MAX_FREEZE_RECORD: u64 = 4 * 1024 * 1024;

/// How long a call of Thaw, or the agent's end, waits until writing goes on. Thawing is a matter of milliseconds, but
/// may wait for the disk; it goes on when nobody waits for it any more.
pub const THAW_TIMEOUT: Duration = Duration::from_secs(10);

/// Log output that is kept while file systems are frozen, on which the log may lie. What does not fit is counted.
pub const MAX_HELD_LOG: usize = 64 * 1024;

// === accounts ===

/// Bytes of a password, as `accounts.proto` promises. crypt(5) takes no more than 511 of them.
pub const MAX_PASSWORD: usize = 512;

/// Bytes of a line with a key, as `accounts.proto` promises: the largest RSA key there is, with its options.
pub const MAX_AUTHORIZED_KEY: usize = 16 * 1024;

/// Keys in one call, as `accounts.proto` promises.
pub const MAX_AUTHORIZED_KEYS: usize = 1024;

/// Bytes of the file with a user's keys: a thousand keys with their comments. A larger one is left alone.
pub const MAX_AUTHORIZED_KEYS_FILE: usize = 1024 * 1024;

/// Largest request of `Accounts`: all keys of a user.
pub const MAX_ACCOUNTS_REQUEST: usize = MAX_AUTHORIZED_KEYS_FILE + 64 * 1024;

// === services ===

/// Bytes of a unit's name: systemd's own limit (`UNIT_NAME_MAX` without its NUL).
pub const MAX_UNIT_NAME: usize = 255;

/// Patterns or names of units in one call, as `services.proto` promises.
pub const MAX_UNIT_NAMES: usize = 64;

/// Units in a list, as `services.proto` promises; the answer says if there are more. Some 2 MiB at worst, where tonic's
/// clients take 4.
pub const MAX_UNITS: usize = 4096;

/// Bytes of a description in a list; the rest is left out.
pub const MAX_LISTED_DESCRIPTION: usize = 128;

/// Largest request of `Services`: so many names.
pub const MAX_SERVICES_REQUEST: usize = 32 * 1024;

/// Calls for units at once, those that wait for a job included; more are RESOURCE_EXHAUSTED. They share one connection,
/// and what is asked of systemd holds up everything else that it does.
pub const MAX_UNIT_CALLS: usize = 32;

/// How long connecting to the system bus may take. Then the call is UNAVAILABLE.
pub const BUS_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long systemd may take to answer: D-Bus's own default. It answers nobody while it reads all units anew. Then the call
/// is UNAVAILABLE.
pub const BUS_TIMEOUT: Duration = Duration::from_secs(25);

/// How long a call waits for a job, as `services.proto` promises: some times what systemd gives a service to start. Then it
/// is DEADLINE_EXCEEDED, and the job goes on.
pub const JOB_TIMEOUT: Duration = Duration::from_secs(300);

/// Jobs that have ended before it is known which is the call's own. At the limit the oldest is forgotten: it ended longest
/// before.
pub const MAX_EARLY_JOBS: usize = 256;

/// Calls for logs at once; more are RESOURCE_EXHAUSTED. Each has a `journalctl`, which maps some of the journal's files.
pub const MAX_LOG_CALLS: usize = 16;

/// Bytes of an entry as `journalctl` writes it, as `services.proto` promises: a message of [`MAX_LOG_MESSAGE`], each byte of
/// which is a number of three digits, takes a quarter. A longer one is left out and counted.
pub const MAX_LOG_LINE: usize = 1024 * 1024;

/// Bytes of an entry's message, as `services.proto` promises; the rest is left out.
pub const MAX_LOG_MESSAGE: usize = 64 * 1024;

/// Bytes of an entry's other texts; the rest is left out.
pub const MAX_LOG_FIELD: usize = 256;

/// Bytes of a cursor. systemd's have some 120.
pub const MAX_CURSOR: usize = 256;

/// Entries in one message of logs, as `services.proto` promises.
pub const LOG_BATCH_ENTRIES: usize = 256;

/// Bytes of what `journalctl` has written after which a message of logs is full: with one entry more it is still far below
/// what clients take.
pub const LOG_BATCH_BYTES: usize = STREAM_SEND_BUFFER;

/// Bytes that are kept of what `journalctl` says of errors: its last lines.
pub const MAX_JOURNAL_ERROR: usize = 1024;

/// How long `journalctl` may take to end after its last entry. Then it is killed.
pub const JOURNAL_END: Duration = Duration::from_secs(5);

// === power ===

/// How long the answer is ahead of the act. The answer needs some milliseconds to the host, and more where the guest is
/// emulated or busy.
pub const POWER_DELAY: Duration = Duration::from_millis(500);

/// How long a forced end waits for the disks. One that does not answer must not keep a guest that somebody wants gone.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

// === status ===

/// Age up to which an earlier CPU reading is the base of `cpu_percent`, as `system.proto` promises.
pub const CPU_BASE_MAX_AGE: Duration = Duration::from_secs(10);

/// Shortest time over which `cpu_percent` means something, as `system.proto` promises.
pub const CPU_BASE_MIN_AGE: Duration = Duration::from_millis(100);

/// File systems in a status, as `system.proto` promises.
pub const MAX_FILESYSTEMS: usize = 256;

/// How long one file system may take to tell its size. A dead NFS server takes for ever; its size is 0 then.
pub const STATVFS_TIMEOUT: Duration = Duration::from_millis(500);

/// How long all file systems together may take.
pub const STATVFS_TOTAL: Duration = Duration::from_secs(2);

/// Threads that may wait for file systems that do not answer. Such a thread can't be stopped; at the limit the sizes
/// of further file systems are 0 until one comes back.
pub const MAX_STUCK_STATVFS: usize = 8;

/// Age up to which the sizes of file systems serve another call, so that many callers cost as much as one.
pub const FILESYSTEMS_FRESHNESS: Duration = Duration::from_millis(200);

/// Bytes read of one file in /proc, /sys or /etc. The largest, /proc/stat of 1,024 CPUs with all their interrupts, stays
/// below; the rest of a larger one is not read.
pub const MAX_SOURCE_FILE: usize = 4 * 1024 * 1024;

/// How long a program may take that does what the kernel has no call for: setting a password, which may ask a server, the
/// hardware clock, or the order to shut down. Then it is killed. As long as a command of Run that does not say.
pub const PROGRAM_TIMEOUT: Duration = DEFAULT_RUN_TIMEOUT;

/// How long such a program may take to die. One that waits for a device does not, and is left behind.
pub const PROGRAM_KILL: Duration = Duration::from_secs(1);

/// Pause between two looks whether such a program has ended: a process can't be waited for with a limit on every kernel.
pub const PROGRAM_PAUSE: Duration = Duration::from_millis(10);

/// Bytes that are kept of what such a program says of errors: its last ones, of whose lines the last is told.
pub const MAX_PROGRAM_ERROR: usize = 64 * 1024;

/// Threads for what else may block: a password, keys, a plan to shut down, its order and its force, the hardware clock read
/// and set, each of which has one at most, and as many for what is short.
pub const MAX_OTHER_THREADS: usize = 12;

/// Threads for calls that may block. None exists while none is needed, and each keeps a stack.
pub const MAX_BLOCKING_THREADS: usize =
    MAX_STUCK_STATVFS + MAX_STARTING + MAX_TUNNEL_THREADS + MAX_FILE_THREADS + MAX_OTHER_THREADS;

// === files ===

/// Bytes of a path, as `files.proto` promises: the kernel's own limit.
pub const MAX_PATH: usize = 4096;

/// Bytes of content in one message that the agent sends: what a stream's send buffer takes at once.
pub const FILE_PIECE: usize = STREAM_SEND_BUFFER;

/// Bytes of content in one message that the agent takes, as `files.proto` promises. More is INVALID_ARGUMENT.
pub const MAX_FILE_DATA: usize = 256 * 1024;

/// Largest request of `Files`: as much content, and room for its framing.
pub const MAX_FILES_REQUEST: usize = MAX_FILE_DATA + 16 * 1024;

/// Transfers at once: reads, writes, trees, lists, removals and digests. More are RESOURCE_EXHAUSTED. Each holds a piece or
/// two, a message that has come, and a few descriptors; trees and lists some megabytes at worst.
pub const MAX_FILE_TRANSFERS: usize = 32;

/// Watches at once; more are RESOURCE_EXHAUSTED. The kernel gives a user 128 instances of inotify by default.
pub const MAX_FILE_WATCHES: usize = 32;

/// Pieces of one call that are made at once and wait for its caller: 256 KiB of a file's content.
pub const PIECES_AHEAD: usize = 4;

/// Content of one upload that has come and is written at once: what the client may have on its way.
pub const WRITE_AT_ONCE: usize = STREAM_WINDOW as usize;

/// Threads that work with files. At the limit a step waits for its turn. File systems that do not answer may take all of
/// these, and then no file can be reached; what else the agent does goes on.
pub const MAX_FILE_THREADS: usize = 8;

/// Bytes that one step reads for a digest: some 10 ms, after which it is seen whether the caller is still there.
pub const FILE_STEP: usize = 8 * 1024 * 1024;

/// Zeros of a hole that one step makes a digest of, and the longest hole that is told at once if there is one to be made.
pub const HOLE_STEP: u64 = 8 * 1024 * 1024;

/// Pause between two looks at a file that is followed. It is looked at and not watched, since many file systems (`/proc`,
/// NFS) do not tell; also when a caller may try again after a transfer too many.
pub const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// Links that one path may lead through in a root of the policy: the kernel's own limit (`MAXSYMLINKS`).
pub const MAX_LINKS: usize = 40;

/// Times that a path is resolved anew because directories were moved meanwhile.
pub const RESOLVE_TRIES: usize = 64;

/// Entries in one message of a list, as `files.proto` promises.
pub const LIST_MESSAGE: usize = 256;

/// Memory for the names of a directory that is listed, which must be there to be sorted, as `files.proto` promises.
pub const MAX_LIST_NAMES: usize = 4 * 1024 * 1024;

/// Characters of an upload's id, as `files.proto` promises.
pub const MAX_UPLOAD_ID: usize = 64;

/// How long an upload that broke off is kept, as `files.proto` promises.
pub const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// Entries of a directory that are looked through for older uploads when one begins there.
pub const UPLOAD_SWEEP: usize = 1024;

/// Directories in each other that are removed, packed or unpacked, as `files.proto` promises: each is held open.
pub const MAX_TREE_DEPTH: usize = 128;

/// Entries that one step removes.
pub const REMOVE_STEP: usize = 256;

/// Times that a directory is gone through that others put files into while it is removed.
pub const REMOVE_ROUNDS: u32 = 8;

/// Entries that one step of packing a tree looks at.
pub const PULL_STEP: usize = 256;

/// Bytes of paths that are remembered to find hard links while a tree is packed. At the limit further ones are packed as
/// files of their own.
pub const MAX_TREE_LINKS: usize = 1024 * 1024;

/// Paths that are named in a tree's summary, as `files.proto` promises; the others are counted.
pub const MAX_TREE_SKIPPED: usize = 100;

/// Bytes of a tar archive's extended header, which holds long names: two paths, and as much again for the rest. More
/// ends the call.
pub const MAX_TAR_EXTENSION: usize = 32 * 1024;

/// Directories that one call watches, as `files.proto` promises: the kernel's former default for a user.
pub const MAX_WATCHED: usize = 8192;

/// Bytes of events that are read at once.
pub const WATCH_BUFFER: usize = 16 * 1024;

/// Entries of a new directory that one step looks at.
pub const WATCH_STEP: usize = 256;

// === upstreams ===

/// Local servers that calls are passed on to.
pub const MAX_UPSTREAMS: usize = 32;

/// Services, or packages of them, that one of these has.
pub const MAX_UPSTREAM_SERVICES: usize = 64;

/// Characters of an upstream's name.
pub const MAX_UPSTREAM_NAME: usize = 64;

/// How long it may take to connect to one, the wait for others that are at it included. It is on this machine: what takes
/// longer does not come.
pub const UPSTREAM_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one may take to say what it serves or how it is. Then it counts as one that does not say, or is not well.
pub const UPSTREAM_ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long whoever watches its health waits before looking again for one that is not there. Nothing tells when it comes.
pub const UPSTREAM_RETRY: Duration = Duration::from_secs(1);

/// Services that are listed of one.
pub const MAX_UPSTREAM_LISTED: usize = 256;

/// Bytes of what one's reflection has said that are remembered. With so many, it is asked each time for what is new.
pub const MAX_UPSTREAM_KNOWN: usize = 1024 * 1024;

/// Bytes of an answer of reflection. A larger one counts as none.
pub const MAX_MESSAGE_REFLECTION: usize = 1024 * 1024;

// === the configuration ===

/// Longest time that calls of one answer may be given by the configuration: as long as a command may take.
pub const MAX_REQUEST_TIMEOUT: Duration = MAX_EXEC_TIMEOUT;

/// Fewest bytes after which a log file is rotated: some hundred lines.
pub const MIN_LOG_SIZE: u64 = 64 * 1024;

/// Most bytes of a log file: no editor likes more.
pub const MAX_LOG_SIZE: u64 = 1024 * 1024 * 1024;

/// Bytes after which a log file is rotated whose configuration does not say.
pub const DEFAULT_LOG_SIZE: u64 = 10 * 1024 * 1024;

/// Most earlier log files that are kept: each rotation renames all of them.
pub const MAX_LOG_BACKUPS: u64 = 100;

/// Earlier log files that are kept if the configuration does not say.
pub const DEFAULT_LOG_BACKUPS: u64 = 5;

/// Lines that wait for the thread that writes the log file. With more, a disk that does not answer must not hold the agent up:
/// they are lost, and counted.
pub const MAX_LOG_LINES: usize = 1024;

/// Pause before a log file is tried again that could not be written. Meanwhile the log goes to stderr.
pub const LOG_RETRY: Duration = Duration::from_secs(10);

/// How long the program's end waits for the last lines of its log file.
pub const LOG_END: Duration = Duration::from_secs(1);

// === the port ===

/// Bytes that the virtio console driver takes in one write; it would cut longer ones anyway.
pub const PORT_WRITE: usize = 32 * 1024;

/// Pause after a write that took nothing. The driver does that when its queue is broken or was full for a moment, and
/// its `poll` may say "writable" nevertheless: without a pause the agent would spin.
pub const PORT_WRITE_RETRY: Duration = Duration::from_millis(5);

/// First pause between two searches for the port.
pub const FIND_RETRY_FIRST: Duration = Duration::from_millis(250);

/// Longest pause between two searches for the port. A new device node wakes the search earlier.
pub const FIND_RETRY_MAX: Duration = Duration::from_secs(5);

/// Shortest pause between two searches, however many device nodes appear.
pub const FIND_RETRY_MIN: Duration = Duration::from_millis(50);

/// Tries to put the driver back on a device that it was taken off, before the port is given up.
pub const REBIND_TRIES: u32 = 10;

/// Pause between two of these.
pub const REBIND_PAUSE: Duration = Duration::from_millis(50);

/// Pause before a port that failed is opened again.
pub const REOPEN_DELAY: Duration = Duration::from_millis(250);

/// Clients that may wait for their turn on a listening socket. QEMU has 1.
pub const LISTEN_BACKLOG: i32 = 1;

const fn connection_window(streams: u32, window: u32) -> u32 {
    /// RFC 9113, section 6.9.1.
    const MAX: u32 = (1 << 31) - 1;
    match streams.checked_mul(window) {
        Some(product) if product <= MAX => product,
        _ => MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_window_holds_all_streams_but_stays_legal() {
        assert_eq!(connection_window(2, 100), 200);
        assert_eq!(connection_window(u32::MAX, 2), (1 << 31) - 1);
        assert_eq!(connection_window(1 << 16, 1 << 15), (1 << 31) - 1);
        const { assert!(CONNECTION_WINDOW >= STREAM_WINDOW) };
    }
}
