//! A protocol of one's own: each message has a header with its length and its CRC-32C.
//!
//! ```text
//! cargo run -p bridge-host --example channel_custom -- /run/vm/echo.sock 'any text'
//! ```
//!
//! ```text
//! 0        4        8
//! │ length │ CRC    │ message …      both big-endian
//! ```

use std::{path::PathBuf, sync::Arc};

use anyhow::Result;
use bridge_host::channel::{
    Protocol, ProtocolError, ProtocolHandler, VirtioSerialBuilder, async_trait,
};
use clap::Parser;

const HEADER: usize = 8;

#[derive(Debug, Parser)]
struct Arguments {
    /// The channel's socket.
    socket: PathBuf,
    /// What to send.
    #[arg(required = true)]
    messages: Vec<String>,
}

struct Checked;

#[async_trait]
impl ProtocolHandler for Checked {
    fn name(&self) -> &str {
        "checked"
    }

    async fn encode_request(&self, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let length = u32::try_from(data.len())
            .map_err(|_| ProtocolError::InvalidRequest("it has 4 GiB or more".to_owned()))?;
        let sum = crc32c::crc32c(data);
        Ok([&length.to_be_bytes(), &sum.to_be_bytes(), data].concat())
    }

    async fn decode_response(&self, frame: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        // A frame is given only when its header is there.
        let (header, message) = frame.split_at(HEADER);
        match header[4..] == crc32c::crc32c(message).to_be_bytes() {
            true => Ok(message.to_vec()),
            false => Err(ProtocolError::ParseError("its sum is wrong".to_owned())),
        }
    }

    fn delimiter(&self) -> Option<u8> {
        None
    }

    fn frame(&self, received: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some((length, _)) = received.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length));
        // More than the address space has is more than any limit.
        Ok(Some(length.unwrap_or(usize::MAX).saturating_add(HEADER)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut agent = VirtioSerialBuilder::new("com.example.checked.0")
        .with_socket_path(arguments.socket)
        .with_handler(Arc::new(Checked))
        .build();
    agent.open().await?;
    for message in arguments.messages {
        let response = agent.request(message.as_bytes()).await?;
        println!("{}", String::from_utf8_lossy(&response));
    }
    agent.disconnect().await?;
    Ok(())
}
