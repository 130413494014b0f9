//! Channels of other agents: for programs that have an agent of their own on a virtio-serial port.
//!
//! ```text
//!   your program
//!      │ request, send, receive                          GuestAgent: the QEMU guest agent's own protocol
//!   Protocol ── VirtioSerialProtocol                        │
//!      │           encodes and decodes: ProtocolHandler     │
//!      └──────────────────┬─────────────────────────────────┘
//!                   VirtioChannel: time-outs, limits, lines
//!                         │ the channel's Unix socket
//!                       QEMU ── /dev/virtio-ports/NAME ── your agent
//! ```
//!
//! A channel's connection:
//!
//! ```text
//!            connect, connect_with_retry
//!    Closed ────────────────────────────▶ Open ──┐
//!      ▲                                   │ ▲   │ send, receive; one that times out or is dropped
//!      │                                   │ └───┘ loses no byte and leaves no half message behind
//!      ├── disconnect ─────────────────────┤
//!      ├── the other end closes ───────────┤
//!      └── an error; framing that is lost ─┘
//! ```
//!
//! What was received and not yet taken ends with its connection: no byte of an old connection reaches a message of a new
//! one, and half a line is dropped. **The guest is not told** of either end: what had been sent waits in its port for whoever
//! reads next, and an agent that was writing goes on where it was. So an agent should ignore a line that makes no sense, and
//! an exchange that must never take one answer for another should carry a number, as the QEMU guest agent's does.
//!
//! | module | what it decides |
//! |---|---|
//! | `virtio` | where the channel is, whether it is connected |
//! | `connection` | which bytes make up a message |
//! | `writer` | what becomes of a message whose sender gives up |
//! | `protocol` | what a protocol is, and what one's own has to say |
//! | `handler` | how bytes and JSON are wrapped |
//! | `serial` | requests and their answers |
//! | `registry` | which protocols there are |
//! | `qga` | how the QEMU guest agent is talked to |
//! | `error` | what is said when it fails |
//!
//! ```no_run
//! use bridge_host::channel::{Protocol, ProtocolError, VirtioSerialBuilder};
//!
//! # async fn talk(domain: libvirt::Domain) -> Result<(), ProtocolError> {
//! let mut agent = VirtioSerialBuilder::new("com.vmagent.sock").with_json_handler().build();
//! agent.connect(&domain).await?;
//! assert_eq!(agent.request(b"ping").await?, b"pong");
//! agent.disconnect().await?;
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;
mod handler;
mod protocol;
mod qga;
mod registry;
mod serial;
mod virtio;
mod writer;

pub use error::ProtocolError;
pub use handler::{JsonProtocolHandler, RawProtocolHandler};
pub use protocol::{Protocol, ProtocolHandler};
pub use qga::{AgentCommand, AgentInfo, GuestAgent, QGA_CHANNEL};
pub use registry::ProtocolRegistry;
pub use serial::{VirtioSerialBuilder, VirtioSerialProtocol};
/// What `impl Protocol` and `impl ProtocolHandler` need before them.
pub use tonic::async_trait;
pub use virtio::{ChannelSettings, VirtioChannel};
