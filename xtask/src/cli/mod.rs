//! The command line.

mod checks;
mod demo;
mod fuzz;
mod vm;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use xtask::image::{self, Image};
use xtask::tools::{self, Scope};

/// Developer commands of vbridge.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it all: a guest, the bridge, and calls through them.
    Demo(demo::Options),
    /// Boot the guest alone, and leave it running until Ctrl-C.
    Vm(vm::Options),
    /// Run every test: the fast ones, and those on real guests with real clients.
    Test {
        /// Arguments for `cargo test --workspace`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure on a real guest.
    Bench {
        /// Arguments for the benchmark program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feed the libvirt client what nobody would send it, and look for panics and broken promises.
    Fuzz(fuzz::Options),
    /// Install what the guest and the tests need, or print the line that does.
    Tools {
        /// Only what a guest needs.
        #[arg(long)]
        guest: bool,
    },
    /// Build the guest's image and say where it is.
    Image {
        /// Take the newest kernel that apt offers, even if one is in the cache.
        #[arg(long)]
        newest_kernel: bool,
        /// The guest that has Debian with systemd on a disk.
        #[arg(long)]
        system: bool,
    },
}

pub(crate) fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Demo(options) => runtime()?.block_on(demo::run(options)),
        Command::Vm(options) => runtime()?.block_on(vm::run(options)),
        Command::Test { arguments } => checks::test(&arguments),
        Command::Bench { arguments } => checks::bench(&arguments),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Tools { guest } => tools::ensure(if guest { Scope::Guest } else { Scope::All }),
        Command::Image {
            newest_kernel,
            system,
        } => build_image(newest_kernel, system),
    }
}

fn build_image(newest_kernel: bool, system: bool) -> Result<()> {
    if newest_kernel {
        image::forget_kernel()?;
    }
    let image = match system {
        true => Image::system()?,
        false => Image::standard()?,
    };
    println!(
        "kernel     {} ({})",
        image.kernel().display(),
        image.kernel_package()
    );
    println!("initramfs  {}", image.initramfs().display());
    if let Some(disk) = image.disk() {
        println!("disk       {}", disk.display());
    }
    Ok(())
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}
