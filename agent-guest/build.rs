//! Leaves the unwind tables out of programs that never unwind.
//!
//! Where a panic aborts, nothing reads `.eh_frame`; the compiler still writes it, for the standard library comes with debug
//! information, which asks for it in every function of the one module that link-time optimisation makes. It is a tenth of
//! the agent. A panic is still reported with its place, without a backtrace.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind.ld");
    // cargo does not tell what a panic does in a profile. Of ours only `guest` is for size, and there a panic aborts.
    if env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/no-unwind.ld");
    }
}
