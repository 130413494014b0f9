//! Talks to an agent that answers each line with a line, such as `agents/lines_agent.sh`.
//!
//! ```text
//! cargo run -p bridge-host --example channel_lines -- /run/vm/lines.sock ping host
//! ```

use std::path::PathBuf;

use anyhow::Result;
use bridge_host::channel::VirtioChannel;
use clap::Parser;

#[derive(Debug, Parser)]
struct Arguments {
    /// The channel's socket.
    socket: PathBuf,
    /// The lines to send.
    #[arg(required = true)]
    lines: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let channel = VirtioChannel::new("com.example.lines.0", arguments.socket);
    channel.connect().await?;
    for line in arguments.lines {
        channel.send_string(&format!("{line}\n")).await?;
        println!("{}", channel.receive_line().await?);
    }
    channel.disconnect();
    Ok(())
}
