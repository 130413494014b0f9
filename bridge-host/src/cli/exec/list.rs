//! `vbridge exec --list`: the commands that the guest knows.

use serde_json::json;
use vbridge_api::guest::v1::{
    ExecListRequest, ExecProcess, ExitStatus, exec_client::ExecClient, exit_status::How,
};

use super::super::{
    client::Client,
    failure::Failure,
    output::{Output, listing, print, print_pretty, printable},
    units::{date, json_time},
};

/// Characters of a command line in the table.
const COMMAND: usize = 60;

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let mut exec = ExecClient::new(client.channel());
    let asked = client.ask(ExecListRequest {}, async |request| exec.list(request).await);
    let processes = asked.await?.processes;
    match output {
        Output::Json => {
            let processes = processes.iter().map(json).collect::<Vec<_>>();
            print_pretty(&json!({ "processes": processes }))
        }
        Output::Table if processes.is_empty() => Ok(()),
        Output::Table => {
            let header = ["ID", ">PID", "USER", "STARTED", "STATE", "COMMAND"];
            print(listing(&header, processes.iter().map(row)))
        }
    }
}

fn row(process: &ExecProcess) -> Vec<String> {
    let line = process.argv.join(" ");
    let mut command: String = printable(&line).chars().take(COMMAND).collect();
    if line.chars().count() > COMMAND {
        command.push('…');
    }
    vec![
        printable(&process.id),
        process.pid.to_string(),
        printable(&process.user),
        date(process.start_time.as_ref()),
        process
            .status
            .as_ref()
            .map_or_else(|| "runs".to_owned(), state),
        command,
    ]
}

fn state(status: &ExitStatus) -> String {
    match status.how {
        _ if status.timed_out => "timed out".to_owned(),
        Some(How::Code(code)) => format!("exited {code}"),
        Some(How::Signal(signal)) => format!("signal {signal}"),
        None => "ended".to_owned(),
    }
}

fn json(process: &ExecProcess) -> serde_json::Value {
    let how = process.status.as_ref().and_then(|status| status.how);
    json!({
        "id": process.id,
        "pid": process.pid,
        "argv": process.argv,
        "label": process.label,
        "user": process.user,
        "start_time": json_time(process.start_time.as_ref()),
        "running": process.status.is_none(),
        "exit_code": match how { Some(How::Code(code)) => Some(code), _ => None },
        "signal": match how { Some(How::Signal(signal)) => Some(signal), _ => None },
        "timed_out": process.status.as_ref().is_some_and(|status| status.timed_out),
        "stdout_bytes": process.stdout_bytes,
        "stderr_bytes": process.stderr_bytes,
        "terminal": process.terminal,
        "attached": process.attached,
    })
}
