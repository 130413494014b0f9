//! The program `vbridge-agent`: the agent with a command line, an environment and a configuration file.
//!
//! Bad input is one sentence on stderr and exit status 1 (2 for the command line); a normal stop is status 0.

mod cli;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use agent_guest::{Agent, Policy, Standstill, limits, log::Log};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use cli::{Command, PolicySource, Settings};

/// The name in front of every message.
const NAME: &str = "vbridge-agent";

/// Exit status of a command line that can't be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    agent_guest::emulation::tune();
    match cli::command(std::env::args_os(), std::env::vars_os()) {
        Ok(Command::Run(settings)) => finish(run(settings)),
        Ok(Command::Print(text)) => finish(
            io::stdout()
                .write_all(text.as_bytes())
                .map_err(|error| error.to_string()),
        ),
        Err(error) => {
            complain(&error);
            if error.is_usage() {
                USAGE.into()
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn complain(error: &dyn std::fmt::Display) {
    // Without stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "{NAME}: {error}");
}

fn run(settings: Settings) -> Result<(), String> {
    let standstill = Standstill::default();
    let log = Log::new(standstill.clone());
    start_log(settings.log.clone(), log.clone());
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    // What it says is checked before anything is served.
    let source = settings.policy.clone();
    let policy = Policy::new(source.rules().map_err(|error| error.to_string())?);
    let agent = build(settings, policy.clone(), standstill)?;
    // One thread: a guest's CPU may be emulated, and threads that wake each other cost more than they bring.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(limits::MAX_BLOCKING_THREADS)
        .build()
        .map_err(|error| format!("can't start: {error}"))?;
    runtime.spawn(log.catch_up());
    let result = runtime.block_on(serve(agent, &source, &policy));
    // A thread that hangs in a dead file system must not keep the program.
    runtime.shutdown_background();
    result
}

fn build(settings: Settings, policy: Policy, standstill: Standstill) -> Result<Agent, String> {
    let mut builder = Agent::builder()
        .channel_name(settings.channel)
        .policy(policy);
    if let Some(path) = settings.port {
        builder = builder.port_path(path);
    }
    if let Some(wait) = settings.wait {
        builder = builder.wait(wait);
    }
    if let Some(path) = settings.listen {
        builder = builder.listen(path);
    }
    if let Some(key) = settings.key {
        builder = builder.key(key);
    }
    if let Some(key) = settings.call_key {
        builder = builder.call_key(key);
    }
    for upstream in settings.upstreams {
        builder = builder.upstream(upstream);
    }
    builder
        .rebind(settings.rebind)
        .standstill(standstill)
        .build()
        .map_err(|error| error.to_string())
}

async fn serve(agent: Agent, source: &PolicySource, policy: &Policy) -> Result<(), String> {
    let failed = |error: io::Error| format!("can't handle signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let reload = async {
        while hangup.recv().await.is_some() {
            reload(source, policy);
        }
        // No signal comes any more.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = agent.run(shutdown) => ended.map_err(|error| error.to_string()),
        () = reload => Ok(()),
    }
}

/// Reads the policy anew. One with a mistake leaves the old one as it is.
fn reload(source: &PolicySource, policy: &Policy) {
    match source.rules() {
        Ok(rules) => {
            policy.replace(rules);
            tracing::info!("read the policy {source} anew");
        }
        Err(error) => tracing::error!("the old policy goes on to hold: {error}"),
    }
}

fn start_log(filter: Targets, log: Log) {
    let layer = fmt::layer().with_writer(log).with_target(false);
    // The journal has its own clock (systemd.exec(5)).
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing_subscriber::registry()
            .with(filter)
            .with(layer.without_time())
            .init();
    } else {
        tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .init();
    }
}
