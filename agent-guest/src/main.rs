//! The program `vbridge-agent`: the agent with a command line, an environment and a configuration file.
//!
//! Bad input is one sentence on stderr and exit status 1 (2 for the command line); a normal stop is status 0.

mod cli;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use agent_guest::{
    Agent, Policy, Standstill, limits,
    log::{Log, LogFile},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use cli::{Command, PolicySource, Settings};

/// The name in front of every message.
const NAME: &str = "vbridge-agent";

/// A log, wherever it goes.
type AnyLog = Log<Box<dyn io::Write + Send>>;

/// Exit status of a command line that can't be understood.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    agent_guest::emulation::tune();
    match cli::command(std::env::args_os(), std::env::vars_os()) {
        Ok(Command::Run(settings)) => finish(run(*settings)),
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
    let log = start_log(&settings, standstill.clone());
    let result = run_logged(settings, standstill, &log);
    log.finish();
    result
}

fn run_logged(settings: Settings, standstill: Standstill, log: &AnyLog) -> Result<(), String> {
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
    if let Some(bytes) = settings.max_request_size {
        builder = builder.max_request_size(bytes);
    }
    if let Some(longest) = settings.request_timeout {
        builder = builder.request_timeout(longest);
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

fn start_log(settings: &Settings, standstill: Standstill) -> AnyLog {
    let file = settings.log_file.clone().map(LogFile::begin).transpose();
    let (to, is_file): (Box<dyn io::Write + Send>, bool) = match file {
        Ok(Some(lines)) => (Box::new(lines), true),
        Ok(None) => (Box::new(io::stderr()), false),
        Err(error) => {
            complain(&format!(
                "the log goes to stderr, since there can be no thread for its file: {error}"
            ));
            (Box::new(io::stderr()), false)
        }
    };
    let log = Log::to(standstill, to);
    let layer = fmt::layer().with_writer(log.clone()).with_target(false);
    let registry = tracing_subscriber::registry().with(settings.log.clone());
    // The journal has its own clock (systemd.exec(5)).
    if std::env::var_os("JOURNAL_STREAM").is_some() && !is_file {
        registry.with(layer.without_time()).init();
    } else {
        registry.with(layer).init();
    }
    log
}
