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

/// Resets that the agent sends because of the peer's protocol errors before it ends the session.
pub const MAX_LOCAL_RESETS: usize = 1024;

/// Response bytes of one call that wait for the channel. At the limit the service is not asked for more. All streams
/// together hold 128 MiB at worst, and only if the bridge opens its windows and then stops reading.
pub const STREAM_SEND_BUFFER: usize = 64 * 1024;

/// Silence after which the agent asks whether the host is still there. The host's end watches the link far more
/// closely; this frees the calls of a host that hangs with the channel open.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// How long the host may take to answer that. Long, because a busy hypervisor is not a dead one.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long calls may go on after the agent was asked to stop. What has not finished then is cut off.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

// === messages ===

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

/// Threads for calls that may block. None exists while none is needed, and each keeps a stack.
pub const MAX_BLOCKING_THREADS: usize = MAX_STUCK_STATVFS + 4;

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
