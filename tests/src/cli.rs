//! `vbridge` as people call it, at a bridge of ours.

use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{fixture::Bridge, programs};

impl Bridge {
    /// The program with these words, its input and outputs being pipes.
    ///
    /// # Errors
    /// It can't be built.
    pub async fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(&programs::host().await?.bridge);
        command
            .args(words)
            .env("VBRIDGE_ADDRESS", self.address().to_string())
            // What fails is to be seen at once, and nobody's settings count here.
            .env("VBRIDGE_RETRIES", "0")
            .env("VBRIDGE_CLIENT_CONFIG", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs it to its end, with this input.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn run(&self, words: &[&str], input: &[u8]) -> Result<Output> {
        let mut child = self.command(words).await?.spawn()?;
        let mut stdin = child.stdin.take().context("it has an input")?;
        let (_, output) = tokio::join!(
            async {
                // It may end before it has read everything.
                let _ = stdin.write_all(input).await;
                drop(stdin);
            },
            child.wait_with_output()
        );
        Ok(output?)
    }

    /// Runs what has to succeed and complain of nothing.
    ///
    /// # Errors
    /// It does not succeed, or it complains.
    pub async fn good(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words, b"").await?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        ensure!(output.stderr.is_empty(), "{words:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }
}
