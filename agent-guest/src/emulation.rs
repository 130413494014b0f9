//! Makes the agent fast on a CPU that QEMU emulates in software.
//!
//! glibc copies large blocks with `rep movsb`, which is the best way on a real CPU. QEMU's emulator (TCG) announces
//! the instruction as fast and then carries it out byte by byte: a copy of 16 KiB ran at 0.5 GB/s where the same
//! with vector instructions ran at 5 GB/s (QEMU 7.2, glibc 2.36).
//!
//! And it gives memory back to the kernel as soon as 128 KiB of it are free. The next piece of a file takes it again, and
//! each page is then cleared by such an instruction: of reading a file, a tenth of the guest's time.
//!
//! glibc reads its tunables before `main`, so the program starts itself once more with the right ones.

use std::{env, os::unix::process::CommandExt as _, process::Command};

const TUNABLES: &str = "GLIBC_TUNABLES";

/// No enhanced `rep movsb` (ERMS) and no fast short one (FSRM). One heap for all threads, of which up to 2 MiB stay when they
/// are free; what is larger than 1 MiB has pages of its own.
const TUNED: &str = "glibc.cpu.hwcaps=-ERMS,-FSRM:glibc.malloc.arena_max=1\
     :glibc.malloc.trim_threshold=2097152:glibc.malloc.mmap_threshold=1048576";

/// On an emulated CPU, starts this program anew with tuned copies and memory; returns everywhere else, and when that fails.
///
/// Call it before anything else. An operator who has set `GLIBC_TUNABLES` is not overruled.
pub fn tune() {
    if env::var_os(TUNABLES).is_some() || !is_emulated() {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It returns only if it fails, and then nothing is lost but speed.
    let _ = command.args(arguments).env(TUNABLES, TUNED).exec();
}

/// Whether the CPU is QEMU's emulator: it signs itself so in CPUID's hypervisor leaf.
#[cfg(target_arch = "x86_64")]
fn is_emulated() -> bool {
    const HYPERVISOR_LEAF: u32 = 0x4000_0000;
    const HYPERVISOR_BIT: u32 = 1 << 31;
    use std::arch::x86_64::__cpuid;
    if __cpuid(1).ecx & HYPERVISOR_BIT == 0 {
        return false;
    }
    let leaf = __cpuid(HYPERVISOR_LEAF);
    let signature: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx]
        .iter()
        .flat_map(|register| register.to_le_bytes())
        .collect();
    signature == b"TCGTCGTCGTCG"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_emulated() -> bool {
    false
}
