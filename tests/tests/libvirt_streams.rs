//! The libvirt client's streams, on a real daemon: whole volumes, volumes with holes, and a guest's channel.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libvirt::raw::api::{DomainChannelFlags, StorageVolDownloadFlags, StorageVolUploadFlags};
use libvirt::rpc::{Chunk, ConnectionError, KeepaliveConfig};
use libvirt::{Connect, Error, StorageVol};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use vbridge_tests::{
    fixture::story,
    libvirt::{
        daemon::Libvirtd,
        domain::{Domain, SINK_PORT},
    },
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A mebibyte in memory.
const BLOCK: usize = 1 << 20;

/// A volume of so many bytes in a pool of a private daemon, and the file that it is.
async fn volume(daemon: &Libvirtd, connect: &Connect, bytes: u64) -> Result<(StorageVol, PathBuf)> {
    let (pool, name) = ("pool", "volume");
    let folder = daemon.pool(pool).await?;
    daemon.volume(pool, name, bytes).await?;
    let pool = connect.storage_pool_by_name(pool).await?;
    Ok((pool.volume_by_name(name).await?, folder.join(name)))
}

/// For what must not hang.
const SOON: Duration = Duration::from_secs(10);

/// Bytes that are never the same for long, made quickly.
fn block(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut block = Vec::with_capacity(BLOCK);
    while block.len() < BLOCK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
}

fn digest_of(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(digest.finalize().to_vec());
        }
        digest.update(&buffer[..read]);
    }
}

#[test]
fn a_gibibyte_goes_up_and_comes_down_unchanged() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let (volume, file) = volume(daemon, &connect, GIB).await?;
        let mut sent = Sha256::new();
        let mut upload = volume
            .upload(0, GIB, StorageVolUploadFlags::empty())
            .await?;
        for number in 0..GIB / MIB {
            let block = block(number);
            sent.update(&block);
            upload.write_all(&block).await?;
        }
        upload.finish().await?;
        let sent = sent.finalize().to_vec();
        ensure!(
            digest_of(&file)? == sent,
            "what the daemon has kept is something else"
        );

        let mut received = Sha256::new();
        let mut count = 0;
        let mut download = volume
            .download(0, 0, StorageVolDownloadFlags::empty())
            .await?;
        while let Some(chunk) = download.chunk().await? {
            let Chunk::Data(bytes) = chunk else {
                anyhow::bail!("a hole that nobody asked for");
            };
            count += bytes.len() as u64;
            received.update(&bytes);
        }
        download.finish().await?;
        ensure!(count == GIB, "{count} bytes came");
        ensure!(
            received.finalize().to_vec() == sent,
            "what came is something else"
        );
        Ok(())
    }));
}

#[test]
fn holes_stay_holes_both_ways() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let (source, kept) = volume(daemon, &connect, GIB).await?;
        // A little data at the start, in the middle and near the end.
        let pieces = [0, 400 * MIB, GIB - 3 * MIB];
        let mut upload = source
            .upload(0, GIB, StorageVolUploadFlags::SPARSE_STREAM)
            .await?;
        let mut at = 0;
        for (number, start) in pieces.into_iter().enumerate() {
            if start > at {
                upload.send_hole(start - at).await?;
            }
            upload.send(&block(number as u64)).await?;
            at = start + MIB;
        }
        upload.send_hole(GIB - at).await?;
        upload.finish().await?;
        let file = File::open(&kept)?;
        let metadata = file.metadata()?;
        ensure!(metadata.len() == GIB, "{} bytes", metadata.len());
        ensure!(
            metadata.blocks() * 512 < 8 * MIB,
            "{} blocks are taken",
            metadata.blocks()
        );

        let copy = daemon.folder().join("copy");
        let mut file = File::create(&copy)?;
        let (mut data, mut holes) = (0, 0);
        let mut download = source
            .download(0, 0, StorageVolDownloadFlags::SPARSE_STREAM)
            .await?;
        while let Some(chunk) = download.chunk().await? {
            match chunk {
                Chunk::Data(bytes) => {
                    data += bytes.len() as u64;
                    file.write_all(&bytes)?;
                }
                Chunk::Hole(length) => {
                    holes += length;
                    file.seek(SeekFrom::Current(i64::try_from(length)?))?;
                }
            }
        }
        download.finish().await?;
        file.set_len(data + holes)?;
        ensure!(
            data + holes == GIB && data < 8 * MIB,
            "{data} of data, {holes} of holes"
        );
        ensure!(
            digest_of(&copy)? == digest_of(&kept)?,
            "the copy is another"
        );
        Ok(())
    }));
}

#[test]
fn many_holes_in_a_row_are_taken_and_none_of_no_length_is_sent() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let (volume, file) = volume(daemon, &connect, 100 * MIB).await?;
        let mut upload = volume
            .upload(0, 100 * MIB, StorageVolUploadFlags::SPARSE_STREAM)
            .await?;
        for number in 0..100 {
            // Every tenth mebibyte has data.
            match number % 10 {
                0 => upload.send(&block(number)).await?,
                _ => upload.send_hole(MIB).await?,
            }
            upload.send_hole(0).await?;
        }
        upload.finish().await?;
        let content = std::fs::read(file)?;
        ensure!(content.len() as u64 == 100 * MIB, "{} bytes", content.len());
        for (number, found) in (0..).zip(content.chunks_exact(block(0).len())) {
            let mut expected = block(number);
            if number % 10 > 0 {
                expected.fill(0);
            }
            ensure!(found == expected, "mebibyte {number} is another");
        }
        Ok(())
    }));
}

#[test]
fn a_hole_that_nobody_has_announced_ends_the_upload() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let (volume, _) = volume(daemon, &connect, MIB).await?;
        let mut upload = volume.upload(0, 0, StorageVolUploadFlags::empty()).await?;
        let error = async {
            upload.send_hole(MIB / 2).await?;
            upload.finish().await
        };
        // libvirt 9 breaks the connection off, which is that stream's own.
        let error = timeout(SOON, error).await.context("a finish hangs")?;
        let error = error.err().context("nobody has announced a hole")?;
        let over = matches!(error, Error::Connection(ConnectionError::ClosedByDaemon));
        ensure!(over || error.remote().is_some(), "{error}");
        connect.capabilities().await?;
        Ok(())
    }));
}

#[test]
fn a_part_of_a_volume_is_read_from_an_offset() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let (volume, _) = volume(daemon, &connect, 8 * MIB).await?;
        let mut upload = volume
            .upload(2 * MIB, MIB, StorageVolUploadFlags::empty())
            .await?;
        upload.send(&block(7)).await?;
        upload.finish().await?;
        let mut download = volume
            .download(2 * MIB + 100, 1000, StorageVolDownloadFlags::empty())
            .await?;
        let mut read = Vec::new();
        download.read_to_end(&mut read).await?;
        ensure!(read == block(7)[100..1100]);
        Ok(())
    }));
}

#[test]
fn an_upload_of_more_than_was_announced_fails_with_the_daemons_reason() {
    story(Libvirtd::builder().run(async |daemon| {
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let (volume, _) = volume(daemon, &connect, MIB).await?;
        let announced = MIB / 2;
        let mut stream = volume
            .upload(0, announced, StorageVolUploadFlags::empty())
            .await?;
        let error = async {
            // The daemon says so as soon as it comes to it, which may be at any of these.
            stream.send(&vec![7; BLOCK]).await?;
            stream.finish().await
        };
        let error = error.await.err().context("there is no room for it")?;
        ensure!(error.remote().is_some(), "{error}");
        Ok(())
    }));
}

#[test]
fn a_guests_channel_is_a_stream_that_echoes() {
    story(Libvirtd::builder().run(async |daemon| {
        let domain = Domain::builder("channel").build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let connect = Connect::open(&daemon.uri("qemu")).await?;
        let handle = connect.domain_by_name(domain.name()).await?;
        let mut channel = handle
            .open_channel(Some("org.vbridge.raw.0"), DomainChannelFlags::empty())
            .await?;
        for round in 0..100_u8 {
            channel.write_all(&[round; 64]).await?;
            let mut echo = [0; 64];
            channel.read_exact(&mut echo).await?;
            ensure!(echo == [round; 64], "{round}: {echo:?}");
        }
        // Another client is refused while we have it, and gets it by force.
        let refused = handle
            .open_channel(Some("org.vbridge.raw.0"), DomainChannelFlags::empty())
            .await;
        let error = refused.err().context("it is in use")?;
        ensure!(error.remote().is_some(), "{error}");
        let mut forced = handle
            .open_channel(Some("org.vbridge.raw.0"), DomainChannelFlags::FORCE)
            .await?;
        forced.write_all(b"mine").await?;
        let mut echo = [0; 4];
        forced.read_exact(&mut echo).await?;
        ensure!(&echo == b"mine");
        Ok(())
    }));
}

/// The client gives up a silent daemon after 600 ms.
const HASTY: KeepaliveConfig = KeepaliveConfig {
    interval: Duration::from_millis(200),
    count: 2,
};
/// What the daemon goes by: it gives up a silent client after 3 s. It counts whole seconds.
const DAEMONS: (i32, u32) = (1, 2);
/// Twice the longer of the two.
const LONG_AFTER: Duration = Duration::from_secs(6);
/// How often calls are made meanwhile.
const NOW_AND_THEN: Duration = Duration::from_millis(100);
/// For a guest under software emulation to take what was held back.
const TAKEN: Duration = Duration::from_secs(60);

#[test]
fn a_guest_that_does_not_read_ends_no_connection() {
    let (interval, count) = DAEMONS;
    let daemon = Libvirtd::builder().keepalive(interval, count);
    story(daemon.run(async |daemon| {
        let bytes = 64 * MIB;
        let domain = Domain::builder("deaf").bytes(bytes).build().await?;
        domain.create(daemon).await?;
        domain.up(daemon, 1).await?;
        let builder = Connect::builder(&daemon.uri("qemu")).keepalive(HASTY);
        let connect = builder.open().await?;
        let handle = connect.domain_by_name(domain.name()).await?;
        let mut channel = handle
            .open_channel(Some(SINK_PORT), DomainChannelFlags::empty())
            .await?;
        // Nothing was sent in it, so silence would be taken for the daemon's: it answers pings of who has not asked for its own.
        tokio::time::sleep(2 * HASTY.interval * (HASTY.count + 1)).await;
        handle.suspend().await?;
        let data = vec![7; usize::try_from(bytes)?];
        {
            // Long after both ends would have given up: that time has to pass.
            let mut pouring = std::pin::pin!(channel.write_all(&data));
            let enough = tokio::time::sleep(LONG_AFTER);
            let mut enough = std::pin::pin!(enough);
            let mut now_and_then = tokio::time::interval(NOW_AND_THEN);
            loop {
                tokio::select! {
                    poured = &mut pouring => anyhow::bail!("a guest that stands still: {poured:?}"),
                    _ = now_and_then.tick() => {
                        timeout(SOON, connect.hostname()).await.context("a call hangs")??;
                    }
                    () = &mut enough => break,
                }
            }
            handle.resume().await?;
            timeout(TAKEN, pouring)
                .await
                .context("it flows no more")??;
        }
        let mut answer = [0; 8];
        timeout(TAKEN, channel.read_exact(&mut answer))
            .await
            .context("the guest is silent")??;
        ensure!(u64::from_le_bytes(answer) == bytes, "{answer:?}");
        Ok(())
    }));
}
