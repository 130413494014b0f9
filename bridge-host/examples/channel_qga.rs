//! Asks the QEMU guest agent. Without a command: which ones it has.
//!
//! ```text
//! cargo run -p bridge-host --example channel_qga -- /run/vm/qga.sock guest-get-osinfo
//! ```

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bridge_host::channel::GuestAgent;
use clap::Parser;
use serde_json::Value;

#[derive(Debug, Parser)]
struct Arguments {
    /// The channel's socket.
    socket: PathBuf,
    /// The command.
    command: Option<String>,
    /// Its arguments: a JSON object.
    arguments: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let given = Arguments::parse();
    let arguments = match given.arguments {
        Some(text) => serde_json::from_str(&text).context("the arguments are no JSON")?,
        None => Value::Null,
    };
    let agent = GuestAgent::at_path(given.socket);
    agent.connect().await?;
    match given.command {
        Some(command) => println!("{:#}", agent.execute(&command, arguments).await?),
        None => {
            let info = agent.info().await?;
            println!("QEMU guest agent {}", info.version);
            info.enabled().for_each(|command| println!("{command}"));
        }
    }
    agent.disconnect();
    Ok(())
}
