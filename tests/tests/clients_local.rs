//! grpcurl, Python and Node through a bridge and an agent on a Unix socket.

use std::process::ExitCode;

use vbridge_tests::{
    clients::{self, World},
    fixture::{Bridge, LocalAgent},
    place::Place,
    suite::Suite,
};

struct Local {
    bridge: Bridge,
    _agent: LocalAgent,
}

impl World for Local {
    fn place(&self) -> Place {
        self.bridge.place("local")
    }
}

fn main() -> ExitCode {
    let mut suite = Suite::new(|| async {
        let agent = LocalAgent::start().await?;
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        Ok(Local {
            bridge,
            _agent: agent,
        })
    });
    clients::add_tests(&mut suite);
    suite.main()
}
