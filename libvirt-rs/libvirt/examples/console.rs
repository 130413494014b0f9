//! Connects this terminal to a domain's console. Ctrl-] leaves.
//!
//! ```text
//! cargo run -p libvirt --example console -- qemu:///system web
//! ```

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use libvirt::Connect;
use libvirt::raw::api::DomainConsoleFlags;
use libvirt::rpc::{Chunk, RawStream};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// Ctrl-].
const LEAVE: u8 = 0x1d;

#[derive(Debug, Parser)]
struct Arguments {
    /// The hypervisor.
    uri: String,
    /// The domain's name.
    domain: String,
    /// The console's alias, such as serial0; without one: the first.
    device: Option<String>,
    /// Take the console from whoever has it.
    #[arg(long)]
    force: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        std::io::stdin().is_terminal(),
        "standard input is no terminal; a console needs one"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(&arguments));
    // The thread that waits for the next key would hold up an ordinary end until that key comes.
    runtime.shutdown_background();
    result
}

async fn run(arguments: &Arguments) -> Result<()> {
    let connect = Connect::open(&arguments.uri).await?;
    let domain = connect.domain_by_name(&arguments.domain).await?;
    let flags = match arguments.force {
        true => DomainConsoleFlags::FORCE,
        false => DomainConsoleFlags::empty(),
    };
    let mut console = domain
        .open_console(arguments.device.as_deref(), flags)
        .await?;
    let ended = {
        let _raw = RawMode::enter()?;
        // Not before: what is typed until then is thrown away, and who reads this may leave at once.
        print!("connected to {}; Ctrl-] leaves\r\n", domain.name());
        std::io::stdout().flush()?;
        talk(&mut console).await
    };
    println!("\n{}", ended?);
    console.finish().await?;
    connect.close().await;
    Ok(())
}

/// Carries bytes both ways, and says why it ended.
async fn talk(console: &mut RawStream) -> Result<&'static str> {
    let mut keyboard = tokio::io::stdin();
    let mut keys = [0; 256];
    let mut screen = std::io::stdout();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            chunk = console.chunk() => match chunk? {
                Some(Chunk::Data(bytes)) => {
                    screen.write_all(&bytes)?;
                    screen.flush()?;
                }
                Some(Chunk::Hole(_)) => {}
                None => return Ok("the domain has closed its console"),
            },
            count = keyboard.read(&mut keys) => {
                let typed = &keys[..count?];
                let leave = typed.iter().position(|key| *key == LEAVE);
                console.send(&typed[..leave.unwrap_or(typed.len())]).await?;
                if leave.is_some() || typed.is_empty() {
                    return Ok("left the console");
                }
            },
            _ = terminated.recv() => return Ok("terminated"),
            _ = hung_up.recv() => return Ok("the terminal is gone"),
        }
    }
}

/// While it lives, the terminal hands on each key as it is.
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> Result<Self> {
        let terminal = std::io::stdin();
        let before = tcgetattr(&terminal).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Flush, &raw)
            .context("cannot change the terminal's settings")?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
    }
}
