//! Every kind of call through a bridge and a guest of a hypervisor that is reached by TLS, compared with the same service
//! directly. The bridge does not see the hypervisor's files: all of it goes through libvirt's streams.

#![allow(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as expected"
)]

use std::process::ExitCode;

use vbridge_tests::{
    exercise::Reference,
    fixture::{Bridge, eventually},
    for_every_case,
    libvirt::{
        certificates::{ClientCertificate, ServerCertificate},
        daemon::{Auth, Libvirtd},
        domain::Domain,
        limits::BOOT,
    },
    matrix::{self, compare},
    place::Place,
    suite::Suite,
};

/// What ends first stands first.
struct World {
    reference: Reference,
    bridge: Bridge,
    domain: Domain,
    daemon: Libvirtd,
}

fn main() -> ExitCode {
    let setup = || async {
        let builder = Libvirtd::builder().tls(ServerCertificate::Good, Auth::None);
        let daemon = builder.start().await?;
        // As much memory as the guest of the other matrix: the largest messages need it.
        let domain = Domain::builder("guest").memory_mib(256).build().await?;
        domain.create(&daemon).await?;
        domain.up(&daemon, 1).await?;
        let uri = daemon.tls_uri("qemu", ClientCertificate::Good)?;
        let arguments = vec!["--libvirt".to_owned(), uri];
        let bridge = Bridge::start_with(Vec::new(), arguments).await?;
        // It has to have asked the hypervisor.
        let is_known = || async { Ok(bridge.guest("guest").await.is_ok()) };
        eventually("the guest", BOOT, is_known).await?;
        bridge.ready("guest").await?;
        Ok(World {
            reference: Reference::start().await?,
            bridge,
            domain,
            daemon,
        })
    };
    let mut suite = Suite::new(setup).telling(|world: &World| {
        let console = world.domain.console(&world.daemon);
        format!("{}{}{console}", world.bridge.log(), world.daemon.log())
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
