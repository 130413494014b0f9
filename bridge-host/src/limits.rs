//! Every limit of the bridge, with its reason and what happens at it.

use std::time::Duration;

/// How long a call waits for its guest if it does not say (`x-vbridge-wait`): a caller learns within a second that
/// the guest is not there.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(900);

/// The longest wait that a call may ask for. More is INVALID_ARGUMENT.
pub const MAX_WAIT: Duration = Duration::from_secs(300);

/// After this, a call that has no answer yet wants a sign of life from its guest that is younger than the call.
pub const PROBE_AFTER: Duration = Duration::from_millis(450);

/// Without any for so long, the call fails.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(450);

/// So often it is waited for while other bytes come. After that the guest counts as one that works on the call.
pub const PROBES: usize = 3;

/// First wait before the channel's socket is connected again. Each further one doubles it.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(20);

/// Longest wait before the channel's socket is connected again: a `connect` a second costs nothing that counts.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// First wait before a channel that is a stream through libvirt is opened again; each further one doubles it. Longer than for a
/// socket: each try is a connection to a daemon, with its TLS or its ssh. A daemon sees within it that a stream is over.
pub const STREAM_RECONNECT_FIRST: Duration = Duration::from_millis(200);

/// ... and the longest of these waits.
pub const STREAM_RECONNECT_MAX: Duration = Duration::from_secs(5);

/// How long opening a stream may take, with its connection: as long as any answer of a hypervisor.
pub const STREAM_OPEN: Duration = HYPERVISOR_ANSWER;

/// Streams of one hypervisor that are opened at once; the others wait for their turn. A daemon takes 20 clients that have not said
/// yet who they are (`max_anonymous_clients`), an sshd ten.
pub const STREAMS_OPENED_AT_ONCE: usize = 8;

/// As [`DEAF_FIRST`], for a stream: a guest's first answer comes over a network, and a new connection costs more.
pub const STREAM_DEAF_FIRST: Duration = Duration::from_secs(2);

/// A channel on which nothing was heard for so long since it was connected may be another client's: that is looked at, and in
/// time for a call that waits for [`DEFAULT_WAIT`].
pub const BUSY_LOOK: Duration = Duration::from_millis(300);

/// A channel on which nothing was heard for so long since it was connected is connected anew: QEMU may have left its
/// port stuck, which only that resolves.
pub const DEAF_FIRST: Duration = Duration::from_millis(400);

/// Each further wait for a sign of life on a new connection is so many times longer.
pub const DEAF_FACTOR: u32 = 4;

/// The longest of these waits. Each connecting costs an absent guest a message in a queue of 32.
pub const DEAF_MAX: Duration = Duration::from_secs(120);

/// How long a `connect` to the channel's socket may take. It hangs when the socket's backlog is full.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);

/// After a call's deadline, the guest has so long to say DEADLINE_EXCEEDED itself before the bridge does.
pub const DEADLINE_GRACE: Duration = Duration::from_millis(200);

/// A call that its client has reset is kept for so long, for its upload to pass the reset's code on.
pub const RESET_GRACE: Duration = Duration::from_millis(100);

/// Guests that one bridge takes: each costs two descriptors and some memory, and a longer list is most likely the work of
/// a script gone wrong. One more that the operator names is an error, and one more that is found is left out.
pub const MAX_GUESTS: usize = 4096;

/// Calls under way to one guest. More are RESOURCE_EXHAUSTED. A guest's agent serves so many streams at once.
pub const MAX_CALLS_PER_GUEST: usize = 2048;

/// Client connections of one listener. One more takes the place of the one that has been idle for the longest, or waits in the
/// kernel's backlog if all have calls under way.
pub const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take to say which protocol it speaks, to shake hands for TLS, and to send the headers of an HTTP/1
/// request. Then its connection is closed.
pub const FIRST_WORDS: Duration = Duration::from_secs(10);

/// A client that has just come is given so long to make a call before its place is another's.
pub const FIRST_CALL: Duration = Duration::from_millis(250);

/// An idle client whose place is needed has so long to notice that it should go.
pub const EVICTION: Duration = Duration::from_millis(500);

/// Callers that are known by name. More is an error: a list of people and programs is shorter.
pub const MAX_CALLERS: usize = 4096;

/// Rules of what they may call: each call is compared with all of them. More is an error.
pub const MAX_RULES: usize = 1024;

/// A file with a token, in bytes. A longer one is refused.
pub const MAX_TOKEN: u64 = 4096;

/// Names of one certificate that are looked at. It is none of ours that has more.
pub const MAX_CERTIFICATE_NAMES: usize = 32;

/// Calls under way that will have a line in the audit log, and lines that wait to be written. One more call is refused: none
/// is carried out without its line.
pub const MAX_AUDITED_CALLS: usize = 64 * 1024;

/// An audit log that could not be written is tried again so often.
pub const AUDIT_RETRY: Duration = Duration::from_secs(1);

/// When the bridge stops, the audit log's last lines have so long to be written.
pub const AUDIT_END: Duration = Duration::from_secs(5);

/// Characters of a method's name in the audit log. The rest is cut off.
pub const MAX_AUDITED_METHOD: usize = 256;

/// Streams on one client connection. More are refused by HTTP/2, and the client queues them.
pub const MAX_STREAMS_PER_CONNECTION: u32 = 2048;

/// Bytes of one stream that wait for a slow reader, in each direction. Above a round trip's worth at full speed.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// Bytes of all streams of one connection that wait: every stream may fill its window without slowing another.
pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS_PER_CONNECTION;

/// One frame from a guest. Twice HTTP/2's default: each costs the guest a turn, and a small call waits for one at most.
pub const MAX_FRAME: u32 = 32 * 1024;

/// Bytes of one stream that wait to be framed. Little: a small call queues behind all of it.
pub const SEND_BUFFER: usize = 64 * 1024;

/// A header block, as HTTP/2 counts it. More is refused.
pub const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Streams that a peer may open and reset before they are looked at. More ends its connection ("rapid reset").
pub const MAX_PENDING_RESETS: usize = 64;

/// Calls that were cancelled and whose late frames from the guest are still recognised, and ignored. As many as can be
/// cancelled within [`RESET_KNOWN`] by clients in a hurry; a kilobyte each.
pub const MAX_RESETS_KNOWN: usize = 8 * 1024;

/// ... and for how long. What was on its way when the guest heard of it has arrived by then, unless the guest was paused.
pub const RESET_KNOWN: Duration = Duration::from_secs(5);

/// Frames of a session that come for calls that are not recognised any more. Each is answered with a reset; more end the
/// session, for a guest that sends nothing else would have us hold the answers. It must be far above what a long life of
/// cancelled calls and pauses adds up to: the session is all clients'.
pub const MAX_LATE_FRAMES: usize = 64 * 1024;

/// Client connections that say nothing are asked for a sign of life so often.
pub const CLIENT_KEEPALIVE: Duration = Duration::from_secs(60);

/// ... and have so long to answer.
pub const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// After SIGTERM, calls under way have so long to end.
pub const DRAIN: Duration = Duration::from_secs(5);

/// When the bridge stops, it leaves a channel on which nothing has come for so long.
pub const PARTING_QUIET: Duration = Duration::from_millis(20);

/// ... or after so long in any case.
pub const PARTING: Duration = Duration::from_millis(500);

/// Changes of guests that a WatchGuests stream may be behind. More, and it gets a snapshot instead.
pub const WATCH_BACKLOG: usize = 1024;

/// First wait before a hypervisor that could not be connected is tried again. Each further one doubles it.
pub const HYPERVISOR_RETRY_FIRST: Duration = Duration::from_millis(500);

/// ... and the longest.
pub const HYPERVISOR_RETRY_MAX: Duration = Duration::from_secs(30);

/// Longest wait before a connection to a hypervisor that has broken is opened again.
pub const HYPERVISOR_RECONNECT_MAX: Duration = Duration::from_secs(2);

/// How long a hypervisor may take for one answer. What it was asked about is looked at again later.
pub const HYPERVISOR_ANSWER: Duration = Duration::from_secs(20);

/// How long it may take to look at one domain, while what happened to others waits.
pub const HYPERVISOR_LOOK: Duration = Duration::from_secs(5);

/// Domains that a hypervisor is asked about at once: what one connection takes without calls waiting in it.
pub const HYPERVISOR_QUESTIONS: usize = 4;

/// All domains are looked at anew so often. Events tell what happens; this mends what was missed or could not be asked.
pub const HYPERVISOR_REVIEW: Duration = Duration::from_secs(60);

/// How long a hypervisor may take to start a domain, or to stop it: its memory and its disks may be large. Then the caller is
/// told that it may still be done.
pub const DOMAIN_ACT: Duration = Duration::from_secs(120);

/// Hypervisors that are asked at once for one caller. The others wait for their turn.
pub const HYPERVISORS_AT_ONCE: usize = 16;

/// Domains in one list: about two megabytes, where clients take four. More are RESOURCE_EXHAUSTED; one hypervisor alone may be
/// asked, or the list be watched, which comes in pieces.
pub const MAX_LISTED_DOMAINS: usize = 8192;

/// Bytes of what a caller calls a domain. libvirt's own names are shorter.
pub const MAX_DOMAIN_NAME: usize = 1024;

/// Characters of what a hypervisor says that are passed on in a sentence. The rest is cut off.
pub const MAX_FOREIGN_TEXT: usize = 1024;

/// All sockets of a folder are looked at anew so often, and the folder is watched anew: its path may be another one's by then.
pub const FOLDER_REVIEW: Duration = Duration::from_secs(60);

/// Wait before a folder of sockets is watched anew that is not there.
pub const FOLDER_RETRY: Duration = Duration::from_millis(500);

/// Events of a folder that are read at once, in bytes. What does not fit waits in the kernel, which tells when it was too much.
pub const INOTIFY_BUFFER: usize = 16 * 1024;

/// A guest's metrics that were asked for so lately are given to whoever scrapes then, too.
pub const SAMPLE_SHARED: Duration = Duration::from_secs(1);

/// How long a guest may take to tell its metrics. Without them the scrape goes on: Prometheus itself waits for ten seconds.
pub const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// Guests that are asked for their metrics at once.
pub const SAMPLES_AT_ONCE: usize = 256;

/// CPUs of one guest with series of their own: eight each. Those above have none.
pub const MAX_SERIES_CPUS: usize = 64;

/// Disks of one guest with series of their own, and network interfaces. Those above have none.
pub const MAX_SERIES_DEVICES: usize = 64;

/// Characters of a name that a guest makes up, in a label. The rest is cut off.
pub const MAX_LABEL: usize = 64;

/// One line from a QEMU monitor. A longer one ends the connection to it.
pub const MAX_MONITOR_LINE: u64 = 1024 * 1024;

/// Wait before a QEMU monitor is connected again.
pub const MONITOR_RETRY: Duration = Duration::from_secs(1);

/// Part of `/proc/net/unix` that is searched for other clients of channels.
pub const MAX_SOCKET_TABLE: u64 = 4 * 1024 * 1024;

/// A look at that table serves all guests that ask within this time: two looks a second at most, of 20 ms with 4096 guests.
pub const SOCKET_TABLE_SHARED: Duration = Duration::from_millis(500);

// === the JSON API ===

/// A request's body: what the API's design has as `max_request_size`. A larger one is answered with 413.
pub const MAX_JSON_BODY: usize = 10 * 1024 * 1024;

/// Bodies of all requests together: each is held as text and as what it says. A request more is answered with 503.
pub const MAX_JSON_BODIES: usize = 64 * 1024 * 1024;

/// Requests at once, of all guests: an answer is held whole, and takes up to some megabytes. One more is answered with 503.
pub const MAX_JSON_CALLS: usize = 64;

/// How long a body may take to come, for whoever sends none holds a place. Then the answer is 504.
pub const JSON_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a guest may take for a request that does not say (`timeout`). Then the answer is 504; of a command, which is
/// killed then, 200 with its own code.
pub const DEFAULT_JSON_TIMEOUT: Duration = Duration::from_secs(30);

/// The shortest `timeout` that a request may ask for. Less is an invalid parameter.
pub const MIN_JSON_TIMEOUT: Duration = Duration::from_millis(1);

/// The longest `timeout` that a request may ask for. More is an invalid parameter.
pub const MAX_JSON_TIMEOUT: Duration = Duration::from_secs(300);

/// A command whose time is over has so long to end by itself before it is killed.
pub const JSON_KILL_GRACE: Duration = Duration::from_secs(1);

/// ... and its guest so long to tell its end.
pub const JSON_END_MARGIN: Duration = Duration::from_secs(3);

/// Bytes of each of a command's outputs that are returned: all that `Exec.Run` gives. The rest is lost, and that is told.
pub const MAX_JSON_OUTPUT: u64 = 1024 * 1024;

/// Bytes of a file that a download gives if it does not say how many: as the API's design has it.
pub const DEFAULT_JSON_DOWNLOAD: u64 = 64 * 1024;

/// The most that it may ask for. More is an invalid parameter: whoever wants the whole file asks again, or uses `Files.Read`.
pub const MAX_JSON_DOWNLOAD: u64 = 1024 * 1024;

/// The largest file of which the information has a digest: a guest reads all of it for that. Others have none.
pub const MAX_JSON_DIGEST: u64 = 64 * 1024 * 1024;

/// Bytes of one message of an upload. `Files.Write` takes twice as many.
pub const JSON_UPLOAD_CHUNK: usize = 128 * 1024;

/// Characters of an answer's `detail`, which may be what a command has written. The rest is cut off.
pub const MAX_JSON_DETAIL: usize = 1024;

// === tunnels, in the command line ===

/// Bytes that are read of a local connection at once: a message of so many fills one frame.
pub const TUNNEL_READ: usize = MAX_FRAME as usize;

/// Messages of one connection that wait to be sent. With it full nothing is read from the connection.
pub const TUNNEL_QUEUE: usize = 2;

/// How long it may take to tell a guest that a connection was broken off here. Then the call is dropped.
pub const TUNNEL_ABORT: Duration = Duration::from_secs(5);

/// Connections of one `vbridge forward` at once. More wait in the kernel's backlog; an agent serves so many.
pub const MAX_TUNNELS: usize = 256;

/// UDP senders of one address that are told apart at once. More and the datagrams of new ones are lost.
pub const MAX_UDP_PEERS: usize = 128;

/// Datagrams of one sender that wait to be sent. More are lost, as a full queue of the network would lose them.
pub const UDP_QUEUE: usize = 64;

/// A UDP sender of whom and for whom nothing has come for so long is forgotten. As for connections that are tracked by Linux
/// (`nf_conntrack_udp_timeout_stream`).
pub const UDP_IDLE: Duration = Duration::from_secs(120);

/// Room for the largest datagram that there is.
pub const DATAGRAM: usize = 64 * 1024;

/// First wait before a guest that is lost is asked again to listen. Each further one doubles it.
pub const LISTEN_RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest of these waits.
pub const LISTEN_RETRY_MAX: Duration = Duration::from_secs(10);

/// Pause after a failed accept: most likely the process is out of descriptors.
pub const TUNNEL_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === TLS on the link ===

/// How long the handshake with an agent may take. A slow guest needs a second; one that is paused is greeted again later.
pub const LINK_TLS: Duration = Duration::from_secs(10);

/// How long a session is left alone after TLS has failed because of a certificate. Each further time doubles it.
pub const LINK_REFUSED_FIRST: Duration = Duration::from_secs(1);

/// Longest of these rests: a certificate that was mended is noticed within it.
pub const LINK_REFUSED_MAX: Duration = Duration::from_secs(30);

// === guests with only the QEMU guest agent ===

/// How long that agent may take for an answer that libvirt waits for. On a channel of its own the channel's settings say it.
pub const AGENT_ANSWER: Duration = CHANNEL_RECEIVE;

/// ... for one that may have to wait for the guest's disks: freezing, thawing, trimming.
pub const AGENT_SLOW_ANSWER: Duration = Duration::from_secs(600);

/// After that, libvirt has so long to say so itself.
pub const AGENT_ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// The largest message of that agent's channel: what a command may write of both outputs (16 MiB each), in base64. Give it to
/// `ChannelSettings`; libvirt itself takes 4 MiB.
pub const AGENT_MESSAGE: usize = 44 * 1024 * 1024;

/// Bytes of a file in one of its answers or commands: in base64 and JSON they fit into [`CHANNEL_MESSAGE`].
pub const AGENT_PIECE: usize = 512 * 1024;

/// Commands that it is known to have. One that lists more is not that agent; the rest counts as missing.
pub const MAX_AGENT_COMMANDS: usize = 1024;

/// What it allows is asked again before a call is refused, but not more often than this.
pub const AGENT_INFO_AGE: Duration = Duration::from_secs(2);

/// Commands of `Exec.Run` under way in one guest. More are RESOURCE_EXHAUSTED: each is asked about again and again.
pub const MAX_AGENT_RUNS: usize = 32;

/// Files of one guest that are read and written at once, as `files.proto` promises.
pub const MAX_AGENT_FILES: usize = 32;

/// First wait before that agent is asked whether a command has ended. Each further one is half as long again.
pub const AGENT_POLL_FIRST: Duration = Duration::from_millis(10);

/// ... and the longest while the caller waits.
pub const AGENT_POLL_MAX: Duration = Duration::from_secs(1);

/// ... and when nobody waits any more: only so that the agent can forget the command.
pub const AGENT_POLL_ALONE: Duration = Duration::from_secs(30);

/// A command that nobody waits for is asked about for so long. After that the agent remembers its outcome for ever.
pub const AGENT_POLL_END: Duration = Duration::from_secs(3600);

/// Questions about a command that fail one after the other before its call does.
pub const AGENT_POLL_FAILURES: u32 = 3;

/// A standstill that can't be ended is tried to be ended so often. The first wait before that is a second, and each further
/// one is twice as long, up to half a minute.
pub const THAW_TRIES: u32 = 60;

/// Bytes of a field of that agent's answers that are passed on. The rest is cut off.
pub const MAX_AGENT_TEXT: usize = 4096;

/// How long the first message of an upload may take, as `files.proto` promises.
pub const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Bytes that wait between the bridge and its adapter, each way. Then the sender waits.
pub const ADAPTER_BUFFER: usize = 256 * 1024;

/// How often qemu-guest-agent is asked for a sign of life. It carries out one command at a time, for the bridge and libvirt's users.
pub const ADAPTER_PING: Duration = Duration::from_secs(20);

// === channels of other agents ===

/// A message on another agent's channel, in either direction, unless the channel's user says otherwise. A longer one is not
/// sent, and one that comes is an error.
pub const CHANNEL_MESSAGE: usize = 1024 * 1024;

/// Bytes that are read of such a channel at once.
pub const CHANNEL_BUFFER: usize = 64 * 1024;

/// How long a message may take to leave. QEMU takes nothing when the guest's agent does not read.
pub const CHANNEL_SEND: Duration = Duration::from_secs(10);

/// How long an agent may take to answer.
pub const CHANNEL_RECEIVE: Duration = Duration::from_secs(30);

/// First wait before another agent's channel is connected again. Each further one doubles it.
pub const CHANNEL_RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest of these waits.
pub const CHANNEL_RETRY_MAX: Duration = Duration::from_secs(60);

/// Characters of an agent's own error that are passed on. The rest is cut off.
pub const CHANNEL_ERROR_TEXT: usize = 512;

/// Protocols in one registry. One more is an error: a program that makes up names is the likeliest cause.
pub const MAX_PROTOCOLS: usize = 64;

// === the command line, as a client ===

/// How long an answer may take, unless it is said (`--timeout`, `read_timeout`).
pub const CLIENT_ANSWER: Duration = Duration::from_secs(10);

/// How long it may take to connect to a bridge, unless it is said; no longer than an answer may.
pub const CLIENT_CONNECT: Duration = Duration::from_secs(5);

/// Retries of one call that may be asked for. More is a mistake: it would be a service, and not a command.
pub const MAX_RETRIES: u32 = 100;

/// Longest wait before one of them, however fast they become rarer.
pub const CLIENT_RETRY_MAX: Duration = Duration::from_secs(300);
