//! Uploads a file as a storage volume, or downloads a volume, with holes kept as holes both ways.
//!
//! ```text
//! cargo run -p libvirt --example volume -- qemu:///system default disk.img upload disk.img
//! cargo run -p libvirt --example volume -- qemu:///system default disk.img download copy.img
//! ```

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use libvirt::raw::api::{
    StorageVolCreateFlags, StorageVolDownloadFlags, StorageVolInfoFlags, StorageVolUploadFlags,
};
use libvirt::rpc::Chunk;
use libvirt::{Connect, StoragePool, StorageVol};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Bytes that are read from the file at once: what a stream carries in one packet.
const PIECE: usize = libvirt::rpc::limits::STREAM_CHUNK;
/// Pieces that wait between the file's thread and the stream.
const AHEAD: usize = 8;

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor.
    uri: String,
    /// The pool's name.
    pool: String,
    /// The volume's name.
    volume: String,
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Debug, Subcommand)]
enum Direction {
    /// Makes the volume, and writes a file into it.
    Upload { file: PathBuf },
    /// Writes the volume into a file.
    Download { file: PathBuf },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let connect = Connect::open(&arguments.uri).await?;
    let pool = connect.storage_pool_by_name(&arguments.pool).await?;
    match &arguments.direction {
        Direction::Upload { file } => upload(&pool, &arguments.volume, file).await?,
        Direction::Download { file } => {
            download(&pool.volume_by_name(&arguments.volume).await?, file).await?;
        }
    }
    connect.close().await;
    Ok(())
}

async fn upload(pool: &StoragePool, name: &str, path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let size = file.metadata()?.len();
    // A new volume, for where a hole is sent the daemon leaves an old one's content as it was.
    let volume = pool
        .create_volume(&definition(name, size), StorageVolCreateFlags::empty())
        .await?;
    let mut stream = volume
        .upload(0, size, StorageVolUploadFlags::SPARSE_STREAM)
        .await?;
    let progress = progress(size);
    let (sender, mut chunks) = mpsc::channel(AHEAD);
    let reader = spawn_blocking(move || read_sparse(file, size, &sender));
    while let Some(chunk) = chunks.recv().await {
        match chunk {
            Chunk::Data(bytes) => {
                stream.send(&bytes).await?;
                progress.inc(bytes.len() as u64);
            }
            Chunk::Hole(length) => {
                stream.send_hole(length).await?;
                progress.inc(length);
            }
        }
    }
    reader.await?.context("cannot read the file")?;
    // Only now does the daemon say whether it could keep what it was sent.
    stream.finish().await?;
    progress.finish();
    Ok(())
}

async fn download(volume: &StorageVol, path: &Path) -> Result<()> {
    let size = volume.info(StorageVolInfoFlags::empty()).await?.capacity;
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut stream = volume
        .download(0, 0, StorageVolDownloadFlags::SPARSE_STREAM)
        .await?;
    let progress = progress(size);
    let (sender, chunks) = mpsc::channel(AHEAD);
    let writer = spawn_blocking(move || write_sparse(file, chunks));
    while let Some(chunk) = stream.chunk().await? {
        progress.inc(match &chunk {
            Chunk::Data(bytes) => bytes.len() as u64,
            Chunk::Hole(length) => *length,
        });
        if sender.send(chunk).await.is_err() {
            // The writer has failed, and says why below.
            break;
        }
    }
    drop(sender);
    writer.await?.context("cannot write the file")?;
    stream.finish().await?;
    progress.finish();
    Ok(())
}

/// Reads a file piece by piece; what it does not hold becomes a hole.
fn read_sparse(mut file: File, size: u64, to: &mpsc::Sender<Chunk>) -> io::Result<()> {
    let mut position = 0;
    while position < size {
        // ENXIO: there is no more data up to the end.
        let data = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(position)) {
            Err(rustix::io::Errno::NXIO) => size,
            data => data?.min(size),
        };
        if data > position && to.blocking_send(Chunk::Hole(data - position)).is_err() {
            return Ok(());
        }
        position = data;
        if position == size {
            break;
        }
        let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(position))?.min(size);
        file.seek(SeekFrom::Start(position))?;
        while position < end {
            let length = PIECE.min(usize::try_from(end - position).unwrap_or(PIECE));
            let mut piece = vec![0; length];
            file.read_exact(&mut piece)?;
            position += length as u64;
            // The stream has failed; who reads from it says why.
            if to.blocking_send(Chunk::Data(piece.into())).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Writes a file piece by piece; holes are left out.
fn write_sparse(mut file: File, mut from: mpsc::Receiver<Chunk>) -> io::Result<()> {
    let mut position = 0;
    while let Some(chunk) = from.blocking_recv() {
        match chunk {
            Chunk::Data(bytes) => {
                file.write_all(&bytes)?;
                position += bytes.len() as u64;
            }
            Chunk::Hole(length) => {
                position += length;
                file.seek(SeekFrom::Start(position))?;
            }
        }
    }
    // A hole at the end has written nothing.
    file.set_len(position)
}

/// A volume that takes no room before something is written.
fn definition(name: &str, size: u64) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<volume>
           <name>{name}</name>
           <capacity unit='bytes'>{size}</capacity>
           <allocation>0</allocation>
           <target><format type='raw'/></target>
         </volume>"
    )
}

fn progress(size: u64) -> ProgressBar {
    let style = "{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    ProgressBar::new(size).with_style(
        // The template is a constant; a wrong one would give the default's look.
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
