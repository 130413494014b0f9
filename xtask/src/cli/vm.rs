//! `cargo xtask vm`: the guest alone.

use anyhow::{Context, Result};
use clap::Args;
use xtask::image::Image;
use xtask::qemu::{Vm, VmBuilder};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Boot the guest that has Debian with systemd on a disk.
    #[arg(long, conflicts_with_all = ["no_agent", "agent_arg"])]
    system: bool,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u32,
    /// Words for the kernel's command line.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    kernel_append: Vec<String>,
    /// An argument of the agent; may be given more than once.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    agent_arg: Vec<String>,
    /// Boot without an agent, and without building it.
    #[arg(long)]
    no_agent: bool,
    /// An argument of QEMU; may be given more than once.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
}

pub(super) async fn run(options: Options) -> Result<()> {
    let mut builder = Vm::builder().cpus(options.cpus).memory_mib(options.memory);
    if options.system {
        builder = builder.image(&Image::system()?);
    } else if options.no_agent {
        builder = builder.image(&Image::builder().build()?).agent("none");
    }
    builder = options
        .kernel_append
        .into_iter()
        .fold(builder, VmBuilder::append);
    builder = options
        .agent_arg
        .into_iter()
        .fold(builder, VmBuilder::agent_arg);
    builder = options
        .qemu_arg
        .into_iter()
        .fold(builder, VmBuilder::qemu_arg);
    let vm = builder.boot().await?;

    println!("{}", summary(&vm));
    let channel = vm.channel();
    println!(
        "The bridge:       vbridge serve --guest demo=unix:{}",
        channel.display()
    );
    println!(
        "The raw port:     socat - UNIX-CONNECT:{}",
        vm.raw_channel().display()
    );
    println!(
        "QEMU's monitor:   socat - UNIX-CONNECT:{}",
        vm.monitor().display()
    );
    println!("The console:      tail -f {}", vm.console_log().display());
    println!("Ctrl-C ends the guest.");
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C")?,
        () = vm.ended() => println!("The guest has powered off."),
    }
    vm.shutdown().await
}

/// One line about a guest that has booted.
pub(super) fn summary(vm: &Vm) -> String {
    let seconds = vm.boot_time().as_secs_f64();
    format!(
        "The guest is up after {seconds:.1} s (accelerator {}).",
        vm.accelerator().name()
    )
}
