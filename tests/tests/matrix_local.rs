//! Every kind of call through a bridge and an agent on a Unix socket, compared with the same service directly.

#![allow(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as expected"
)]

use std::process::ExitCode;

use vbridge_tests::{
    exercise::Reference,
    fixture::{Bridge, LocalAgent},
    for_every_case,
    matrix::{self, compare},
    place::Place,
    suite::Suite,
};

struct World {
    reference: Reference,
    bridge: Bridge,
    _agent: LocalAgent,
}

fn main() -> ExitCode {
    let mut suite = Suite::new(|| async {
        let agent = LocalAgent::start().await?;
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        Ok(World {
            reference: Reference::start().await?,
            bridge,
            _agent: agent,
        })
    });
    macro_rules! tests {
        ($($case:ident,)*) => {$(
            suite.test(stringify!($case), |world: std::sync::Arc<World>| async move {
                let reference = Place::reference(world.reference.address());
                compare((matrix::$case, matrix::$case), &reference, &world.bridge.place("local")).await
            });
        )*};
    }
    for_every_case!(tests);
    suite.test(
        "the_bridge_stays_small_while_nobody_reads",
        |world: std::sync::Arc<World>| async move {
            let resident = || world.bridge.resident_bytes();
            matrix::memory_stays_flat(world.bridge.place("local"), resident).await
        },
    );
    suite.main()
}
