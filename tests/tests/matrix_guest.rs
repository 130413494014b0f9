//! Every kind of call through a bridge and a real guest, compared with the same service directly.

#![allow(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as expected"
)]

use std::process::ExitCode;

use vbridge_tests::{
    exercise::Reference,
    fixture::{Bridge, Guest},
    for_every_case,
    matrix::{self, compare},
    place::Place,
    suite::Suite,
};

struct World {
    reference: Reference,
    bridge: Bridge,
    guest: Guest,
}

fn main() -> ExitCode {
    let setup = || async {
        let guest = Guest::boot(1).await?;
        let bridge = Bridge::start([guest.seat("guest")]).await?;
        bridge.ready("guest").await?;
        Ok(World {
            reference: Reference::start().await?,
            bridge,
            guest,
        })
    };
    let mut suite = Suite::new(setup).telling(|world: &World| {
        format!("{}{}", world.bridge.log(), world.guest.vm().console_tail())
    });
    macro_rules! tests {
        ($($case:ident,)*) => {$(
            suite.test(stringify!($case), |world: std::sync::Arc<World>| async move {
                let reference = Place::reference(world.reference.address());
                compare((matrix::$case, matrix::$case), &reference, &world.bridge.place("guest")).await
            });
        )*};
    }
    for_every_case!(tests);
    suite.test(
        "the_bridge_stays_small_while_nobody_reads",
        |world: std::sync::Arc<World>| async move {
            let resident = || world.bridge.resident_bytes();
            matrix::memory_stays_flat(world.bridge.place("guest"), resident).await
        },
    );
    suite.main()
}
