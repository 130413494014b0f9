//! ssh: through a real sshd that runs where the daemon does.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use libvirt::raw::api::{DomainDestroyFlagsValues, DomainXmlFlags, ErrorNumber};
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, sshd::Sshd},
};
use xtask::command::find_program;

use crate::{comes_in, is_refused, to};

/// That this host's netcat is one that knows Unix sockets.
fn has_netcat() -> Result<()> {
    let found = find_program("nc.openbsd");
    found
        .map(drop)
        .context("nc is missing: run `cargo xtask tools`, which installs it")
}

#[test]
fn a_daemon_is_reached_over_ssh_by_its_helper_and_by_netcat() {
    story(Libvirtd::builder().run(async |daemon| {
        has_netcat()?;
        let sshd = Sshd::start(daemon).await?;
        let uri = sshd.uri("client", "known");
        for more in [
            "",
            "&proxy=native",
            "&proxy=netcat",
            "&socket=/run/libvirt/libvirt-sock",
            "&netcat=nc.openbsd",
        ] {
            let opened = async {
                let connect = comes_in(to(&format!("{uri}{more}"))).await?;
                ensure!(connect.uri() == "test:///default", "{}", connect.uri());
                let domain = connect.domain_by_name("test").await?;
                let xml = domain.xml(DomainXmlFlags::empty()).await?;
                ensure!(xml.contains("<name>test</name>"), "{xml}");
                connect.close().await;
                anyhow::Ok(())
            };
            opened
                .await
                .with_context(|| format!("{more}\n{}", sshd.log()))?;
        }
        let reader = comes_in(to(&uri).read_only(true)).await?;
        let domain = reader.domain_by_name("test").await?;
        let denied = domain.destroy(DomainDestroyFlagsValues::empty()).await;
        ensure!(denied.is_err_and(|error| error.is(ErrorNumber::OperationDenied)));
        Ok(())
    }));
}

/// The name of a file is what it is, though ssh has signs in it for other things.
#[test]
fn a_key_is_found_whatever_its_file_is_called() {
    story(Libvirtd::builder().run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        for (name, written) in [
            ("a key", "a%20key"),
            ("%h", "%25h"),
            ("50%", "50%25"),
            ("$HOME", "$HOME"),
            ("it's #1", "it's%20%231"),
        ] {
            fs::copy(sshd.folder().join("client"), sshd.folder().join(name))?;
            comes_in(to(&sshd.uri(written, "known")))
                .await
                .with_context(|| format!("{name}\n{}", sshd.log()))?;
            let known = format!("known {name}");
            fs::copy(sshd.folder().join("known"), sshd.folder().join(&known))?;
            let known = format!("known%20{written}");
            comes_in(to(&sshd.uri("client", &known)))
                .await
                .with_context(|| format!("{known}\n{}", sshd.log()))?;
        }
        Ok(())
    }));
}

#[test]
fn a_host_whose_key_is_another_or_unknown_is_refused() {
    story(Libvirtd::builder().run(async |daemon| {
        let sshd = Sshd::start(daemon).await?;
        let words = ["ssh to localhost", "Host key verification failed"];
        let of_another = fs::read_to_string(sshd.folder().join("stranger.pub"))?;
        let line = format!("[localhost]:{} {of_another}", sshd.port());
        fs::write(sshd.folder().join("changed"), line)?;
        is_refused(to(&sshd.uri("client", "changed")), &words).await?;
        is_refused(to(&sshd.uri("client", "nobody")), &words).await?;
        // Unless the caller takes any, or the first that comes.
        let any = format!("{}&no_verify=1", sshd.uri("client", "changed"));
        comes_in(to(&any)).await.context(sshd.log())?;
        let first = format!("{}&known_hosts_verify=auto", sshd.uri("client", "nobody"));
        comes_in(to(&first)).await.context(sshd.log())?;
        comes_in(to(&sshd.uri("client", "nobody"))).await?;
        Ok(())
    }));
}

#[test]
fn what_fails_beyond_ssh_is_told_in_the_words_of_the_program_that_failed() {
    story(Libvirtd::builder().run(async |daemon| {
        has_netcat()?;
        let sshd = Sshd::start(daemon).await?;
        let words = ["ssh to localhost", "Permission denied"];
        is_refused(to(&sshd.uri("stranger", "known")), &words).await?;
        let uri = sshd.uri("client", "known");
        for (more, word) in [
            ("&netcat=no-such-program", "no-such-program"),
            ("&socket=/run/libvirt/no-such-socket", "No such file"),
        ] {
            is_refused(to(&format!("{uri}{more}")), &["ssh to localhost", word]).await?;
        }
        let port = sshd.port().to_string();
        sshd.stop().await;
        is_refused(to(&uri), &["ssh to localhost", &port]).await?;
        Ok(())
    }));
}
