//! `vbridge`: the bridge as a service (`vbridge serve`), and commands that talk to a running one.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
