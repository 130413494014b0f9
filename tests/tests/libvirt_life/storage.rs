//! The lives of pools, of volumes, and of secrets.

use std::slice;

use anyhow::{Result, bail, ensure};
use libvirt::{
    Connect, StoragePool, StorageVol,
    events::{
        SecretEvent, SecretEventId, SecretEventKind, StoragePoolEvent, StoragePoolEventId,
        StoragePoolEventKind,
    },
    raw::api::{
        ConnectListAllSecretsFlags, ConnectListAllStoragePoolsFlags, ErrorNumber,
        SecretDefineFlags, SecretUsageType, StoragePoolBuildFlags, StoragePoolCreateFlags,
        StoragePoolDefineFlags, StoragePoolDeleteFlags, StoragePoolState, StorageVolCreateFlags,
        StorageVolDeleteFlags, StorageVolDownloadFlags, StorageVolInfoFlags, StorageVolResizeFlags,
        StorageVolType, StorageVolUploadFlags, StorageXmlFlags,
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vbridge_tests::{
    fixture::story,
    libvirt::{daemon::Libvirtd, limits::CLIENT},
};

use crate::support::{Record, line, open, refused};

const MIB: u64 = 1024 * 1024;
const CREATE: StorageVolCreateFlags = StorageVolCreateFlags::empty();

/// Where the pool is, as the daemon finds it.
const PLACE: &str = "/var/lib/libvirt/pool";

fn pool_line(event: &StoragePoolEvent) -> String {
    match &event.kind {
        StoragePoolEventKind::Lifecycle { event: kind, .. } => {
            format!("{kind} {}", event.object.name())
        }
        kind => format!("{kind:?} {}", event.object.name()),
    }
}

fn secret_line(event: &SecretEvent) -> String {
    match &event.kind {
        SecretEventKind::Lifecycle { event: kind, .. } => {
            format!("{kind} {}", event.object.usage())
        }
        kind => format!("{kind:?} {}", event.object.usage()),
    }
}

/// All that a volume holds.
async fn content(volume: &StorageVol) -> Result<Vec<u8>> {
    let mut stream = volume
        .download(0, 0, StorageVolDownloadFlags::empty())
        .await?;
    let mut content = Vec::new();
    stream.read_to_end(&mut content).await?;
    stream.finish().await?;
    Ok(content)
}

fn pool_xml() -> String {
    format!("<pool type='dir'><name>kept</name><target><path>{PLACE}</path></target></pool>")
}

/// A raw volume of one MiB.
fn volume_xml(name: &str) -> String {
    format!(
        "<volume><name>{name}</name><capacity>{MIB}</capacity><target><format type='raw'/></target></volume>"
    )
}

/// What fills such a volume, and differs at each place.
fn filling() -> Vec<u8> {
    (0..=250).cycle().take(1024 * 1024).collect()
}

/// A pool that runs and is not defined.
async fn pool(connect: &Connect) -> Result<StoragePool> {
    let flags = StoragePoolCreateFlags::WITH_BUILD;
    Ok(connect.create_storage_pool(&pool_xml(), flags).await?)
}

/// A volume that is filled.
async fn filled(pool: &StoragePool, name: &str) -> Result<StorageVol> {
    let volume = pool.create_volume(&volume_xml(name), CREATE).await?;
    let flags = StorageVolUploadFlags::empty();
    let mut upload = volume.upload(0, MIB, flags).await?;
    upload.write_all(&filling()).await?;
    upload.finish().await?;
    Ok(volume)
}

#[test]
fn a_pool_lives_from_its_definition_to_its_end() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let events = connect
            .storage_pool_events(StoragePoolEventId::ALL, None, None)
            .await?;
        let mut record = Record::new(events, pool_line);
        let flags = StoragePoolDefineFlags::empty();
        let pool = connect.define_storage_pool(&pool_xml(), flags).await?;
        record.tells(&["Defined kept"]).await?;
        ensure!(pool.is_persistent().await? && !pool.is_active().await?);
        refused(pool.volumes().await, ErrorNumber::OperationInvalid)?;
        ensure!(!daemon.path(PLACE).exists());
        pool.build(StoragePoolBuildFlags::NEW).await?;
        record.tells(&["Created kept"]).await?;
        ensure!(daemon.path(PLACE).is_dir());
        pool.start(StoragePoolCreateFlags::empty()).await?;
        record.tells(&["Started kept"]).await?;
        runs(daemon, &pool).await?;

        std::fs::write(daemon.path(format!("{PLACE}/found")), b"by a refresh")?;
        ensure!(pool.volumes().await?.is_empty());
        pool.refresh().await?;
        record.tells(&["Refresh kept"]).await?;
        let found = pool.volumes().await?;
        let [found] = &found[..] else {
            bail!("{found:?}")
        };
        ensure!(content(found).await? == b"by a refresh");
        found.delete(StorageVolDeleteFlags::empty()).await?;

        pool.destroy().await?;
        record.tells(&["Stopped kept"]).await?;
        ensure!(pool.info().await?.state == StoragePoolState::Inactive);
        pool.delete(StoragePoolDeleteFlags::empty()).await?;
        record.tells(&["Deleted kept"]).await?;
        ensure!(!daemon.path(PLACE).exists());
        pool.undefine().await?;
        record.tells(&["Undefined kept"]).await?;
        let gone = connect.storage_pool_by_name("kept").await;
        refused(gone, ErrorNumber::NoStoragePool)?;
        let mark = async {
            let xml =
                "<pool type='dir'><name>mark</name><target><path>/mark</path></target></pool>";
            let pool = connect.define_storage_pool(xml, flags).await?;
            Ok(pool.undefine().await?)
        };
        let told = ["Defined mark", "Undefined mark"];
        record.ends_with(mark, &told).await
    }));
}

/// What can be asked of a pool that runs.
async fn runs(daemon: &Libvirtd, pool: &StoragePool) -> Result<()> {
    let connect = pool.connect();
    let info = pool.info().await?;
    ensure!(info.state == StoragePoolState::Running, "{info:?}");
    ensure!(info.capacity > info.available, "{info:?}");
    pool.set_autostart(true).await?;
    ensure!(line(daemon, &["pool-list", "--autostart", "--name"]).await? == "kept");
    ensure!(pool.autostart().await?);
    let xml = pool.xml(StorageXmlFlags::empty()).await?;
    let shown = line(daemon, &["pool-dumpxml", "kept"]).await?;
    ensure!(xml.trim() == shown, "{xml}, but virsh has {shown}");
    let flags = ConnectListAllStoragePoolsFlags::ACTIVE;
    let running = connect.storage_pools(flags).await?;
    ensure!(running == [pool.clone()], "{running:?}");
    ensure!(connect.storage_pool_by_target_path(PLACE).await? == *pool);
    ensure!(connect.storage_pool_by_uuid(pool.uuid()).await? == *pool);
    Ok(())
}

#[test]
fn a_volume_is_made_found_cloned_and_deleted() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let pool = pool(&connect).await?;
        let volume = filled(&pool, "first").await?;
        let path = format!("{PLACE}/first");
        ensure!((volume.name(), volume.pool_name()) == ("first", "kept"));
        ensure!(volume.path().await? == path && volume.key() == path);
        ensure!(connect.storage_vol_by_path(&path).await? == volume);
        ensure!(connect.storage_vol_by_key(&path).await? == volume);
        ensure!(pool.volume_by_name("first").await? == volume);
        ensure!(volume.pool().await? == pool);
        let written = std::fs::read(daemon.path(&path))?;
        ensure!(written == filling(), "something else was written");
        let again = pool.create_volume(&volume_xml("first"), CREATE).await;
        refused(again, ErrorNumber::StorageVolExist)?;

        let xml = volume_xml("second");
        let clone = pool.create_volume_from(&xml, &volume, CREATE).await?;
        ensure!(content(&clone).await? == filling(), "the clone differs");
        volume.delete(StorageVolDeleteFlags::empty()).await?;
        ensure!(!daemon.path(&path).exists());
        let gone = volume.info(StorageVolInfoFlags::empty()).await;
        refused(gone, ErrorNumber::NoStorageVol)?;
        ensure!(pool.volumes().await? == slice::from_ref(&clone));
        let xml = clone.xml().await?;
        let shown = line(daemon, &["vol-dumpxml", "second", "kept"]).await?;
        ensure!(xml.trim() == shown, "{xml}, but virsh has {shown}");
        Ok(())
    }));
}

#[test]
fn a_volume_is_resized_and_wiped() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = open(daemon).await?;
        let pool = pool(&connect).await?;
        let volume = filled(&pool, "changed").await?;
        let flags = StorageVolResizeFlags::empty();
        volume.resize(3 * MIB, flags).await?;
        let info = volume.info(StorageVolInfoFlags::empty()).await?;
        let sizes = (info.capacity, info.allocation);
        ensure!(sizes == (3 * MIB, MIB), "{info:?}");
        ensure!(info.kind == StorageVolType::File, "{info:?}");
        let shown = line(daemon, &["vol-info", "changed", "kept", "--bytes"]).await?;
        ensure!(shown.contains(&(3 * MIB).to_string()), "{shown}");
        refused(volume.resize(MIB, flags).await, ErrorNumber::InvalidArg)?;
        volume.resize(MIB, StorageVolResizeFlags::SHRINK).await?;
        ensure!(content(&volume).await? == filling(), "the rest has changed");

        volume.wipe().await?;
        let zeros = vec![0; filling().len()];
        ensure!(content(&volume).await? == zeros, "it is not wiped");
        Ok(())
    }));
}

#[test]
fn streams_share_the_connection_if_that_is_wanted() {
    story(Libvirtd::builder().run(async |daemon| {
        for (share, connections) in [(false, 3), (true, 1)] {
            let builder = Connect::builder(&daemon.uri("qemu")).share_streams(share);
            let connect = builder.deadline(CLIENT).open().await?;
            let pool = pool(&connect).await?;
            let [one, other] = [filled(&pool, "one").await?, filled(&pool, "other").await?];
            let download =
                |volume| StorageVol::download(volume, 0, 0, StorageVolDownloadFlags::empty());
            let mut streams = [download(&one).await?, download(&other).await?];
            daemon.has_clients(connections).await?;
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let [from_one, from_other] = &mut streams;
            // Both are read, and calls come between.
            let (_, _, names) = tokio::try_join!(
                async { Ok::<_, anyhow::Error>(from_one.read_to_end(&mut first).await?) },
                async { Ok(from_other.read_to_end(&mut second).await?) },
                async { Ok(pool.volumes().await?.len()) },
            )?;
            ensure!(
                first == filling() && second == filling(),
                "something else came"
            );
            ensure!(names == 2, "{names} volumes");
            for stream in streams {
                stream.finish().await?;
            }
            daemon.has_clients(1).await?;
            let client = connect.client()?;
            ensure!((client.unfinished(), client.ignored_packets()) == (0, 0));
            drop(client);
            for volume in [one, other] {
                volume.delete(StorageVolDeleteFlags::empty()).await?;
            }
            pool.destroy().await?;
            connect.close().await;
            daemon.has_clients(0).await?;
        }
        Ok(())
    }));
}

#[test]
fn a_secret_is_kept_told_and_forgotten() {
    story(Libvirtd::builder().run(async |daemon| {
        const VALUE: &[u8] = b"open\0 sesame\xff";
        let connect = open(daemon).await?;
        let events = connect
            .secret_events(SecretEventId::ALL, None, None)
            .await?;
        let mut record = Record::new(events, secret_line);
        let define = async |usage: &str, private: &str| {
            let xml = format!(
                "<secret ephemeral='no' private='{private}'>\
                 <usage type='volume'><volume>{usage}</volume></usage></secret>"
            );
            connect
                .define_secret(&xml, SecretDefineFlags::empty())
                .await
        };
        let secret = define("/told", "no").await?;
        record.tells(&["Defined /told"]).await?;
        ensure!(secret.usage_kind() == SecretUsageType::Volume && secret.usage() == "/told");
        ensure!(
            connect
                .secret_by_usage(SecretUsageType::Volume, "/told")
                .await?
                == secret
        );
        ensure!(connect.secret_by_uuid(secret.uuid()).await? == secret);
        refused(secret.value().await, ErrorNumber::NoSecret)?;
        secret.set_value(VALUE).await?;
        record.tells(&["ValueChanged /told"]).await?;
        ensure!(secret.value().await? == VALUE);
        let uuid = secret.uuid().to_string();
        let shown = daemon.virsh(&["secret-get-value", &uuid]).await?;
        ensure!(shown.trim() == "b3BlbgAgc2VzYW1l/w==", "{shown}");
        ensure!(secret.xml().await?.contains(&uuid));

        let private = define("/private", "yes").await?;
        private.set_value(VALUE).await?;
        record
            .tells(&["Defined /private", "ValueChanged /private"])
            .await?;
        refused(private.value().await, ErrorNumber::InvalidSecret)?;
        let listed = connect.secrets(ConnectListAllSecretsFlags::PRIVATE).await?;
        ensure!(listed == [private.clone()], "{listed:?}");

        secret.undefine().await?;
        private.undefine().await?;
        record
            .tells(&["Undefined /told", "Undefined /private"])
            .await?;
        refused(secret.value().await, ErrorNumber::NoSecret)?;
        let none = daemon.virsh(&["secret-list"]).await?;
        ensure!(none.trim().is_empty(), "{none}");
        let mark = async {
            let secret = define("/mark", "no").await?;
            Ok(secret.undefine().await?)
        };
        let told = ["Defined /mark", "Undefined /mark"];
        record.ends_with(mark, &told).await
    }));
}
