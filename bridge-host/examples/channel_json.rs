//! Talks to an agent that takes and gives JSON in lines, such as `agents/json_agent.py`.
//!
//! ```text
//! cargo run -p bridge-host --example channel_json -- /run/vm/json.sock ping 'upper hello'
//! ```

use std::path::PathBuf;

use anyhow::Result;
use bridge_host::channel::{Protocol, VirtioSerialBuilder};
use clap::Parser;

#[derive(Debug, Parser)]
struct Arguments {
    /// The channel's socket.
    socket: PathBuf,
    /// What to ask.
    #[arg(required = true)]
    requests: Vec<String>,
    /// The names of the fields, if they are not the usual ones: REQUEST,RESPONSE.
    #[arg(long, value_name = "FIELDS")]
    fields: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let builder = VirtioSerialBuilder::new("com.example.json.0").with_socket_path(arguments.socket);
    let builder = match arguments
        .fields
        .as_deref()
        .and_then(|fields| fields.split_once(','))
    {
        Some((request, response)) => builder.with_custom_json_handler(request, response),
        None => builder.with_json_handler(),
    };
    let mut agent = builder.build();
    agent.open().await?;
    for request in arguments.requests {
        let response = agent.request(request.as_bytes()).await?;
        println!("{}", String::from_utf8_lossy(&response));
    }
    agent.disconnect().await?;
    Ok(())
}
