//! Procedures that are called by their numbers.

use anyhow::{Result, ensure};
use libvirt::{
    Connect, Error,
    raw::{
        api::ErrorNumber,
        remote::{DOMAIN_LOOKUP_BY_NAME, REMOTE_PROGRAM},
    },
};
use vbridge_tests::{fixture::story, libvirt::daemon::Libvirtd};

/// The text `test` as XDR has it.
const TEST: &[u8] = b"\0\0\0\x04test";

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, with: ErrorNumber) -> Result<()> {
    let error = result.unwrap_err();
    ensure!(error.is(with), "{error:?}");
    Ok(())
}

#[test]
fn a_procedure_is_called_by_its_number_and_one_that_the_daemon_does_not_have_is_refused() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("test")).await?;
        let call = async |number, arguments: &[u8]| {
            let arguments = arguments.to_vec();
            connect.call_raw(REMOTE_PROGRAM, number, arguments).await
        };
        let domain = connect.domain_by_name("test").await?;
        let mut expected = TEST.to_vec();
        expected.extend(domain.uuid().as_bytes());
        expected.extend(domain.raw().id.to_be_bytes());
        let found = call(DOMAIN_LOOKUP_BY_NAME.number, TEST).await?;
        ensure!(found[..] == expected, "{found:?}");

        let nobody = b"\0\0\0\x06nobody\0\0";
        refused(
            call(DOMAIN_LOOKUP_BY_NAME.number, nobody).await,
            ErrorNumber::NoDomain,
        )?;
        refused(call(9_999, b"").await, ErrorNumber::NoSupport)?;
        // Half of the arguments: the daemon can't read them.
        refused(
            call(DOMAIN_LOOKUP_BY_NAME.number, &TEST[..6]).await,
            ErrorNumber::Rpc,
        )?;

        ensure!(call(DOMAIN_LOOKUP_BY_NAME.number, TEST).await?[..] == expected);
        ensure!(connect.client()?.ignored_packets() == 0);
        Ok(())
    }));
}
