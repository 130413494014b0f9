//! Developer commands of vbridge as a library: what `cargo xtask` does, and what the end-to-end tests
//! and benchmarks need to have a real guest.
//!
//! ```text
//! build ──► guest binaries ──► image ──► kernel + initramfs ──► qemu ──► Vm
//! tools ──► QEMU, busybox, grpcurl, Python and Node clients
//! ```
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # async fn example() -> anyhow::Result<()> {
//! let vm = xtask::qemu::Vm::builder().cpus(1).memory_mib(256).boot().await?;
//! let output = vm.exec("uname -r", Duration::from_secs(5)).await?;
//! println!("{} on {}", output.stdout_lossy().trim(), vm.channel().display());
//! vm.shutdown().await?;
//! # Ok(())
//! # }
//! ```

pub mod build;
pub mod command;
pub mod image;
pub mod limits;
pub mod qemu;
pub mod tools;
pub mod workspace;
