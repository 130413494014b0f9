//! A private libvirtd, real QEMU domains on it, and the C library to compare with.
//!
//! | module | what it is |
//! |---|---|
//! | `cell` | namespaces in which a daemon believes itself alone |
//! | [`daemon`] | libvirtd: started, killed, restarted, and gone without a trace |
//! | [`certificates`] | good and bad ones for its TLS port |
//! | [`domain`] | QEMU domains with our guest in them |
//! | [`client`] | virsh, and virt-admin |
//! | [`mod@reference`] | the C library, asked call by call |
//! | [`scene`] | one object of each kind, so that every call has something to answer |
//! | [`sshd`] | a real sshd beside it |
//! | [`limits`] | every limit, with its reason |
//!
//! ```no_run
//! # async fn story() -> anyhow::Result<()> {
//! use vbridge_tests::libvirt::{daemon::Libvirtd, domain::Domain};
//!
//! Libvirtd::builder()
//!     .max_client_requests(5)
//!     .run(async |daemon| {
//!         let domain = Domain::builder("guest").build().await?;
//!         domain.create(daemon).await?;
//!         domain.up(daemon, 1).await?;
//!         daemon.kill9().await?;
//!         daemon.start_again().await?;
//!         println!("{}", daemon.virsh(&["list"]).await?);
//!         Ok(())
//!     })
//!     .await
//! # }
//! ```
//!
//! Nothing here knows the Rust client: it finds a daemon at [`daemon::Libvirtd::socket_path`] or
//! [`daemon::Libvirtd::uri`], and its answers are held against [`reference::Reference`]'s.

mod cell;
pub mod certificates;
pub mod client;
pub mod daemon;
pub mod domain;
pub mod limits;
pub mod reference;
pub mod scene;
pub mod sshd;

use std::path::{Path, PathBuf};

/// The folder of the Python programs.
const PROGRAMS: &str = "clients/libvirt";

/// One of our programs for the system's Python, the one that has the C library's binding
/// ([`xtask::tools::system_python`]).
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(PROGRAMS)
        .join(name)
}
