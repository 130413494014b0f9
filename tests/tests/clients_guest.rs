//! grpcurl, Python and Node through a bridge and a real guest.

use std::process::ExitCode;

use vbridge_tests::{
    clients::{self, World},
    fixture::{Bridge, Guest},
    place::Place,
    suite::Suite,
};

struct Real {
    bridge: Bridge,
    guest: Guest,
}

impl World for Real {
    fn place(&self) -> Place {
        self.bridge.place("guest")
    }
}

fn main() -> ExitCode {
    let setup = || async {
        let guest = Guest::boot(1).await?;
        let bridge = Bridge::start([guest.seat("guest")]).await?;
        bridge.ready("guest").await?;
        Ok(Real { bridge, guest })
    };
    let mut suite = Suite::new(setup)
        .telling(|real: &Real| format!("{}{}", real.bridge.log(), real.guest.vm().console_tail()));
    clients::add_tests(&mut suite);
    suite.main()
}
