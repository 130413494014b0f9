//! Connects standard input and output to a virtio channel of a domain, on whatever host it runs.
//!
//! ```text
//! cargo run -p libvirt --example channel -- qemu+ssh://host/system web org.example.port.0
//! ```
//!
//! A libvirt stream has no half-close, so the guest is not told that the input has ended. The output goes on until the
//! channel closes, or nothing has come for a while.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use libvirt::Connect;
use libvirt::raw::api::DomainChannelFlags;
use libvirt::rpc::OwnedWriteHalf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Room for the largest piece that a stream carries in one packet.
const BUFFER: usize = 256 * 1024;

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor.
    uri: String,
    /// The domain's name.
    domain: String,
    /// The channel's name, or its device's alias; without one: the first.
    channel: Option<String>,
    /// Take the channel from whoever has it.
    #[arg(long)]
    force: bool,
    /// The seconds without output after which it ends, once the input has ended.
    #[arg(long, default_value_t = 1.0)]
    linger: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(&arguments));
    // The thread that waits for input would hold up an ordinary end until some comes.
    runtime.shutdown_background();
    result
}

async fn run(arguments: &Arguments) -> Result<()> {
    let linger = Duration::try_from_secs_f64(arguments.linger).context("--linger")?;
    let connect = Connect::open(&arguments.uri).await?;
    let domain = connect.domain_by_name(&arguments.domain).await?;
    let flags = match arguments.force {
        true => DomainChannelFlags::FORCE,
        false => DomainChannelFlags::empty(),
    };
    let channel = domain
        .open_channel(arguments.channel.as_deref(), flags)
        .await?;
    let (mut from_guest, to_guest) = channel.into_split();

    // A task of its own: a guest that does not read must not keep us from reading what it writes.
    let mut input = tokio::spawn(send_input(to_guest));
    let mut sent = None;
    let mut buffer = vec![0; BUFFER];
    let mut output = tokio::io::stdout();
    loop {
        tokio::select! {
            length = from_guest.read(&mut buffer) => {
                let length = length?;
                if length == 0 {
                    return Ok(());
                }
                output.write_all(&buffer[..length]).await?;
                output.flush().await?;
            }
            ended = &mut input, if sent.is_none() => sent = Some(ended??),
            () = tokio::time::sleep(linger), if sent.is_some() => break,
        }
    }
    if let Some(to_guest) = sent {
        // Only when the daemon has confirmed the end has it passed on all that it was sent.
        to_guest.finish().await?;
    }
    connect.close().await;
    Ok(())
}

/// Sends standard input to its end, and gives the way to the guest back.
async fn send_input(mut to_guest: OwnedWriteHalf) -> Result<OwnedWriteHalf> {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = input.read(&mut buffer).await?;
        if length == 0 {
            to_guest.flush().await?;
            return Ok(to_guest);
        }
        to_guest.write_all(&buffer[..length]).await?;
    }
}
