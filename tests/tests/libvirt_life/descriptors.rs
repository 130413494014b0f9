//! File descriptors, which travel with calls and replies over the Unix socket.

use std::{
    fs::File,
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use anyhow::{Result, ensure};
use libvirt::{
    Connect, Error,
    raw::{
        api::{DomainFdAssociateFlags, DomainOpenGraphicsFlags, ErrorNumber},
        remote::DomainOpenGraphicsArgs,
    },
};
use vbridge_tests::{
    fixture::story,
    libvirt::{
        daemon::{Auth, Libvirtd},
        domain::Domain,
        limits::CLIENT,
    },
};

use crate::{
    guest::SCREEN,
    support::{DEFINE, PAUSED, QMP, Record, image, open, refused},
};

/// How a VNC server begins (RFC 6143, section 7.1.1).
const RFB: &[u8; 12] = b"RFB 003.008\n";

/// What comes first out of a screen's socket.
fn greeting(socket: OwnedFd) -> Result<[u8; 12]> {
    let mut socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(CLIENT))?;
    let mut said = [0; 12];
    socket.read_exact(&mut said)?;
    Ok(said)
}

#[test]
fn a_screens_socket_comes_with_a_reply_and_goes_with_a_call() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let mut record = Record::of_domains(&connect).await?;
        let machine = Domain::builder("seen").device(SCREEN).build().await?;
        let domain = connect.create_domain(machine.xml(), PAUSED).await?;
        record
            .tells(&["Started Booted", "Suspended Paused"])
            .await?;
        let flags = DomainOpenGraphicsFlags::SKIPAUTH;
        let socket = domain.open_graphics(0, flags).await?;
        let said = tokio::task::spawn_blocking(|| greeting(socket)).await??;
        ensure!(said == *RFB, "{said:?}");
        record
            .tells(&["Graphics Connect", "Graphics Disconnect"])
            .await?;

        let (ours, theirs) = UnixStream::pair()?;
        domain.open_graphics_on(0, theirs, flags).await?;
        let said = tokio::task::spawn_blocking(|| greeting(ours.into())).await??;
        ensure!(said == *RFB, "{said:?}");
        record
            .tells(&["Graphics Connect", "Graphics Disconnect"])
            .await?;

        let give = DomainOpenGraphicsArgs {
            dom: domain.raw().clone(),
            idx: 0,
            flags: flags.bits(),
        };
        let raw = connect.raw()?;
        let none = raw.domain_open_graphics(&give, Vec::new()).await;
        ensure!(matches!(none, Err(Error::Libvirt(_))), "{none:?}");
        ensure!(domain.is_active().await?, "the connection is out of step");
        record.ends(&connect).await
    }));
}

#[test]
fn files_reach_qemus_monitor() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let machine = Domain::builder("given").build().await?;
        let domain = connect.create_domain(machine.xml(), PAUSED).await?;
        let add = r#"{"execute":"add-fd","arguments":{"fdset-id":77,"opaque":"ours"}}"#;
        let file = OwnedFd::from(File::open("/dev/null")?);
        let (answer, files) = domain
            .qemu_monitor_command_with_files(add, vec![file], QMP)
            .await?;
        ensure!(
            answer.contains(r#""fdset-id":77"#) && files.is_empty(),
            "{answer}"
        );
        let known = domain
            .qemu_monitor_command(r#"{"execute":"query-fdsets"}"#, QMP)
            .await?;
        ensure!(known.contains(r#""opaque":"ours""#), "{known}");
        // Without a file there is nothing to add: QEMU says so, and libvirt passes its words on.
        let (answer, _) = domain
            .qemu_monitor_command_with_files(add, Vec::new(), QMP)
            .await?;
        ensure!(answer.contains(r#""error""#), "{answer}");
        Ok(())
    }));
}

#[test]
fn a_disk_can_be_a_file_that_the_client_has_opened() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let path = image(daemon, "opened").await?;
        let machine = Domain::builder("opened")
            .disk(path.as_ref())
            .build()
            .await?;
        let nowhere = "/nowhere/opened.qcow2";
        let xml = machine.xml().replace(
            &format!("<source file='{path}'/>"),
            &format!("<source file='{nowhere}' fdgroup='ours'/>"),
        );
        let domain = connect.define_domain(&xml, DEFINE).await?;
        let unknown = domain.start(PAUSED).await;
        ensure!(matches!(unknown, Err(Error::Libvirt(_))), "{unknown:?}");

        let file = File::options()
            .read(true)
            .write(true)
            .open(daemon.path(&path))?;
        let flags = DomainFdAssociateFlags::empty();
        domain
            .associate_files("ours", vec![file.into()], flags)
            .await?;
        domain.start(PAUSED).await?;
        // libvirt does not look at such a file any more; QEMU has it open, and knows the size in its head.
        let query = r#"{"execute":"query-block"}"#;
        let disks = domain.qemu_monitor_command(query, QMP).await?;
        ensure!(disks.contains(r#""virtual-size":67108864"#), "{disks}");
        let looked = domain.block_info("vda").await;
        refused(looked, ErrorNumber::OperationUnsupported)?;
        Ok(())
    }));
}

#[test]
fn what_can_not_carry_descriptors_refuses_them() {
    story(Libvirtd::builder().tcp(Auth::None).run(async |daemon| {
        let local = open(daemon).await?;
        let machine = Domain::builder("given").build().await?;
        let domain = local.define_domain(machine.xml(), DEFINE).await?;
        // Only containers take files at their start.
        let files = || -> Result<Vec<OwnedFd>> { Ok(vec![File::open("/dev/null")?.into()]) };
        let started = domain.start_with_files(files()?, PAUSED).await;
        refused(started, ErrorNumber::NoSupport)?;
        let created = local.create_domain_with_files(machine.xml(), files()?, PAUSED);
        refused(created.await, ErrorNumber::NoSupport)?;
        ensure!(!domain.is_active().await?, "the connection is out of step");

        let far = Connect::open(&daemon.tcp_uri("qemu")?).await?;
        let there = far.domain_by_name("given").await?;
        let started = there.start_with_files(files()?, PAUSED).await;
        let error = started.unwrap_err();
        ensure!(
            matches!(error, Error::DescriptorsNeedUnixSocket { .. }),
            "{error}"
        );
        let many = (0..33)
            .map(|_| Ok(File::open("/dev/null")?.into()))
            .collect::<Result<_>>()?;
        let error = domain.start_with_files(many, PAUSED).await.unwrap_err();
        ensure!(
            matches!(error, Error::TooManyDescriptors { given: 33, .. }),
            "{error}"
        );
        Ok(())
    }));
}
