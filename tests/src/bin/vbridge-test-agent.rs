//! The agent with the exercise service in it: what the tests run in their guests.
//!
//! ```text
//! vbridge-test-agent [--listen unix:PATH | --direct unix:PATH | --port PATH] [--channel NAME] [--key-file PATH]
//! ```
//!
//! With `--direct unix:PATH` there is no agent and no link: the exercise service alone, as any gRPC server.
//! Without a place it looks for the channel's port as `vbridge-agent` does; `VBRIDGE_AGENT_PORT` names a port too.

use std::{env, path::Path, process::ExitCode};

use agent_guest::Agent;
use tokio::signal::unix::{SignalKind, signal};
use vbridge_link::Key;
use vbridge_tests::exercise;

const USAGE: &str = "usage: vbridge-test-agent [--listen unix:PATH | --direct unix:PATH | --port PATH] [--channel NAME] [--key-file PATH]";

fn main() -> ExitCode {
    agent_guest::emulation::tune();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    serve()
}

#[tokio::main(flavor = "current_thread")]
async fn serve() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vbridge-test-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let mut builder = Agent::builder()
        .add_service(exercise::service())
        .descriptor_set(exercise::DESCRIPTOR_SET);
    if let Ok(port) = env::var("VBRIDGE_AGENT_PORT") {
        builder = builder.port_path(port);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let shutdown = async move {
        terminate.recv().await;
    };
    let mut arguments = env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{flag} needs a value; {USAGE}"))?;
        let socket = || {
            let path = value.strip_prefix("unix:");
            path.ok_or_else(|| format!("{flag} takes unix:PATH"))
        };
        builder = match flag.as_str() {
            "--listen" => builder.listen(socket()?),
            "--direct" => {
                let served = exercise::serve_on(Path::new(socket()?), shutdown).await;
                return served.map_err(|error| error.to_string());
            }
            "--port" => builder.port_path(value),
            "--channel" => builder.channel_name(value),
            "--key-file" => {
                builder.key(Key::read(&value).map_err(|error| format!("{value}: {error}"))?)
            }
            _ => return Err(format!("{flag} is not known; {USAGE}")),
        };
    }
    let agent = builder.build().map_err(|error| error.to_string())?;
    agent.run(shutdown).await.map_err(|error| error.to_string())
}
