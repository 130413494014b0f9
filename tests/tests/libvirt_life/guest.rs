//! What flows in and out of a guest: its console, a channel, its screen.

use anyhow::{Context as _, Result, bail, ensure};
use libvirt::{
    Error,
    raw::api::{DomainChannelFlags, DomainConsoleFlags, ErrorNumber},
    rpc::{Chunk, RawStream},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, domain::Domain, limits::CLIENT},
};
use xtask::qemu::RAW_PORT;

use crate::support::{DESTROY, Guest, PAUSED, Record, open, refused};

/// A screen for a domain.
pub(crate) const SCREEN: &str = "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>\
     <video><model type='vga' vram='16384' heads='1'/></video>";

/// Reads a stream until it has said something.
async fn hears(stream: &mut RawStream, words: &str) -> Result<()> {
    let mut heard = Vec::new();
    let listen = async {
        loop {
            match stream.chunk().await? {
                Some(Chunk::Data(data)) => heard.extend(data),
                Some(chunk) => bail!("it has {chunk:?}"),
                None => bail!("it has ended"),
            }
            if String::from_utf8_lossy(&heard).contains(words) {
                return Ok(());
            }
        }
    };
    let listened = timeout(CLIENT, listen).await;
    let listened = listened.with_context(|| format!("not within {CLIENT:?}"));
    listened
        .and_then(|listened| listened)
        .with_context(|| format!("{words:?}; heard {:?}", String::from_utf8_lossy(&heard)))
}

/// Whether the stream's other end is gone: the daemon ends it, or says why it has.
async fn ends(mut stream: RawStream) -> Result<()> {
    let end = async { while let Ok(Some(_)) = stream.chunk().await {} };
    timeout(CLIENT, end)
        .await
        .context("the stream does not end")
}

#[test]
fn a_guest_is_heard_on_its_console_and_answers_on_its_channel() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let guest = Guest::define(&connect, Domain::builder("heard")).await?;
        let domain = &guest.domain;
        let nobody = domain.open_console(None, DomainConsoleFlags::empty()).await;
        refused(nobody, ErrorNumber::OperationInvalid)?;
        domain.start(PAUSED).await?;
        let mut console = domain.open_console(None, DomainConsoleFlags::SAFE).await?;
        domain.resume().await?;
        hears(&mut console, "vbridge-guest: up").await?;

        // Its own words, in answer to ours.
        let speak = "echo '<3>six times seven is' $((6 * 7)) >/dev/kmsg";
        guest.run(speak).await?;
        hears(&mut console, "six times seven is 42").await?;
        let second = domain.open_console(None, DomainConsoleFlags::empty()).await;
        refused(second, ErrorNumber::OperationFailed)?;
        let mut forced = domain.open_console(None, DomainConsoleFlags::FORCE).await?;
        ends(console).await?;
        domain.inject_nmi().await?;
        hears(&mut forced, "NMI received").await?;
        forced.finish().await?;

        let mut channel = domain
            .open_channel(Some(RAW_PORT), DomainChannelFlags::empty())
            .await?;
        let second = domain
            .open_channel(Some(RAW_PORT), DomainChannelFlags::empty())
            .await;
        refused(second, ErrorNumber::OperationFailed)?;
        let question: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut answer = vec![0; question.len()];
        let (mut from, mut to) = tokio::io::split(&mut channel);
        tokio::try_join!(to.write_all(&question), from.read_exact(&mut answer))?;
        ensure!(answer == question, "the guest has returned something else");
        let none = domain
            .open_channel(Some("org.nobody.0"), DomainChannelFlags::empty())
            .await;
        refused(none, ErrorNumber::InternalError)?;

        domain.destroy(DESTROY).await?;
        ends(channel).await?;
        Ok(())
    }));
}

#[test]
fn a_guests_screen_is_seen() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let machine = Domain::builder("seen").device(SCREEN).build().await?;
        let domain = connect.create_domain(machine.xml(), PAUSED).await?;
        record
            .tells(&["Started Booted", "Suspended Paused"])
            .await?;
        let (mime, mut stream) = domain.screenshot(0).await?;
        let mut picture = Vec::new();
        stream.read_to_end(&mut picture).await?;
        stream.finish().await?;
        let (head, least) = match mime.as_deref() {
            Some("image/x-portable-pixmap") => (&b"P6\n"[..], 640 * 400 * 3),
            Some("image/png") => (&b"\x89PNG\r\n\x1a\n"[..], 100),
            other => bail!("a picture of the type {other:?}"),
        };
        ensure!(
            picture.starts_with(head),
            "it begins with {:?}",
            &picture[..8]
        );
        ensure!(picture.len() > least, "it has {} bytes", picture.len());
        let file = daemon.folder().join("screen");
        daemon
            .virsh(&["screenshot", "seen", &file.display().to_string()])
            .await?;
        ensure!(std::fs::read(file)? == picture, "virsh has another picture");

        let nowhere = domain.screenshot(7).await.map(|(mime, _)| mime);
        refused(nowhere, ErrorNumber::OperationInvalid)?;
        let blind = Domain::builder("blind").build().await?;
        let blind = connect.create_domain(blind.xml(), PAUSED).await?;
        match blind.screenshot(0).await {
            Err(Error::Libvirt(error)) => ensure!(!error.message.is_empty()),
            other => bail!("without a screen: {:?}", other.map(|(mime, _)| mime)),
        }
        record
            .tells(&["Started Booted", "Suspended Paused"])
            .await?;
        record.ends(&connect).await
    }));
}
