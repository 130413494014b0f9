//! A libvirt client in pure Rust: hypervisors, domains, networks, storage and their events, without libvirt's C library.
//!
//! It speaks libvirt's own protocol to the daemon (libvirtd, virtqemud, virtproxyd …), on this host or on another one,
//! asynchronously on tokio: any number of calls, streams and subscriptions at once. Every procedure of the protocol can be
//! called, and most of them have a method of a [`Connect`], a [`Domain`] or another handle.
//!
//! ```no_run
//! use libvirt::raw::api::{ConnectListAllDomainsFlags, DomainCreateFlags, ErrorNumber};
//! use libvirt::{Connect, Error};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let connect = Connect::open("qemu:///system").await?;
//! for domain in connect.domains(ConnectListAllDomainsFlags::ACTIVE).await? {
//!     println!("{} is {}", domain.name(), domain.state().await?.state);
//! }
//! match connect.domain_by_name("web").await {
//!     Ok(web) => web.start(DomainCreateFlags::empty()).await?,
//!     Err(error) if error.is(ErrorNumber::NoDomain) => println!("there is no domain web"),
//!     Err(error) => return Err(error),
//! }
//! connect.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! ```text
//!                         your program
//!            │                                  │
//!   ┌────────▼──── high ─────────────┐          │        handles, flags, values, events;
//!   │ Connect  Domain  StorageVol  … │          │        opens a connection, and opens it again
//!   └────────┬───────────────────────┘          │
//!   ┌────────▼──── raw ─────────────────────────▼───┐    one method a procedure, one type a struct: generated
//!   │ Remote      Qemu      Lxc      Admin          │
//!   └────────┬──────────────────────┬───────────────┘
//!            │          ┌───────────▼───────────────┐
//!            │          │ libvirt-xdr: RFC 4506     │    values as bytes
//!            │          └───────────────────────────┘
//!   ┌────────▼──── rpc ─────────────────────────────┐    packets: calls that overlap, streams, events, keepalive;
//!   │ Client   RawStream   Messages                 │    a state machine without I/O, and one task that does the I/O
//!   └────────┬──────────────────────────────────────┘
//!   ┌────────▼──── transport ───────────────────────┐
//!   │ Unix socket    TCP    TLS    ssh    a program │
//!   └────────┬──────────────────────────────────────┘
//!         the daemon
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`Connect`], [`Builder`] | a connection, and what it may be told before it is opened |
//! | [`States`] | whether it is up, and what it has been through |
//! | [`domain`], [`Network`], [`StoragePool`], [`StorageVol`], [`NodeDevice`], [`Secret`], [`NwFilter`], [`Interface`] | handles on what the daemon manages |
//! | [`admin`] | a daemon itself: its servers, clients, threads and logs |
//! | [`events`] | what happens, as streams that survive a reconnect |
//! | [`Params`], [`Code`] | libvirt's typed parameters, and its numbers, which may be newer than this crate |
//! | [`raw`] | the protocol as it is |
//! | [`raw::api`] | flags, states and error numbers, which all layers share |
//! | [`rpc`] | one connection: calls by number, streams, messages |
//! | [`uri`], [`transport`], [`auth`] | who is connected to, how the bytes get there, who we are |
//! | [`Environment`] | the sockets' directory, the user and the variables that all this depends on |
//!
//! # Errors
//!
//! An [`Error`] is one clear sentence. What the daemon reported is [`Error::Libvirt`] with libvirt's own number, and
//! [`Error::is`] and [`Error::kind`] ask for it; what befell the connection is [`Error::Connection`]. More than the
//! sentence, such as where in a packet it stands, is in [`source`](std::error::Error::source). Errors can be cloned, since
//! a connection that ends tells everybody who waits on it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use libvirt::{Connect, Error};
//!
//! let error = Connect::open("qemu:///system?socket=/nowhere/libvirt-sock").await.unwrap_err();
//! assert!(matches!(error, Error::Transport(_)));
//! assert_eq!(
//!     error.to_string(),
//!     "no libvirt daemon is running here: there is no /nowhere/libvirt-sock; \
//!      start the daemon that makes it, or correct socket= in the URI"
//! );
//! # }
//! ```
//!
//! # Without a daemon
//!
//! A connection runs over any stream of bytes. So what a program makes of answers can be tried with a daemon of a few lines:
//!
//! ```
//! use libvirt::raw::remote::Remote;
//! use libvirt::rpc::{Client, KeepaliveConfig};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (ours, mut theirs) = tokio::io::duplex(1024);
//! let remote = Remote::new(Client::over(ours, KeepaliveConfig::default()));
//! let daemon = async move {
//!     // A call without arguments: length, program, version, procedure, type, serial and status.
//!     let mut packet = [0; 28];
//!     theirs.read_exact(&mut packet).await?;
//!     // Its reply has the type 1, and the same otherwise; behind that a number of eight bytes.
//!     packet[..4].copy_from_slice(&36_u32.to_be_bytes());
//!     packet[16..20].copy_from_slice(&1_u32.to_be_bytes());
//!     theirs.write_all(&packet).await?;
//!     theirs.write_u64(11_003_000).await?;
//!     std::io::Result::Ok(())
//! };
//! let (version, served) = tokio::join!(remote.connect_get_lib_version(), daemon);
//! served?;
//! assert_eq!(version?.lib_ver, 11_003_000);
//! # Ok(())
//! # }
//! ```
//!
//! # Deadlines and cancellation
//!
//! Opening a connection takes 30 s at most ([`Builder::open_within`]). A call has no deadline unless it is given one, since
//! a save or a migration may take hours: [`Builder::deadline`] is for all calls of a connection,
//! [`Connect::with_deadline`] for those that are made through its result and through handles found on it. It bounds a
//! subscription and the opening of a stream, and not what flows in it.
//!
//! Every future may be dropped. A call that has not left is taken back then; one that has left is carried out by the daemon,
//! as the protocol cannot recall it, and its answer is thrown away. The same holds for a call whose deadline passes.
//!
//! # When the connection breaks
//!
//! Everything that waits fails at once with the reason; nothing hangs. A daemon that is silent is noticed by keepalive,
//! after 30 s unless [`Builder::keepalive`] says otherwise. Without [`Builder::reconnect`] that is the end. With it the
//! connection is opened again, with growing pauses: meanwhile calls fail at once, [`Connect::ready`] waits, and
//! [`Connect::states`] tells. No call is made a second time, for only the caller knows whether that is right.
//! Handles stay good. A stream lives and ends with its own connection, which is watched in the same way.
//!
//! # Streams
//!
//! Consoles, channels, screenshots and the content of volumes are a [`RawStream`](rpc::RawStream): [`AsyncRead`] and
//! [`AsyncWrite`], or [`chunk`](rpc::RawStream::chunk) and [`send_hole`](rpc::RawStream::send_hole) for who wants to see
//! the holes of a sparse volume. The protocol cannot slow down one stream alone. So **each stream has a connection of its
//! own** to the daemon, which a reader may leave unread for as long as it likes; [`Builder::share_streams`] trades that
//! for fewer connections.
//!
//! A stream has no half-close: [`finish`](rpc::RawStream::finish), which `shutdown` does as well, ends both directions. An
//! upload has succeeded when that returns without an error. A dropped stream is aborted.
//!
//! [`into_split`](rpc::RawStream::into_split) gives each direction to a task of its own:
//!
//! ```no_run
//! # async fn echo(domain: libvirt::Domain) -> Result<(), Box<dyn std::error::Error>> {
//! use libvirt::raw::api::DomainChannelFlags;
//! use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
//!
//! let channel = domain.open_channel(None, DomainChannelFlags::empty()).await?;
//! let (from_guest, mut to_guest) = channel.into_split();
//! let answers = tokio::spawn(async move {
//!     let mut lines = BufReader::new(from_guest).lines();
//!     while let Some(line) = lines.next_line().await? {
//!         println!("{line}");
//!         if line == "done" {
//!             break;
//!         }
//!     }
//!     Ok::<_, std::io::Error>(())
//! });
//! to_guest.write_all(b"work\n").await?;
//! answers.await??;
//! to_guest.finish().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! ```no_run
//! # async fn watch(connect: libvirt::Connect) -> Result<(), libvirt::Error> {
//! use libvirt::Notice;
//! use libvirt::events::DomainEventId;
//!
//! let kinds = [DomainEventId::Lifecycle, DomainEventId::Reboot];
//! let mut events = connect.domain_events(&kinds, None, None).await?;
//! while let Some(notice) = events.next().await {
//!     match notice? {
//!         Notice::Event(event) => println!("{}: {:?}", event.domain.name(), event.kind),
//!         // Too slow, or the connection was gone: look at the state anew.
//!         Notice::Missed(_) | Notice::Reconnected => println!("something was missed"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A kind that the daemon does not have is an error that names it, in every family; `supported_…_events` says which it has.
//! What happens after the subscription was made is not missed, and kinds that were subscribed to together keep their
//! order. A subscriber that lags holds up nobody: 16,384 events wait for it unless it says otherwise, of large ones as many as
//! are 32 MiB; then the oldest make room and [`Notice::Missed`] counts them. When the connection is opened again, its subscriptions are registered before it
//! is used, and [`Notice::Reconnected`] stands where the gap is: the connection is up then, so look at the state anew.
//!
//! # Limits
//!
//! What is bounded, why, and what happens there: [`limits`], [`rpc::limits`], [`transport::limits`], [`auth::limits`],
//! [`uri::limits`]. The daemon has limits of its own: it takes five requests of one client at a time, unless
//! `max_client_requests` says otherwise, and beyond that reads not even keepalive. So four calls go to it at a time and the
//! others wait here: [`Builder::calls_at_once`].
//!
//! # What is not there
//!
//! - **Drivers without a daemon.** In libvirt `esx`, `hyperv`, `vpx`, `test` and `qemu:///embed` run within the C library.
//!   Here a daemon opens whatever it is that a URI names: `test:///default` needs a libvirtd.
//! - **Migration steered by the client.** [`Domain::migrate_to_uri`] lets two daemons do it by themselves (peer to peer);
//!   the procedures for the rest are in [`raw`].
//! - **SASL DIGEST-MD5, GSSAPI and the mechanisms with `-PLUS`.** There are SCRAM, EXTERNAL, and PLAIN where nobody can
//!   listen and the daemon is known to be the one that is meant.
//! - **libssh and libssh2.** Their URIs are understood and served by the program `ssh`, with its configuration.
//! - **GnuTLS's priority strings, TLS before 1.2, encrypted key files.**
//! - **Events of daemons from before 2014**, which know only older registrations.
//! - **Starting a session's daemon.** libvirt's library starts one where none runs for `qemu:///session`; here it must
//!   run, such as by systemd's socket for the user.
//! - **Methods for some procedures**, which are called through [`raw`]: QEMU's adoption of a process; older ones whose
//!   successors have methods; and the identity for which a proxy speaks (`connect_set_identity`), which a connection that is
//!   opened again or for a stream would not have. What is newer than this crate is called by its number
//!   ([`Connect::call_raw`]).
//! - **Asking a person for a password.** It is in [`Credentials`](auth::Credentials) or auth.conf before a connection is
//!   opened; only polkit's agent and ssh ask.
//! - **Systems other than Unix, and runtimes other than tokio.**
//!
//! The protocol, with the places where libvirt's documents and the wire disagree, is in `docs/libvirt.md` of the
//! repository.
//!
//! [`AsyncRead`]: tokio::io::AsyncRead
//! [`AsyncWrite`]: tokio::io::AsyncWrite

pub mod admin;
pub mod auth;
mod code;
mod connect;
pub mod domain;
mod environment;
mod error;
pub mod events;
mod files;
mod interface;
mod network;
mod node;
mod node_device;
mod nwfilter;
mod object;
mod params;
pub mod raw;
pub mod rpc;
mod secret;
mod storage;
pub mod transport;
pub mod uri;

pub use code::{Code, Enumeration};
pub use connect::{Backoff, Builder, Connect, ConnectState, States, limits};
pub use domain::{Domain, DomainCheckpoint, DomainSnapshot};
pub use environment::Environment;
pub use error::{Error, ErrorSubject, RemoteError};
pub use events::{Events, Notice};
pub use interface::Interface;
pub use network::{DhcpLease, Network, NetworkPort};
pub use node::{CpuMap, NodeInfo, SecurityModel, Version};
pub use node_device::NodeDevice;
pub use nwfilter::{NwFilter, NwFilterBinding};
pub use params::{Params, Value};
pub use secret::Secret;
pub use storage::{StoragePool, StoragePoolInfo, StorageVol, StorageVolInfo};

/// The code in the README is compiled, and run where it can be.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
