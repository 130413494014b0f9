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
    _guest: Guest,
}

impl World for Real {
    fn place(&self) -> Place {
        self.bridge.place("guest")
    }
}

fn main() -> ExitCode {
    let mut suite = Suite::new(|| async {
        let guest = Guest::boot(1).await?;
        let bridge = Bridge::start([guest.seat("guest")]).await?;
        bridge.ready("guest").await?;
        Ok(Real {
            bridge,
            _guest: guest,
        })
    });
    clients::add_tests(&mut suite);
    suite.main()
}
