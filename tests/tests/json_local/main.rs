//! The JSON API, through a bridge to an agent on a Unix socket: with HTTP as curl speaks it, and with what its own document has
//! others make up.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod errors;
mod files;
mod fuzz;
mod shell;
mod system;

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use vbridge_tests::fixture::{Bridge, LocalAgent};

struct World {
    bridge: Bridge,
    agent: LocalAgent,
}

// === impl World ===

impl World {
    async fn start() -> Result<Self> {
        Self::with(LocalAgent::start().await?).await
    }

    /// With the agent that is shipped, which holds to a policy.
    async fn under(policy: &Path) -> Result<Self> {
        let policy = policy.display().to_string();
        Self::with(LocalAgent::shipped(&["--policy", &policy]).await?).await
    }

    async fn with(agent: LocalAgent) -> Result<Self> {
        let bridge = Bridge::start([agent.seat("local")]).await?;
        bridge.ready("local").await?;
        Ok(Self { bridge, agent })
    }

    /// What Prometheus gets.
    async fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.address()).await?;
        let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(asked.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    fn address(&self) -> SocketAddr {
        self.bridge.address()
    }
}
