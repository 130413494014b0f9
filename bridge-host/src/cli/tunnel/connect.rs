//! `vbridge connect`: standard input and output, joined to a connection in a guest.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use clap::Args;
use tokio::{
    io::{AsyncWrite, Stdout, stdin, stdout},
    sync::watch,
};

use super::{Broken, spec::Target};
use crate::cli::{
    client::{Client, NamedGuestOptions},
    failure::Failure,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vbridge connect web 22
  ssh -o ProxyCommand='vbridge connect %h %p' root@web
  vbridge connect web /run/mysqld/mysqld.sock")]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    guest: NamedGuestOptions,
    /// Where to connect in the guest: PORT, HOST:PORT or the PATH of a socket
    #[arg(value_name = "TARGET")]
    target: Target,
}

/// Moves bytes until both ends have closed.
pub(in crate::cli) async fn run(options: &Options) -> Result<(), Failure> {
    let client = Client::named_guest(&options.guest).await?;
    let target = &options.target.0;
    let call = super::connect(&client, target)
        .await
        .map_err(Failure::new)?;
    let (closed, mut is_closed) = watch::channel(false);
    let output = Output {
        stdout: stdout(),
        closed,
    };
    let is_typed = io::stdin().is_terminal();
    let ended = tokio::select! {
        ended = call.relay(stdin(), output) => ended,
        // Nobody has to type an end of file for a connection that has ended.
        Ok(_) = is_closed.wait_for(|closed| *closed), if is_typed => return Ok(()),
    };
    match ended {
        Ok(()) => Ok(()),
        Err(Broken::There(status)) => Err(Failure::new(client.sentence(&status))),
        Err(Broken::Here(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::NobodyReads)
        }
        Err(Broken::Here(error)) => Err(Failure::new(format!(
            "standard input or output has failed: {error}"
        ))),
    }
}

/// Standard output, which can be closed: whoever reads it sees the end before this program ends.
struct Output {
    stdout: Stdout,
    closed: watch::Sender<bool>,
}

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdout).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(nowhere)?;
        self.closed.send_replace(true);
        Poll::Ready(Ok(()))
    }
}
